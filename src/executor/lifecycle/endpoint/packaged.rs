//! The package of `endpoint deploy --package`: its manifest in place of the project's, and its model in the environment's own bucket and
//! registry.
//!
//! Nothing is asked of the account that made the package, unless the model is not in it. Each step finds its own result.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use parking_lot::Mutex;

use super::deployed_package::DeployedPackage;
use super::packaged_model::{PackageBucket, unregistered};
use super::plan::Unmade;
use crate::base::arn::Arn;
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::plain;
use crate::cloud::{Access, CloudErrorKind, ModelVersion, RegistrationState};
use crate::config::env::Environment;
use crate::lifecycle::identity::{IdentityArgs, JobUser};
use crate::lifecycle::manifest::{Approvals, Manifest};
use crate::lifecycle::model::approvals::ApprovalRule;
use crate::lifecycle::model::{self, MOST_BYTES, PackageOrigin, PackagedVersion, version_image};
use crate::lifecycle::package::{self, PackageMetadata, UnpackedPackage};
use crate::lifecycle::pipeline::Pipeline;
use crate::lifecycle::target::{ProjectTarget, TargetArgs};
use crate::lifecycle::{CommandInputs, fetching, region, tier, version_arn};

/// The hash of a package, as `package --dotenv` leaves it for later jobs.
const PACKAGE_SHA256: &str = "PACKAGE_SHA256";
/// The partition where neither a region nor a role says which.
const COMMERCIAL: &str = "aws";

#[derive(Debug, Args)]
pub(super) struct PackageSourceArgs {
    /// Package to deploy, a file or its `s3://` URI, in place of a version and of the project's manifest
    #[arg(long, value_name = "PACKAGE", conflicts_with_all = ["manifest", "VersionArgs"])]
    package: Option<String>,
    /// SHA-256 that the package must have; `PACKAGE_SHA256` when absent
    #[arg(long, value_name = "HEX", requires = "package")]
    package_sha256: Option<String>,
    /// Project that made the package; the job's own when absent
    #[arg(long, value_name = "GROUP/PROJECT", requires = "package")]
    package_project: Option<String>,
    /// Users who must have approved the version, at least; a larger `model.approvals.min` of the package, or number that the endpoint
    /// remembers, holds. Without it the package says where approvals are needed, unless the endpoint remembers it
    #[arg(long, value_name = "NUMBER", requires = "package", value_parser = clap::value_parser!(u32).range(1..=10))]
    min_approvals: Option<u32>,
    /// Take an approved version alone, whose approvals are not those of the user who registered it
    #[arg(long, requires = "package")]
    no_self: bool,
}

/// A package that can be deployed, as far as it is known without the environment's account.
pub(super) struct PackageSource {
    package: Arc<Mutex<UnpackedPackage>>,
    metadata: PackageMetadata,
    /// Of the whole file.
    sha256: String,
    origin: PackageOrigin,
    file: PathBuf,
    /// Holds what was read from a bucket.
    _fetched: Option<File>,
    /// Project that the package must be of.
    project: Option<String>,
}

/// A package's version, and what is not there yet.
#[derive(Debug)]
pub(super) struct PackagedChoice {
    pub(super) version: ModelVersion,
    pub(super) package: DeployedPackage,
    pub(super) unmade: Unmade,
}

/// The objects and the version that bucket and registry of the environment have of a package.
pub(super) struct FoundPackage<'a> {
    source: &'a PackageSource,
    inputs: &'a CommandInputs,
    target: &'a ProjectTarget,
    bucket: PackageBucket,
    own: PackagedVersion<'a>,
    version: Option<ModelVersion>,
}

impl PackageSourceArgs {
    /// The approvals that the command line asks for.
    pub(super) fn approvals(&self, manifest: &Approvals) -> (bool, ApprovalRule) {
        let is_asked = self.min_approvals.is_some() || self.no_self;
        (is_asked, ApprovalRule::of(manifest, self.min_approvals, self.no_self))
    }

    /// Reads the package that is named, and checks all of it; `None` when none is named.
    ///
    /// # Errors
    /// There is no such package, it is another one than the hash says, or it is not as it was made.
    pub(super) async fn read(
        &self,
        inputs: &CommandInputs,
        target: &TargetArgs,
        identity: &IdentityArgs,
    ) -> anyhow::Result<Option<PackageSource>> {
        let Some(named) = self.package.as_deref() else { return Ok(None) };
        if named.trim().is_empty() {
            let failure = Failure::user("`--package` names no package: its variable is not set, or empty");
            let hint = "let the job have the variables of the one that made the package, `PACKAGE_FILE` or `PACKAGE_URI` of `package --dotenv`: \
                        name that job in `needs:` with `artifacts: true`, and its file in `artifacts:reports:dotenv`";
            return Err(failure.hint(hint).into());
        }
        let expected = self.expected(named, &inputs.env)?;
        let fetched = match named.strip_prefix("s3://") {
            Some(_) => Some(fetch(inputs, target, identity, named).await?),
            None => None,
        };
        let file = fetched.as_ref().map_or_else(|| PathBuf::from(named), fetching::path_of);
        let (path, name) = (file.clone(), named.to_owned());
        let read = tokio::task::spawn_blocking(move || UnpackedPackage::read(&path, &name, &expected));
        let package = read.await.context("failed to read the package")??;
        let origin = PackageOrigin {
            name: package.metadata().name.clone(),
            sha256: package.sha256().to_owned(),
            pipeline: pipeline(package.metadata()),
        };
        Ok(Some(PackageSource {
            origin,
            metadata: package.metadata().clone(),
            sha256: package.sha256().to_owned(),
            package: Arc::new(Mutex::new(package)),
            file,
            _fetched: fetched,
            project: self.package_project.clone(),
        }))
    }

    /// Hashes that the package must have, each with the place that says so. The variable comes from the job that made the package, and
    /// pins it; a flag says that another one is meant. The key of a stored package has its hash.
    fn expected(&self, named: &str, env: &Environment) -> Result<Vec<(String, String)>, Failure> {
        let variable = || Some((PACKAGE_SHA256, env.get(PACKAGE_SHA256).filter(|text| !text.is_empty())?));
        let given = self.package_sha256.as_deref().map(|text| ("--package-sha256", text)).or_else(variable);
        let mut expected = Vec::new();
        if let Some((place, text)) = given {
            let hash = text.trim().to_lowercase();
            if !package::is_hash(&hash) {
                let failure = Failure::user(format!("`{place}` is no SHA-256 of 64 hexadecimal digits"));
                return Err(failure.hint("take it from the job that made the package: `package --dotenv`"));
            }
            expected.push((format!("`{place}`"), hash));
        }
        let stored = named.strip_prefix("s3://").and_then(package::hash_of_key);
        expected.extend(stored.map(|hash| ("its key".to_owned(), hash.to_owned())));
        Ok(expected)
    }
}

/// Reads a package from a bucket, with the credentials of the job.
async fn fetch(
    inputs: &CommandInputs,
    target: &TargetArgs,
    identity: &IdentityArgs,
    uri: &str,
) -> anyhow::Result<File> {
    let shown = plain::line(uri, 1100);
    let refused = |what: &str| {
        Failure::user(format!("the package {shown} {what}"))
            .hint("give `--package` the `PACKAGE_URI` of the job that made it, or a file")
    };
    let (bucket, key) = fetching::place(uri).ok_or_else(|| refused("is no object of S3"))?;
    // The manifest, which names the region, is in the package.
    let variable = |name: &str| inputs.env.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let named = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    let mut target = target.target(Manifest::default(), None, inputs);
    let token = identity.token(inputs, &target)?;
    let role = token.as_ref().and_then(|token| Arn::parse(&token.exchanged().role_arn));
    // Any region of the partition will do: S3 tells the bucket's own.
    let any = region::any_of(role.map_or(COMMERCIAL, |role| role.partition));
    target.access.region = named.or_else(|| any.map(str::to_owned));
    if let Some(token) = token {
        token.work_as(&mut target.access);
    }
    let access: Access = target.access;
    let access = fetching::access_to(inputs, &access, bucket).await?;
    let object = inputs.connect.source_objects(&access).await?.look(bucket, key).await?;
    let object = object.ok_or_else(|| refused("does not exist"))?;
    if object.bytes > MOST_BYTES {
        return Err(refused(&format!("has {}, more than a package may have", human_bytes(object.bytes))).into());
    }
    Ok(fetching::fetch(inputs, &access, &object).await?.file)
}

impl PackageSource {
    /// The file that the command reads.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The package's manifest with the entry of the environment. Anybody may have packed another manifest than the reviewed one, so that
    /// its `tier` makes no production of an environment's name anything less.
    ///
    /// # Errors
    /// The manifest has no such environment, or a mistake.
    pub(super) fn target(&self, args: &TargetArgs, inputs: &CommandInputs) -> anyhow::Result<ProjectTarget> {
        let package = self.package.lock();
        let mut target = args.load_text(&package.manifest()?, inputs)?;
        // The id token goes to no role that a package names.
        target.manifest.target.job_role = None;
        if tier::needs_approval(None, target.environment.as_deref().unwrap_or_default(), None) {
            target.manifest.target.tier = None;
        }
        Ok(ProjectTarget { folder: package.folder().to_owned(), ..target })
    }

    /// Refuses the package of another project, and an environment whose image is not the package's. The project of the job is known.
    pub(super) fn check(&self, target: &ProjectTarget) -> anyhow::Result<()> {
        let PackageMetadata { name, project: made_by, .. } = &self.metadata;
        let expected = self.project.as_ref().or(target.pipeline.project.as_ref());
        if made_by.as_ref() != expected {
            let own = plain::line(expected.map_or("no project", String::as_str), 300);
            let known = made_by.as_deref().map(|made_by| plain::line(made_by, 300));
            let hint = known.as_ref().map_or_else(
                || "make the package in a job of the project, whose `CI_PROJECT_PATH` it takes".to_owned(),
                |made_by| format!("give `--package-project {made_by}` to deploy a package of it"),
            );
            let made_by = known.map_or_else(|| "no project".to_owned(), |made_by| format!("the project {made_by}"));
            let failure = Failure::user(format!("the package {name} is of {made_by}, not of {own}"));
            return Err(failure.hint(hint).into());
        }
        let own = &target.model()?.image;
        let expected = &self.metadata.model.image_digest;
        if model::image_digest(own)? == expected {
            return Ok(());
        }
        let environment = plain::line(target.environment.as_deref().unwrap_or_default(), 100);
        let message = format!(
            "the environment {environment} has the image {own}, and the package {name} was made for {expected}"
        );
        Err(Failure::user(message)
            .hint(format!("copy that image to a registry of the environment, name it with this digest in `environments.{environment}.patch.model.image` of the manifest, and make the package again"))
            .into())
    }

    /// The version of the package in the environment's registry: the one that the package names, if it is there and the same, else the
    /// package's own, which will need the approvals of the `rule` at least. Nothing is written.
    ///
    /// # Errors
    /// The package is below the manifest's bars; a version with its mark is another one; failures of AWS.
    pub(super) async fn find<'a>(
        &'a self,
        inputs: &'a CommandInputs,
        target: &'a ProjectTarget,
        user: Option<&JobUser>,
        rule: ApprovalRule,
    ) -> anyhow::Result<FoundPackage<'a>> {
        let bucket = PackageBucket::look(inputs, target, &self.metadata, &self.sha256).await?;
        let model = target.model()?;
        let metrics = self.package.lock().metrics(model)?;
        let content = (bucket.archive, model::image_digest(&model.image)?);
        let own = PackagedVersion::new(inputs, target, &self.origin, content, metrics, user.cloned(), rule).await?;
        let version = match self.named(inputs, target, &bucket).await? {
            Some(version) => Some(version),
            None => own.find().await?,
        };
        Ok(FoundPackage { source: self, inputs, target, bucket, own, version })
    }

    /// The version that the package names, if it is in this registry and has the package's model, image and variables.
    async fn named(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        bucket: &PackageBucket,
    ) -> anyhow::Result<Option<ModelVersion>> {
        let arn = self.metadata.model.package_arn.as_deref();
        // Without a region of the manifest nobody knows which registry the version would be in.
        let is_here = |arn: &&str| version_arn::check(arn, target).is_ok() && target.manifest.target.region.is_some();
        let Some(arn) = arn.filter(is_here) else { return Ok(None) };
        let registry = inputs.connect.registry(&target.access).await?;
        let version = match registry.version(arn).await {
            Ok(version) => version,
            Err(error) if error.kind == CloudErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let model = target.model()?;
        let is_same = |version: &ModelVersion| {
            version.state == RegistrationState::Completed
                && version.model_data_url == bucket.model_uri()
                && version.environment == model.environment
                && version_image(version) == model.image
        };
        Ok(version.filter(is_same))
    }

    /// Stores what is not there yet.
    async fn store(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        bucket: &PackageBucket,
    ) -> anyhow::Result<()> {
        if !bucket.has_model {
            let archive = &self.metadata.model.archive;
            let content = match archive.file {
                Some(_) => {
                    let package = self.package.clone();
                    let unpacked = tokio::task::spawn_blocking(move || package.lock().archive());
                    unpacked.await.context("failed to read the package")??
                }
                None => bucket.fetch(inputs, target, archive, &self.metadata.name).await?,
            };
            bucket.store_model(&content).await?;
            inputs.printer.line(format!("Stored {}", bucket.model_uri()));
        }
        if !bucket.has_package {
            bucket.store_package(&self.file).await?;
            inputs.printer.line(format!("Stored {}", bucket.package_uri()));
        }
        Ok(())
    }
}

impl FoundPackage<'_> {
    /// The version as it will be, with what is not there yet.
    pub(super) fn planned(&self) -> anyhow::Result<PackagedChoice> {
        let model = self.target.model()?;
        let unmade = self.bucket.unmade(self.version.is_none().then_some(model.group.as_str()));
        Ok(self.choice(self.version.clone().unwrap_or_else(|| unregistered(model, &self.bucket)), unmade))
    }

    /// Stores model and package in the environment's bucket, and makes the version, unless they are there.
    ///
    /// # Errors
    /// The model cannot be read, or is another one; failures of AWS.
    pub(super) async fn make(&self) -> anyhow::Result<PackagedChoice> {
        self.source.store(self.inputs, self.target, &self.bucket).await?;
        let version = if let Some(version) = &self.version {
            version.clone()
        } else {
            let (outcome, version) = self.own.register().await?;
            if outcome == "registered" {
                let (arn, name) = (plain::line(&version.arn, 300), &self.source.origin.name);
                self.inputs.printer.line(format!("Registered {arn} of the package {name}"));
            }
            version
        };
        Ok(self.choice(version, Unmade::default()))
    }

    fn choice(&self, version: ModelVersion, unmade: Unmade) -> PackagedChoice {
        let PackageSource { metadata, sha256, .. } = self.source;
        let package = DeployedPackage {
            name: metadata.name.clone(),
            sha256: sha256.clone(),
            commit: metadata.commit.id.clone(),
            model_sha256: metadata.model.archive.sha256.clone(),
            uri: self.bucket.package_uri(),
        };
        PackagedChoice { version, package, unmade }
    }
}

/// The pipeline that a package says it was made by.
fn pipeline(metadata: &PackageMetadata) -> Pipeline {
    let made_by = metadata.pipeline.as_ref();
    Pipeline {
        project: metadata.project.clone(),
        commit: Some(metadata.commit.id.clone()),
        repository: metadata.commit.repository.clone(),
        id: made_by.map(|pipeline| pipeline.id.clone()),
        url: made_by.and_then(|pipeline| pipeline.url.clone()),
        ..Pipeline::default()
    }
}
