//! `sagemaker-executor endpoint deploy`: brings a version of the model into service.
//!
//! Model, configuration and alarms are made first, then the ledger's record, then the endpoint is changed. Each step finds its own
//! result: a command that was ended at any point goes on when it is run again.

use std::time::Duration;

use clap::Args;

use super::deployed_package::DeployedPackage;
use super::deployment::Deploying;
use super::engine::EndpointEngine;
use super::ledger::{LedgerEntry, LedgerKind};
use super::origin;
use super::packaged::{PackageSourceArgs, PackagedChoice};
use super::plan::DeploymentPlan;
use super::preconditions::{self, DeployOptions};
use super::scaling::ScalingKeeper;
use super::specification::DeploymentSpecification;
use super::survey::{EndpointPorts, Needed, goes_on, survey};
use super::testing::{TestChanges, TestPlan};
use crate::base::signals::Cancellation;
use crate::cloud::ModelVersion;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::{IdentityArgs, JobUser};
use crate::lifecycle::manifest::{Approvals, Endpoint};
use crate::lifecycle::model::{VersionArgs, VersionChoice, has_approvals};
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::{ProjectTarget, TargetArgs};

/// Limit of the job, in seconds.
const CI_JOB_TIMEOUT: &str = "CI_JOB_TIMEOUT";
/// Start of the job, as RFC 3339 says.
const CI_JOB_STARTED_AT: &str = "CI_JOB_STARTED_AT";
/// Time of the command beside that of a deployment: for the first instances and the samples.
const BESIDE: Duration = Duration::from_mins(15);
/// Time of the job that the usual limit of the command leaves for the way back.
const FOR_WAY_BACK: Duration = Duration::from_mins(15);
/// Time that the job has left when the command's own is over.
const LEFT: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct DeployArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    choice: VersionArgs,
    #[command(flatten)]
    source: PackageSourceArgs,
    /// Show what would change, and write nothing
    #[arg(long)]
    plan: bool,
    /// Why, for the record of deployments
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Limit of the command, above `endpoint.deployment.timeout_seconds` and below the job's. A quarter of an hour more than the former
    /// when absent
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Delete an endpoint that is `Failed` or `OutOfService`, and make it again
    #[arg(long)]
    replace_failed: bool,
    /// Delete an endpoint that this command makes and that fails, or answers its samples wrongly
    #[arg(long)]
    delete_failed: bool,
    /// Take over an endpoint that this program did not make, or of another project or environment. Needs an approved version unless it is
    /// of this environment
    #[arg(long)]
    adopt: bool,
    /// Old configurations of the endpoint to keep, with their models
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    keep: u32,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A version that was chosen, and the package that it is of.
struct ChosenVersion {
    version: ModelVersion,
    package: Option<DeployedPackage>,
    /// Not there yet, because the command only plans.
    missing: Vec<String>,
}

pub(super) async fn run(inputs: &CommandInputs, args: DeployArgs, _: Cancellation) -> anyhow::Result<()> {
    let source = args.source.read(inputs, &args.target, &args.identity).await?;
    let mut target = match &source {
        Some(package) => package.target(&args.target, inputs)?,
        None => args.target.load(inputs)?,
    };
    target.require_account()?;
    let endpoint = target.endpoint()?.clone();
    target.require_bucket()?;
    let within = source.as_ref().map(|_| target.folder.clone());
    let changes = TestChanges { within, ..TestChanges::default() };
    let mut read = endpoint.test.as_ref().map(|test| changes.paths(test, &target.folder)).unwrap_or_default();
    read.push(source.as_ref().map_or_else(|| args.target.manifest.clone(), |package| package.file().to_owned()));
    args.output.check(&read)?;
    let test = endpoint.test.is_some().then(|| TestPlan::new(&target, &changes)).transpose()?;
    let options = args.options(inputs, &target, &endpoint);
    let choice = if source.is_none() { args.choice.named(inputs, &target)? } else { None };
    let usual = if options.needs_approval { VersionChoice::NewestApproved } else { VersionChoice::Newest };
    let choice = choice.unwrap_or(usual);
    let user = args.identity.token(inputs)?.map(|token| target.work_as(token));
    target.access.region = target.access.region.take().or_else(|| choice.region());
    if let Some(package) = &source {
        package.check(&target)?;
    }
    target.check_account(inputs).await?;
    let ports = EndpointPorts::connect(inputs, &target, &endpoint.name).await?;
    let chosen = match &source {
        Some(package) => package.version(inputs, &target, user.as_ref(), args.plan).await?.into(),
        None => {
            ChosenVersion { version: choice.find(&*ports.registry, &target).await?, package: None, missing: Vec::new() }
        }
    };
    let options = DeployOptions { is_approved: is_approved(&chosen.version, &target), ..options };
    let prepared = Prepared { inputs, args: &args, target: &target, endpoint: &endpoint, ports: &ports, options };
    prepared.deploy(&chosen, test.as_ref(), user.as_ref()).await
}

impl From<PackagedChoice> for ChosenVersion {
    fn from(choice: PackagedChoice) -> Self {
        Self { version: choice.version, package: Some(choice.package), missing: choice.missing }
    }
}

/// A deployment of a version that is known.
struct Prepared<'a> {
    inputs: &'a CommandInputs,
    args: &'a DeployArgs,
    target: &'a ProjectTarget,
    endpoint: &'a Endpoint,
    ports: &'a EndpointPorts,
    options: DeployOptions,
}

impl Prepared<'_> {
    async fn deploy(
        &self,
        chosen: &ChosenVersion,
        test: Option<&TestPlan>,
        user: Option<&JobUser>,
    ) -> anyhow::Result<()> {
        let Self { inputs, args, target, endpoint, ports, options } = self;
        let ChosenVersion { version, package, missing } = chosen;
        let wanted = DeploymentSpecification::new(target, endpoint, version, package.as_ref(), options.needs_approval)?;
        let engine = EndpointEngine {
            endpoints: ports.endpoints.clone(),
            scaling: ScalingKeeper(ports.scaling.clone()),
            printer: &inputs.printer,
            deadline: tokio::time::Instant::now() + options.timeout,
        };
        let is_own = |entry: &LedgerEntry| goes_on(entry, LedgerKind::Deploy, &wanted.config.name);
        let mut newest = ports.ledger.history(1).await?.pop();
        let sight = if args.plan || newest.as_ref().is_some_and(is_own) {
            ports.endpoints.endpoint(&endpoint.name).await?
        } else {
            let settled = engine.settled(&endpoint.name).await?;
            newest = ports.ledger.after(newest, settled.has_changed).await?;
            settled.sight
        };
        let open = newest.clone().filter(|entry| entry.end.is_none());
        let mut survey = survey(ports, &wanted, sight, open, LedgerKind::Deploy).await?;
        if !missing.is_empty() {
            // The deployment stores it.
            survey.data = Needed::Unknown;
        }
        if !options.adopts {
            origin::check_way_back(ports, target, &wanted, &survey).await?;
        }
        let back = match survey.open.as_ref().filter(|_| survey.is_resumed(&wanted)) {
            Some(open) => ports.ledger.back(open.number).await?,
            None => None,
        };
        let refusals = match back {
            Some(_) => preconditions::refusals_of_way_back(&wanted, &survey, options),
            None => preconditions::refusals(endpoint, &wanted, version, &survey, options),
        };
        let refused = preconditions::failure(&format!("nothing was deployed to {}", endpoint.name), &refusals);
        if args.plan {
            let plan = DeploymentPlan::new(endpoint, &wanted, &survey, &refusals, missing);
            args.output.leave(&plan, &inputs.printer)?;
            return refused.map_or(Ok(()), |refused| Err(refused.into()));
        }
        if let Some(refused) = refused {
            return Err(refused.into());
        }
        let deploying = Deploying {
            kind: LedgerKind::Deploy,
            brings_back: None,
            inputs,
            target,
            ports,
            engine: &engine,
            wanted: &wanted,
            survey: &survey,
            newest: newest.as_ref(),
            back: back.as_ref(),
            test,
            user,
            reason: args.reason.as_deref(),
            replaces_failed: args.replace_failed,
            deletes_failed: args.delete_failed,
            keep: Some(args.keep as usize),
            output: &args.output,
        };
        deploying.run().await
    }
}

fn is_approved(version: &ModelVersion, target: &ProjectTarget) -> bool {
    let approvals = target.manifest.model.as_ref().map_or_else(Approvals::default, |model| model.approvals.clone());
    has_approvals(&version.metadata, &approvals)
}

/// Limits of time of a command that moves traffic.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommandLimits {
    /// Of the whole command.
    pub(super) timeout: Duration,
    /// Of the rest of the job, if GitLab says it.
    pub(super) job: Option<Duration>,
}

impl CommandLimits {
    pub(super) fn new(inputs: &CommandInputs, endpoint: &Endpoint, timeout: Option<Duration>) -> Self {
        let seconds = inputs.env.get(CI_JOB_TIMEOUT).and_then(|text| text.trim().parse().ok());
        let started = inputs.env.get(CI_JOB_STARTED_AT).and_then(|text| humantime::parse_rfc3339(text.trim()).ok());
        let elapsed = started.and_then(|started| inputs.clock.now().duration_since(started).ok()).unwrap_or_default();
        let job = seconds.map(|seconds| Duration::from_secs(seconds).saturating_sub(elapsed));
        let limit = Duration::from_secs(endpoint.deployment_limit().into());
        let usual = job.map_or(limit + BESIDE, |job| {
            let of_job = job.saturating_sub(LEFT);
            of_job.saturating_sub(FOR_WAY_BACK).max(limit + LEFT).min(limit + BESIDE).min(of_job)
        });
        Self { timeout: timeout.unwrap_or(usual), job }
    }
}

impl DeployArgs {
    fn options(&self, inputs: &CommandInputs, target: &ProjectTarget, endpoint: &Endpoint) -> DeployOptions {
        let limits = CommandLimits::new(inputs, endpoint, self.timeout);
        DeployOptions {
            environment: target.environment.clone().unwrap_or_default(),
            needs_approval: target.needs_approval(&inputs.env),
            is_approved: false,
            replaces_failed: self.replace_failed,
            adopts: self.adopt,
            timeout: limits.timeout,
            job_timeout: limits.job,
        }
    }
}
