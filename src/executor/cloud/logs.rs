//! The port of the training jobs' log, and its types. Knows no service: `aws` and `testing` implement it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::error::CloudError;

/// The CloudWatch log of training jobs: group `/aws/sagemaker/TrainingJobs`, streams `<job>/algo-<n>-<epoch>`.
#[async_trait]
pub trait JobLogs: Send + Sync {
    /// Names of the job's streams so far, without remote-debug (`/ssm`) ones. Empty when the group does not exist yet.
    async fn streams(&self, job_name: &str) -> Result<Vec<String>, CloudError>;
    /// One page of what streams of any jobs hold from `since_ms` on (epoch milliseconds, inclusive), by time; `token` is
    /// that of the page before. Pages may be empty while more follow, and may repeat events.
    ///
    /// At most [`FILTER_STREAMS`] names. A name that no stream has is [`super::CloudErrorKind::NotFound`] for the whole call.
    async fn filter(&self, streams: &[String], since_ms: u64, token: Option<&str>) -> Result<FilterPage, CloudError>;
    /// One page of the streams of all jobs of the account, those with the newest events first. AWS knows the newest
    /// event "eventually": a stream that is absent here may exist.
    async fn newest_streams(&self, token: Option<&str>) -> Result<StreamPage, CloudError>;
}

/// Makes a client of the log for whoever reads in a thread of its own.
pub type LogClient = Arc<dyn Fn() -> BoxFuture<'static, anyhow::Result<Arc<dyn JobLogs>>> + Send + Sync>;

/// `FilterLogEvents` takes this many stream names.
pub const FILTER_STREAMS: usize = 100;

/// One event of a log stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    pub stream: String,
    /// When it was written: epoch milliseconds of the writer's clock.
    pub timestamp: u64,
    /// The service's own, the same in every reply.
    pub id: String,
    pub message: String,
}

/// One page of several log streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterPage {
    pub events: Vec<LogEvent>,
    /// The newest `ingestionTime` of the page: epoch milliseconds of the service's clock.
    pub ingested: Option<u64>,
    /// More follows.
    pub token: Option<String>,
}

/// One page of stream names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamPage {
    pub streams: Vec<String>,
    /// More follows.
    pub token: Option<String>,
}
