//! Port of the data that training jobs read, in buckets of any owner. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// Prefixes in S3 buckets, before a training job gets them as input.
#[async_trait]
pub trait InputData: Send + Sync {
    /// Looks for objects whose keys begin with the prefix.
    async fn find(&self, bucket: &str, prefix: &str) -> Result<InputPrefix, CloudError>;

    /// Looks for the bucket alone, of the account `owner` if it is given.
    async fn find_bucket(&self, bucket: &str, owner: Option<&str>) -> Result<InputPrefix, CloudError>;
}

/// Answer about a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputPrefix {
    Found,
    /// The prefix is the key of an object, and no other key begins so.
    Object,
    /// No key begins so.
    Empty,
    NoBucket,
    /// The bucket exists, and the caller may not look into it.
    Unreadable,
    /// The bucket is of another account than the one that was asked for.
    OtherOwner,
    /// The bucket is in another region than the training jobs.
    OtherRegion {
        bucket: String,
        jobs: String,
    },
}
