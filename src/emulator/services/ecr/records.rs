//! Repositories by account and region, with their images and tags.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::blobs::Blobs;
use super::listed;
use super::passwords::Passwords;
use super::scan::Scan;
use crate::caller::Caller;
use crate::clock;
use crate::partition::partition;
use crate::protocol::{ApiError, text};
use crate::shared::Shared;

/// The name of a repository with its registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RepositoryKey {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) name: String,
}

impl RepositoryKey {
    /// The repository that a request names.
    pub(super) fn of(request: &Value, caller: &Caller) -> Self {
        let account = text(request, "registryId").unwrap_or(&caller.account).to_owned();
        let name = text(request, "repositoryName").unwrap_or_default().to_owned();
        Self { account, region: caller.region.clone(), name }
    }

    pub(super) fn arn(&self) -> String {
        let Self { account, region, name } = self;
        format!("arn:{}:ecr:{region}:{account}:repository/{name}", partition(region))
    }

    /// The name by which jobs and models refer to it.
    pub(super) fn uri(&self) -> String {
        let Self { account, region, name } = self;
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("{account}.dkr.ecr.{region}.amazonaws.com{suffix}/{name}")
    }

    pub(super) fn not_found(&self) -> ApiError {
        let Self { account, name, .. } = self;
        let message = format!("The repository with name '{name}' does not exist in the registry with id '{account}'");
        ApiError::new("RepositoryNotFoundException", message)
    }
}

/// A repository, with its images by digest.
#[derive(Debug, Clone, Default)]
pub(super) struct ImageRepository {
    pub(super) images: BTreeMap<String, Image>,
    /// Digest of each tag.
    pub(super) tags: BTreeMap<String, String>,
    /// Digests of the layers and configurations that were pushed here.
    pub(super) blobs: BTreeSet<String>,
    pub(super) is_immutable: bool,
    pub(super) scans_on_push: bool,
    pub(super) created_ms: u64,
    /// As `CreateRepository` has it.
    pub(super) encryption: Value,
}

/// One image, or a list of images.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) media_type: String,
    pub(super) manifest: Vec<u8>,
    /// Bytes of its layers.
    pub(super) bytes: u64,
    pub(super) pushed_ms: u64,
    pub(super) scan: Option<Scan>,
}

impl ImageRepository {
    /// The digest of an image that a request identifies by digest, by tag, or by both.
    pub(super) fn digest(&self, id: &Value) -> Option<&str> {
        let by_tag = text(id, "imageTag").map(|tag| self.tags.get(tag));
        let by_digest = text(id, "imageDigest").map(|digest| self.images.get_key_value(digest).map(|(name, _)| name));
        let (found, other) = match (by_digest, by_tag) {
            (Some(digest), None) => (digest?, None),
            (Some(digest), Some(tag)) => (digest?, Some(tag?)),
            (None, Some(tag)) => (tag?, None),
            (None, None) => return None,
        };
        other.is_none_or(|other| other == found).then_some(found)
    }

    /// The tags of an image.
    pub(super) fn tags_of(&self, digest: &str) -> Vec<&str> {
        self.tags.iter().filter(|(_, of)| *of == digest).map(|(tag, _)| tag.as_str()).collect()
    }
}

/// Repositories by their names.
pub(super) type Repositories = BTreeMap<RepositoryKey, ImageRepository>;

/// The registries of all accounts and regions.
#[derive(Debug)]
pub(crate) struct ImageStore {
    pub(super) shared: Arc<Shared>,
    pub(super) blobs: Blobs,
    pub(super) passwords: Passwords,
    /// Held while an image is unpacked.
    pub(super) unpacking: Mutex<()>,
    repositories: Mutex<Repositories>,
}

impl ImageStore {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            blobs: Blobs::new(shared.config.data_dir.join("ecr")),
            shared: Arc::clone(shared),
            passwords: Passwords::default(),
            unpacking: Mutex::default(),
            repositories: Mutex::default(),
        }
    }

    /// The repositories, with those of the command line, which are in every region.
    pub(super) fn repositories(&self, region: &str) -> MutexGuard<'_, Repositories> {
        let mut all = self.repositories.lock();
        let config = &self.shared.config;
        for image in &config.ecr_images {
            let (account, name) = (config.account.clone(), image.repository.clone());
            let repository = all.entry(RepositoryKey { account, region: region.to_owned(), name }).or_default();
            repository.images.entry(image.digest.clone()).or_insert_with(|| {
                let (media_type, manifest) = listed::manifest(image);
                let manifest = manifest.to_string().into_bytes();
                Image { media_type: media_type.to_owned(), manifest, bytes: 0, pushed_ms: clock::now_ms(), scan: None }
            });
        }
        all
    }

    /// Runs an action on the repository that a request names.
    pub(super) fn with<T>(
        &self,
        key: &RepositoryKey,
        act: impl FnOnce(&mut ImageRepository) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut all = self.repositories(&key.region);
        act(all.get_mut(key).ok_or_else(|| key.not_found())?)
    }

    /// A scan that begins now.
    pub(super) fn scan(&self, key: &RepositoryKey) -> Scan {
        let script = self.shared.config.image_findings.get(&key.name).cloned().unwrap_or_default();
        let begun_ms = clock::now_ms();
        Scan {
            begun_ms,
            ends_ms: begun_ms.saturating_add(script.duration_ms),
            findings: script.findings,
            failure: script.failure,
        }
    }

    /// The configuration of an image, for which `GET /_emulator/layers/` stands.
    pub(crate) fn layer(&self, digest: &str) -> Option<Vec<u8>> {
        let listed = listed::configuration(&self.shared.config.ecr_images, digest);
        listed.map(String::into_bytes).or_else(|| self.blobs.read(digest))
    }
}

/// Digest and tag as replies name an image.
pub(super) fn image_id(digest: &str, tag: Option<&str>) -> Value {
    match tag {
        Some(tag) => json!({"imageDigest": digest, "imageTag": tag}),
        None => json!({"imageDigest": digest}),
    }
}
