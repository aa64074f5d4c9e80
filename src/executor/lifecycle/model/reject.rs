//! `sagemaker-executor model reject`: rejects a version, which ends the round of its approvals.

use std::collections::BTreeMap;

use clap::Args;

use super::approvals::{ApprovalRecords, description};
use super::change::{ATTEMPTS, changed, not_kept, pauses};
use super::version_data::VersionData;
use super::versions::{VersionArgs, completed};
use crate::base::failure::Failure;
use crate::cloud::{Approval, VersionChange};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::TargetArgs;

#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(super) struct RejectArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    choice: VersionArgs,
    /// Why the version must not go live
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(inputs: &CommandInputs, args: RejectArgs) -> anyhow::Result<()> {
    args.output.check(std::slice::from_ref(&args.target.manifest))?;
    let reason = args.reason.trim();
    if reason.is_empty() {
        return Err(Failure::user("a rejection needs a reason").hint("give `--reason TEXT`").into());
    }
    let mut target = args.target.load(inputs)?;
    let choice = args.choice.read(inputs, &target)?;
    let user = args.identity.required(inputs)?.work_as(&mut target.access);
    target.access.region = target.access.region.take().or_else(|| choice.region());
    target.check_account(inputs).await?;
    let registry = inputs.connect.registry(&target.access).await?;
    let found = choice.find(&*registry, &target).await?;
    let mut version = completed(&*registry, &found.arn).await?;
    let mut pauses = pauses();
    let mut outcome = "unchanged";
    for _ in 0..ATTEMPTS {
        if version.approval == Approval::Rejected {
            return args.output.leave(&VersionData::new(outcome, &version), &inputs.printer);
        }
        let records = ApprovalRecords(&version.metadata);
        if records.is_full() {
            return Err(Failure::user("the version has no room for another rejection").into());
        }
        let change = VersionChange {
            approval: Some(Approval::Rejected),
            approval_description: Some(description("Rejected", &user, Some(reason))),
            metadata: BTreeMap::from([records.rejection(&user, inputs.clock.now(), reason)]),
        };
        version = changed(&*registry, &version.arn, &change, pauses.next()).await?;
        outcome = "rejected";
    }
    Err(not_kept(&version))
}
