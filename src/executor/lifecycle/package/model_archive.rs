//! The `model.tar.gz` of a package: packed from the model's folder, or one that is stored.

use std::fs::File;

use anyhow::Context as _;

use super::metadata::{ArchiveReference, MODEL_ARCHIVE};
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::plain;
use crate::cloud::{Content, ModelVersion, Sha256Hash, SourceObject, StoredHash};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::gate::{self, MetricsSource};
use crate::lifecycle::hex::hex;
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::{fetching, model, version_arn};

/// A model for a package.
#[derive(Debug)]
pub(super) struct FoundModel {
    pub(super) archive: ArchiveReference,
    /// The archive itself, when it becomes a part of the package.
    pub(super) content: Option<File>,
    pub(super) package_arn: Option<String>,
    /// Image of the registered version, with its digest.
    pub(super) image: Option<String>,
    /// Files of metrics of the registered version, in the manifest's order. `None` where those of the job count.
    pub(super) metrics: Option<Vec<MetricsSource>>,
    /// The model is not the job's, but that of a registered version.
    pub(super) is_registered: bool,
}

/// The model as a registered version describes it.
struct RegisteredModel {
    uri: String,
    /// With its digest; `None` when the registry was not asked.
    image: Option<String>,
}

/// Finds the model of a package.
pub(super) struct ModelSearch<'a> {
    pub(super) inputs: &'a CommandInputs,
    pub(super) target: &'a ProjectTarget,
    /// ARN of the registered version.
    pub(super) package_arn: Option<String>,
    /// Image in the place of that of the registered version: the manifest's.
    pub(super) image: Option<String>,
    /// Largest archive that becomes a part of the package.
    pub(super) most_bytes: u64,
}

impl ModelSearch<'_> {
    /// The model in the manifest's folder; without such a folder, the one of the registered version.
    ///
    /// # Errors
    /// There is no model, or it is not the registered one.
    pub(super) async fn find(self) -> anyhow::Result<FoundModel> {
        let path = self.target.model()?.path.clone();
        if let Some(arn) = &self.package_arn {
            version_arn::check(arn, self.target).map_err(|what| {
                Failure::user(format!("the version to pack is {}, {what}", plain::line(arn, 300)))
                    .hint("change `--model-package`, else `MODEL_PACKAGE_ARN`, which `model register --dotenv` and `model latest --dotenv` write")
            })?;
        }
        if path.starts_with("s3://") {
            let found = self.stored(&path, None).await?;
            let image = self.compared(&path, &found.archive.sha256).await?.and_then(|compared| compared.image);
            return Ok(FoundModel { image, ..found });
        }
        if let (Some(arn), false) = (&self.package_arn, self.target.folder.join(&path).exists()) {
            return self.registered(arn).await;
        }
        self.packed(&path).await
    }

    async fn packed(&self, path: &str) -> anyhow::Result<FoundModel> {
        let folder = self.target.folder.join(path);
        let packed = tokio::task::spawn_blocking(move || model::pack(&folder, model::MOST_BYTES));
        let packed = packed.await.context("failed to pack the model")??;
        let hash = packed.hash;
        let sha256 = hex(&hash);
        let compared = self.compared(path, &sha256).await?;
        let (uri, image) = compared.map_or((None, None), |compared| (Some(compared.uri), compared.image));
        let content = packed.into_file()?;
        let bytes = content.metadata()?.len();
        let archive = ArchiveReference { sha256, bytes: Some(bytes), file: None, uri };
        let found = self.found(archive, image);
        if bytes <= self.most_bytes {
            return Ok(found.with(content));
        }
        if found.archive.uri.is_some() {
            return Ok(found);
        }
        let uri = self.store(&content, &hash, bytes).await?;
        Ok(FoundModel { archive: ArchiveReference { uri: Some(uri), ..found.archive }, ..found })
    }

    /// Compares a model with the registered version, if one is named: with what the registry has, and without an environment with
    /// what `model register` wrote for later jobs.
    async fn compared(&self, path: &str, sha256: &str) -> anyhow::Result<Option<RegisteredModel>> {
        let Some(arn) = &self.package_arn else { return Ok(None) };
        let registered = if self.target.environment.is_some() {
            self.version(arn).await?
        } else {
            let uri = self.inputs.env.get("MODEL_DATA_URL").filter(|uri| hash_of(uri).is_some()).ok_or_else(|| {
                let message = format!("the model in `{path}` was not compared with {}", plain::line(arn, 300));
                Failure::user(message).hint("give `--environment NAME` with the version's account, or let `needs:artifacts` bring `MODEL_DATA_URL` of `model register`")
            })?;
            RegisteredModel { uri: uri.to_owned(), image: None }
        };
        let known = match hash_of(&registered.uri) {
            Some(known) => known.to_owned(),
            None => self.hash_of_object(&registered.uri).await?,
        };
        if known != sha256 {
            let message =
                format!("the model in `{path}` is not the registered one, {}", plain::line(&registered.uri, 300));
            return Err(Failure::user(message)
                .hint("let `needs:artifacts` bring the model that `model register` had, or register this one")
                .into());
        }
        if let Some(image) = &registered.image {
            check_image(&self.target.model()?.image, image)?;
        }
        Ok(Some(registered))
    }

    /// Stores an archive that is too large for the package where `model register` would.
    async fn store(&self, content: &File, hash: &[u8; 32], bytes: u64) -> anyhow::Result<String> {
        if self.target.access.bucket.is_empty() {
            let failure = Failure::user(format!(
                "the model has {}, which is more than {} and becomes no part of the package",
                human_bytes(bytes),
                human_bytes(self.most_bytes)
            ));
            return Err(failure
                .hint(
                    "give `--environment NAME` with a `bucket`, where the model is stored, or a larger `--embed-model`",
                )
                .into());
        }
        self.target.check_account(self.inputs).await?;
        let objects = self.inputs.connect.objects(&self.target.access).await?;
        let key = model::archive_key(hash);
        if objects.stored_hash(&key).await? != StoredHash::Known(*hash) {
            objects.put_with_hash(&key, Content::File(&fetching::path_of(content)), hash).await?;
        }
        Ok(objects.uri(&key))
    }

    fn found(&self, archive: ArchiveReference, image: Option<String>) -> FoundModel {
        let package_arn = self.package_arn.clone();
        FoundModel { archive, content: None, package_arn, image, metrics: None, is_registered: false }
    }

    async fn registered(&self, arn: &str) -> anyhow::Result<FoundModel> {
        let version = self.described(arn).await?;
        let metrics = self.registered_metrics(&version).await?;
        let image = self.image.clone().unwrap_or_else(|| model::version_image(&version));
        let found = self.stored(&version.model_data_url, Some(image)).await?;
        Ok(FoundModel { metrics, is_registered: true, ..found })
    }

    /// The metrics that the version was registered with, as many files as the manifest names. `None` when it has none.
    async fn registered_metrics(&self, version: &ModelVersion) -> anyhow::Result<Option<Vec<MetricsSource>>> {
        const HINT: &str = "register the model again, or give `--version NUMBER` of another one to `model latest`";
        let names = &self.target.model()?.metrics;
        if names.is_empty() || version.metrics.is_none() {
            return Ok(None);
        }
        let found = gate::stored_metrics(self.inputs, &self.target.access, version, HINT).await?;
        if found.len() == names.len() {
            return Ok(Some(found));
        }
        let (arn, files) = (plain::line(&version.arn, 300), found.len());
        let message =
            format!("{arn} was registered with {files} files of metrics, and `model.metrics` names {}", names.len());
        Err(Failure::user(message)
            .hint("name as many files in `model.metrics` of the manifest, or register the model again")
            .into())
    }

    async fn version(&self, arn: &str) -> anyhow::Result<RegisteredModel> {
        let version = self.described(arn).await?;
        let image = Some(model::version_image(&version));
        Ok(RegisteredModel { uri: version.model_data_url, image })
    }

    async fn described(&self, arn: &str) -> anyhow::Result<ModelVersion> {
        self.target.check_account(self.inputs).await?;
        let version = self.inputs.connect.registry(&self.target.access).await?.version(arn).await?;
        let failure = || {
            let message = format!("the version {} does not exist", plain::line(arn, 300));
            Failure::user(message).hint("change `--model-package` or `MODEL_PACKAGE_ARN`")
        };
        Ok(version.ok_or_else(failure)?)
    }

    async fn hash_of_object(&self, uri: &str) -> anyhow::Result<String> {
        Ok(hex(&self.object(uri).await?.1))
    }

    /// A model in S3, which becomes a part of the package if it is small enough.
    async fn stored(&self, uri: &str, image: Option<String>) -> anyhow::Result<FoundModel> {
        self.target.check_account(self.inputs).await?;
        let (object, hash) = self.object(uri).await?;
        let archive =
            ArchiveReference { sha256: hex(&hash), bytes: Some(object.bytes), file: None, uri: Some(uri.to_owned()) };
        let found = self.found(archive, image);
        if object.bytes > self.most_bytes {
            return Ok(found);
        }
        let content = self.fetch(&object, &hash).await?;
        Ok(found.with(content))
    }

    async fn object(&self, uri: &str) -> anyhow::Result<(SourceObject, Sha256Hash)> {
        let refused = |what: &str| {
            Failure::user(format!("the model {} {what}", plain::line(uri, 300)))
                .hint("set `model.path` in the manifest to a folder or to the URI of one object")
        };
        let (bucket, key) = fetching::place(uri).ok_or_else(|| refused("is no object of S3"))?;
        let sources = self.inputs.connect.source_objects(&self.target.access).await?;
        let object = sources.look(bucket, key).await?.ok_or_else(|| refused("does not exist"))?;
        let hash = match object.hash {
            Some(hash) => hash,
            None => sources.hash(&object).await?,
        };
        Ok((object, hash))
    }

    async fn fetch(&self, object: &SourceObject, hash: &[u8; 32]) -> anyhow::Result<File> {
        let access = fetching::access_to(self.inputs, &self.target.access, &object.bucket).await?;
        let fetched = fetching::fetch(self.inputs, &access, object).await?;
        if fetched.hash != *hash {
            let failure = Failure::system(format!("s3://{}/{} changed while it was read", object.bucket, object.key));
            return Err(failure.hint("run the same command again").into());
        }
        Ok(fetched.file)
    }
}

impl FoundModel {
    fn with(mut self, content: File) -> Self {
        self.archive.file = Some(MODEL_ARCHIVE.to_owned());
        self.content = Some(content);
        self
    }
}

/// Refuses an image of the command line that is not the manifest's, with which the package is deployed.
///
/// # Errors
/// The digests differ, or one is no image with its digest.
pub(super) fn check_named_image(named: &str, own: &str) -> anyhow::Result<()> {
    if model::image_digest(named)? == model::image_digest(own)? {
        return Ok(());
    }
    let message = format!("the image of `--image` is {}, and that of the manifest is {own}", plain::line(named, 300));
    Err(Failure::user(message)
        .hint("let `model.image` in the manifest be a variable that has the image, as `${SERVING_IMAGE:...}` has that of `image build --for serving`, and set no such variable in the project")
        .into())
}

/// Refuses an image of the manifest that is not the version's.
fn check_image(own: &str, registered: &str) -> anyhow::Result<()> {
    if model::image_digest(own)? == model::image_digest(registered)? {
        return Ok(());
    }
    let message =
        format!("the image of the manifest, {own}, is not that of the version, {}", plain::line(registered, 300));
    Err(Failure::user(message)
        .hint("set `model.image` in the manifest to the version's, or register the model again")
        .into())
}

/// The hash in the name of a stored model: `.../models/HASH/model.tar.gz`.
fn hash_of(url: &str) -> Option<&str> {
    let hash = url.strip_suffix("/model.tar.gz")?.rsplit('/').next()?;
    (hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_compared_by_their_digests() {
        let image = |name: &str, digit: &str| format!("{name}@sha256:{}", digit.repeat(64));
        assert!(check_image(&image("a", "1"), &image("b", "1")).is_ok());
        let error = check_image(&image("a", "1"), &image("a", "2")).unwrap_err().to_string();
        assert!(error.contains("is not that of the version"), "{error}");
        assert!(check_image(&image("a", "1"), "a:latest").is_err());
    }

    #[test]
    fn the_hash_is_in_the_name_of_a_stored_model() {
        let hash = "a".repeat(64);
        assert_eq!(hash_of(&format!("s3://b/models/{hash}/model.tar.gz")), Some(hash.as_str()));
        assert_eq!(hash_of("s3://b/other/model.tar.gz"), None);
    }
}
