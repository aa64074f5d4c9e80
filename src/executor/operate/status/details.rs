//! One job: what is known of it, and the end of its output.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::rows::{JobRow, LeaseState};
use super::viewed_host::ViewedHost;
use crate::base::human::human_duration;
use crate::base::plain;
use crate::session::last_output::{self, LastOutput};
use crate::session::{Host, Session, SessionId};

/// The job with its last lines, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Details<'a> {
    #[serde(flatten)]
    row: &'a JobRow,
    last_lines: Option<Vec<String>>,
    /// Why there are none.
    no_lines: Option<String>,
}

/// Shows the job with so many last lines of its output.
pub(super) async fn show(viewed: &ViewedHost<'_>, words: &str, lines: usize, json: bool) -> anyhow::Result<()> {
    let row = viewed.find(words)?;
    let output = if lines == 0 { Err("none were asked for".to_owned()) } else { last_lines(viewed, &row, lines).await };
    let printer = viewed.printer;
    if json {
        let (last_lines, no_lines) = match output {
            Ok(output) => (Some(output.lines), None),
            Err(why) => (None, Some(why)),
        };
        let text = serde_json::to_string(&Details { row: &row, last_lines, no_lines })?;
        printer.write_data(format!("{}\n", plain::json(&text)).as_bytes())?;
        return Ok(());
    }
    let mut text = String::new();
    for (name, value) in facts(&row).into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<14}{}", plain::line(&value, 300));
    }
    match output {
        Ok(output) => {
            let from = "from the agent's copy in the bucket, masked as the job log is";
            let _ = writeln!(text, "\nLast lines of script {}, {from}:", output.run);
            for line in &output.lines {
                let _ = writeln!(text, "{}", plain::lines(line));
            }
        }
        Err(_) if lines == 0 => {}
        Err(why) => {
            let _ = writeln!(text, "\nNo output to show: {why}");
        }
    }
    printer.write_data(text.as_bytes())?;
    Ok(())
}

fn facts(row: &JobRow) -> Vec<(&'static str, String)> {
    let elapsed = row.elapsed_seconds.map(|seconds| human_duration(Duration::from_secs(seconds)));
    let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
    vec![
        ("Job", format!("{} {}", number(row.job), row.job_name).trim().to_owned()),
        ("Project", row.project.clone()),
        ("Ref", row.git_ref.clone()),
        ("Pipeline", number(row.pipeline)),
        ("Session", row.session.clone()),
        ("Stage", row.stage.clone()),
        ("Phase", row.phase_words()),
        ("Elapsed", elapsed.unwrap_or_default()),
        ("Training job", row.training_job.clone().unwrap_or_default()),
        ("Instances", row.instances.clone()),
        ("Cost so far", row.cost_words.clone()),
        ("LeaseState", row.lease.as_ref().map(LeaseState::words).unwrap_or_default()),
        ("Failed in", row.failure.clone().unwrap_or_default()),
    ]
}

/// Reads the end of the output; `Err` tells why there is none.
async fn last_lines(viewed: &ViewedHost<'_>, row: &JobRow, most: usize) -> Result<LastOutput, String> {
    let id = SessionId::parse(&row.session).ok_or("the session has no usable name")?;
    let access = viewed.settings.access();
    let text = |error: anyhow::Error| plain::lines(&format!("{error:#}")).into_owned();
    let jobs = viewed.connect.jobs(&access).await.map_err(text)?;
    let objects = viewed.connect.objects(&access).await.map_err(text)?;
    let host = Host { settings: viewed.settings, printer: viewed.printer, clock: Arc::clone(&viewed.clock) };
    let session = Session::look(id, jobs, objects, host).map_err(text)?.ok_or("the session has no record yet")?;
    if session.state().is_isolated() {
        return Err("the container has no network; its output comes with the end of its training job".to_owned());
    }
    let read = last_output::read(&session, most).await;
    read.map_err(|error| text(error.into()))?
        .ok_or_else(|| "no script in the container has printed anything yet".to_owned())
}
