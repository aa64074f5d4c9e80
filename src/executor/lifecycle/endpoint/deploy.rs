//! `sagemaker-executor endpoint deploy`: brings a version of the model into service.
//!
//! Model, configuration and alarms are made first, then the ledger's record, then the endpoint is changed. Each step finds its own
//! result: a command that was ended at any point goes on when it is run again. A package is stored and registered when nothing but an
//! approval is missing.

use std::time::Duration;

use clap::Args;

use super::deployed_package::DeployedPackage;
use super::deployment::Deploying;
use super::engine::EndpointEngine;
use super::ledger::{LedgerBack, LedgerEntry, LedgerKind};
use super::needed_approvals::{NeededApprovals, RememberedApprovals};
use super::origin;
use super::packaged::{PackageSource, PackageSourceArgs, PackagedChoice};
use super::plan::{DeploymentPlan, Unmade};
use super::preconditions::{self, DeployOptions, UnmetPrecondition};
use super::scaling::ScalingKeeper;
use super::specification::DeploymentSpecification;
use super::survey::{EndpointPorts, EndpointSurvey, Needed, goes_on, survey};
use super::testing::{TestChanges, TestPlan};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::cloud::ModelVersion;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::{IdentityArgs, JobUser};
use crate::lifecycle::manifest::Endpoint;
use crate::lifecycle::model::approvals::{ApprovalRecords, Standing};
use crate::lifecycle::model::{VersionArgs, VersionChoice};
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
/// Looks at an endpoint that other commands change meanwhile.
const LOOKS: usize = 3;
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
    unmade: Unmade,
}

pub(super) async fn run(inputs: &CommandInputs, args: DeployArgs, _: Cancellation) -> anyhow::Result<()> {
    let source = args.source.read(inputs, &args.target, &args.identity).await?;
    let mut target = match &source {
        Some(package) => package.target(&args.target, inputs)?,
        None => args.target.load_without_image(inputs)?,
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
    let approvals = args.approvals(inputs, &target);
    let choice = if source.is_none() { args.choice.named(inputs, &target)? } else { None };
    let usual = if approvals.is_needed { VersionChoice::NewestApproved } else { VersionChoice::Newest };
    let choice = choice.unwrap_or(usual);
    let user = args.identity.token(inputs, &target)?.map(|token| target.work_as(token));
    target.access.region = target.access.region.take().or_else(|| choice.region());
    if let Some(package) = &source {
        package.check(&target)?;
    }
    target.check_account(inputs).await?;
    let ports = EndpointPorts::connect(inputs, &target, &endpoint.name).await?;
    let limits = CommandLimits::new(inputs, &endpoint, args.timeout);
    let engine = EndpointEngine {
        endpoints: ports.endpoints.clone(),
        scaling: ScalingKeeper(ports.scaling.clone()),
        printer: &inputs.printer,
        deadline: tokio::time::Instant::now() + limits.timeout,
    };
    let (args, target, endpoint, user) = (&args, &target, &endpoint, user.as_ref());
    let prepared =
        Prepared { inputs, args, target, endpoint, ports: &ports, engine, limits, test: test.as_ref(), user };
    if let Some(source) = &source {
        return prepared.deploy_package(source, approvals).await;
    }
    let version = choice.find(&*ports.registry, target).await?;
    let chosen = ChosenVersion { version, package: None, unmade: Unmade::default() };
    let judged = prepared.judge(&chosen, approvals).await?;
    prepared.deploy(&chosen, &judged).await
}

impl From<PackagedChoice> for ChosenVersion {
    fn from(choice: PackagedChoice) -> Self {
        Self { version: choice.version, package: Some(choice.package), unmade: choice.unmade }
    }
}

/// A deployment of an endpoint that is known.
struct Prepared<'a> {
    inputs: &'a CommandInputs,
    args: &'a DeployArgs,
    target: &'a ProjectTarget,
    endpoint: &'a Endpoint,
    ports: &'a EndpointPorts,
    engine: EndpointEngine<'a>,
    limits: CommandLimits,
    test: Option<&'a TestPlan>,
    user: Option<&'a JobUser>,
}

/// A deployment of a version, and everything that does not hold.
struct Judged {
    wanted: DeploymentSpecification,
    survey: EndpointSurvey,
    /// The newest entry of the ledger.
    newest: Option<LedgerEntry>,
    back: Option<LedgerBack>,
    refusals: Vec<UnmetPrecondition>,
}

impl Prepared<'_> {
    /// Deploys a package's version, which is stored and registered when nothing but an approval is missing.
    async fn deploy_package(&self, source: &PackageSource, asked: NeededApprovals) -> anyhow::Result<()> {
        for _ in 0..LOOKS {
            let remembered = RememberedApprovals::read(self.ports, &self.endpoint.name).await?;
            let approvals = asked.and_remembered(&remembered);
            let package = source.find(self.inputs, self.target, self.user, approvals.rule).await?;
            let mut chosen: ChosenVersion = package.planned()?.into();
            let mut judged = self.judge(&chosen, approvals).await?;
            if !self.args.plan && !remembered.is_of(&judged.survey) {
                continue;
            }
            if !self.args.plan && !chosen.unmade.is_empty() && judged.refusals.iter().all(|refusal| refusal.is_approval)
            {
                chosen = package.make().await?.into();
                judged = self.judge(&chosen, approvals).await?;
                if !remembered.is_of(&judged.survey) {
                    continue;
                }
            }
            return self.deploy(&chosen, &judged).await;
        }
        let message = format!("other commands change the endpoint {} all the time", self.endpoint.name);
        let failure = Failure::verdict(exit_codes::TRY_LATER, message);
        Err(failure.hint("let one job at a time change the endpoint: set `resource_group` in the jobs").into())
    }

    /// Reads what is there, after the changes of others have come to their end, and finds what does not hold.
    async fn judge(&self, chosen: &ChosenVersion, approvals: NeededApprovals) -> anyhow::Result<Judged> {
        let Self { args, target, endpoint, ports, engine, .. } = self;
        let ChosenVersion { version, package, unmade } = chosen;
        let needed = approvals.needed_rule();
        let wanted = DeploymentSpecification::new(target, endpoint, version, package.as_ref(), needed)?;
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
        if !unmade.is_empty() {
            // The deployment stores it.
            survey.data = Needed::Unknown;
        }
        let options = DeployOptions {
            environment: target.environment.clone().unwrap_or_default(),
            approvals,
            is_approved: ApprovalRecords(&version.metadata).standing(approvals.rule) == Standing::Approved,
            replaces_failed: args.replace_failed,
            adopts: args.adopt,
            timeout: self.limits.timeout,
            job_timeout: self.limits.job,
        };
        if !options.adopts {
            origin::check_way_back(ports, target, &wanted, &survey).await?;
        }
        let back = match survey.open.as_ref().filter(|_| survey.is_resumed(&wanted)) {
            Some(open) => ports.ledger.back(open.number).await?,
            None => None,
        };
        let refusals = match back {
            Some(_) => preconditions::refusals_of_way_back(&wanted, &survey, &options),
            None => preconditions::refusals(endpoint, &wanted, version, &survey, &options),
        };
        Ok(Judged { wanted, survey, newest, back, refusals })
    }

    /// Deploys what was judged, or shows the plan of it.
    async fn deploy(&self, chosen: &ChosenVersion, judged: &Judged) -> anyhow::Result<()> {
        let Self { inputs, args, target, endpoint, ports, engine, test, user, .. } = self;
        let Judged { wanted, survey, newest, back, refusals } = judged;
        let refused = preconditions::failure(&format!("nothing was deployed to {}", endpoint.name), refusals);
        if args.plan {
            let plan = DeploymentPlan::new(endpoint, wanted, survey, refusals, &chosen.unmade);
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
            engine,
            wanted,
            survey,
            newest: newest.as_ref(),
            back: back.as_ref(),
            test: *test,
            user: *user,
            reason: args.reason.as_deref(),
            replaces_failed: args.replace_failed,
            deletes_failed: args.delete_failed,
            keep: Some(args.keep as usize),
            output: &args.output,
        };
        deploying.run().await
    }
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
    /// The approvals that manifest, job and command line ask for.
    fn approvals(&self, inputs: &CommandInputs, target: &ProjectTarget) -> NeededApprovals {
        let manifest = target.manifest.model.as_ref().map(|model| model.approvals.clone()).unwrap_or_default();
        let (is_asked, rule) = self.source.approvals(&manifest);
        NeededApprovals { is_needed: is_asked || target.needs_approval(&inputs.env), rule, by_endpoint: false }
    }
}
