//! `sagemaker-executor sweep`: ends what no cleanup reached, as after a runner that was killed or a host that was restarted.
//!
//! It goes by this host's records alone: a training job of another host is never touched.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::base::failure::{self, ExitCodes, Failure};
use crate::cloud::Connect;
use crate::config::settings::Settings;
use crate::session::close::{self, Closed, Pace};
use crate::session::left_over::{self, LeftOver};
use crate::session::record::Records;
use crate::session::{Session, SessionId};
use crate::ui::{Printer, human_duration};

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Leave sessions alone that a stage has touched within this time. A session whose `cleanup` was begun is ended at any age, one
    /// that a stage holds at none
    #[arg(long, value_name = "DURATION", default_value = "1day", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// Say what would be ended, and end nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: SweepArgs, config: &Path, connect: &dyn Connect, printer: &Printer) -> ExitCode {
    match sweep(&args, config, connect, printer).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.failure(&error);
            ExitCode::from(failure::kind_of(&error).exit_code(ExitCodes::default()))
        }
    }
}

async fn sweep(args: &SweepArgs, config: &Path, connect: &dyn Connect, printer: &Printer) -> anyhow::Result<()> {
    let settings = Settings::load(config)?;
    let records = Records::at(&settings.runner.state_dir);
    let mut failed = 0;
    let mut tell = |error: anyhow::Error, id: &SessionId| {
        failed += 1;
        printer.failure(&error.context(format!("failed to end the session {id}")));
    };
    let mut left = Vec::new();
    for id in records.sessions()? {
        match left_over::of(&records, &id, args.older_than) {
            Ok(found) => left.extend(found),
            Err(error) => tell(error, &id),
        }
    }
    if args.dry_run {
        for LeftOver { id, age, .. } in &left {
            printer.line(format!("Would end {id}, untouched for {}", human_duration(*age)));
        }
    } else if !left.is_empty() {
        let cloud = connect.connect(&settings.access()).await?;
        for LeftOver { id, age, claim } in left.drain(..) {
            let session = Session::to_close(id.clone(), cloud.clone(), &settings, printer);
            match close::close(session, Pace::Patient).await {
                Ok(Closed::Whole) => printer.line(format!("Ended {id}, untouched for {}", human_duration(age))),
                Ok(Closed::Leaving) => printer.line(format!("Kept {id}: SageMaker is about to end its training job")),
                Ok(Closed::MayCome) => {
                    printer.line(format!("Kept {id}: SageMaker may still create the training job that it asked for"));
                }
                Err(error) => tell(error, &id),
            }
            drop(claim);
        }
    } else if failed == 0 {
        printer.line("Nothing is left over");
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::system(format!("{failed} sessions could not be ended; their records are kept"))
        .hint("run `sagemaker-executor sweep` again once the errors above are mended")
        .into())
}
