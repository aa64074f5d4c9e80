//! `sagemaker-executor model latest`: finds the newest version.

use clap::{Args, ValueEnum};

use super::version_data::VersionData;
use super::versions::newest;
use crate::base::failure::Failure;
use crate::cloud::Approval;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::TargetArgs;

#[derive(Debug, Args)]
pub(super) struct LatestArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Status of the version
    #[arg(long, value_name = "STATUS", default_value = "approved")]
    status: Status,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    Approved,
    Pending,
    Rejected,
    Any,
}

pub(super) async fn run(inputs: &CommandInputs, args: LatestArgs) -> anyhow::Result<()> {
    args.output.check(std::slice::from_ref(&args.target.manifest))?;
    let mut target = args.target.load(inputs)?;
    if let Some(token) = args.identity.token(inputs, &target)? {
        token.work_as(&mut target.access);
    }
    let model = target.model()?;
    let approval = match args.status {
        Status::Approved => Some(Approval::Approved),
        Status::Pending => Some(Approval::Pending),
        Status::Rejected => Some(Approval::Rejected),
        Status::Any => None,
    };
    target.check_account(inputs).await?;
    let registry = inputs.connect.registry(&target.access).await?;
    let found = newest(&*registry, &model.group, approval).await?;
    let version = registry.version(&found.arn).await?;
    let version = version.ok_or_else(|| Failure::user(format!("{} was deleted meanwhile", found.arn)))?;
    args.output.leave(&VersionData::new("found", &version), &inputs.printer)
}
