//! Port of the training jobs' CloudWatch log, with its types. `aws` and `testing` implement it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::error::CloudError;

/// CloudWatch Logs of training jobs: log group `/aws/sagemaker/TrainingJobs`, log streams `<job>/algo-<n>-<epoch>`.
#[async_trait]
pub trait JobLogs: Send + Sync {
    /// Names of the job's log streams so far, without those of remote debugging (`/ssm`). Empty when the group does not
    /// exist yet.
    async fn streams(&self, job_name: &str) -> Result<Vec<String>, CloudError>;
    /// One page of events of streams of any jobs, from `since_ms` on (epoch milliseconds, inclusive), in order of time;
    /// `token` is from the previous page. Pages may be empty while more follow, and may repeat events.
    ///
    /// At most [`FILTER_STREAMS`] names. A name without a stream fails the whole call with
    /// [`super::CloudErrorKind::NotFound`].
    async fn filter(&self, streams: &[String], since_ms: u64, token: Option<&str>) -> Result<FilterPage, CloudError>;
    /// One page of the streams of all jobs of the account, those with the newest events first. AWS updates the order
    /// with a delay: a stream that is missing here may exist.
    async fn newest_streams(&self, token: Option<&str>) -> Result<StreamPage, CloudError>;
}

/// Creates a client of the log for a reader in a thread of its own.
pub type LogClient = Arc<dyn Fn() -> BoxFuture<'static, anyhow::Result<Arc<dyn JobLogs>>> + Send + Sync>;

/// Maximum number of stream names of `FilterLogEvents`.
pub const FILTER_STREAMS: usize = 100;

/// One event of a log stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    pub stream: String,
    /// Time of writing: epoch milliseconds of the writer's clock.
    pub timestamp: u64,
    /// The service's event id, the same in every reply.
    pub id: String,
    pub message: String,
}

/// One page of events of several log streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterPage {
    pub events: Vec<LogEvent>,
    /// Newest `ingestionTime` of the page: epoch milliseconds of the service's clock.
    pub ingested: Option<u64>,
    /// Present when more pages follow.
    pub token: Option<String>,
}

/// One page of stream names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamPage {
    pub streams: Vec<String>,
    /// Present when more pages follow.
    pub token: Option<String>,
}
