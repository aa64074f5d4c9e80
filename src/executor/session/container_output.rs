//! The objects of a session as the exchange sees them when containers have no network: what a container wrote lies where SageMaker has
//! uploaded it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::cloud::{CloudError, Content, Listed, ObjectStore, Retention, Sha256Hash, StoredHash};

/// Reads an object under its own key, and otherwise in the output of one training job. Writes under its own key.
pub(super) struct ContainerOutput {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Key prefix of the output: [`crate::protocol::isolation::output`].
    pub(super) prefix: String,
}

impl ContainerOutput {
    fn there(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

#[async_trait]
impl ObjectStore for ContainerOutput {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        match self.objects.get(key).await? {
            Some(found) => Ok(Some(found)),
            None => self.objects.get(&self.there(key)).await,
        }
    }

    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        match self.objects.get_range(key, start, length).await? {
            Some(found) => Ok(Some(found)),
            None => self.objects.get_range(&self.there(key), start, length).await,
        }
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        match self.objects.size(key).await? {
            Some(found) => Ok(Some(found)),
            None => self.objects.size(&self.there(key)).await,
        }
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        self.objects.put(key, body).await
    }

    async fn put_with_hash(&self, key: &str, content: Content<'_>, hash: &Sha256Hash) -> Result<(), CloudError> {
        self.objects.put_with_hash(key, content, hash).await
    }

    async fn stored_hash(&self, key: &str) -> Result<StoredHash, CloudError> {
        self.objects.stored_hash(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        self.objects.put_if_absent(key, body).await
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        self.objects.inventory(prefix).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        self.objects.delete(keys).await
    }

    async fn retention(&self) -> Result<Retention, CloudError> {
        self.objects.retention().await
    }

    fn uri(&self, key: &str) -> String {
        self.objects.uri(key)
    }
}
