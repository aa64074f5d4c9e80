//! `sagemaker-executor image`: builds the image that a project trains or serves with, and looks for known vulnerabilities in it.

mod accepted;
mod build;
mod buildah;
mod buildah_errors;
mod built;
mod codebuild;
mod context;
mod dockerfile;
mod findings;
mod fingerprint;
mod ignore_file;
mod mounts;
mod registry_access;
mod registry_scan;
mod remote;
mod scan;
mod scan_report;
mod shown_lines;
mod source_zip;
mod spec;
mod tag_format;
mod tagging;
mod trivy;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{CommandInputs, until_canceled};
use crate::base::process::{self, Reaper};
use crate::base::signals::Cancellation;

/// Time that processes which a builder or a scanner left behind have to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build the project's image, push it to ECR, and tell later jobs its digest
    ///
    /// With buildah, without a daemon, or in CodeBuild, which gets the files that git tracks. Where the repository has the image of the same files, Dockerfile, arguments and bases, nothing is built.
    Build(Box<build::BuildArgs>),
    /// Look for known vulnerabilities in an image, and end with 10 at a grave one
    ///
    /// With trivy, else with ECR's own scan, which is awaited. The report for GitLab is written in both cases.
    Scan(Box<scan::ScanArgs>),
}

/// Runs the command, and ends what its programs left behind: a `RUN` of a Dockerfile may start a process in a session of its own.
pub async fn run(inputs: &CommandInputs, args: ImageArgs, cancellation: Cancellation) -> anyhow::Result<()> {
    let _reaper = Reaper::start()?;
    let ended = match args.command {
        ImageCommand::Build(args) => Box::pin(build::run(inputs, *args, cancellation)).await,
        ImageCommand::Scan(args) => until_canceled(cancellation, Box::pin(scan::run(inputs, *args))).await,
    };
    process::end_descendants(GRACE).await;
    ended
}
