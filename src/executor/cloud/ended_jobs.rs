//! Port of training jobs that have ended: their list, their deletion, and the images that other jobs still use. `aws` and `testing`
//! implement it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use async_trait::async_trait;

use super::error::CloudError;

/// Training jobs that have ended, in one account and region.
#[async_trait]
pub trait EndedJobs: Send + Sync {
    /// The jobs whose name contains this text, that were created before the time and have ended, newest first. Slow, at one page a
    /// second: the account has two such requests a second.
    async fn ended(&self, name_contains: &str, created_before: SystemTime) -> Result<Vec<EndedJob>, CloudError>;
    /// Tags of a job, by ARN.
    async fn job_tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError>;
    /// Deletes the record of a job; its objects and its log stay. SageMaker takes jobs alone that have ended and whose warm pool has
    /// ended: another one is `Exists`. One that does not exist is no error.
    async fn delete_job(&self, name: &str) -> Result<(), CloudError>;
    /// Names of the images of all jobs of the account that run. As slow as [`EndedJobs::ended`], and a call a job.
    async fn images_of_running(&self) -> Result<BTreeSet<String>, CloudError>;
}

/// A training job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedJob {
    pub name: String,
    pub arn: String,
    pub ended: Option<SystemTime>,
    /// Its instances wait for another job.
    pub has_pool: bool,
}
