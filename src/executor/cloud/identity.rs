//! Port of the identity behind the credentials. `aws` and `testing` implement it.

use std::time::SystemTime;

use async_trait::async_trait;

use super::error::CloudError;

/// The caller of AWS, as AWS knows it.
#[async_trait]
pub trait CallerIdentity: Send + Sync {
    /// ARN of the user, or of the session of a role. Needs no permission.
    async fn arn(&self) -> Result<String, CloudError>;

    /// The credentials in use, without any part of them.
    async fn credentials(&self) -> Result<CredentialSight, CloudError>;
}

/// Credentials, without any part of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialSight {
    /// End of their validity; `None` when they hold until they are taken back, or when nobody tells.
    pub expires: Option<SystemTime>,
    /// They belong to a session, and a later one needs others.
    pub is_session: bool,
    /// Region of the requests.
    pub region: String,
}
