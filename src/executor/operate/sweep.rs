//! `sagemaker-executor sweep`: ends what no cleanup reached, as after a runner that was killed or a host that was restarted.
//!
//! It goes by this host's records alone: a training job of another host is never touched.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::base::clock::Clock;
use crate::base::failure::Failure;
use crate::base::human::human_duration;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::boundary;
use crate::cloud::Connect;
use crate::config::operator_file;
use crate::session::close::{self, Closed, Patience};
use crate::session::left_over::{self, LeftOver};
use crate::session::record::Records;
use crate::session::stamp::Stamp;
use crate::session::{Host, Session, SessionId};
use crate::ui::Printer;

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Leave sessions alone that a stage has touched within this time. A session whose `cleanup` was begun is ended at any age, one
    /// that a stage holds at none
    #[arg(long, value_name = "DURATION", default_value = "1day", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// Say what would be ended, and end nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object on stdout in place of the lines
    #[arg(long)]
    json: bool,
}

/// Everything that one sweep found.
#[derive(Debug, Default, Serialize)]
struct Report {
    sessions: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    session: String,
    /// Seconds since a stage touched it; absent when that could not be found out.
    untouched_for: Option<u64>,
    outcome: Outcome,
    /// The error's own text, for [`Outcome::Failed`].
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    WouldEnd,
    Ended,
    /// SageMaker is about to end its training job.
    KeptLeaving,
    /// SageMaker may still create the training job that it asked for.
    KeptMayCome,
    Failed,
}

impl Row {
    fn line(&self) -> String {
        let Row { session, untouched_for, .. } = self;
        let age = human_duration(Duration::from_secs(untouched_for.unwrap_or_default()));
        match self.outcome {
            Outcome::WouldEnd => format!("Would end {session}, untouched for {age}"),
            Outcome::Ended => format!("Ended {session}, untouched for {age}"),
            Outcome::KeptLeaving => format!("Kept {session}: SageMaker is about to end its training job"),
            Outcome::KeptMayCome => {
                format!("Kept {session}: SageMaker may still create the training job that it asked for")
            }
            Outcome::Failed => format!("Failed to end {session}"),
        }
    }
}

pub async fn run(
    args: SweepArgs,
    config: &Path,
    connect: &dyn Connect,
    clock: Arc<dyn Clock>,
    printer: &Printer,
) -> ExitCode {
    let sweeping = async |cancellation| sweep(&args, config, connect, clock, printer, &cancellation).await;
    boundary::command(printer, sweeping).await
}

async fn sweep(
    args: &SweepArgs,
    config: &Path,
    connect: &dyn Connect,
    clock: Arc<dyn Clock>,
    printer: &Printer,
    cancellation: &Cancellation,
) -> anyhow::Result<()> {
    let settings = operator_file::load(config)?;
    let host = Host { settings: &settings, printer, clock };
    let records = Records::at(&settings.runner.state_dir);
    let mut report = Report::default();
    let mut tell = |row: Row| {
        if !args.json && row.outcome != Outcome::Failed {
            printer.line(row.line());
        }
        report.sessions.push(row);
    };
    let failed = |session: &SessionId, untouched_for, error: anyhow::Error| {
        let error = error.context(format!("failed to end the session {session}"));
        printer.failure(&error);
        let error = Some(plain::lines(&format!("{error:#}")).into_owned());
        Row { session: session.to_string(), untouched_for, outcome: Outcome::Failed, error }
    };
    let mut left = Vec::new();
    for id in records.sessions()? {
        match left_over::of(&records, &id, args.older_than, &Stamp::of(&*host.clock)) {
            Ok(found) => left.extend(found),
            Err(error) => tell(failed(&id, None, error)),
        }
    }
    let access = settings.access();
    let ports = if args.dry_run || left.is_empty() {
        None
    } else {
        Some((connect.jobs(&access).await?, connect.objects(&access).await?))
    };
    for LeftOver { id, age, claim } in left {
        let outcome = match &ports {
            None => Ok(Outcome::WouldEnd),
            Some(_) if cancellation.asked() => break,
            Some((jobs, objects)) => {
                let session = Session::to_close(id.clone(), jobs.clone(), objects.clone(), host.clone());
                let closing = close::close(session, Patience::Long);
                tokio::select! {
                    closed = closing => closed.map(|closed| match closed {
                        Closed::Whole => Outcome::Ended,
                        Closed::Leaving => Outcome::KeptLeaving,
                        Closed::MayAppear => Outcome::KeptMayCome,
                    }),
                    () = cancellation.token().cancelled() => Err(Failure::canceled("the sweep was interrupted").into()),
                }
            }
        };
        let untouched_for = Some(age.as_secs());
        tell(match outcome {
            Ok(outcome) => Row { session: id.to_string(), untouched_for, outcome, error: None },
            Err(error) => failed(&id, untouched_for, error),
        });
        drop(claim);
    }
    conclude(&report, args, printer, cancellation)
}

fn conclude(report: &Report, args: &SweepArgs, printer: &Printer, cancellation: &Cancellation) -> anyhow::Result<()> {
    if args.json {
        printer.write_data(format!("{}\n", serde_json::to_string(report)?).as_bytes())?;
    } else if report.sessions.is_empty() {
        printer.line("Nothing is left over");
    }
    if cancellation.asked() {
        return Err(Failure::canceled("the sweep was interrupted; what it did not reach is kept").into());
    }
    match report.sessions.iter().filter(|row| row.outcome == Outcome::Failed).count() {
        0 => Ok(()),
        failed => Err(Failure::system(format!("{failed} sessions could not be ended; their records are kept"))
            .hint("run `sagemaker-executor sweep` again once the errors above are mended")
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::HostClock;
    use crate::cloud::TrainingJobs as _;
    use crate::cloud::testing::{Memory, example_spec};
    use crate::session::record::SessionRecord;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_over_is_told_then_ended_and_nothing_is_asked_of_an_account_before() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("sagemaker-executor.toml");
        let state = dir.path().join("state");
        std::fs::write(&config, format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = {state:?}\n"))
            .unwrap();
        let (memory, id) = (Memory::new(), SessionId::parse("gitlab-1-2-abcdef12").unwrap());
        memory.jobs.create(&example_spec(id.as_str())).await.unwrap();
        let record = SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() };
        let records = Records::open(&state).unwrap();
        records.save(&id, &record).unwrap();
        let sweep = async |older_than: u64, dry_run: bool| {
            let args = SweepArgs { older_than: Duration::from_secs(older_than), dry_run, json: false };
            let (printer, captured) = Printer::captured();
            let (clock, cancellation) = (Arc::new(HostClock), Cancellation::default());
            sweep(&args, &config, &memory, clock, &printer, &cancellation).await.unwrap();
            captured.text()
        };
        assert!(sweep(3600, false).await.contains("Nothing is left over"));
        assert!(sweep(0, true).await.contains("Would end gitlab-1-2-abcdef12"));
        assert!(memory.made().is_empty() && !records.sessions().unwrap().is_empty());
        assert!(sweep(0, false).await.contains("Ended gitlab-1-2-abcdef12"));
        assert!(memory.jobs.calls().contains(&"stop gitlab-1-2-abcdef12".to_owned()));
        assert_eq!(memory.made(), ["jobs", "objects"]);
        assert!(records.sessions().unwrap().is_empty());
    }
}
