//! `sagemaker-executor image`: builds the image that a project trains or serves with.

mod build;
mod buildah;
mod buildah_errors;
mod built;
mod codebuild;
mod context;
mod dockerfile;
mod fingerprint;
mod ignore_file;
mod registry_access;
mod remote;
mod shown_lines;
mod source_zip;
mod spec;
mod tag_format;
mod tagging;

use clap::{Args, Subcommand};

use super::CommandInputs;
use crate::base::signals::Cancellation;

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
}

pub async fn run(inputs: &CommandInputs, args: ImageArgs, cancellation: Cancellation) -> anyhow::Result<()> {
    match args.command {
        ImageCommand::Build(args) => Box::pin(build::run(inputs, *args, cancellation)).await,
    }
}
