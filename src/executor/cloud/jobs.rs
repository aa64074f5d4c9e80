//! Port of SageMaker training jobs, with its types. `aws` and `testing` implement it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};

use super::error::CloudError;
use crate::base::metric::MetricDefinition;

/// Directory of a job's checkpoints in its container.
pub const CHECKPOINTS_DIR: &str = "/opt/ml/checkpoints";

/// SageMaker training jobs.
#[async_trait]
pub trait TrainingJobs: Send + Sync {
    /// Creates the job, as [`TrainingJobSpec::creator`] if there is one, and returns its ARN, without retries: after a lost
    /// reply only the caller can interpret the next answer. A taken name is [`CloudErrorKind::Exists`](super::CloudErrorKind::Exists), never adopted implicitly; a
    /// refused parameter is [`CloudErrorKind::Refused`](super::CloudErrorKind::Refused).
    async fn create(&self, spec: &TrainingJobSpec) -> Result<String, CloudError>;
    /// Returns the job's state; `None` when no job of this name exists (AWS answers `ValidationException`, "Requested
    /// resource not found").
    async fn describe(&self, name: &str) -> Result<Option<TrainingJob>, CloudError>;
    /// Like [`TrainingJobs::describe`], without the SDK's retries; for polling loops.
    async fn describe_once(&self, name: &str) -> Result<Option<TrainingJob>, CloudError> {
        self.describe(name).await
    }
    /// The tags of the resource.
    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError>;
    /// Requests a stop. Success when the job has ended already, or does not exist.
    async fn stop(&self, name: &str) -> Result<(), CloudError>;
    /// Names of the newest jobs whose name contains `name_contains` and whose instances wait in a warm pool, newest first: one
    /// request. AWS allows two a second per account: never to poll.
    async fn warm_pools(&self, name_contains: &str) -> Result<Vec<String>, CloudError>;
    /// The jobs in progress whose name contains `name_contains` and that were created in this time, newest first. Slow, because
    /// SageMaker looks through the jobs that have ended too, at two requests a second for the account: never to poll.
    async fn running(&self, name_contains: &str, created: Range<SystemTime>) -> Result<RunningJobs, CloudError>;
}

/// Jobs in progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunningJobs {
    pub jobs: Vec<RunningJob>,
    /// There were so many jobs that the oldest were not looked at.
    pub is_cut: bool,
}

/// A job in progress, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningJob {
    pub name: String,
    pub created: SystemTime,
}

/// The request for a training job. Limits:
/// [`CreateTrainingJob`](https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a member of the request")]
pub struct TrainingJobSpec {
    /// 1..63 characters, `^[a-zA-Z0-9](-*[a-zA-Z0-9])*$`.
    pub name: String,
    pub image: String,
    pub role_arn: String,
    pub entrypoint: Vec<String>,
    pub arguments: Vec<String>,
    /// At most 100 entries of 512 characters; readable by everyone who may describe the job.
    pub environment: BTreeMap<String, String>,
    pub channels: Vec<Channel>,
    /// Values that SageMaker reads from the log.
    pub metrics: Vec<MetricDefinition>,
    /// `s3://...` prefix for the container's `/opt/ml/model` and `/opt/ml/output/data`.
    pub output_uri: String,
    /// The content of `/opt/ml/model` becomes `model.tar.gz`, and that of `output/data` `output.tar.gz`.
    pub compress_output: bool,
    pub output_kms_key_id: Option<String>,
    pub instance_type: String,
    /// Two to five types, each once, in order of preference: SageMaker selects the first with capacity, and `instance_type` is not sent.
    /// Empty: SageMaker does not choose.
    pub preferred_types: Vec<String>,
    pub instance_count: u32,
    /// Instances of several types, in place of type and count.
    pub instance_groups: Vec<InstanceGroup>,
    pub volume_size_gb: u32,
    pub volume_kms_key_id: Option<String>,
    /// Seconds.
    pub max_runtime: u64,
    /// Seconds that SageMaker waits for instances with an accelerator; `None`: as long as it does by itself.
    pub max_pending: Option<u64>,
    /// Seconds of waiting and running together, of a job on spot instances.
    pub spot_max_wait: Option<u64>,
    /// `s3://...` prefix that SageMaker keeps in step with [`CHECKPOINTS_DIR`] of the container.
    pub checkpoints_uri: Option<String>,
    /// Restarts by SageMaker after an internal error, 0 to 30.
    pub retries: u32,
    /// Seconds that the instances stay after the job, for the next one that matches.
    pub keep_alive: u64,
    pub training_plan_arn: Option<String>,
    /// The registry of the image, when it is in the VPC.
    pub vpc_registry: Option<VpcRegistry>,
    pub network: Option<Network>,
    pub encrypt_inter_container_traffic: bool,
    /// SageMaker starts the agent of AWS Systems Manager in the container.
    pub remote_debug: bool,
    /// The containers have no network and no credentials.
    pub is_isolated: bool,
    /// At most 50.
    pub tags: BTreeMap<String, String>,
    /// Sends the request; the caller's own identity does without it.
    pub creator: Option<CreatorSession>,
}

impl TrainingJobSpec {
    /// Whether SageMaker may grant a type with an accelerator.
    pub fn has_accelerators(&self) -> bool {
        let groups = self.instance_groups.iter().map(|group| &group.instance_type);
        let alone = (self.instance_groups.is_empty() && self.preferred_types.is_empty()).then_some(&self.instance_type);
        groups.chain(&self.preferred_types).chain(alone).any(|name| is_accelerated(name))
    }
}

/// The families of which the documentation of `MaxPendingTimeInSeconds` speaks.
pub fn is_accelerated(instance_type: &str) -> bool {
    ["ml.p", "ml.g", "ml.trn"].iter().any(|family| instance_type.starts_with(family))
}

/// A session of an IAM role that sends the request for a training job. SageMaker carries its tags over to the session of the
/// job's own role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatorSession {
    pub role_arn: String,
    /// At most 64 characters, `[\w+=,.@-]*`.
    pub name: String,
    /// At most 50 of 256 characters, `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`.
    pub tags: BTreeMap<String, String>,
}

/// Instances of one type among those of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceGroup {
    /// 1..64 characters.
    pub name: String,
    pub instance_type: String,
    pub count: u32,
}

/// An input channel: `/opt/ml/input/data/<name>/...`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Channel {
    /// 1..64 characters, `^[A-Za-z0-9\.\-_]+$`.
    pub name: String,
    pub source: ChannelSource,
    pub mode: ChannelMode,
    pub content_type: Option<String>,
}

/// Place of a channel's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelSource {
    S3 {
        /// A prefix that ends with `/`; it must hold an object when the job is created.
        uri: String,
        /// Each instance gets a part of the objects, instead of all.
        is_sharded: bool,
    },
    /// The objects that the object at `uri` lists.
    Listed { uri: String },
    /// File mode alone, and only in a VPC.
    FileSystem {
        kind: FileSystemKind,
        /// `fs-` and hex digits, 11 to 21 characters.
        id: String,
        /// Absolute.
        path: String,
        is_writable: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileSystemKind {
    Efs,
    FsxLustre,
}

/// How a channel's data reaches the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ChannelMode {
    /// Copied before the container starts.
    File,
    /// Read-only files whose content is fetched when it is read.
    FastFile,
    /// A named pipe for each pass over the data.
    Pipe,
}

/// A registry in the VPC, for the training image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcRegistry {
    /// Lambda function that gives the credentials of the registry.
    pub credentials_lambda_arn: Option<String>,
}

/// The VPC of the training instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    pub subnets: Vec<String>,
    pub security_group_ids: Vec<String>,
}

/// The fields of `DescribeTrainingJob` that the executor reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingJob {
    pub name: String,
    pub arn: String,
    pub status: JobStatus,
    pub secondary: SecondaryStatus,
    /// Message of the newest transition; for people, never for decisions.
    pub message: Option<String>,
    pub failure_reason: Option<String>,
    /// URIs of its input channels that lie in S3.
    pub input_uris: Vec<String>,
    pub created: Option<SystemTime>,
    /// Types and numbers of its instances; empty until SageMaker has selected one of the preferred types.
    pub instances: Vec<(String, u32)>,
    /// On spot instances.
    pub is_spot: bool,
    /// When the instances were up: the billed time begins.
    pub training_started: Option<SystemTime>,
    pub training_seconds: Option<u64>,
    pub billable_seconds: Option<u64>,
    /// `SecondaryStatusTransitions` in order of time: they show what happened between two polls.
    pub transitions: Vec<Transition>,
    pub pool: PoolProperties,
    /// The job that got the instances of this one from its warm pool.
    pub pool_taken_by: Option<String>,
    /// Billed time of the instances in the warm pool, once it has ended.
    pub pool_seconds: Option<u64>,
}

/// A change of the secondary status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub status: SecondaryStatus,
    pub started: Option<SystemTime>,
    /// For people, never for decisions.
    pub message: Option<String>,
}

/// The properties in which a job must equal the one whose instances it gets from a warm pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolProperties {
    pub role_arn: String,
    /// Empty until SageMaker has selected one of the preferred types.
    pub instance_type: String,
    pub instance_count: u32,
    pub volume_size_gb: u32,
    pub volume_kms_key_id: Option<String>,
    /// Sorted.
    pub subnets: Vec<String>,
    /// Sorted.
    pub security_group_ids: Vec<String>,
    pub encrypts_traffic: bool,
    pub is_isolated: bool,
    /// Tells of a session tag of the creator, whose key SageMaker compares.
    pub has_checkpoints: bool,
}

/// `SecondaryStatus`: the phase of a job, or why it was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum SecondaryStatus {
    Starting,
    LaunchingMLInstances,
    PreparingTrainingStack,
    Downloading,
    DownloadingTrainingImage,
    Training,
    Uploading,
    Stopping,
    Stopped,
    Completed,
    Failed,
    Interrupted,
    Restarting,
    Updating,
    Pending,
    MaxRuntimeExceeded,
    MaxWaitTimeExceeded,
    /// Absent from the service model, but in the service's documentation.
    MaxPendingTimeExceeded,
    /// A value newer than this program.
    #[serde(skip)]
    Other(String),
}

impl From<&str> for SecondaryStatus {
    fn from(text: &str) -> Self {
        let known: Result<Self, serde::de::value::Error> = Self::deserialize(text.into_deserializer());
        known.unwrap_or_else(|_| Self::Other(text.to_owned()))
    }
}

impl fmt::Display for SecondaryStatus {
    /// As SageMaker writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(text) => f.write_str(text),
            known => write!(f, "{known:?}"),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secondary_status_is_read_and_written_as_sagemaker_writes_it() {
        assert_eq!(SecondaryStatus::from("LaunchingMLInstances"), SecondaryStatus::LaunchingMLInstances);
        for text in
            ["Starting", "LaunchingMLInstances", "MaxPendingTimeExceeded", "Levitating", "Other", "starting", ""]
        {
            assert_eq!(SecondaryStatus::from(text).to_string(), text);
        }
        assert_eq!(SecondaryStatus::from("Other"), SecondaryStatus::Other("Other".to_owned()));
    }
}
