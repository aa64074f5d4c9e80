//! Port of Application Auto Scaling for variants of endpoints. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// Scalable targets and policies of endpoints' variants.
#[async_trait]
pub trait EndpointScaling: Send + Sync {
    /// `None` when the variant is not scaled.
    async fn target(&self, variant: &ScaledVariant) -> Result<Option<ScalableTarget>, CloudError>;
    /// Makes or changes it.
    async fn register(&self, variant: &ScaledVariant, target: &ScalableTarget) -> Result<(), CloudError>;
    /// Removes it, with its policies. One that does not exist is no error.
    async fn deregister(&self, variant: &ScaledVariant) -> Result<(), CloudError>;
    async fn policies(&self, variant: &ScaledVariant) -> Result<Vec<ScalingPolicy>, CloudError>;
    /// Makes or changes it, by its name.
    async fn put_policy(&self, variant: &ScaledVariant, policy: &ScalingPolicy) -> Result<(), CloudError>;
    /// One that does not exist is no error.
    async fn delete_policy(&self, variant: &ScaledVariant, name: &str) -> Result<(), CloudError>;
}

/// A variant, and its quantity that is scaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaledVariant {
    pub endpoint: String,
    pub variant: String,
    pub quantity: ScaledQuantity,
}

impl ScaledVariant {
    /// `endpoint/NAME/variant/NAME`.
    pub fn resource_id(&self) -> String {
        format!("endpoint/{}/variant/{}", self.endpoint, self.variant)
    }
}

/// The value of `ScalableDimension`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScaledQuantity {
    Instances,
    /// Of a serverless variant.
    ProvisionedConcurrency,
}

impl ScaledQuantity {
    /// The word of AWS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instances => "sagemaker:variant:DesiredInstanceCount",
            Self::ProvisionedConcurrency => "sagemaker:variant:DesiredProvisionedConcurrency",
        }
    }
}

/// Limits of the quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalableTarget {
    pub min: u32,
    pub max: u32,
}

/// A policy of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingPolicy {
    pub name: String,
    pub kind: ScalingPolicyKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ScalingPolicyKind {
    /// Target tracking with a predefined metric of AWS: `SageMakerVariantInvocationsPerInstance`.
    Tracking { metric: String, target: f64, scale_in_cooldown: Option<u32>, scale_out_cooldown: Option<u32> },
    /// Steps, or a metric of the user's own: this program does not make such ones, and cannot put them back.
    Other,
}
