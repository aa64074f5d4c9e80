//! `sagemaker-executor endpoint status`: shows the endpoint's health, alarms and deployments.

mod facts;
mod health;
mod judge;

use std::collections::BTreeMap;

use clap::Args;

use self::facts::EndpointFacts;
use self::health::{EndpointHealth, HealthReport};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::config::env::Environment;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::manifest::ManifestText;
use crate::lifecycle::output::{OutputArgs, ReportFileArgs};
use crate::lifecycle::target::{IMAGE, ProjectTarget, TargetArgs};
use crate::lifecycle::{CommandInputs, slug};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Look at the endpoints of all environments of the manifest
    #[arg(long, conflicts_with_all = ["environment", "dotenv"])]
    all: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reports: ReportFileArgs,
}

pub(super) async fn run(inputs: &CommandInputs, args: StatusArgs) -> anyhow::Result<()> {
    args.output.check_with(&args.reports, std::slice::from_ref(&args.target.manifest))?;
    let mut report = HealthReport::default();
    let mut unanswered = None;
    for (environment, target) in targets(inputs, &args)? {
        let looked = match target {
            Ok(target) => look(inputs, &args, target).await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(Some(mut facts)) => {
                unanswered = unanswered.or(facts.error.take());
                report.endpoints.push(EndpointHealth::new(&environment, &facts));
            }
            Ok(None) => inputs.printer.line(format!("The environment {environment} has no `endpoint`")),
            Err(error) if !args.all => return Err(error),
            Err(error) => {
                report.endpoints.push(EndpointHealth::unknown(&environment, &error));
                unanswered = unanswered.or(Some(error));
            }
        }
    }
    let junit = report.junit()?;
    args.reports.leave(|| junit, || report.openmetrics())?;
    args.output.leave(&report, &inputs.printer)?;
    conclude(&report, unanswered)
}

/// The environments to look at, by name, each with its target or the reason why there is none.
fn targets(inputs: &CommandInputs, args: &StatusArgs) -> anyhow::Result<Vec<(String, anyhow::Result<ProjectTarget>)>> {
    if !args.all {
        let target = args.target.load_without_image(inputs)?;
        target.endpoint()?;
        return Ok(vec![(target.environment.clone().unwrap_or_default(), Ok(target))]);
    }
    let text = ManifestText::read(&args.target.manifest)?;
    let names = text.environments();
    if names.is_empty() {
        let failure = Failure::user("the manifest has no environments to look at");
        return Err(failure.hint("add `environments` to the manifest, or leave out `--all`").into());
    }
    let target = |name: String| {
        let manifest = text.manifest_without(&IMAGE, Some(&name), &variables_of(&name, &inputs.env));
        let target = manifest.map(|manifest| args.target.target(manifest, Some(name.clone()), inputs));
        (name, target.map_err(Into::into))
    };
    Ok(names.into_iter().map(target).collect())
}

/// The variables of a job in this environment: those of this job, but for the name and the slug of the environment, by which manifests name
/// endpoints. GitLab's other variables with the scope of the environment are not known here.
fn variables_of(environment: &str, own: &Environment) -> Environment {
    if own.get("CI_ENVIRONMENT_NAME") == Some(environment) && own.get("CI_ENVIRONMENT_SLUG").is_some() {
        return own.clone();
    }
    let name = ("CI_ENVIRONMENT_NAME".to_owned(), environment.to_owned());
    let slug = ("CI_ENVIRONMENT_SLUG".to_owned(), slug::of_environment(environment));
    own.with(BTreeMap::from([name, slug]))
}

/// `None` when the environment has no endpoint.
async fn look(
    inputs: &CommandInputs,
    args: &StatusArgs,
    mut target: ProjectTarget,
) -> anyhow::Result<Option<EndpointFacts>> {
    if target.manifest.endpoint.is_none() {
        return Ok(None);
    }
    if let Some(token) = args.identity.token(inputs, &target)? {
        token.work_as(&mut target.access);
    }
    target.check_account(inputs).await?;
    Ok(Some(EndpointFacts::read(inputs, &target).await?))
}

/// An endpoint that is not healthy comes before one that could not be looked at.
fn conclude(report: &HealthReport, unanswered: Option<anyhow::Error>) -> anyhow::Result<()> {
    match report.first_trouble() {
        Some(trouble) => Err(Failure::verdict(exit_codes::BELOW_BAR, trouble).into()),
        None => unanswered.map_or(Ok(()), Err),
    }
}
