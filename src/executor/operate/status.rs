//! `sagemaker-executor status`: the jobs of this host as a table, or one job with its last lines.
//!
//! It reads what the stages note in `runner.state_dir`: it writes nothing there and takes no lock. Only the last lines of one job are read from
//! AWS.

mod details;
mod rows;
mod screen;
mod viewed_host;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use self::viewed_host::ViewedHost;
use crate::base::clock::Clock;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::boundary;
use crate::cloud::Connect;
use crate::config::operator_file;
use crate::ui::Printer;

/// Time between two tables on a terminal.
const REFRESH: Duration = Duration::from_secs(2);
/// Columns and lines of a terminal that does not tell its own.
const USUAL_SIZE: (u16, u16) = (80, 24);

#[derive(Debug, Args)]
pub struct HostStatusArgs {
    /// One job: its number in GitLab, its session, or a beginning of one of them that no other job has
    job: Option<String>,
    /// Print one table and end, on a terminal too, where the table is otherwise drawn every two seconds until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Print one JSON object on stdout in place of the table
    #[arg(long)]
    json: bool,
    /// With a job: so many last lines of its output
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=1000))]
    lines: u16,
}

pub async fn run(
    args: HostStatusArgs,
    config: &Path,
    connect: &dyn Connect,
    clock: Arc<dyn Clock>,
    printer: &Printer,
) -> ExitCode {
    let work = async |cancellation| {
        let settings = operator_file::load(config)?;
        let host = ViewedHost { settings: &settings, connect, clock, printer };
        match &args.job {
            Some(job) => Box::pin(details::show(&host, job, args.lines.into(), args.json)).await,
            None => show_all(&host, &args, cancellation).await,
        }
    };
    boundary::command(printer, work).await
}

async fn show_all(host: &ViewedHost<'_>, args: &HostStatusArgs, cancellation: Cancellation) -> anyhow::Result<()> {
    let watches = host.printer.shows_data() && !args.once && !args.json;
    loop {
        let jobs = host.jobs()?;
        let size = watches.then(|| host.printer.terminal_size().unwrap_or(USUAL_SIZE));
        if let Some(size) = size {
            host.printer.write_data(screen::draw(&jobs, size).as_bytes())?;
        } else if args.json {
            let text = serde_json::to_string(&jobs)?;
            host.printer.write_data(format!("{}\n", plain::json(&text)).as_bytes())?;
        } else {
            host.printer.write_data(jobs.text().as_bytes())?;
            for problem in &jobs.unreadable {
                host.printer.warn(problem);
            }
        }
        if size.is_none() || host.printer.is_broken() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            () = cancellation.token().cancelled() => return Ok(host.printer.write_data(b"\n")?),
        }
    }
}
