//! Ports to AWS: one trait per capability with its types, and [`CloudError`].
//!
//! Stages, session and agent know only these traits, and take the ports that they use. Package `aws` implements them
//! over the AWS SDK, `testing` has fakes with fault plans. Every method but the ones that say otherwise retries
//! transient faults (the SDK's own retries); callers decide about other errors by [`CloudErrorKind`].

mod access;
mod alarms;
mod bucket_configuration;
mod builds;
mod connect;
mod encryption_keys;
mod ended_jobs;
mod endpoint_logs;
mod endpoints;
mod error;
mod identity;
mod image_scans;
mod images;
mod inference;
mod input_data;
mod jobs;
mod logs;
mod networks;
mod objects;
mod permissions;
mod quotas;
mod registry;
mod repository_images;
mod roles;
mod scaling;
mod secrets;
mod source_objects;
mod survey;
mod tagged_images;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use access::{Access, EndpointKind, SettingsFile, TokenClaims, WebIdentity};
pub use alarms::{AlarmMetric, AlarmSight, AlarmState, EndpointAlarm, MetricAlarms};
pub use bucket_configuration::{BucketConfiguration, BucketEncryption, ExpiringPrefix};
pub use builds::{
    BuildLog, BuildLogPage, BuildNetwork, BuildPhase, BuildProject, BuildRequest, BuildSight, BuildState,
    BuildVariable, ImageBuilds,
};
pub use connect::Connect;
pub use encryption_keys::{EncryptionKeys, KeySight};
pub use ended_jobs::{EndedJob, EndedJobs};
pub use endpoint_logs::EndpointLogs;
pub use endpoints::{
    AsynchronousOutput, ComponentParts, ConfigurationModels, EndpointChange, EndpointConfiguration, EndpointSight,
    EndpointState, ModelEndpoints, ModelParts, ModelSource, NewEndpoint, RolloutSpec, ServedKind, ServedModel,
    ServingSummary, TrafficShift, VariantCapacity, VariantSight,
};
pub use error::{CloudError, CloudErrorKind, Parameter};
pub use identity::{CallerIdentity, CredentialSight};
pub use image_scans::{ImageScans, ScanFinding, ScanSight};
pub use images::ImageRegistry;
pub use inference::{AsynchronousPlaces, AsynchronousRequest, Inference, InferenceReply, InferenceRequest};
pub use input_data::{InputData, InputPrefix};
pub use jobs::{
    CHECKPOINTS_DIR, Channel, ChannelMode, ChannelSource, CreatorSession, FileSystemKind, InstanceGroup, JobStatus,
    Network, PoolProperties, RunningJob, RunningJobs, SecondaryStatus, TrainingJob, TrainingJobSpec, TrainingJobs,
    Transition, VpcRegistry, is_accelerated,
};
pub use logs::{FILTER_STREAMS, FilterPage, JobLogs, LogClient, LogEvent, StreamPage};
pub use networks::{AccountNetworks, RouteTableSight, SecurityGroupSight, SubnetSight, VpcEndpointSight};
pub use objects::{Content, Listed, MOST_BYTES, ObjectStore, Retention, Sha256Hash, StoredHash, VersionExpiration};
pub use permissions::{DenialReason, DeniedAction, PermissionQuestion, Permissions};
pub use quotas::AccountQuotas;
pub use registry::{
    Approval, GroupSpec, ModelRegistry, ModelVersion, ModelVersionPage, RegistrationState, StoredMetrics,
    VersionChange, VersionSpec, VersionSummary,
};
pub use repository_images::{MOST_DELETED_IMAGES, RepositoryImage, RepositoryImages};
pub use roles::{AccountRole, AccountRoles};
pub use scaling::{EndpointScaling, ScalableTarget, ScaledQuantity, ScaledVariant, ScalingPolicy, ScalingPolicyKind};
pub use secrets::{SecretContent, SecretStore, StoredSecret};
pub use source_objects::{SourceObject, SourceObjects};
pub use survey::{ObjectSurvey, SurveyPage};
pub use tagged_images::{ImageRepositorySight, RegistryLogin, StoredImage, TaggedImages};
