//! `sagemaker-executor model reject`: rejects a version, which ends the round of its approvals.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;

use super::approvals::{ApprovalRecords, description};
use super::change::{ATTEMPTS, changed, not_kept, pauses};
use super::version_data::VersionData;
use super::versions::{VersionArgs, completed};
use crate::base::failure::Failure;
use crate::cloud::{Approval, ModelRegistry, ModelVersion, VersionChange};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::{IdentityArgs, JobUser};
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::TargetArgs;
use crate::ui::Printer;

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
    let mut target = args.target.load_without_image(inputs)?;
    target.require_account()?;
    let choice = args.choice.read(inputs, &target)?;
    let user = args.identity.required(inputs, &target)?.work_as(&mut target.access);
    target.access.region = target.access.region.take().or_else(|| choice.region());
    target.check_account(inputs).await?;
    let registry = inputs.connect.registry(&target.access).await?;
    let found = choice.find(&*registry, &target).await?;
    let version = completed(&*registry, &found.arn).await?;
    let rejection = Rejection { registry: &*registry, user: &user, at: inputs.clock.now(), reason };
    let (outcome, version) = rejection.record(version, &inputs.printer).await?;
    args.output.leave(&VersionData::new(outcome, &version), &inputs.printer)
}

/// A user's rejection.
pub(crate) struct Rejection<'a> {
    pub(crate) registry: &'a dyn ModelRegistry,
    pub(crate) user: &'a JobUser,
    pub(crate) at: SystemTime,
    pub(crate) reason: &'a str,
}

impl Rejection<'_> {
    /// Rejects the version, unless its last decision is a rejection: `rejected`, or `unchanged`.
    pub(crate) async fn record(
        &self,
        mut version: ModelVersion,
        printer: &Printer,
    ) -> anyhow::Result<(&'static str, ModelVersion)> {
        let mut pauses = pauses();
        let mut outcome = "unchanged";
        for _ in 0..ATTEMPTS {
            let records = ApprovalRecords(&version.metadata);
            let mut metadata = BTreeMap::from([records.rejection(self.user, self.at, self.reason)]);
            let has_room = records.has_room_for(&metadata);
            let is_recorded = records.last_rejection().is_some() && !records.has_approvals();
            if version.approval == Approval::Rejected && (is_recorded || !has_room) {
                return Ok((outcome, version));
            }
            if !has_room {
                printer.line(
                    "The version's metadata has no room for a record of the rejection: status and description alone say it",
                );
                metadata.clear();
            }
            let change = VersionChange {
                approval: Some(Approval::Rejected),
                approval_description: Some(description("Rejected", self.user, Some(self.reason))),
                metadata,
            };
            version = changed(self.registry, &version.arn, &change, pauses.next()).await?;
            outcome = "rejected";
        }
        Err(not_kept(&version))
    }
}
