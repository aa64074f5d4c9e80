//! A package and its model in the environment's bucket, each under its SHA-256.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::plan::Unmade;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{
    Approval, CloudError, CloudErrorKind, Content, ModelVersion, ObjectStore, RegistrationState, Sha256Hash, StoredHash,
};
use crate::lifecycle::manifest::ModelEntry;
use crate::lifecycle::model;
use crate::lifecycle::package::{self, ArchiveReference, PackageMetadata};
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::{CommandInputs, fetching};

/// The bucket, and what it has of a package.
pub(super) struct PackageBucket {
    objects: Arc<dyn ObjectStore>,
    /// Of the model's archive.
    pub(super) archive: Sha256Hash,
    pub(super) has_model: bool,
    pub(super) has_package: bool,
    package: Sha256Hash,
    package_key: String,
}

impl PackageBucket {
    /// Looks for a package, and for its model.
    pub(super) async fn look(
        inputs: &CommandInputs,
        target: &ProjectTarget,
        metadata: &PackageMetadata,
        sha256: &str,
    ) -> anyhow::Result<Self> {
        let objects = inputs.connect.objects(&target.access).await?;
        let (archive, package) = (bytes(&metadata.model.archive.sha256)?, bytes(sha256)?);
        let package_key = package::key(sha256, &metadata.name);
        let has_model = objects.stored_hash(&model::archive_key(&archive)).await? == StoredHash::Known(archive);
        let has_package = objects.stored_hash(&package_key).await? == StoredHash::Known(package);
        Ok(Self { objects, archive, has_model, has_package, package, package_key })
    }

    pub(super) fn model_uri(&self) -> String {
        self.objects.uri(&model::archive_key(&self.archive))
    }

    pub(super) fn package_uri(&self) -> String {
        self.objects.uri(&self.package_key)
    }

    /// Things that a deployment has still to make; a version in `group`, if it is not there.
    pub(super) fn unmade(&self, group: Option<&str>) -> Unmade {
        let objects = [(self.has_model, self.model_uri()), (self.has_package, self.package_uri())];
        let objects = objects.into_iter().filter(|(is_there, _)| !is_there).map(|(_, uri)| format!("object {uri}"));
        Unmade { objects: objects.collect(), version: group.map(|group| format!("version of the group {group}")) }
    }

    /// Stores the model's archive. S3 refuses another content than the hash says.
    pub(super) async fn store_model(&self, content: &File) -> anyhow::Result<()> {
        let (key, path) = (model::archive_key(&self.archive), fetching::path_of(content));
        Ok(self.objects.put_with_hash(&key, Content::File(&path), &self.archive).await?)
    }

    /// Stores the package itself, for later deployments of the same bytes.
    pub(super) async fn store_package(&self, file: &Path) -> anyhow::Result<()> {
        Ok(self.objects.put_with_hash(&self.package_key, Content::File(file), &self.package).await?)
    }

    /// Reads a model that is not in its package from the place that the package names, and compares it with its hash.
    ///
    /// # Errors
    /// The credentials of the job may not read it, or it is another one.
    pub(super) async fn fetch(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        archive: &ArchiveReference,
        name: &str,
    ) -> anyhow::Result<File> {
        let uri = archive.uri.as_deref().map_or_else(|| "no place".to_owned(), |uri| plain::line(uri, 1100));
        let refused = |why: &str| {
            Failure::user(format!("the model is no part of the package {name}, which names {uri}: {why}")).hint(
                "make the package with a larger `--embed-model`, so that it has the model, or let the job's role read that object (`s3:GetObject`)",
            )
        };
        let place = archive.uri.as_deref().and_then(fetching::place);
        let (bucket, key) = place.ok_or_else(|| refused("that is no object of S3"))?;
        let access = fetching::access_to(inputs, &target.access, bucket).await?;
        let denied = |error: anyhow::Error| match error.downcast_ref::<CloudError>().map(|error| error.kind) {
            Some(CloudErrorKind::Denied | CloudErrorKind::NotFound) => {
                refused("it cannot be read").caused_by(error).into()
            }
            _ => error,
        };
        let looked = inputs.connect.source_objects(&access).await?.look(bucket, key).await;
        let object = looked.map_err(|error| denied(error.into()))?.ok_or_else(|| refused("there is no such object"))?;
        let is_other = || refused("that object is another one than the package was made with");
        if object.bytes > model::MOST_BYTES || archive.bytes.is_some_and(|bytes| bytes != object.bytes) {
            return Err(is_other().into());
        }
        let fetched = fetching::fetch(inputs, &access, &object).await.map_err(denied)?;
        if fetched.hash == self.archive { Ok(fetched.file) } else { Err(is_other().into()) }
    }
}

fn bytes(sha256: &str) -> anyhow::Result<Sha256Hash> {
    let hash = blake3::Hash::from_hex(sha256).context("the package has a hash that is none")?;
    Ok(*hash.as_bytes())
}

/// A version that is judged before it is there. It is not approved.
pub(super) fn unregistered(model: &ModelEntry, bucket: &PackageBucket) -> ModelVersion {
    ModelVersion {
        images: Vec::new(),
        arn: format!("the next version of the group {}", model.group),
        group: model.group.clone(),
        number: 0,
        description: String::new(),
        state: RegistrationState::UnderWay,
        approval: Approval::Pending,
        approval_description: String::new(),
        created: None,
        image: model.image.clone(),
        image_digest: None,
        model_data_url: bucket.model_uri(),
        environment: model.environment.clone(),
        metrics: None,
        metadata: BTreeMap::new(),
    }
}
