//! `sagemaker-executor model`: a model in SageMaker's registry.

use clap::{Args, Subcommand};

use super::CommandInputs;
use crate::base::signals::Cancellation;

#[derive(Debug, Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {}

pub async fn run(_: &CommandInputs, args: ModelArgs, _: Cancellation) -> anyhow::Result<()> {
    match args.command {}
}
