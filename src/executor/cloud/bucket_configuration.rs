//! Port of the settings of the executor's bucket, as its owner made them. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// Settings of the bucket of [`Access`](super::Access). Each method needs a permission of its own.
#[async_trait]
pub trait BucketConfiguration: Send + Sync {
    /// The encryption of objects for which a request asks none.
    async fn encryption(&self) -> Result<BucketEncryption, CloudError>;
    /// The four switches that block public access are all on. Those of the account may be on besides.
    async fn blocks_public_access(&self) -> Result<bool, CloudError>;
    /// The policy of the bucket, as JSON; `None` when it has none.
    async fn policy(&self) -> Result<Option<String>, CloudError>;
    /// Prefixes of keys, relative to [`Access::prefix`](super::Access::prefix), below which an enabled lifecycle rule deletes objects after some days;
    /// empty for a rule that is for all of these and more.
    async fn expiring_prefixes(&self) -> Result<Vec<ExpiringPrefix>, CloudError>;
}

/// A rule that deletes objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiringPrefix {
    pub prefix: String,
    /// Days from the writing of an object to its deletion.
    pub days: u32,
}

/// Default encryption of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketEncryption {
    /// Keys of S3 itself.
    S3,
    /// A key of KMS, by id, ARN or alias; `None` for AWS's own key `aws/s3`.
    Kms { key: Option<String> },
}
