//! `sagemaker-executor model approve`: records an approval, and approves the version when there are enough.
//!
//! A record is written first, and counted when it was read back: of two users who approve at once, the later one sees both.
//! The status follows the records: one that says something else was written by another program, or late by a command that ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;

use super::approvals::{ApprovalRecords, ApprovalRule, Standing, description};
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
    let mut target = args.target.load_without_image(inputs)?;
    target.require_account()?;
    let rule = ApprovalRule::of(&target.model()?.approvals, args.min_approvals, args.no_self);
    let choice = args.choice.read(inputs, &target)?;
    let user = args.identity.required(inputs, &target)?.work_as(&mut target.access);
    target.access.region = target.access.region.take().or_else(|| choice.region());
    target.check_account(inputs).await?;
    let registry = inputs.connect.registry(&target.access).await?;
    let found = choice.find(&*registry, &target).await?;
    let version = completed(&*registry, &found.arn).await?;
    let rule = ApprovalRecords(&version.metadata).rule(rule);
    let reason = args.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    let approval = Approving { registry, user, rule, reason, force: args.force, at: inputs.clock.now() };
    let version = approval.put_right(version).await?;
    let standing = ApprovalRecords(&version.metadata).standing(rule);
    if version.approval == Approval::Approved && standing == Standing::Approved {
        return args.output.leave(&VersionData::new("unchanged", &version), &inputs.printer);
    }
    approval.check_author(&version)?;
    let version = approval.record(version).await?;
    if let Standing::Missing(missing) = ApprovalRecords(&version.metadata).standing(rule) {
        args.output.leave(&VersionData::new("recorded", &version), &inputs.printer)?;
        return Err(too_few(&version, rule, missing).into());
    }
    if version.approval == Approval::Approved {
        return args.output.leave(&VersionData::new("recorded", &version), &inputs.printer);
    }
    let version = approval.approve(version).await?;
    args.output.leave(&VersionData::new("approved", &version), &inputs.printer)
}

/// Says how many approvals are missing.
fn too_few(version: &ModelVersion, rule: ApprovalRule, missing: u32) -> Failure {
    let counted = ApprovalRecords(&version.metadata).counted(rule).into_iter().collect::<Vec<_>>().join(", ");
    let counted = plain::line(&counted, 300);
    let message = format!("{} of {} approvals are there ({counted}): {missing} missing", rule.min - missing, rule.min);
    let failure = Failure::verdict(exit_codes::NOT_YET, message);
    let failure = match version.approval {
        Approval::Approved => failure.hint(
            "its status is Approved all the same: it was approved outside of this program, or under a weaker rule; \
             `sagemaker-executor model reject` takes this back",
        ),
        Approval::Pending | Approval::Rejected => failure,
    };
    failure.hint("another user has to run `sagemaker-executor model approve` for this version")
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
            Some(author) if author == self.user.key() => {
                let message = format!("{} registered this version, and must not approve it", self.user.login);
                let failure = Failure::verdict(exit_codes::NOT_YET, message);
                Err(failure.hint("another user has to run `sagemaker-executor model approve` for this version").into())
            }
            Some(_) => Ok(()),
        }
    }

    /// Rejects a version again whose last record is a rejection: a command wrote its status late, or another program did.
    async fn put_right(&self, mut version: ModelVersion) -> anyhow::Result<ModelVersion> {
        let mut pauses = pauses();
        for _ in 0..ATTEMPTS {
            let records = ApprovalRecords(&version.metadata);
            if version.approval == Approval::Rejected || records.standing(self.rule) != Standing::Rejected {
                return Ok(version);
            }
            let change = VersionChange {
                approval: Some(Approval::Rejected),
                approval_description: Some(description("Rejection restored", &self.user, records.last_rejection())),
                ..VersionChange::default()
            };
            version = changed(&*self.registry, &version.arn, &change, pauses.next()).await?;
        }
        Err(not_kept(&version))
    }

    /// Writes this user's approval unless it is there, and returns the version with it.
    async fn record(&self, mut version: ModelVersion) -> anyhow::Result<ModelVersion> {
        let mut pauses = pauses();
        for _ in 0..ATTEMPTS {
            version = self.put_right(version).await?;
            let is_rejected = version.approval == Approval::Rejected;
            if is_rejected && !self.force {
                let description = plain::line(&version.approval_description, 1024);
                let failure = Failure::user(format!("the version is rejected: {description}"));
                return Err(failure.hint("give `--force` to approve it all the same").into());
            }
            let records = ApprovalRecords(&version.metadata);
            if records.has_approved(&self.user.key()) && !is_rejected {
                return Ok(version);
            }
            let metadata = if is_rejected {
                records.reopening(&self.user, self.at, self.reason)
            } else {
                BTreeMap::from([records.approval(&self.user, self.at, self.reason)])
            };
            if !records.has_room_for(&metadata) {
                let failure = Failure::user("the version has no room for another approval");
                return Err(failure.hint("register the model again in a new pipeline").into());
            }
            let change = VersionChange {
                approval: is_rejected.then_some(Approval::Pending),
                approval_description: is_rejected.then(|| description("Reopened", &self.user, self.reason)),
                metadata,
            };
            version = changed(&*self.registry, &version.arn, &change, pauses.next()).await?;
        }
        Err(not_kept(&version))
    }

    /// Approves the version, and looks whether it was rejected at the same time.
    async fn approve(&self, version: ModelVersion) -> anyhow::Result<ModelVersion> {
        let change = VersionChange {
            approval: Some(Approval::Approved),
            approval_description: Some(description("Approved", &self.user, self.reason)),
            ..VersionChange::default()
        };
        let mut pauses = pauses();
        for _ in 0..ATTEMPTS {
            let now = changed(&*self.registry, &version.arn, &change, pauses.next()).await?;
            let now = self.put_right(now).await?;
            match (now.approval, ApprovalRecords(&now.metadata).standing(self.rule)) {
                (Approval::Rejected, _) | (_, Standing::Rejected) => {
                    return Err(Failure::user("the version was rejected meanwhile").into());
                }
                (_, Standing::Missing(missing)) => {
                    // It was rejected and opened again: the approvals are those of another round.
                    let pending = VersionChange { approval: Some(Approval::Pending), ..VersionChange::default() };
                    let now = changed(&*self.registry, &now.arn, &pending, pauses.next()).await?;
                    return Err(too_few(&now, self.rule, missing).into());
                }
                (Approval::Approved, Standing::Approved) => return Ok(now),
                (Approval::Pending, Standing::Approved) => {}
            }
        }
        Err(not_kept(&version))
    }
}
