//! Port of the output of endpoints' containers in CloudWatch Logs. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// The group `/aws/sagemaker/Endpoints/NAME`.
#[async_trait]
pub trait EndpointLogs: Send + Sync {
    /// The last lines of the container that began last, at most so many; none when the group or a stream does not exist.
    async fn last_lines(&self, endpoint: &str, most: usize) -> Result<Vec<String>, CloudError>;
}
