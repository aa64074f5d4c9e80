//! `sagemaker-executor prune`: deletes what deployments, candidates and training jobs of the project left, when nothing refers to it.

mod decide;
mod references;
mod registry;
mod run;
mod serving;
mod sight;
mod things;
mod turns;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use self::decide::PruneRules;
use self::run::{PruneFailure, PrunePorts, PruneRun, PruneScope};
use self::things::{JudgedThing, PruneSource, ThingFate};
use super::CommandInputs;
use super::endpoint::tag_value;
use super::gitlab::{GitLabProject, TOKEN_VARIABLE};
use super::identity::IdentityArgs;
use super::manifest::ManifestText;
use super::output::{self, Data, OutputArgs};
use super::target::{ProjectTarget, TargetArgs};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;
/// Values of `CI_PIPELINE_SOURCE` in pipelines of merge requests.
const REQUESTS: [&str; 2] = ["merge_request_event", "external_pull_request_event"];
/// Variables of merge requests, which child pipelines may have too.
const REQUEST_VARIABLES: [&str; 3] = ["CI_MERGE_REQUEST_ID", "CI_MERGE_REQUEST_IID", "CI_EXTERNAL_PULL_REQUEST_IID"];

#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Days for which everything stays
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(0..=3650))]
    retention_days: u32,
    /// Successful deployments of each endpoint, versions and images that stay
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=200))]
    keep: u32,
    /// Show what would be deleted, and delete nothing. The default in pipelines of merge requests, where `--dry-run=false` deletes
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    dry_run: Option<bool>,
    /// Name of the project's generic package in GitLab; `model.group` when absent
    #[arg(long, value_name = "NAME")]
    registry_package: Option<String>,
    /// Variable with the token that deletes packages in GitLab; the job's own token when it is not set
    #[arg(long, value_name = "VARIABLE", default_value = TOKEN_VARIABLE)]
    token_env: String,
    /// Write the result as JSON into this file, with a reason for each thing
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The command's result.
#[derive(Debug, Serialize)]
struct PruneData {
    project: String,
    environment: String,
    dry_run: bool,
    retention_days: u32,
    keep: u32,
    deleted: usize,
    would_be_deleted: usize,
    stays: usize,
    failed: usize,
    /// Things of others that were looked at, and left alone.
    others: usize,
    /// Sources that could not be read: things that they may refer to stay.
    unread: Vec<PruneSource>,
    things: Vec<JudgedThing>,
}

impl PruneData {
    fn count(things: &[JudgedThing], fate: ThingFate) -> usize {
        things.iter().filter(|thing| thing.fate == fate).count()
    }
}

impl Data for PruneData {
    fn text(&self) -> String {
        let mut text = format!("{} of {}:", self.environment, self.project);
        let verb = if self.dry_run { "would be deleted" } else { "deleted" };
        let going = if self.dry_run { self.would_be_deleted } else { self.deleted };
        // Writing to a string cannot fail.
        let _ = writeln!(text, " {going} {verb}, {} stay, {} failed", self.stays, self.failed);
        for thing in &self.things {
            let fate = match thing.fate {
                ThingFate::Deleted => "deleted",
                ThingFate::WouldBeDeleted => "would go",
                ThingFate::Stays => "stays",
                ThingFate::Failed => "failed",
            };
            let JudgedThing { kind, name, reason, .. } = thing;
            let _ = writeln!(text, "  {fate:<8}  {:<15}  {name}: {reason}", kind.name());
        }
        text
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let going = if self.dry_run { self.would_be_deleted } else { self.deleted };
        BTreeMap::from([("PRUNE_COUNT", going.to_string()), ("PRUNE_FAILED", self.failed.to_string())])
    }
}

pub async fn run(inputs: &CommandInputs, args: PruneArgs, _: Cancellation) -> anyhow::Result<()> {
    let files = [("--report", args.report.as_deref())];
    args.output.check_files(&files, std::slice::from_ref(&args.target.manifest))?;
    let text = ManifestText::read(&args.target.manifest)?;
    let mut target = args.target.load_text(&text, inputs)?;
    target.require_account()?;
    target.require_bucket()?;
    target.access.deletes_once = true;
    args.identity.token(inputs, &target)?.map(|token| target.work_as(token));
    let rules = rules(&args, &target, inputs)?;
    let scope = scope(&args, &target, &text, inputs);
    let gitlab = gitlab(&args, inputs)?.map(|project| project.connect(inputs)).transpose()?;
    target.check_account(inputs).await?;
    let ports = PrunePorts::connect(inputs, &target, gitlab).await?;
    let is_dry = args.dry_run.unwrap_or_else(|| is_of_request(inputs));
    let mut run = PruneRun::new(&ports, &rules, &scope, &inputs.printer, is_dry);
    run.carry_out().await;
    let (things, failures) = (run.things, run.failures);
    let data = PruneData {
        project: rules.project.clone(),
        environment: rules.environment.clone(),
        dry_run: is_dry,
        retention_days: args.retention_days,
        keep: args.keep,
        deleted: PruneData::count(&things, ThingFate::Deleted),
        would_be_deleted: PruneData::count(&things, ThingFate::WouldBeDeleted),
        stays: PruneData::count(&things, ThingFate::Stays),
        failed: PruneData::count(&things, ThingFate::Failed),
        others: run.others,
        unread: run.references.blind.into_iter().collect(),
        things,
    };
    if let Some(file) = &args.report {
        let text = serde_json::to_string_pretty(&data).context("failed to write the result as JSON")?;
        output::write("--report", file, &text)?;
    }
    args.output.leave(&data, &inputs.printer)?;
    verdict(&failures)
}

/// Tells whether the pipeline is of a merge request, itself or as the child of one.
fn is_of_request(inputs: &CommandInputs) -> bool {
    let source = inputs.env.get("CI_PIPELINE_SOURCE").unwrap_or_default();
    let is_set = |name: &str| inputs.env.get(name).is_some_and(|value| !value.is_empty());
    REQUESTS.contains(&source) || REQUEST_VARIABLES.iter().any(|name| is_set(name))
}

/// The failure of a run that could not read or delete everything.
fn verdict(failures: &[PruneFailure]) -> anyhow::Result<()> {
    let Some(first) = failures.first() else { return Ok(()) };
    let text = format!("{} calls failed; the first: {}", failures.len(), first.text);
    let hint = "the rest is done; run the same command again: it goes on with what is left";
    if failures.iter().all(|failure| failure.may_pass) {
        return Err(Failure::verdict(exit_codes::TRY_LATER, text).hint(hint).into());
    }
    Err(Failure::system(text).hint(hint).into())
}

fn rules(args: &PruneArgs, target: &ProjectTarget, inputs: &CommandInputs) -> Result<PruneRules, Failure> {
    let project = target.pipeline.project.as_deref().ok_or_else(|| {
        Failure::user("the project is not known, and only its own things are deleted")
            .hint("run the command in a job of GitLab CI, or set `CI_PROJECT_PATH` to `group/project`")
    })?;
    Ok(PruneRules {
        now: inputs.clock.now(),
        retention: Duration::from_secs(u64::from(args.retention_days) * DAY),
        keep: usize::try_from(args.keep).unwrap_or(usize::MAX),
        project: tag_value(project),
        environment: tag_value(target.environment.as_deref().unwrap_or_default()),
        project_number: inputs.env.get("CI_PROJECT_ID").filter(|number| is_number(number)).map(str::to_owned),
        is_protected: target.needs_approval(&inputs.env),
        has_prefix: !target.access.prefix.trim_matches('/').is_empty(),
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The group and the package of the manifest's model, the repository of the images that the project builds, and the images of all its
/// environments.
fn scope(args: &PruneArgs, target: &ProjectTarget, text: &ManifestText, inputs: &CommandInputs) -> PruneScope {
    let model = target.manifest.model.as_ref();
    let built = target.manifest.image.as_ref().map(|image| image.repository.clone());
    // The repository of `model.image` may be another project's.
    let of_project = target.manifest.target.account.clone().zip(built);
    let group = model.map(|model| model.group.clone()).filter(|group| !group.is_empty());
    let (images, unread) = images_of_entries(text, inputs);
    PruneScope {
        repositories: of_project.into_iter().collect(),
        images: images.into_iter().chain(model.map(|model| model.image.clone())).collect(),
        unread_entries: unread,
        generic_package: args.registry_package.clone().or_else(|| group.clone()),
        group,
    }
}

/// The model's image in the entry of each environment, and the names of those entries that do not tell it: they need variables that this job
/// does not have.
fn images_of_entries(text: &ManifestText, inputs: &CommandInputs) -> (Vec<String>, Vec<String>) {
    let (mut images, mut unread) = (Vec::new(), Vec::new());
    for name in text.environments() {
        let reading = text.of(Some(&name), &inputs.env);
        // Mistakes in other parts do not count here.
        if reading.findings.iter().any(|finding| finding.key.is_empty() || finding.key.contains("model")) {
            unread.push(name);
        } else {
            images.extend(reading.manifest.model.map(|model| model.image));
        }
    }
    (images, unread)
}

/// The project in GitLab, with the token of `--token-env`, else the job's own. `None` outside of a job.
fn gitlab(args: &PruneArgs, inputs: &CommandInputs) -> Result<Option<GitLabProject>, Failure> {
    if inputs.env.get("CI_API_V4_URL").is_none() || inputs.env.get("CI_PROJECT_ID").is_none() {
        return Ok(None);
    }
    match GitLabProject::with_access_token(&inputs.env, &args.token_env)? {
        Some(project) => Ok(Some(project)),
        None => GitLabProject::with_job_token(&inputs.env).map(Some),
    }
}

#[cfg(test)]
mod tests;
