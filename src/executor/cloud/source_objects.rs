//! Port of single objects in buckets of any owner, which become models. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;
use super::objects::Sha256Hash;

/// Objects that the caller may read, and copies of them among the executor's own.
#[async_trait]
pub trait SourceObjects: Send + Sync {
    /// Looks at the object; `None` when it does not exist.
    async fn look(&self, bucket: &str, key: &str) -> Result<Option<SourceObject>, CloudError>;
    /// Hash of the content, read in parts when the store keeps none. Fails when the object has changed.
    async fn hash(&self, source: &SourceObject) -> Result<Sha256Hash, CloudError>;
    /// Copies an object of at most 5 GiB within S3 to a key of [`ObjectStore`](super::ObjectStore), where the store keeps its
    /// hash. Fails when the object has changed.
    async fn copy(&self, source: &SourceObject, key: &str) -> Result<(), CloudError>;
}

/// One content of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceObject {
    pub bucket: String,
    pub key: String,
    pub bytes: u64,
    /// Changes with the content.
    pub etag: String,
    /// The hash that the store keeps.
    pub hash: Option<Sha256Hash>,
}
