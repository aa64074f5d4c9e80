//! `sagemaker-executor endpoint rollback`: brings back what an earlier deployment had in service.
//!
//! Nothing is made: configuration and model must still exist. The traffic moves as in a deployment, all at once.

mod choice;
mod target;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use self::choice::RollbackChoice;
pub(crate) use self::choice::{RollbackTo, choose};
use self::target::RollbackTarget;
use super::deploy::CommandLimits;
use super::deployment::Deploying;
use super::engine::EndpointEngine;
use super::ledger::{LedgerEntry, LedgerKind};
use super::needed_approvals::NeededApprovals;
use super::ownership::{VERSION, is_ours, tag_value};
use super::preconditions::{self, DeployOptions, changes_type};
use super::scaling::{SavedScaling, ScalingKeeper};
use super::specification::DeploymentSpecification;
use super::survey::{EndpointPorts, EndpointSurvey, goes_on, survey};
use super::testing::{TestChanges, TestPlan};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::cloud::EndpointSight;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::{IdentityArgs, JobUser};
use crate::lifecycle::model::Rejection;
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::{ProjectTarget, TargetArgs};
use crate::lifecycle::version_arn;

const REJECT_HINT: &str = "leave out `--reject`; `sagemaker-executor model reject` rejects any version";
/// Deployments among which the one before is looked for.
const DEPLOYMENTS: usize = 50;

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The deployment to go back to: `previous`, which was in service before the newest deployment, or the number of a deployment
    #[arg(long, value_name = "DEPLOYMENT", default_value = "previous")]
    to: RollbackTo,
    /// Why, for the record of deployments
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Reject the version that goes, as the user of the job's id token
    #[arg(long)]
    reject: bool,
    /// Limit of the command, above `endpoint.deployment.timeout_seconds` and below the job's. A quarter of an hour more than the former
    /// when absent
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(inputs: &CommandInputs, args: RollbackArgs, _: Cancellation) -> anyhow::Result<()> {
    let mut target = args.target.load_without_image(inputs)?;
    target.require_account()?;
    target.require_bucket()?;
    let endpoint = target.endpoint()?.clone();
    let reason = args.reason.trim();
    if reason.is_empty() {
        return Err(Failure::user("a rollback needs a reason").hint("give `--reason TEXT`").into());
    }
    let changes = TestChanges::default();
    let mut read = endpoint.test.as_ref().map(|test| changes.paths(test, &target.folder)).unwrap_or_default();
    read.push(args.target.manifest.clone());
    args.output.check(&read)?;
    let test = endpoint.test.is_some().then(|| TestPlan::new(&target, &changes)).transpose()?;
    let identity = &args.identity;
    let token =
        if args.reject { Some(identity.required(inputs, &target)?) } else { identity.token(inputs, &target)? };
    let user = token.map(|token| target.work_as(token));
    target.check_account(inputs).await?;
    let ports = EndpointPorts::connect(inputs, &target, &endpoint.name).await?;
    let limits = CommandLimits::new(inputs, &endpoint, args.timeout);
    let engine = EndpointEngine {
        endpoints: ports.endpoints.clone(),
        scaling: ScalingKeeper(ports.scaling.clone()),
        printer: &inputs.printer,
        deadline: Instant::now() + limits.timeout,
    };
    let rollback = Rollback { inputs, target: &target, ports: &ports, engine: &engine, limits };
    let prepared = rollback.prepare(args.to, args.reject).await?;
    let deploying = Deploying {
        kind: LedgerKind::Rollback,
        brings_back: prepared.choice.deployment.as_ref().map(|entry| entry.number),
        inputs,
        target: &target,
        ports: &ports,
        engine: &engine,
        wanted: &prepared.wanted,
        survey: &prepared.survey,
        newest: prepared.newest.as_ref(),
        back: None,
        test: test.as_ref(),
        user: user.as_ref(),
        reason: Some(reason),
        replaces_failed: false,
        deletes_failed: false,
        keep: None,
        output: &args.output,
    };
    deploying.run().await?;
    match (&user, prepared.choice.removed_version.filter(|_| args.reject)) {
        (Some(user), Some(version)) => rollback.reject(user, &version, reason).await,
        _ => Ok(()),
    }
}

struct Rollback<'a> {
    inputs: &'a CommandInputs,
    target: &'a ProjectTarget,
    ports: &'a EndpointPorts,
    engine: &'a EndpointEngine<'a>,
    limits: CommandLimits,
}

/// A rollback whose preconditions hold.
struct PreparedRollback {
    choice: RollbackChoice,
    wanted: DeploymentSpecification,
    survey: EndpointSurvey,
    newest: Option<LedgerEntry>,
}

impl Rollback<'_> {
    async fn prepare(&self, to: RollbackTo, rejects: bool) -> anyhow::Result<PreparedRollback> {
        let endpoint = self.target.endpoint()?;
        let mut sight = self.ports.endpoints.endpoint(&endpoint.name).await?;
        let (mut history, mut choice) = self.choose(to, sight.as_ref()).await?;
        let newest = history.first().cloned();
        if !newest.as_ref().is_some_and(|entry| goes_on(entry, LedgerKind::Rollback, &choice.config)) {
            // The request of another command comes first.
            let settled = self.engine.settled(&endpoint.name).await?;
            let later = self.ports.ledger.after(newest.clone(), settled.has_changed).await?;
            sight = settled.sight;
            if settled.has_changed || later != newest {
                (history, choice) = self.choose(to, sight.as_ref()).await?;
            }
        }
        if sight.is_none() {
            let failure = Failure::user(format!("there is no endpoint {}", endpoint.name));
            return Err(failure.hint("bring a version into service with `sagemaker-executor endpoint deploy`").into());
        }
        let newest = history.first().cloned();
        let open = newest.clone().filter(|entry| entry.end.is_none());
        if rejects {
            self.check_rejection(&choice).await?;
        }
        let needs_approval = self.target.needs_approval(&self.inputs.env);
        let found = RollbackTarget::read(self.ports, self.target, &choice).await?;
        let mut refusals = found.refusals(self.ports, self.target, needs_approval).await?;
        let what = format!("nothing was brought back to {}", endpoint.name);
        let Some(mut wanted) = found.specification(self.target, &endpoint.name) else {
            return Err(preconditions::failure(&what, &refusals).unwrap_or_else(|| Failure::user(what)).into());
        };
        wanted.rollout =
            target::rollout(self.ports, endpoint, &choice, &wanted.config.capacity, &self.inputs.printer).await?;
        let survey = survey(self.ports, &wanted, sight, open, LedgerKind::Rollback).await?;
        wanted.scaling = scaling(&choice, &wanted, &survey);
        let options = DeployOptions {
            approvals: NeededApprovals { is_needed: needs_approval, ..NeededApprovals::default() },
            is_approved: true,
            // An endpoint that was taken over has no tag of ours, but its deployments are in the ledger.
            adopts: !is_ours(&survey.tags, &endpoint.name) && history.iter().any(LedgerEntry::has_succeeded),
            timeout: self.limits.timeout,
            job_timeout: self.limits.job,
            ..DeployOptions::default()
        };
        refusals.extend(preconditions::refusals_of_change(endpoint, &wanted, &survey, &options));
        if let Some(failure) = preconditions::failure(&what, &refusals) {
            return Err(failure.into());
        }
        if survey.is_live(&wanted) && !survey.is_resumed(&wanted) {
            let (name, config) = (&endpoint.name, plain::line(&wanted.config.name, 100));
            let line = format!("{name} serves {config} already; `--to NUMBER` names an earlier deployment");
            self.inputs.printer.line(line);
        }
        Ok(PreparedRollback { choice, wanted, survey, newest })
    }

    /// Chooses by the ledger as it is now; `sight` is the endpoint before.
    async fn choose(
        &self,
        to: RollbackTo,
        sight: Option<&EndpointSight>,
    ) -> anyhow::Result<(Vec<LedgerEntry>, RollbackChoice)> {
        let history = self.ports.ledger.history(DEPLOYMENTS).await?;
        let named = match to {
            RollbackTo::Number(number) => self.ports.ledger.entry(number).await?,
            RollbackTo::Previous => None,
        };
        let open = history.first().filter(|entry| entry.end.is_none() && entry.begin.kind == LedgerKind::Rollback);
        let before = open.and_then(|open| open.begin.from_config.as_deref());
        let before = before.or(sight.map(|sight| sight.config.as_str())).unwrap_or_default();
        let choice = choose(to, &history, named.as_ref(), before)?;
        Ok((history, choice))
    }

    /// There must be a version to reject, of the manifest's group.
    async fn check_rejection(&self, choice: &RollbackChoice) -> anyhow::Result<()> {
        let (Some(config), Some(arn)) = (&choice.removed_config, &choice.removed_version) else {
            let failure = Failure::user(
                "`--reject` has no version to reject: the ledger knows none that goes, or the same one comes back",
            );
            return Err(failure.hint(REJECT_HINT).into());
        };
        let refused = |what: &str| {
            Failure::user(format!("the ledger names {} as the version that goes, {what}", plain::line(arn, 300)))
        };
        version_arn::check(arn, self.target).map_err(|what| refused(&what))?;
        let tags = match self.ports.endpoints.config(config).await? {
            Some(config) => self.ports.endpoints.tags(&config.arn).await?,
            None => BTreeMap::new(),
        };
        if tags.get(VERSION) == Some(&tag_value(arn)) {
            return Ok(());
        }
        let config = plain::line(config, 100);
        Err(refused(&format!("and the tags of {config} do not")).hint(REJECT_HINT).into())
    }

    async fn reject(&self, user: &JobUser, arn: &str, reason: &str) -> anyhow::Result<()> {
        let arn_line = plain::line(arn, 300);
        let Some(version) = self.ports.registry.version(arn).await? else {
            self.inputs.printer.line(format!("{arn_line} is not in the registry any more, and cannot be rejected"));
            return Ok(());
        };
        let registry = &*self.ports.registry;
        let rejection = Rejection { registry, user, at: self.inputs.clock.now(), reason };
        let (outcome, _) = rejection.record(version, &self.inputs.printer).await?;
        let word = if outcome == "rejected" { "Rejected" } else { "Rejected already:" };
        self.inputs.printer.line(format!("{word} {arn_line}"));
        Ok(())
    }
}

/// The scaling after the rollback: that of the deployment that comes back when the instance type changes with it, else the present one.
fn scaling(choice: &RollbackChoice, wanted: &DeploymentSpecification, survey: &EndpointSurvey) -> Option<SavedScaling> {
    let variant = survey.variant(wanted);
    let recorded = target::serving(choice.deployment.as_ref()).and_then(|serving| serving.autoscaling.as_ref());
    let recorded = recorded.and_then(|scaling| SavedScaling::of(&variant, scaling.limits(), &[scaling.policy()]));
    let present = survey.scaling.saved(&variant);
    if changes_type(wanted, survey) {
        return recorded.or(present);
    }
    // Policies of another form stay as they are.
    if survey.scaling.target.is_some() { present } else { recorded }
}
