//! The boundary to AWS in the executor's own words: three ports, their types and [`CloudError`].
//!
//! Stages, session and agent know these traits only. `aws` is the one implementation that names `aws_*` crates,
//! `memory` holds fakes for unit tests, `faulty` wraps any port with a plan of faults. Every method retries transient
//! faults itself (the SDK's own retries); callers decide about everything else by [`CloudErrorKind`].

mod connect;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures::future::BoxFuture;

pub use connect::Connect;
pub use error::{CloudError, CloudErrorKind};
pub use objects::{Listed, MOST_BYTES, ObjectStore};

/// What a stage or command needs of AWS. The agent takes `objects` alone.
#[derive(Clone)]
pub struct Cloud {
    pub jobs: Arc<dyn TrainingJobs>,
    pub objects: Arc<dyn ObjectStore>,
    pub logs: Arc<dyn JobLogs>,
}

/// Where and how to reach AWS. `None` means what the SDK's default chain finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub region: Option<String>,
    /// One endpoint for all services (an emulator, path-style S3); AWS's own when `None`.
    pub endpoint_url: Option<String>,
    /// Bucket of everything the executor stores, and the key prefix in it (no leading or trailing slash).
    pub bucket: String,
    pub prefix: String,
    /// KMS key for every object; the bucket's default encryption when `None`.
    pub kms_key_id: Option<String>,
    /// PEM file of extra trusted roots (images without CA files; TLS inspection in a VPC).
    pub ca_bundle: Option<std::path::PathBuf>,
}

/// SageMaker training jobs.
#[async_trait]
pub trait TrainingJobs: Send + Sync {
    /// Creates the job and returns its ARN, in a single try: after a lost reply only the caller knows what a further answer
    /// means. A taken name is [`CloudErrorKind::Exists`], never an implicit adoption.
    async fn create(&self, spec: &TrainingJobSpec) -> Result<String, CloudError>;
    /// The job's state, or `None` when no job of this name exists (AWS answers `ValidationException`,
    /// "Requested resource not found").
    async fn describe(&self, name: &str) -> Result<Option<TrainingJob>, CloudError>;
    /// As [`TrainingJobs::describe`], in a single try: whoever looks again and again needs no other.
    async fn glance(&self, name: &str) -> Result<Option<TrainingJob>, CloudError> {
        self.describe(name).await
    }
    /// The tags of the resource.
    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError>;
    /// Asks for a stop. A job that has ended already, or does not exist, is success.
    async fn stop(&self, name: &str) -> Result<(), CloudError>;
    /// Names and statuses of jobs whose name contains `name_contains`, newest first. Two requests a second per account:
    /// for sweeps only, never to poll.
    async fn list(&self, name_contains: &str) -> Result<Vec<TrainingJobSummary>, CloudError>;
}

/// The CloudWatch log of training jobs: group `/aws/sagemaker/TrainingJobs`, streams `<job>/algo-<n>-<epoch>`.
#[async_trait]
pub trait JobLogs: Send + Sync {
    /// Names of the job's streams so far, without remote-debug (`/ssm`) ones. Empty when the group does not exist yet.
    async fn streams(&self, job_name: &str) -> Result<Vec<String>, CloudError>;
    /// One page of what streams of any jobs hold from `since_ms` on (epoch milliseconds, inclusive), by time; `token` is
    /// that of the page before. Pages may be empty while more follow, and may repeat events.
    ///
    /// At most [`FILTER_STREAMS`] names. A name that no stream has is [`CloudErrorKind::NotFound`] for the whole call.
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

/// What is asked of SageMaker. Limits: [`CreateTrainingJob`](https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingJobSpec {
    /// 1..63 characters, `^[a-zA-Z0-9](-*[a-zA-Z0-9])*$`.
    pub name: String,
    pub image: String,
    pub role_arn: String,
    pub entrypoint: Vec<String>,
    pub arguments: Vec<String>,
    /// At most 100 entries of 512 characters; readable by everybody who may describe the job.
    pub environment: BTreeMap<String, String>,
    pub channels: Vec<Channel>,
    /// `s3://...` for what the container leaves in `/opt/ml/model` and `/opt/ml/output/data`.
    pub output_uri: String,
    pub output_kms_key_id: Option<String>,
    pub instance_type: String,
    pub instance_count: u32,
    pub volume_size_gb: u32,
    pub volume_kms_key_id: Option<String>,
    /// Seconds.
    pub max_runtime: u64,
    pub network: Option<Network>,
    pub encrypt_inter_container_traffic: bool,
    /// At most 50.
    pub tags: BTreeMap<String, String>,
}

/// An input channel in File mode: `/opt/ml/input/data/<name>/...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    pub name: String,
    /// A prefix that ends with `/`; it must hold an object when the job is created.
    pub uri: String,
}

/// The VPC of the training instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub subnets: Vec<String>,
    pub security_group_ids: Vec<String>,
}

/// `DescribeTrainingJob`, as far as the executor reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingJob {
    pub name: String,
    pub arn: String,
    pub status: JobStatus,
    /// SageMaker's `SecondaryStatus`, text as sent: new values appear now and then and must not stop us.
    pub secondary: String,
    /// The newest transition's message; for people, never for decisions.
    pub message: Option<String>,
    pub failure_reason: Option<String>,
    pub created: Option<SystemTime>,
    pub training_seconds: Option<u64>,
    pub billable_seconds: Option<u64>,
    /// `SecondaryStatusTransitions` in order of time: what happened between two looks.
    pub transitions: Vec<Transition>,
}

/// The job came into another phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// SageMaker's `SecondaryStatus`, text as sent.
    pub status: String,
    pub started: Option<SystemTime>,
    /// For people, never for decisions.
    pub message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingJobSummary {
    pub name: String,
    pub arn: String,
    pub status: JobStatus,
}

/// `TrainingJobStatus`. `Stopped` is not success: time limits end there too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    InProgress,
    Completed,
    Failed,
    Stopping,
    Stopped,
    Deleting,
    /// A value newer than this program.
    Unknown,
}

impl JobStatus {
    /// No instance is left and none will come.
    pub fn is_terminal(self) -> bool {
        match self {
            JobStatus::Completed | JobStatus::Failed | JobStatus::Stopped | JobStatus::Deleting => true,
            JobStatus::InProgress | JobStatus::Stopping | JobStatus::Unknown => false,
        }
    }
}
