//! `sagemaker-executor endpoint delete`: deletes an endpoint of this program.

use clap::Args;

use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::TargetArgs;

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(inputs: &CommandInputs, args: DeleteArgs) -> anyhow::Result<()> {
    args.output.check(std::slice::from_ref(&args.target.manifest))?;
    let mut target = args.target.load(inputs)?;
    if let Some(token) = args.identity.token(inputs)? {
        token.work_as(&mut target.access);
    }
    target.check_account(inputs).await?;
    anyhow::bail!("not there yet")
}
