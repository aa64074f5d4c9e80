//! Port of the object store. `aws` and `testing` implement it.

use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::CloudError;

/// Largest object that is read into memory: containers write some of them, and must not fill the host's memory.
pub const MOST_BYTES: u64 = 64 << 20;

/// The executor's objects: keys are relative to [`Access::prefix`](super::Access::prefix) in
/// [`Access::bucket`](super::Access::bucket).
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Reads the whole object; `None` when it does not exist. Fails before reading when it has more than
    /// [`MOST_BYTES`].
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError>;
    /// Reads `length` bytes of the object from `start` on, fewer at its end; `None` when it does not exist. At most
    /// [`MOST_BYTES`].
    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError>;
    /// Size in bytes, or `None` when it does not exist.
    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError>;
    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError>;
    /// Streams the file, in parts when it is large; memory use is bounded.
    async fn put_file(&self, key: &str, path: &Path) -> Result<(), CloudError>;
    /// Writes unless an object has this key (`If-None-Match: *`); `false` when one has.
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError>;
    /// Keys that start with `prefix`, in key order.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, CloudError> {
        Ok(self.inventory(prefix).await?.into_iter().map(|listed| listed.key).collect())
    }
    /// The objects whose keys start with `prefix`, in key order.
    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError>;
    /// Deletes the keys; missing ones are no error.
    async fn delete(&self, keys: &[String]) -> Result<(), CloudError>;
    /// `s3://bucket/prefix/key` for a request field.
    fn uri(&self, key: &str) -> String;
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub bytes: u64,
    /// Time of the last write, by the service's clock.
    pub modified: Option<SystemTime>,
}
