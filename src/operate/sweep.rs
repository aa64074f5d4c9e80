//! `sagemaker-executor sweep`: ends what no cleanup reached, as after a runner that was killed or a host that was restarted.
//!
//! It goes by this host's records alone: a training job of another host is never touched.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cloud;
use crate::failure::{self, ExitCodes, Failure};
use crate::session::record::Records;
use crate::session::{Session, SessionId, close};
use crate::settings::Settings;
use crate::ui::{Printer, human_duration};

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Leave sessions alone that a stage has touched within this time; longer than any host stage of a job takes
    #[arg(long, value_name = "DURATION", default_value = "1day", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// Say what would be ended, and end nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: SweepArgs, config: &Path, printer: &Printer) -> ExitCode {
    match sweep(&args, config, printer).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.failure(&error);
            ExitCode::from(failure::kind_of(&error).exit_code(ExitCodes::default()))
        }
    }
}

async fn sweep(args: &SweepArgs, config: &Path, printer: &Printer) -> anyhow::Result<()> {
    let settings = Settings::load(config)?;
    let records = Records::open(&settings.runner.state_dir)?;
    let left = left_over(&records, args.older_than)?;
    if left.is_empty() {
        printer.line("Nothing is left over");
        return Ok(());
    }
    let cloud = cloud::aws::connect(&settings.access()).await?;
    let mut failed = 0;
    for (id, age) in left {
        let age = human_duration(age);
        if args.dry_run {
            printer.line(format!("Would end {id}, untouched for {age}"));
            continue;
        }
        let Some(session) = Session::attach(id.clone(), cloud.clone(), &settings, printer)? else { continue };
        match close::close(session).await {
            Ok(()) => printer.line(format!("Ended {id}, untouched for {age}")),
            Err(error) => {
                failed += 1;
                printer.failure(&error.context(format!("failed to end the session {id}")));
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::system(format!("{failed} sessions could not be ended; their records are kept"))
        .hint("run `sagemaker-executor sweep` again once the errors above are mended")
        .into())
}

/// Sessions that no stage holds and none has touched for `older_than`, with the time since.
fn left_over(records: &Records, older_than: Duration) -> anyhow::Result<Vec<(SessionId, Duration)>> {
    let mut left = Vec::new();
    for id in records.sessions()? {
        let Some(age) = records.untouched_for(&id)? else { continue };
        // A live stage holds the lock for as long as it follows a script.
        if age >= older_than && records.lock(&id)?.is_some() {
            left.push((id, age));
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::SessionRecord;

    #[test]
    fn only_what_is_untouched_and_unheld_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let ids = ["gitlab-1-1-aaaaaaaa", "gitlab-1-2-bbbbbbbb"].map(|name| SessionId::parse(name).unwrap());
        for id in &ids {
            records.save(id, &SessionRecord::default()).unwrap();
        }
        let _held = records.lock(&ids[0]).unwrap().unwrap();
        let names = |left: Vec<(SessionId, Duration)>| left.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(names(left_over(&records, Duration::ZERO).unwrap()), [ids[1].clone()]);
        assert!(left_over(&records, Duration::from_hours(1)).unwrap().is_empty());
    }
}
