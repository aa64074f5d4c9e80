//! Fake of a registry: repositories of images, their tags, and scans.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;

use super::faults::Fake;
use crate::cloud::{
    CloudError, CloudErrorKind, ImageRepositorySight, ImageScans, RegistryLogin, ScanSight, StoredImage, TaggedImages,
};

/// A registry in maps.
pub type MemoryImages = Fake<ImagesState>;

#[derive(Debug, Default)]
pub struct ImagesState {
    repositories: BTreeMap<String, ImageRepositorySight>,
    /// Images by `REPOSITORY@DIGEST`.
    images: BTreeMap<String, StoredImage>,
    /// Digests by `REPOSITORY:TAG`.
    tags: BTreeMap<String, String>,
    /// The answer to each look at a scan; the last one stays.
    scans: VecDeque<ScanSight>,
    started: usize,
}

impl MemoryImages {
    pub fn set_repository(&self, name: &str, is_immutable: bool) {
        let account = "123456789012".to_owned();
        let uri = format!("{account}.dkr.ecr.eu-west-1.amazonaws.com/{name}");
        let repository =
            ImageRepositorySight { account, name: name.to_owned(), uri, is_immutable, exceptions: Vec::new() };
        self.inner().service.repositories.insert(name.to_owned(), repository);
    }

    /// Puts an image with its tags into a repository.
    pub fn put(&self, repository: &str, digest: &str, tags: &[&str]) {
        let state = &mut self.inner().service;
        let image =
            StoredImage { digest: digest.to_owned(), manifest: format!("manifest of {digest}"), media_type: None };
        state.images.insert(format!("{repository}@{digest}"), image);
        state.tags.extend(tags.iter().map(|tag| (format!("{repository}:{tag}"), digest.to_owned())));
    }

    /// The digest of each tag of a repository.
    pub fn tags(&self, repository: &str) -> BTreeMap<String, String> {
        let start = format!("{repository}:");
        let all = self.inner().service.tags.clone();
        all.into_iter().filter_map(|(tag, digest)| Some((tag.strip_prefix(&start)?.to_owned(), digest))).collect()
    }

    pub fn set_scans(&self, scans: impl IntoIterator<Item = ScanSight>) {
        self.inner().service.scans = scans.into_iter().collect();
    }

    /// The number of scans that were started.
    pub fn started_scans(&self) -> usize {
        self.inner().service.started
    }
}

#[async_trait]
impl TaggedImages for MemoryImages {
    async fn repository(&self, name: &str) -> Result<Option<ImageRepositorySight>, CloudError> {
        self.call("repository", name, |service| Ok(service.repositories.get(name).cloned())).await
    }

    async fn tagged(
        &self,
        repository: &ImageRepositorySight,
        tags: &[String],
    ) -> Result<BTreeMap<String, StoredImage>, CloudError> {
        let name = &repository.name;
        self.call("tagged", name, |service| {
            let found = tags.iter().filter_map(|tag| {
                let digest = service.tags.get(&format!("{name}:{tag}"))?;
                Some((tag.clone(), service.images.get(&format!("{name}@{digest}"))?.clone()))
            });
            Ok(found.collect())
        })
        .await
    }

    async fn image(&self, repository: &ImageRepositorySight, digest: &str) -> Result<Option<StoredImage>, CloudError> {
        let image = format!("{}@{digest}", repository.name);
        self.call("image", &image, |service| Ok(service.images.get(&image).cloned())).await
    }

    async fn add_tag(
        &self,
        repository: &ImageRepositorySight,
        image: &StoredImage,
        tag: &str,
    ) -> Result<(), CloudError> {
        let place = format!("{}:{tag}", repository.name);
        self.call("add_tag", &place, |service| {
            let other = service.tags.get(&place).filter(|digest| **digest != image.digest);
            if other.is_some() && repository.keeps(tag) {
                let (operation, message) = (format!("tag {place}"), "the tag is there".to_owned());
                return Err(CloudError { kind: CloudErrorKind::Exists, operation, message, action: "ecr:PutImage" });
            }
            service.tags.insert(place.clone(), image.digest.clone());
            Ok(())
        })
        .await
    }

    async fn login(&self) -> Result<RegistryLogin, CloudError> {
        self.call("login", "", |_| {
            let endpoint = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com".to_owned();
            Ok(RegistryLogin { endpoint, user: "AWS".to_owned(), password: "s3cret-password".to_owned() })
        })
        .await
    }
}

#[async_trait]
impl ImageScans for MemoryImages {
    async fn scan(&self, _: &str, repository: &str, digest: &str) -> Result<ScanSight, CloudError> {
        let image = format!("{repository}@{digest}");
        self.call("scan", &image, |service| {
            let is_last = service.scans.len() == 1;
            let seen = if is_last { service.scans.front().cloned() } else { service.scans.pop_front() };
            Ok(seen.unwrap_or(ScanSight::Absent))
        })
        .await
    }

    async fn start(&self, _: &str, repository: &str, digest: &str) -> Result<(), CloudError> {
        let image = format!("{repository}@{digest}");
        self.call("start", &image, |service| {
            service.started += 1;
            Ok(())
        })
        .await
    }
}
