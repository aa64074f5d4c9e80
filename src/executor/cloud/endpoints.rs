//! Port of SageMaker's models, endpoint configurations and endpoints. `aws` and `testing` implement it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use super::error::CloudError;

/// The serving side of SageMaker in one account and region. Everything has a name of 1 to 63 letters, digits and hyphens.
#[async_trait]
pub trait ModelEndpoints: Send + Sync {
    /// `None` when it does not exist.
    async fn model(&self, name: &str) -> Result<Option<ServedModel>, CloudError>;
    /// The parts of a model, of all its containers; `None` when it does not exist.
    async fn model_parts(&self, name: &str) -> Result<Option<ModelParts>, CloudError>;
    /// `Exists` when the name is taken.
    async fn create_model(&self, model: &ServedModel) -> Result<(), CloudError>;
    /// One that does not exist is no error.
    async fn delete_model(&self, name: &str) -> Result<(), CloudError>;
    /// `None` when it does not exist.
    async fn config(&self, name: &str) -> Result<Option<EndpointConfiguration>, CloudError>;
    /// `Exists` when the name is taken.
    async fn create_config(&self, config: &EndpointConfiguration) -> Result<(), CloudError>;
    /// One that does not exist is no error. AWS does not refuse to delete one in use: the caller must know.
    async fn delete_config(&self, name: &str) -> Result<(), CloudError>;
    /// Names of configurations that contain this text, newest first: all pages.
    async fn configs(&self, containing: &str) -> Result<Vec<String>, CloudError>;
    /// The models of a configuration; `None` when it does not exist.
    async fn models_of(&self, config: &str) -> Result<Option<ConfigurationModels>, CloudError>;
    /// Models and images of the inference components of an endpoint; none when it has no components or does not exist.
    async fn components(&self, endpoint: &str) -> Result<ComponentParts, CloudError>;
    /// Names of all endpoints: all pages.
    async fn all_endpoints(&self) -> Result<Vec<String>, CloudError>;
    /// Everything of this kind whose name contains the text, newest first: all pages.
    async fn listing(&self, kind: ServedKind, containing: &str) -> Result<Vec<ServingSummary>, CloudError>;
    /// The models that were made after this time, newest first: all pages. Those of the time itself may be missing.
    async fn models_after(&self, time: SystemTime) -> Result<Vec<ServingSummary>, CloudError>;
    /// `None` when it does not exist.
    async fn endpoint(&self, name: &str) -> Result<Option<EndpointSight>, CloudError>;
    /// `Exists` when the name is taken, `Quota` and `Capacity` as their names say.
    async fn create_endpoint(&self, endpoint: &NewEndpoint) -> Result<(), CloudError>;
    /// `Invalid` when a change is under way.
    async fn update_endpoint(&self, change: &EndpointChange) -> Result<(), CloudError>;
    /// One that does not exist is no error.
    async fn delete_endpoint(&self, name: &str) -> Result<(), CloudError>;
    /// Tags of a model, configuration or endpoint, by ARN.
    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError>;
}

/// A kind of resource of the serving side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedKind {
    Model,
    Configuration,
    Endpoint,
}

/// A resource in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingSummary {
    pub name: String,
    pub arn: String,
    pub created: Option<SystemTime>,
    /// Of an endpoint; models and configurations do not change.
    pub modified: Option<SystemTime>,
    /// Of an endpoint.
    pub state: Option<EndpointState>,
}

/// A model of SageMaker (`CreateModel`): to make, or as `DescribeModel` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    pub name: String,
    /// Empty in a request.
    pub arn: String,
    pub source: ModelSource,
    /// Variables of the container.
    pub environment: BTreeMap<String, String>,
    /// ARN of the role that SageMaker assumes.
    pub role: String,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub network_isolation: bool,
    /// Not in what `DescribeModel` says.
    pub tags: BTreeMap<String, String>,
}

/// The names in the containers of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelParts {
    pub images: Vec<String>,
    /// ARNs of versions in a registry.
    pub packages: Vec<String>,
}

/// Models of a configuration, of all its variants, those for shadows too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigurationModels {
    pub names: Vec<String>,
    /// A variant has no model: inference components bring theirs.
    pub lacks_one: bool,
}

/// The names in the inference components of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComponentParts {
    pub models: Vec<String>,
    /// Of components without a model.
    pub images: Vec<String>,
}

/// Origin of a model's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// ARN of a version in the registry. SageMaker takes approved ones alone.
    Package(String),
    Container {
        /// With its digest.
        image: String,
        /// `s3://` URI of a `model.tar.gz`; `None` when the image has the model.
        model_data_url: Option<String>,
    },
    /// More than one container, or a form that this program does not make.
    Other,
}

/// A configuration with one variant: to make, or as `DescribeEndpointConfig` says. It cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfiguration {
    pub name: String,
    /// Empty in a request.
    pub arn: String,
    /// Empty when the configuration has inference components.
    pub model: String,
    pub variant: String,
    pub capacity: VariantCapacity,
    /// Limits of the start of a container on instances, in seconds.
    pub download_timeout_seconds: Option<u32>,
    pub startup_timeout_seconds: Option<u32>,
    /// KMS key of the instances' storage.
    pub kms_key_id: Option<String>,
    pub asynchronous: Option<AsynchronousOutput>,
    /// Number of variants; this program makes one.
    pub variants: usize,
    /// Not in what `DescribeEndpointConfig` says.
    pub tags: BTreeMap<String, String>,
}

/// Instances or serverless containers of a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariantCapacity {
    Instances { instance_type: String, count: u32 },
    Serverless { memory_mb: u32, max_concurrency: u32, provisioned_concurrency: Option<u32> },
}

/// Places of the answers of an asynchronous endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsynchronousOutput {
    /// `s3://` URI of a prefix.
    pub output: String,
    /// `s3://` URI of a prefix for what failed.
    pub failures: Option<String>,
    pub max_concurrent: Option<u32>,
    pub kms_key_id: Option<String>,
}

/// An endpoint to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEndpoint {
    pub name: String,
    pub config: String,
    pub tags: BTreeMap<String, String>,
}

/// An update of an endpoint to another configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointChange {
    pub name: String,
    pub config: String,
    /// `RetainAllVariantProperties`: keeps the number of instances that autoscaling has set.
    pub keeps_counts: bool,
    /// `None` for serverless endpoints, which have no guardrails: SageMaker's own way.
    pub rollout: Option<RolloutSpec>,
}

/// How traffic moves (`DeploymentConfig`), and what takes it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSpec {
    pub traffic: TrafficShift,
    /// Limit that SageMaker keeps, from 600 to 28800 seconds.
    pub limit_seconds: u32,
    /// Names of alarms, at most ten.
    pub alarms: Vec<String>,
}

/// A way of moving traffic. Waits are in seconds, sizes in percent of the variant's instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficShift {
    AllAtOnce { wait: u32, termination_wait: u32 },
    Canary { percent: u32, wait: u32, termination_wait: u32 },
    Linear { percent: u32, wait: u32, termination_wait: u32 },
    Rolling { percent: u32, wait: u32 },
}

/// An endpoint as `DescribeEndpoint` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSight {
    pub name: String,
    pub arn: String,
    pub state: EndpointState,
    /// The configuration in service.
    pub config: String,
    pub variants: Vec<VariantSight>,
    /// The configuration of the deployment that is under way.
    pub pending_config: Option<String>,
    pub pending_variants: Vec<VariantSight>,
    /// Images of all variants, of the pending and the shadow ones too, as they were named and by digest. None before they are deployed.
    pub images: Vec<String>,
    /// AWS's words about the last failure.
    pub failure: Option<String>,
    pub created: Option<SystemTime>,
    pub modified: Option<SystemTime>,
}

/// The value of `EndpointStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    OutOfService,
    Creating,
    Updating,
    SystemUpdating,
    RollingBack,
    InService,
    Deleting,
    Failed,
    UpdateRollbackFailed,
    /// A value that this program does not know.
    Unknown,
}

impl EndpointState {
    /// The word of AWS.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfService => "OutOfService",
            Self::Creating => "Creating",
            Self::Updating => "Updating",
            Self::SystemUpdating => "SystemUpdating",
            Self::RollingBack => "RollingBack",
            Self::InService => "InService",
            Self::Deleting => "Deleting",
            Self::Failed => "Failed",
            Self::UpdateRollbackFailed => "UpdateRollbackFailed",
            Self::Unknown => "unknown",
        }
    }

    /// AWS changes the endpoint at this time, and takes no other change.
    pub fn is_changing(self) -> bool {
        matches!(
            self,
            Self::Creating | Self::Updating | Self::SystemUpdating | Self::RollingBack | Self::Deleting | Self::Unknown
        )
    }
}

/// A variant of an endpoint at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantSight {
    pub name: String,
    pub current_instances: Option<u32>,
    pub desired_instances: Option<u32>,
    /// Last status with AWS's message: `Baking`, `ActivatingTraffic: ...`.
    pub status: Option<String>,
}
