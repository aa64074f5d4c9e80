//! Port of the account's quotas. `aws` and `testing` implement it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::error::CloudError;

/// Quotas of SageMaker.
#[async_trait]
pub trait AccountQuotas: Send + Sync {
    /// How many instances of the type all endpoints may have together; `None` when Service Quotas does not list it.
    async fn endpoint_instances(&self, instance_type: &str) -> Result<Option<f64>, CloudError>;

    /// All quotas of SageMaker by their names, such as `ml.m5.large for training job usage`.
    async fn all(&self) -> Result<BTreeMap<String, f64>, CloudError>;
}
