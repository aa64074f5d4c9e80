//! `sagemaker-executor prune`: deletes what deployments, candidates and training jobs of the project left, when nothing refers to it.

mod decide;
mod file_names;
mod late;
mod listed;
mod references;
mod registry;
mod run;
mod serving;
mod sight;
mod things;
mod turns;
mod under_way;

use std::collections::{BTreeMap, BTreeSet};
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
use super::endpoint::{records, tag_value};
use super::gitlab::{GitLabProject, TOKEN_VARIABLE};
use super::identity::IdentityArgs;
use super::manifest::ManifestText;
use super::output::{self, Data, OutputArgs};
use super::target::{ProjectTarget, TargetArgs};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::gitlab::api::GitLabErrorKind;

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
    /// A signal ended the command before it was done: what it did not reach is not told.
    interrupted: bool,
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
    fn new(run: PruneRun<'_>, args: &PruneArgs, interrupted: bool) -> Self {
        let mut things = run.things;
        things.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        Self {
            project: run.rules.project.clone(),
            environment: run.rules.environment.clone(),
            dry_run: run.is_dry,
            interrupted,
            retention_days: args.retention_days,
            keep: args.keep,
            deleted: Self::count(&things, ThingFate::Deleted),
            would_be_deleted: Self::count(&things, ThingFate::WouldBeDeleted),
            stays: Self::count(&things, ThingFate::Stays),
            failed: Self::count(&things, ThingFate::Failed),
            others: run.others,
            unread: run.references.blind.into_iter().collect(),
            things,
        }
    }

    fn count(things: &[JudgedThing], fate: ThingFate) -> usize {
        things.iter().filter(|thing| thing.fate == fate).count()
    }
}

impl Data for PruneData {
    fn text(&self) -> String {
        let mut text = format!("{} of {}:", self.environment, self.project);
        if self.interrupted {
            text.push_str(" interrupted;");
        }
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

pub async fn run(inputs: &CommandInputs, args: PruneArgs, cancellation: Cancellation) -> anyhow::Result<()> {
    let files = [("--report", args.report.as_deref())];
    args.output.check_files(&files, std::slice::from_ref(&args.target.manifest))?;
    let text = ManifestText::read(&args.target.manifest)?;
    let mut target = args.target.load_text(&text, inputs)?;
    target.require_account()?;
    target.require_bucket()?;
    target.access.deletes_once = true;
    args.identity.token(inputs, &target)?.map(|token| target.work_as(token));
    let rules = rules(&args, &target, &text, inputs)?;
    let is_proven = is_project_of_token(&args, inputs)?;
    let scope = scope(&args, &target, &text, inputs);
    let gitlab = gitlab(&args, inputs)?.map(|project| project.connect(inputs)).transpose()?;
    target.check_account(inputs).await?;
    let mut ports = PrunePorts::connect(inputs, &target, gitlab).await?;
    let doubt = if is_proven { None } else { doubt_of_project(&mut ports, &rules.project).await? };
    let is_dry = args.dry_run.unwrap_or_else(|| is_of_request(inputs));
    let mut run = PruneRun::new(&ports, &rules, &scope, &inputs.printer, is_dry);
    if let Some(doubt) = doubt {
        run.unread_text(PruneSource::Releases, &doubt.text, doubt.may_pass);
    }
    // Nothing is awaited after a signal, so that the command ends at once and tells what it deleted.
    let is_interrupted = tokio::select! {
        biased;
        () = cancellation.token().cancelled() => true,
        () = run.carry_out() => false,
    };
    if is_interrupted {
        run.interrupt();
    }
    let failures = std::mem::take(&mut run.failures);
    let data = PruneData::new(run, &args, is_interrupted);
    if let Some(file) = &args.report {
        let text = serde_json::to_string_pretty(&data).context("failed to write the result as JSON")?;
        output::write("--report", file, &text)?;
    }
    args.output.leave(&data, &inputs.printer)?;
    if is_interrupted {
        let hint =
            "the result tells what was deleted until then; run the same command again: it goes on with what is left";
        return Err(Failure::canceled("interrupted").hint(hint).into());
    }
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

/// Tells whether the id token of the job names the project by the number with which GitLab is asked.
///
/// # Errors
/// It names another one.
fn is_project_of_token(args: &PruneArgs, inputs: &CommandInputs) -> Result<bool, Failure> {
    let claimed = args.identity.claims(&inputs.env).and_then(|claims| claims.project_number());
    let (Some(claimed), Some(asked)) = (claimed, inputs.env.get("CI_PROJECT_ID")) else { return Ok(false) };
    if claimed == asked.trim() {
        return Ok(true);
    }
    Err(of_another_project("the id token is of the project with another number"))
}

/// Asks GitLab whether its project is this one. When the answer is not known nothing is asked of GitLab any more, and the reason is returned.
///
/// # Errors
/// It is another project.
async fn doubt_of_project(ports: &mut PrunePorts, project: &str) -> Result<Option<PruneFailure>, Failure> {
    let Some(gitlab) = &ports.gitlab else { return Ok(None) };
    let doubt = match gitlab.project_path().await {
        Ok(Some(path)) if path == project => return Ok(None),
        Ok(Some(path)) => {
            let path = plain::line(&path, 300);
            return Err(of_another_project(&format!("GitLab knows `CI_PROJECT_ID` as {path}")));
        }
        Ok(None) => {
            let text = "the token may not ask GitLab which project `CI_PROJECT_ID` is: give the job an id token, or use a token with `read_api`";
            PruneFailure { text: text.to_owned(), may_pass: false }
        }
        Err(error) => PruneFailure { may_pass: error.kind == GitLabErrorKind::Throttled, text: error.to_string() },
    };
    ports.gitlab = None;
    Ok(Some(doubt))
}

fn of_another_project(what: &str) -> Failure {
    Failure::user(format!("`CI_PROJECT_ID` is not the number of the project whose things are deleted: {what}"))
        .hint("run the command in a job of the project, and set neither `CI_PROJECT_ID` nor `CI_PROJECT_PATH`")
}

/// Fails when tags do not tell the project or the environment from another one.
fn check_names(project: &str, environment: &str, text: &ManifestText) -> Result<(), Failure> {
    if tag_value(project) != project {
        let text = format!("the path of the project is no value of a tag of AWS: {}", plain::line(project, 300));
        return Err(
            Failure::user(text).hint("such a project cannot be told from others by its tags: it has no `prune`")
        );
    }
    let is_same = |name: &&String| *name != environment && tag_value(name) == tag_value(environment);
    match text.environments().iter().find(is_same) {
        None => Ok(()),
        Some(other) => {
            let [own, other] = [environment, other].map(|name| plain::line(name, 200));
            let text = format!("the environments `{own}` and `{other}` of the manifest have one value in tags");
            Err(Failure::user(text).hint("name them so that they differ in letters, digits, spaces or `_.:/=+-@`"))
        }
    }
}

fn rules(
    args: &PruneArgs,
    target: &ProjectTarget,
    text: &ManifestText,
    inputs: &CommandInputs,
) -> Result<PruneRules, Failure> {
    let project = target.pipeline.project.as_deref().ok_or_else(|| {
        Failure::user("the project is not known, and only its own things are deleted")
            .hint("run the command in a job of GitLab CI, or set `CI_PROJECT_PATH` to `group/project`")
    })?;
    let environment = target.environment.as_deref().unwrap_or_default();
    check_names(project, environment, text)?;
    Ok(PruneRules {
        now: inputs.clock.now(),
        retention: Duration::from_secs(u64::from(args.retention_days) * DAY),
        keep: usize::try_from(args.keep).unwrap_or(usize::MAX),
        project: tag_value(project),
        environment: tag_value(environment),
        records: records(target),
        project_number: inputs.env.get("CI_PROJECT_ID").filter(|number| is_number(number)).map(str::to_owned),
        is_protected: target.needs_approval(&inputs.env),
        has_prefix: !target.access.prefix.trim_matches('/').is_empty(),
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The group and the package of the manifest's model, the repository of the images that the project builds, and the images and groups of
/// all its environments.
fn scope(args: &PruneArgs, target: &ProjectTarget, text: &ManifestText, inputs: &CommandInputs) -> PruneScope {
    let model = target.manifest.model.as_ref();
    let built = target.manifest.image.as_ref().map(|image| image.repository.clone());
    // The repository of `model.image` may be another project's.
    let of_project = target.manifest.target.account.clone().zip(built);
    let group = model.map(|model| model.group.clone()).filter(|group| !group.is_empty());
    let entries = ModelEntries::read(text, target.environment.as_deref(), inputs);
    PruneScope {
        repositories: of_project.into_iter().collect(),
        images: entries.images.into_iter().chain(model.map(|model| model.image.clone())).collect(),
        variable_images: entries.variable_images,
        unread_entries: entries.unread,
        entry_groups: entries.groups,
        has_unknown_group: entries.has_unknown_group,
        generic_package: args.registry_package.clone().or_else(|| group.clone()),
        group,
    }
}

/// The model in the entries of all environments.
#[derive(Debug, Default)]
struct ModelEntries {
    images: Vec<String>,
    groups: BTreeSet<String>,
    /// Entries of other environments whose image has variables: their values may be others there.
    variable_images: Vec<String>,
    /// An entry of another environment has a group with variables.
    has_unknown_group: bool,
    /// Entries with a mistake in one of both.
    unread: Vec<String>,
}

impl ModelEntries {
    fn read(text: &ManifestText, own: Option<&str>, inputs: &CommandInputs) -> Self {
        let mut entries = Self::default();
        for name in text.environments() {
            let [image, group] = ["image", "group"].map(|key| text.model_text(&name, key).unwrap_or_default());
            // Whatever the mistakes of the entry: what it says without variables, and their defaults (`${NAME:DEFAULT}`).
            entries.images.extend(image.split(['$', '{', '}']).filter(|part| !part.is_empty()).map(str::to_owned));
            entries.groups.extend(Some(group).filter(|group| !group.is_empty()).map(str::to_owned));
            let [image, group] = [image, group].map(|text| text.contains("${"));
            let is_other = Some(name.as_str()) != own;
            let reading = text.of(Some(&name), &inputs.env);
            // A variable may have no value here. Mistakes in other parts do not count.
            let is_wrong = |key: &str| match model_key(key) {
                Some("image") => !image,
                Some("group") => !group,
                Some(other) => other.is_empty(),
                None => key.is_empty(),
            };
            if let Some(model) = reading.manifest.model {
                entries.images.extend(Some(model.image).filter(|image| !image.is_empty()));
                entries.groups.extend(Some(model.group).filter(|group| !group.is_empty()));
            }
            entries.has_unknown_group |= is_other && group;
            if reading.findings.iter().any(|finding| is_wrong(&finding.key)) {
                entries.unread.push(name);
            } else if is_other && image {
                entries.variable_images.push(name);
            }
        }
        entries
    }
}

/// The key in `model` that a finding is about, empty for `model` itself: in the part of all environments, or in a patch.
fn model_key(key: &str) -> Option<&str> {
    let patched = key.strip_prefix("environments.").and_then(|rest| rest.split_once(".patch.")).map(|(_, rest)| rest);
    let rest = patched.unwrap_or(key).strip_prefix("model")?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
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
