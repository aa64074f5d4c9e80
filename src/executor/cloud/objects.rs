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
    /// Writes a document of JSON that browsers and other services read: with its type, and for how long they may keep it. A store
    /// without such properties writes the bytes alone.
    async fn put_document(&self, key: &str, body: Vec<u8>, _cache_control: &str) -> Result<(), CloudError> {
        self.put(key, body).await
    }
    /// Writes in one request, at most 5 GiB, with the content's hash: the store refuses another content, and keeps the hash.
    async fn put_with_hash(&self, key: &str, content: Content<'_>, hash: &Sha256Hash) -> Result<(), CloudError>;
    /// The hash that the object was written with.
    async fn stored_hash(&self, key: &str) -> Result<StoredHash, CloudError>;
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
    /// Whether the bucket keeps replaced and deleted objects, and for how long.
    async fn retention(&self) -> Result<Retention, CloudError>;
    /// `s3://bucket/prefix/key` for a request field.
    fn uri(&self, key: &str) -> String;
}

/// A SHA-256 hash.
pub type Sha256Hash = [u8; 32];

/// Content to write: bytes, or a file that is read while it is sent.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

/// Answer to the question for an object's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredHash {
    Absent,
    /// The object was written without one, or the store keeps none.
    Unknown,
    Known(Sha256Hash),
}

/// How long the bucket keeps replaced and deleted objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Versioning is enabled, or was: old versions stay.
    pub is_versioned: bool,
    pub expirations: Vec<VersionExpiration>,
}

/// An enabled lifecycle rule that deletes all old versions below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionExpiration {
    /// Relative to [`Access::prefix`](super::Access::prefix); empty when the rule is for that and more.
    pub prefix: String,
    pub days: u32,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub bytes: u64,
    /// Time of the last write, by the service's clock.
    pub modified: Option<SystemTime>,
}
