//! Ports to AWS: one trait per capability with its types, and [`CloudError`].
//!
//! Stages, session and agent know only these traits, and take the ports that they use. Package `aws` implements them
//! over the AWS SDK, `testing` has fakes with fault plans. Every method but the ones that say otherwise retries
//! transient faults (the SDK's own retries); callers decide about other errors by [`CloudErrorKind`].

mod access;
mod alarms;
mod connect;
mod ended_jobs;
mod endpoint_logs;
mod endpoints;
mod error;
mod identity;
mod images;
mod inference;
mod input_data;
mod jobs;
mod logs;
mod objects;
mod quotas;
mod registry;
mod roles;
mod scaling;
mod source_objects;
mod stored_images;
mod survey;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use access::{Access, SettingsFile, WebIdentity};
pub use alarms::{AlarmMetric, AlarmSight, AlarmState, EndpointAlarm, MetricAlarms};
pub use connect::Connect;
pub use ended_jobs::{EndedJob, EndedJobs};
pub use endpoint_logs::EndpointLogs;
pub use endpoints::{
    AsynchronousOutput, EndpointChange, EndpointConfiguration, EndpointSight, EndpointState, ModelEndpoints,
    ModelSource, NewEndpoint, RolloutSpec, ServedKind, ServedModel, ServingSummary, TrafficShift, VariantCapacity,
    VariantSight,
};
pub use error::{CloudError, CloudErrorKind, Parameter};
pub use identity::CallerIdentity;
pub use images::ImageRegistry;
pub use inference::{AsynchronousPlaces, AsynchronousRequest, Inference, InferenceReply, InferenceRequest};
pub use input_data::{InputData, InputPrefix};
pub use jobs::{
    CHECKPOINTS_DIR, Channel, ChannelMode, ChannelSource, CreatorSession, FileSystemKind, InstanceGroup, JobStatus,
    Network, PoolProperties, RunningJob, RunningJobs, SecondaryStatus, TrainingJob, TrainingJobSpec, TrainingJobs,
    Transition, VpcRegistry, is_accelerated,
};
pub use logs::{FILTER_STREAMS, FilterPage, JobLogs, LogClient, LogEvent, StreamPage};
pub use objects::{Content, Listed, MOST_BYTES, ObjectStore, Retention, Sha256Hash, StoredHash, VersionExpiration};
pub use quotas::AccountQuotas;
pub use registry::{
    Approval, GroupSpec, ModelRegistry, ModelVersion, ModelVersionPage, RegistrationState, StoredMetrics,
    VersionChange, VersionSpec, VersionSummary,
};
pub use roles::{AccountRole, AccountRoles};
pub use scaling::{EndpointScaling, ScalableTarget, ScaledQuantity, ScaledVariant, ScalingPolicy, ScalingPolicyKind};
pub use source_objects::{SourceObject, SourceObjects};
pub use stored_images::{MOST_DELETED_IMAGES, StoredImage, StoredImages};
pub use survey::{ObjectSurvey, SurveyPage};
