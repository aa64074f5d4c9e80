//! `sagemaker-executor model approve`: records an approval, and approves the version when there are enough.
//!
//! A record is written first, and counted when it was read back: of two users who approve at once, the later one sees both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;

use super::approvals::{ApprovalRecords, ApprovalRule, description};
use super::change::{ATTEMPTS, changed, not_kept, pauses};
use super::version_data::VersionData;
use super::versions::{VersionArgs, completed};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{Approval, ModelRegistry, ModelVersion, VersionChange};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::{IdentityArgs, JobUser};
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::TargetArgs;

#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(super) struct ApproveArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    choice: VersionArgs,
    /// Why the version may go live
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Users who must approve; a larger `model.approvals.min` of the manifest holds
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10))]
    min_approvals: Option<u32>,
    /// The user who registered the version does not count; as `model.approvals.no_self` of the manifest
    #[arg(long)]
    no_self: bool,
    /// Approve a version that was rejected
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(inputs: &CommandInputs, args: ApproveArgs) -> anyhow::Result<()> {
    args.output.check(std::slice::from_ref(&args.target.manifest))?;
    let mut target = args.target.load(inputs)?;
    let rule = ApprovalRule::of(&target.model()?.approvals, args.min_approvals, args.no_self);
    let choice = args.choice.read(inputs, &target)?;
    let user = args.identity.required(inputs)?.work_as(&mut target.access);
    target.access.region = target.access.region.take().or_else(|| choice.region());
    target.check_account(inputs).await?;
    let registry = inputs.connect.registry(&target.access).await?;
    let found = choice.find(&*registry, &target).await?;
    let version = completed(&*registry, &found.arn).await?;
    if version.approval == Approval::Approved {
        return args.output.leave(&VersionData::new("unchanged", &version), &inputs.printer);
    }
    let reason = args.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    let approval = Approving { registry, user, rule, reason, force: args.force, at: inputs.clock.now() };
    approval.check_author(&version)?;
    let version = approval.record(version).await?;
    let missing = ApprovalRecords(&version.metadata).missing(rule);
    if missing > 0 {
        args.output.leave(&VersionData::new("recorded", &version), &inputs.printer)?;
        let counted = ApprovalRecords(&version.metadata).counted(rule).into_iter().collect::<Vec<_>>().join(", ");
        let message =
            format!("{} of {} approvals are there ({counted}): {missing} missing", rule.min - missing, rule.min);
        let failure = Failure::verdict(exit_codes::NOT_YET, message);
        return Err(failure.hint("another user has to run `sagemaker-executor model approve` for this version").into());
    }
    let version = approval.approve(version).await?;
    args.output.leave(&VersionData::new("approved", &version), &inputs.printer)
}

struct Approving<'a> {
    registry: Arc<dyn ModelRegistry>,
    user: JobUser,
    rule: ApprovalRule,
    reason: Option<&'a str>,
    force: bool,
    at: SystemTime,
}

impl Approving<'_> {
    /// Refuses the author's own approval, and any when the author is not known.
    fn check_author(&self, version: &ModelVersion) -> anyhow::Result<()> {
        if !self.rule.no_self {
            return Ok(());
        }
        match ApprovalRecords(&version.metadata).author() {
            None => Err(Failure::user("nobody knows who registered this version, so `--no-self` cannot hold")
                .hint("register the version in a job with an id token (`id_tokens:`) and `AWS_ROLE_ARN`")
                .into()),
            Some(author) if author == self.user.id => {
                let message = format!("{} registered this version, and must not approve it", self.user.login);
                let failure = Failure::verdict(exit_codes::NOT_YET, message);
                Err(failure.hint("another user has to run `sagemaker-executor model approve` for this version").into())
            }
            Some(_) => Ok(()),
        }
    }

    /// Writes this user's approval unless it is there, and returns the version with it.
    async fn record(&self, mut version: ModelVersion) -> anyhow::Result<ModelVersion> {
        let mut pauses = pauses();
        for _ in 0..ATTEMPTS {
            let is_rejected = version.approval == Approval::Rejected;
            if is_rejected && !self.force {
                let description = plain::line(&version.approval_description, 1024);
                let failure = Failure::user(format!("the version is rejected: {description}"));
                return Err(failure.hint("give `--force` to approve it all the same").into());
            }
            let records = ApprovalRecords(&version.metadata);
            if records.has_approved(&self.user.id) && !is_rejected {
                return Ok(version);
            }
            if records.is_full() {
                let failure = Failure::user("the version has no room for another approval");
                return Err(failure.hint("register the model again in a new pipeline").into());
            }
            let change = VersionChange {
                approval: is_rejected.then_some(Approval::Pending),
                approval_description: is_rejected.then(|| description("Reopened", &self.user, self.reason)),
                metadata: BTreeMap::from([records.approval(&self.user, self.at, self.reason)]),
            };
            version = changed(&*self.registry, &version.arn, &change, pauses.next()).await?;
        }
        Err(not_kept(&version))
    }

    /// Approves the version, and looks whether it was rejected at the same time.
    async fn approve(&self, version: ModelVersion) -> anyhow::Result<ModelVersion> {
        let round = ApprovalRecords(&version.metadata).round();
        let change = VersionChange {
            approval: Some(Approval::Approved),
            approval_description: Some(description("Approved", &self.user, self.reason)),
            ..VersionChange::default()
        };
        let mut pauses = pauses();
        for _ in 0..ATTEMPTS {
            let now = changed(&*self.registry, &version.arn, &change, pauses.next()).await?;
            if ApprovalRecords(&now.metadata).round() != round {
                let rejected = VersionChange { approval: Some(Approval::Rejected), ..VersionChange::default() };
                changed(&*self.registry, &version.arn, &rejected, pauses.next()).await?;
                return Err(Failure::user("the version was rejected meanwhile").into());
            }
            if now.approval == Approval::Approved {
                return Ok(now);
            }
        }
        Err(not_kept(&version))
    }
}
