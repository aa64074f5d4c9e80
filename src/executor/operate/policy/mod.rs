//! `sagemaker-executor policy`: shows what the operator's file allows, to people and to IAM.

mod explain;
mod iam;
mod job;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::boundary;
use crate::config::operator_file;
use crate::ui::Printer;

#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say what a job may have, and which rule says so
    Explain(explain::ExplainArgs),
    /// Print the IAM policies of runner hosts, training jobs, bucket and keys, as one JSON object with a policy for each file name
    Iam(iam::IamArgs),
}

/// Reads the operator's file and nothing else: no AWS account is asked.
pub async fn run(args: PolicyArgs, config: &Path, printer: &Printer) -> ExitCode {
    boundary::command(printer, async |_| {
        let settings = operator_file::load(config)?;
        match args.command {
            PolicyCommand::Explain(args) => explain::run(&args, &settings, printer),
            PolicyCommand::Iam(args) => iam::run(&args, &settings, printer),
        }
    })
    .await
}
