//! Port of the identity behind the credentials. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// The caller of AWS, as AWS knows it.
#[async_trait]
pub trait CallerIdentity: Send + Sync {
    /// ARN of the user, or of the session of a role. Needs no permission.
    async fn arn(&self) -> Result<String, CloudError>;
}
