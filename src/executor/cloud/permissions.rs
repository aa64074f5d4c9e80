//! Port of simulations of policies: which actions a user or role may do. `aws` and `testing` implement it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::error::CloudError;

/// Policies of the account's users and roles.
#[async_trait]
pub trait Permissions: Send + Sync {
    /// The pairs of action and resource of the question that the policies of `principal` do not allow. Policies of resources and of the
    /// organization are not all asked.
    async fn denied(&self, principal: &str, question: &PermissionQuestion)
    -> Result<Vec<(String, String)>, CloudError>;
}

/// Actions on resources, in one context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermissionQuestion {
    pub actions: Vec<String>,
    /// ARNs, or `*`.
    pub resources: Vec<String>,
    /// Condition keys with their types, as IAM's simulator names these (`string`, `stringList`, `numeric`, `boolean`), and values.
    pub context: BTreeMap<String, (&'static str, Vec<String>)>,
}
