//! Port of the roles of an account. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// Roles, and what policies say about handing them on.
#[async_trait]
pub trait AccountRoles: Send + Sync {
    /// The role of this name; `None` when the account has none.
    async fn find(&self, name: &str) -> Result<Option<AccountRole>, CloudError>;

    /// Whether policies allow the user or role `caller` to pass the role to SageMaker.
    async fn may_pass(&self, caller: &str, role: &str) -> Result<bool, CloudError>;
}

/// A role, and who may assume it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRole {
    /// With the path, which the ARN of a session lacks.
    pub arn: String,
    /// The trust policy, as JSON.
    pub trust: String,
}
