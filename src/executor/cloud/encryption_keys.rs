//! Port of the keys of KMS. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// Keys of KMS in the region.
#[async_trait]
pub trait EncryptionKeys: Send + Sync {
    /// The key of an id, ARN or alias; `None` when there is none.
    async fn describe(&self, key: &str) -> Result<Option<KeySight>, CloudError>;
    /// The policy of a key of the caller's account, by its id or ARN, as JSON. An absent key is `NotFound`.
    async fn policy(&self, key: &str) -> Result<String, CloudError>;
}

/// A key of KMS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySight {
    pub arn: String,
    /// `Enabled`, `Disabled`, `PendingDeletion`, ...
    pub state: String,
    /// It encrypts and decrypts, with one key for both: what S3 and SageMaker take.
    pub is_symmetric: bool,
}
