//! `sagemaker-executor release`: publishes a package in GitLab's package registry, and a stable one as a release.
//!
//! Everything is checked before the first write. A run that was killed, or whose reply was lost, is continued by the next one.

mod decide;
mod notes;
mod publish;
mod wanted;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use self::decide::Likeness;
use self::publish::{PublicationRun, Published};
use self::wanted::{ChosenNames, Publication, VerifiedFile};
use super::CommandInputs;
use super::gitlab::{GitLabProject, GitLabWork};
use super::identity::IdentityArgs;
use super::output::{Data, OutputArgs};
use super::package::{OpenedPackage, PackageKind, PackageMetadata};
use super::target::ConnectionArgs;
use super::token_secret::TokenSecretArgs;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::gitlab::api::{GitLabApi, PackageFilePlace};

#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// The package, as `package` made it; `PACKAGE_FILE` when absent
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
    /// Tag of the release; the package's name without `.zip` when absent. It is made at the package's commit unless it exists
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// Name of the release; the tag when absent
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Name of the generic package in the package registry; the model's group when absent
    #[arg(long, value_name = "NAME")]
    registry_package: Option<String>,
    #[command(flatten)]
    token_secret: TokenSecretArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A package that is in GitLab.
#[derive(Debug, Serialize)]
struct ReleasedPackage {
    status: ReleaseStatus,
    kind: PackageKind,
    /// Name, version and file in the package registry.
    registry_package: String,
    version: String,
    file: String,
    /// Absent for a package of an earlier pipeline.
    sha256: Option<String>,
    /// Where GitLab's API serves the file.
    url: String,
    release: Option<MadeRelease>,
}

/// A stable package's release.
#[derive(Debug, Serialize)]
struct MadeRelease {
    tag: String,
    commit: String,
    /// Its page.
    url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ReleaseStatus {
    Published,
    /// Nothing was written.
    AlreadyPublished,
}

impl Data for ReleasedPackage {
    fn text(&self) -> String {
        let said = match (self.status, &self.release) {
            (ReleaseStatus::Published, Some(_)) => "is released",
            (ReleaseStatus::AlreadyPublished, Some(_)) => "was released before",
            (ReleaseStatus::Published, None) => "is in the package registry, without a release: it is a candidate",
            (ReleaseStatus::AlreadyPublished, None) => {
                "was in the package registry before, without a release: it is a candidate"
            }
        };
        let mut text = format!("{} {said}\n  package  {}/{}\n", self.file, self.registry_package, self.version);
        let release = self.release.as_ref();
        let rows = [
            ("sha256", self.sha256.as_ref()),
            ("file", Some(&self.url)),
            ("tag", release.map(|release| &release.tag)),
            ("commit", release.map(|release| &release.commit)),
            ("release", release.and_then(|release| release.url.as_ref())),
        ];
        text.extend(rows.iter().filter_map(|(name, value)| Some(format!("  {name:<7}  {}\n", (*value)?))));
        text
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let mut variables = BTreeMap::from([
            ("PACKAGE_REGISTRY_NAME", self.registry_package.clone()),
            ("PACKAGE_REGISTRY_VERSION", self.version.clone()),
            ("PACKAGE_REGISTRY_URL", self.url.clone()),
        ]);
        if let Some(release) = &self.release {
            variables.insert("RELEASE_TAG", release.tag.clone());
            variables.extend(release.url.clone().map(|url| ("RELEASE_URL", url)));
        }
        variables
    }
}

/// A package whose files were compared with its metadata.
struct VerifiedPackage {
    metadata: PackageMetadata,
    sha256: String,
    bytes: u64,
    description: String,
}

pub async fn run(inputs: &CommandInputs, args: ReleaseArgs, _: Cancellation) -> anyhow::Result<()> {
    let env = &inputs.env;
    let made = env.get("PACKAGE_FILE").map(PathBuf::from);
    let file = args.package.clone().or_else(|| made.clone()).ok_or_else(|| {
        Failure::user("no package is named")
            .hint("name it with `--package`, or run after a job that leaves `PACKAGE_FILE`, as `package --dotenv` does")
    })?;
    args.output.check(std::slice::from_ref(&file))?;
    let target = args.connection.target(inputs);
    let project = match args.token_secret.project(inputs, &args.identity, &target).await? {
        Some(project) => project,
        None => GitLabProject::with_job_token(env)?,
    };
    let path = file.clone();
    let package = tokio::task::spawn_blocking(move || verify(&path)).await.context("failed to read the package")??;
    let metadata = &package.metadata;
    if !made.is_some_and(|made| is_another(&made, &file)) {
        check_hash(&file, &package.sha256, env.get("PACKAGE_SHA256"))?;
    }
    wanted::check_project(metadata, env.get("CI_PROJECT_PATH"))?;
    let api = project.connect(inputs)?;
    let url = |place: &PackageFilePlace| api.file_url(place);
    let names = ChosenNames { tag: args.tag, name: args.name, registry_package: args.registry_package };
    let verified =
        VerifiedFile { metadata, sha256: &package.sha256, bytes: package.bytes, description: &package.description };
    let wanted = Publication::of(verified, &names, url)?;
    if let Some(tag) = env.get("CI_COMMIT_TAG") {
        if let Some(data) = released_before(&project, &*api, tag, metadata, &wanted.place).await? {
            inputs.printer.line(format!(
                "This is the pipeline of the tag {}, which a release has: nothing is left to do",
                plain::line(tag, 255)
            ));
            return args.output.leave(&data, &inputs.printer);
        }
        wanted.check_pipeline_of_tag(tag)?;
    }
    let published = PublicationRun { project: &project, api: &*api, wanted: &wanted, file: &file }.publish().await?;
    if published.likeness == Likeness::SizeAlone {
        inputs.printer.warn(format!("GitLab tells no SHA-256 of {}: its size alone was compared", wanted.place));
    }
    args.output.leave(&data(metadata.kind, wanted, published), &inputs.printer)
}

fn data(kind: PackageKind, wanted: Publication, published: Published) -> ReleasedPackage {
    let status = if published.has_written { ReleaseStatus::Published } else { ReleaseStatus::AlreadyPublished };
    let page = published.release_url.map(|url| plain::line(&url, 1000));
    ReleasedPackage {
        status,
        kind,
        registry_package: wanted.place.package,
        version: wanted.place.version,
        file: wanted.place.file,
        sha256: Some(wanted.sha256),
        url: wanted.url,
        release: wanted.release.map(|release| MadeRelease { tag: release.tag, commit: release.commit, url: page }),
    }
}

/// Reads the package, compares every file with its metadata, and makes the text of its release.
fn verify(file: &Path) -> anyhow::Result<VerifiedPackage> {
    let mut opened = OpenedPackage::open(file)?;
    opened.verify()?;
    let has_notes = opened.metadata.files.get(notes::NOTES).is_some_and(|notes| notes.bytes <= notes::LONGEST_NOTES);
    let mut text = Vec::new();
    if has_notes {
        opened.copy(notes::NOTES, &mut text)?;
    }
    let text = String::from_utf8_lossy(&text);
    let OpenedPackage { metadata, sha256, bytes, .. } = opened;
    let description = notes::description(has_notes.then_some(&*text), &metadata, &sha256, bytes);
    Ok(VerifiedPackage { metadata, sha256, bytes, description })
}

/// Tells that two names are surely of two files. However they are spelled, one file has one number.
fn is_another(one: &Path, other: &Path) -> bool {
    let number = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    matches!((number(one), number(other)), (Some(one), Some(other)) if one != other)
}

/// Compares the package with the hash that the job told which made it.
fn check_hash(file: &Path, sha256: &str, told: Option<&str>) -> Result<(), Failure> {
    let Some(told) = told.filter(|told| !told.eq_ignore_ascii_case(sha256)) else { return Ok(()) };
    let told = plain::line(told, 64);
    Err(Failure::user(format!("{} is not the package that was made: its SHA-256 is {sha256}, not {told}", file.display()))
        .hint("fetch the artifact of the job that left `PACKAGE_SHA256` again, or unset `PACKAGE_SHA256` if you mean this package"))
}

/// The release of a pipeline's tag, if it has another package of this name in the registry, at the package's commit: one that `release`
/// made with the tag.
async fn released_before(
    project: &GitLabProject,
    api: &dyn GitLabApi,
    tag: &str,
    metadata: &PackageMetadata,
    place: &PackageFilePlace,
) -> anyhow::Result<Option<ReleasedPackage>> {
    let found = api.release(tag).await.map_err(|error| project.failure(GitLabWork::Releases, error))?;
    let Some(release) = found.filter(|release| release.commit.eq_ignore_ascii_case(&metadata.commit.id)) else {
        return Ok(None);
    };
    let carried = wanted::carried(&release, &place.package, |place| api.file_url(place));
    // Its own file is looked at as in any pipeline.
    let Some((earlier, link)) = carried.filter(|(earlier, _)| earlier != place) else { return Ok(None) };
    let safe = |text: &str| plain::line(text, 1000);
    Ok(Some(ReleasedPackage {
        status: ReleaseStatus::AlreadyPublished,
        kind: PackageKind::Stable,
        registry_package: safe(&earlier.package),
        version: safe(&earlier.version),
        file: safe(&earlier.file),
        sha256: None,
        url: safe(&link.url),
        release: Some(MadeRelease {
            tag: safe(&release.tag),
            commit: metadata.commit.id.clone(),
            url: release.url.as_deref().map(safe),
        }),
    }))
}

#[cfg(test)]
mod tests;
