//! Builds an image in CodeBuild: sends the files that git tracks, makes the project, starts a build, and follows it.
//!
//! `project.rs` decides on the project, `buildspec.yml` are the commands for a Dockerfile, `follow.rs` watches the build.

mod follow;
mod project;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use self::follow::{WatchEnd, follow, shown_reason};
use super::source_zip::ProjectSource;
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::cloud::{
    BuildPhase, BuildProject, BuildRequest, BuildSight, BuildState, CloudError, CloudErrorKind, Content, ImageBuilds,
    ObjectStore,
};
use crate::lifecycle::hex::hex;
use crate::lifecycle::manifest::CodeBuildEntry;
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::{CommandInputs, until_canceled};
use crate::ui::Printer;

/// Folder of the sources in the bucket, below its prefix.
const SOURCES: &str = "image-sources";
/// Builds among which one of the same content is looked for.
const NEWEST: usize = 20;
/// Builds that are started or joined before the command gives up: one that was joined may be stopped by its own job.
const MOST_BUILDS: usize = 3;
/// Minutes for what is neither wait nor build.
const SPARE_MINUTES: u32 = 15;
/// Time for the request that stops a build.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Variables of every build.
const TAG: &str = "IMAGE_TAG";
const URI: &str = "IMAGE_REPOSITORY_URI";

/// An image that is to be built.
#[derive(Debug)]
pub(super) struct BuildOrder<'a> {
    /// `ACCOUNT.dkr.ecr.REGION.DOMAIN/NAME`
    pub(super) repository_uri: &'a str,
    /// Tag of the content, which the build pushes.
    pub(super) tag: &'a str,
    /// Relative to the source.
    pub(super) dockerfile: &'a str,
    pub(super) context: &'a str,
    pub(super) target: Option<&'a str>,
    pub(super) args: &'a BTreeMap<String, String>,
}

impl BuildOrder<'_> {
    /// `secrets` are names of variables that the project has.
    fn variables(&self, secrets: &[&str]) -> BTreeMap<String, String> {
        let args: Vec<_> = self.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        [
            (URI, self.repository_uri.to_owned()),
            (TAG, self.tag.to_owned()),
            ("IMAGE_DOCKERFILE", self.dockerfile.to_owned()),
            ("IMAGE_CONTEXT", self.context.to_owned()),
            ("IMAGE_TARGET", self.target.unwrap_or_default().to_owned()),
            ("IMAGE_BUILD_ARGS", args.join("\n")),
            ("IMAGE_SECRETS", secrets.join(" ")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// Builds the image and pushes it under the order's tag. A signal stops the build that this command started.
///
/// # Errors
/// Failures of the user: no role, a project of another owner, a buildspec that is not there, a build that fails. AWS refuses something.
pub(super) async fn build(
    inputs: &CommandInputs,
    target: &ProjectTarget,
    entry: &CodeBuildEntry,
    source: &Arc<ProjectSource>,
    order: &BuildOrder<'_>,
    cancellation: &Cancellation,
) -> anyhow::Result<BuildSight> {
    target.require_bucket()?;
    check_files(source, entry, order)?;
    check_args(order)?;
    let key = format!("{SOURCES}/{}.zip", hex(source.sha256()));
    let objects = inputs.connect.objects(&target.access).await?;
    let place = objects.uri(&key).trim_start_matches("s3://").to_owned();
    let wanted = project::wanted(target, entry, &place)?;
    let builds = inputs.connect.builds(&target.access).await?;
    let found = builds.project(&wanted.name).await?;
    if let Some(found) = &found {
        project::check_owner(found, &wanted)?;
    }
    let prepared = async {
        send(source, &key, &*objects, &inputs.printer).await?;
        place_project(&*builds, found, &wanted, &inputs.printer).await
    };
    until_canceled(cancellation.clone(), prepared).await?;
    let run = Run { builds: &*builds, project: &wanted, source: &place, order, printer: &inputs.printer };
    run.to_the_end(cancellation).await
}

/// Refuses what the build would find out late.
fn check_files(source: &ProjectSource, entry: &CodeBuildEntry, order: &BuildOrder<'_>) -> Result<(), Failure> {
    let (file, key) = match &entry.buildspec {
        Some(buildspec) => (buildspec.as_str(), "image.codebuild.buildspec"),
        None => (order.dockerfile, "image.dockerfile"),
    };
    if source.has(file) {
        return Ok(());
    }
    let shown = plain::line(file, 200);
    Err(Failure::user(format!("git tracks no file {shown}, which the build needs"))
        .hint(format!("commit it, or change `{key}` in the manifest: exactly the files that git tracks are sent")))
}

/// The variable of the arguments has one a line.
fn check_args(order: &BuildOrder<'_>) -> Result<(), Failure> {
    let broken = order.args.iter().find(|(_, value)| value.contains(['\n', '\r']));
    let Some((name, _)) = broken else { return Ok(()) };
    Err(Failure::user(format!("the build argument {} has more than one line", plain::line(name, 100)))
        .hint("change it in `image.args`, or build with `--via buildah`"))
}

/// Sends the source unless it is there.
async fn send(
    source: &Arc<ProjectSource>,
    key: &str,
    objects: &dyn ObjectStore,
    printer: &Printer,
) -> anyhow::Result<()> {
    source.warnings.iter().for_each(|warning| printer.warn(warning));
    let (files, bytes) = (source.number_of_files(), human_bytes(source.bytes));
    if objects.size(key).await?.is_some() {
        printer.line(format!("The source of {files} files ({bytes}) is in the bucket: nothing is sent"));
        return Ok(());
    }
    let packing = Arc::clone(source);
    let packed = tokio::task::spawn_blocking(move || packing.pack()).await.context("failed to pack the source")??;
    objects.put_with_hash(key, Content::File(packed.file.path()), &packed.sha256).await?;
    printer.line(format!("Sent the source of {files} files ({bytes}) as a zip of {}", human_bytes(packed.bytes)));
    Ok(())
}

/// Creates the project, or changes it when it differs.
async fn place_project(
    builds: &dyn ImageBuilds,
    found: Option<BuildProject>,
    wanted: &BuildProject,
    printer: &Printer,
) -> anyhow::Result<()> {
    match found {
        Some(found) if !project::differs(&found, wanted) => Ok(()),
        Some(_) => {
            builds.update_project(wanted).await.map_err(|error| refused_project(error, wanted))?;
            printer.line(format!("Changed the CodeBuild project {}", wanted.name));
            Ok(())
        }
        None => match builds.create_project(wanted).await {
            Ok(()) => {
                printer.line(format!("Created the CodeBuild project {}", wanted.name));
                Ok(())
            }
            // Another job made it meanwhile, or this one with an answer that was lost.
            Err(error) if error.kind == CloudErrorKind::Exists => {
                let found =
                    builds.project(&wanted.name).await?.context("the CodeBuild project is there and cannot be seen")?;
                project::check_owner(&found, wanted)?;
                if project::differs(&found, wanted) {
                    builds.update_project(wanted).await?;
                }
                Ok(())
            }
            Err(error) => Err(refused_project(error, wanted)),
        },
    }
}

/// Tells what to change when AWS does not take the role.
fn refused_project(error: CloudError, wanted: &BuildProject) -> anyhow::Error {
    let is_role = error.message.contains("AssumeRole") || error.message.contains("service role");
    match error.kind {
        CloudErrorKind::Denied if error.action == "iam:PassRole" => Failure::user(format!("the credentials may not hand the role {} to CodeBuild", wanted.service_role))
            .hint("give the job's role `iam:PassRole` on it, for the service `codebuild.amazonaws.com`: see `image-build-codebuild.json`")
            .caused_by(error)
            .into(),
        CloudErrorKind::Invalid if is_role => Failure::user(format!("CodeBuild cannot assume the role {}", wanted.service_role))
            .hint("set `image.codebuild.role` to a role of this account whose trust policy names `codebuild.amazonaws.com`")
            .caused_by(error)
            .into(),
        _ => error.into(),
    }
}

/// A project that is ready, and what is to be built in it.
struct Run<'a> {
    builds: &'a dyn ImageBuilds,
    project: &'a BuildProject,
    source: &'a str,
    order: &'a BuildOrder<'a>,
    printer: &'a Printer,
}

impl Run<'_> {
    /// Joins the build of the same content that runs, or starts one, and follows it.
    async fn to_the_end(&self, cancellation: &Cancellation) -> anyhow::Result<BuildSight> {
        let minutes = self.project.timeout_minutes + self.project.queued_timeout_minutes + SPARE_MINUTES;
        let limit = Duration::from_secs(u64::from(minutes) * 60);
        for _ in 0..MOST_BUILDS {
            let newest = self.builds.newest(&self.project.name, NEWEST).await?;
            let joined = newest.iter().find(|build| self.is_same(build)).map(|build| build.id.clone());
            let is_joined = joined.is_some();
            let id = match joined {
                Some(id) => id,
                None => self.start(newest.first()).await?,
            };
            let shown = plain::line(&id, 200);
            self.printer
                .line(format!("{} build {shown}", if is_joined { "Follows the running" } else { "Started the" }));
            let end = follow(self.builds, &id, self.printer, cancellation, limit).await;
            match end {
                Ok(WatchEnd::Ended(build)) if build.state == BuildState::Stopped && is_joined => {
                    self.printer.line("The build was stopped by another job");
                }
                Ok(WatchEnd::Ended(build)) => return ended(build, self.project),
                Ok(WatchEnd::Canceled) => {
                    let what = if is_joined {
                        format!("interrupted; the build {shown}, which another job started, goes on")
                    } else {
                        format!("interrupted; {}", self.stop(&id).await)
                    };
                    return Err(Failure::canceled(what).hint("run the same command again").into());
                }
                Ok(WatchEnd::Overdue) => {
                    let stopped = self.stop(&id).await;
                    return Err(Failure::user(format!(
                        "the build {shown} did not end within {minutes} minutes; {stopped}"
                    ))
                    .hint("look at it in CodeBuild, and raise `image.codebuild.timeout_minutes` if it needs longer")
                    .into());
                }
                Err(error) => {
                    return Err(error.context(format!("failed to follow the build {shown}, which may still run")));
                }
            }
        }
        Err(Failure::user("other jobs stopped each build of this content").hint("run the same command again").into())
    }

    /// Tells whether a build runs that makes this image from this source.
    fn is_same(&self, build: &BuildSight) -> bool {
        let variable = |name: &str| build.variables.get(name).map(String::as_str);
        build.state == BuildState::Running
            && build.source == self.source
            && variable(TAG) == Some(self.order.tag)
            && variable(URI) == Some(self.order.repository_uri)
    }

    /// Starts a build. Jobs that see the same newest build use the same token, and so get one build.
    async fn start(&self, newest: Option<&BuildSight>) -> anyhow::Result<String> {
        let secrets: Vec<_> = self.project.variables.keys().map(String::as_str).collect();
        let variables = self.order.variables(&secrets);
        let mut token = Sha256::new();
        let newest = newest.map_or("", |build| build.id.as_str());
        for part in [self.source, newest].into_iter().chain(variables.values().map(String::as_str)) {
            token.update((part.len() as u64).to_be_bytes());
            token.update(part);
        }
        let request = BuildRequest {
            project: self.project.name.clone(),
            token: hex(&token.finalize()),
            source: self.source.to_owned(),
            variables,
        };
        Ok(self.builds.start(&request).await?)
    }

    /// Stops a build, and says whether that was possible.
    async fn stop(&self, id: &str) -> String {
        let shown = plain::line(id, 200);
        match tokio::time::timeout(STOP_LIMIT, self.builds.stop(id)).await {
            Ok(Ok(())) => format!("the build {shown} is stopped"),
            Ok(Err(error)) => {
                format!("the build {shown} could not be stopped: {}", plain::line(&error.to_string(), 300))
            }
            Err(_) => format!("the build {shown} could not be stopped: AWS does not answer"),
        }
    }
}

/// The build, when it succeeded.
///
/// # Errors
/// It did not: the first phase that failed, with its reason.
fn ended(build: BuildSight, project: &BuildProject) -> anyhow::Result<BuildSight> {
    let shown = plain::line(&build.id, 200);
    let failed = build.phases.iter().find(|phase| phase.has_succeeded == Some(false));
    let phase = failed.map_or(String::new(), |BuildPhase { name, reasons, .. }| {
        let reason = reasons.first().map_or(String::new(), |reason| format!(": {}", shown_reason(reason)));
        format!(" in the phase {}{reason}", plain::line(name, 60))
    });
    let failure = match build.state {
        BuildState::Succeeded => return Ok(build),
        BuildState::Running | BuildState::Fault => {
            Failure::system(format!("CodeBuild could not run the build {shown}{phase}")).hint("run the same command again later")
        }
        BuildState::Failed => Failure::user(format!("the build {shown} failed{phase}"))
            .hint("correct what its log above tells, and check the policy of `image.codebuild.role` when AWS refused something"),
        BuildState::TimedOut => Failure::user(format!("the build {shown} took longer than {} minutes{phase}", project.timeout_minutes))
            .hint("raise `image.codebuild.timeout_minutes`, or take a larger `compute_type`"),
        BuildState::Stopped => {
            Failure::user(format!("the build {shown} was stopped in AWS")).hint("run the same command again")
        }
    };
    Err(failure.into())
}
