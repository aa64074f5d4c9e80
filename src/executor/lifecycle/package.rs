//! `sagemaker-executor package`: packs a commit, its model and what a deployment needs into one zip file.
//!
//! Its bytes depend on the commit, the model, its metrics and the pipeline alone: a retry, and another machine, make the same.

mod claims;
mod committed;
mod content;
mod documents;
mod entry_name;
pub(crate) mod git;
mod metadata;
mod model_archive;
mod naming;
mod placing;
mod reading;
mod samples;
mod selection;
#[cfg(test)]
pub(crate) mod testing;
mod unpacked;
mod verify;
mod writing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use self::committed::CommittedProject;
use self::content::PackageContent;
pub(crate) use self::documents::inline;
pub(crate) use self::metadata::{ArchiveReference, PackageMetadata};
use self::model_archive::{ModelSearch, check_named_image};
pub(crate) use self::naming::PackageKind;
pub(crate) use self::naming::is_hash;
pub(crate) use self::reading::OpenedPackage;
pub(crate) use self::unpacked::UnpackedPackage;
use super::CommandInputs;
use super::hex::hex;
use super::identity::IdentityArgs;
use super::output::{Data, OutputArgs};
use super::target::{ProjectTarget, TargetArgs};
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::signals::Cancellation;
use crate::cloud::{Content, StoredHash};

/// Folder of packages in an environment's bucket.
const FOLDER: &str = "packages";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PackageArgs {
    #[command(subcommand)]
    command: Option<PackageCommand>,
    #[command(flatten)]
    making: MakingArgs,
}

#[derive(Debug, Subcommand)]
enum PackageCommand {
    /// Check that every file of a package is as it was packed
    Verify(verify::VerifyArgs),
}

#[derive(Debug, Args)]
struct MakingArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Purpose of the package; `stable` on the default branch when absent, else `candidate`
    #[arg(long, value_name = "KIND")]
    kind: Option<PackageKind>,
    /// Folder in which the package is written
    #[arg(long, value_name = "DIR", default_value = ".")]
    output_dir: PathBuf,
    /// ARN of the registered version of the model; `MODEL_PACKAGE_ARN` when absent
    #[arg(long, value_name = "ARN")]
    model_package: Option<String>,
    /// Image that serves the model in the place of the registered version's: that of `model.image`, by its digest
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Largest `model.tar.gz` that becomes a part of the package, in MiB; of a larger one the package has hash and place
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    embed_model: u64,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A package that was made.
#[derive(Debug, Serialize)]
struct MadePackage {
    name: String,
    kind: PackageKind,
    file: PathBuf,
    sha256: String,
    bytes: u64,
    files: usize,
    commit: String,
    model_sha256: String,
    /// Where it is in the environment's bucket.
    uri: Option<String>,
    /// The image, for the manifest of the jobs that deploy, where no job built one: the model is that of a registered version.
    #[serde(skip)]
    serving_image: Option<String>,
}

impl Data for MadePackage {
    fn text(&self) -> String {
        let uri = self.uri.as_ref().map_or(String::new(), |uri| format!("  stored  {uri}\n"));
        format!(
            "{}\n  sha256  {}\n  commit  {}\n  model   {}\n  files   {}, {}\n{uri}",
            self.file.display(),
            self.sha256,
            self.commit,
            self.model_sha256,
            self.files,
            human_bytes(self.bytes)
        )
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let mut variables = verify::variables(&self.file, &self.sha256, &self.name);
        variables.extend(self.uri.clone().map(|uri| ("PACKAGE_URI", uri)));
        variables.extend(self.serving_image.clone().map(|image| ("SERVING_IMAGE", image)));
        variables
    }
}

pub async fn run(inputs: &CommandInputs, args: PackageArgs, _: Cancellation) -> anyhow::Result<()> {
    match args.command {
        Some(PackageCommand::Verify(args)) => verify::run(inputs, args).await,
        None => make(inputs, args.making).await,
    }
}

async fn make(inputs: &CommandInputs, args: MakingArgs) -> anyhow::Result<()> {
    let project = CommittedProject::read(&args.target.manifest, &inputs.env)?;
    let mut target = args.target.load_text(&project.manifest, inputs)?;
    let model = target.model()?;
    let read = model.metrics.iter().chain([&model.path]).map(|path| target.folder.join(path));
    args.output.check(&read.chain([args.target.manifest.clone()]).collect::<Vec<_>>())?;
    check_folder(&args.output_dir, &target.folder.join(&model.path))?;
    if let Some(image) = &args.image {
        check_named_image(image, &model.image)?;
    }
    let image = args.image.as_ref().map(|_| model.image.clone());
    if let Some(token) = args.identity.token(inputs, &target)? {
        token.work_as(&mut target.access);
    }
    let package_arn = args.model_package.clone().or_else(|| inputs.env.get("MODEL_PACKAGE_ARN").map(str::to_owned));
    let most_bytes = args.embed_model.saturating_mul(1 << 20);
    let found = ModelSearch { inputs, target: &target, package_arn, image, most_bytes }.find().await?;
    let is_registered = found.is_registered;
    let kind = args.kind.unwrap_or_else(|| PackageKind::of(&inputs.env));
    let content = PackageContent::gather(inputs, &target, project, kind, found)?;
    let folder = args.output_dir.clone();
    let made = tokio::task::spawn_blocking(move || content.write(&folder));
    let made = made.await.context("failed to make the package")??;
    for warning in &made.warnings {
        inputs.printer.warn(warning);
    }
    let uri = store(inputs, &target, &made.file, &made.name, &made.hash).await?;
    let data = MadePackage {
        name: made.name,
        kind,
        sha256: hex(&made.hash),
        bytes: made.bytes,
        files: made.metadata.files.len() + 1,
        commit: made.metadata.commit.id,
        model_sha256: made.metadata.model.archive.sha256,
        file: made.file,
        uri,
        serving_image: is_registered.then_some(made.metadata.model.image),
    };
    args.output.leave(&data, &inputs.printer)
}

/// Makes the folder. Refuses one that is packed itself.
fn check_folder(folder: &Path, model: &Path) -> Result<(), Failure> {
    let refused = |why: &str| {
        Failure::user(format!("the package cannot be written into {}: it {why}", folder.display()))
            .hint("change `--output-dir`")
    };
    let above = folder.ancestors().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let nearest = above.into_iter().find_map(|above| above.canonicalize().ok()).unwrap_or_default();
    if model.canonicalize().is_ok_and(|model| nearest.starts_with(model)) {
        return Err(refused("is a part of the model"));
    }
    std::fs::create_dir_all(folder).map_err(|error| refused("cannot be made").caused_by(error))
}

/// Stores the package in the environment's bucket, if there is one, unless it is there.
async fn store(
    inputs: &CommandInputs,
    target: &ProjectTarget,
    file: &Path,
    name: &str,
    hash: &[u8; 32],
) -> anyhow::Result<Option<String>> {
    if target.access.bucket.is_empty() {
        return Ok(None);
    }
    unpacked::check_size(name, file.metadata()?.len())?;
    target.check_account(inputs).await?;
    let objects = inputs.connect.objects(&target.access).await?;
    let key = key(&hex(hash), name);
    if objects.stored_hash(&key).await? != StoredHash::Known(*hash) {
        objects.put_with_hash(&key, Content::File(file), hash).await?;
    }
    Ok(Some(objects.uri(&key)))
}

/// Key of a package in an environment's bucket.
pub(crate) fn key(sha256: &str, name: &str) -> String {
    format!("{FOLDER}/{sha256}/{name}")
}

/// The hash that the key of a stored package has.
pub(crate) fn hash_of_key(key: &str) -> Option<&str> {
    let mut parts = key.rsplit('/').skip(1);
    let hash = parts.next().filter(|_| parts.next() == Some(FOLDER))?;
    is_hash(hash).then_some(hash)
}

#[cfg(test)]
pub(crate) mod tests;
