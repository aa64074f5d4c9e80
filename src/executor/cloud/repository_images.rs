//! Port of the images that a repository has: their list, and their deletion. `aws` and `testing` implement it.

use std::time::SystemTime;

use async_trait::async_trait;

use super::error::CloudError;

/// Most images of one deletion (`BatchDeleteImage`).
pub const MOST_DELETED_IMAGES: usize = 100;

/// Repositories of images in the region.
#[async_trait]
pub trait RepositoryImages: Send + Sync {
    /// All images of a repository, in no order: all pages. A repository that does not exist has none.
    async fn repository_images(&self, account: &str, repository: &str) -> Result<Vec<RepositoryImage>, CloudError>;
    /// Tells whether the repository's policy lets somebody outside of its account in, or cannot be understood. A repository that does not
    /// exist is not shared.
    async fn is_shared(&self, account: &str, repository: &str) -> Result<bool, CloudError>;
    /// Deletes images with all their tags, at most [`MOST_DELETED_IMAGES`], and returns those that stay, each with AWS's reason. Images that
    /// do not exist are no error.
    async fn delete_images(
        &self,
        account: &str,
        repository: &str,
        digests: &[String],
    ) -> Result<Vec<(String, String)>, CloudError>;
}

/// An image in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryImage {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    pub tags: Vec<String>,
    /// It only names other images, one for each platform.
    pub is_index: bool,
    /// Time of the push, or of the last pull that ECR knows, if that is later.
    pub used: Option<SystemTime>,
}
