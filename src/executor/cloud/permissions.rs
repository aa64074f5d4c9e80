//! Port of simulations of policies: which actions a user or role may do. `aws` and `testing` implement it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::error::CloudError;

/// Policies of the account's users and roles.
#[async_trait]
pub trait Permissions: Send + Sync {
    /// The pairs of action and resource of the question that the policies of `principal` do not allow. Policies of resources and of the
    /// organization are not all asked.
    async fn denied(&self, principal: &str, question: &PermissionQuestion) -> Result<Vec<DeniedAction>, CloudError>;
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

/// An action on a resource that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedAction {
    pub action: String,
    pub resource: String,
    pub why: DenialReason,
}

/// The kind of policy that an action fails by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenialReason {
    /// No statement allows it.
    NoStatement,
    /// Statements with `Deny` forbid it, in the policies of these names.
    Statement { policies: Vec<String> },
    /// The permissions boundary of the user or role does not allow it.
    Boundary,
    /// A policy of the organization does not allow it.
    Organization,
}
