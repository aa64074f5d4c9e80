//! Port of SageMaker's model registry: groups, and the versions in them. `aws` and `testing` implement it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use super::error::CloudError;

/// The model package groups of one account and region. Groups are given by name, versions by ARN.
#[async_trait]
pub trait ModelRegistry: Send + Sync {
    /// ARN of the group; `None` when it does not exist.
    async fn group(&self, name: &str) -> Result<Option<String>, CloudError>;
    /// Makes the group, and returns its ARN. A group that exists is an error of an unspecified kind: AWS has no code for it.
    async fn create_group(&self, group: &GroupSpec) -> Result<String, CloudError>;
    /// One page of the group's versions, newest first: all, or those with this approval. A group that does not exist has none.
    async fn versions(
        &self,
        group: &str,
        approval: Option<Approval>,
        page: Option<String>,
    ) -> Result<ModelVersionPage, CloudError>;
    /// The versions of all groups of the account, and packages without a group, which have the number 0; those that were made after this
    /// time, of which those of the time itself may be missing. Newest first: all pages.
    async fn all_versions(&self, after: Option<SystemTime>) -> Result<Vec<VersionSummary>, CloudError>;
    /// `None` when it does not exist.
    async fn version(&self, arn: &str) -> Result<Option<ModelVersion>, CloudError>;
    /// Makes a version, which waits for approval, and returns its ARN. The same token with the same content is the same version.
    async fn create_version(&self, version: &VersionSpec) -> Result<String, CloudError>;
    /// Deletes a version; it cannot be brought back. One that does not exist is no error.
    async fn delete_version(&self, arn: &str) -> Result<(), CloudError>;
    /// Changes a version. `Exists` when another change is under way. Metadata that is not sent may be lost.
    async fn update_version(&self, arn: &str, change: &VersionChange) -> Result<(), CloudError>;
}

/// A group to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    pub name: String,
    pub description: Option<String>,
    pub tags: BTreeMap<String, String>,
}

/// A version to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSpec {
    pub group: String,
    /// 36 letters, digits and hyphens.
    pub client_token: String,
    pub description: String,
    /// Image of the serving container, with its digest.
    pub image: String,
    pub model_data_url: String,
    /// Variables of the serving container.
    pub environment: BTreeMap<String, String>,
    pub content_types: Vec<String>,
    pub response_types: Vec<String>,
    pub instance_types: Vec<String>,
    pub metrics: Option<StoredMetrics>,
    pub commit: Option<String>,
    pub repository: Option<String>,
    pub generated_by: Option<String>,
    pub project: Option<String>,
    /// Lineage and approvals, by name.
    pub metadata: BTreeMap<String, String>,
}

/// A file of metrics in the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMetrics {
    pub uri: String,
    pub content_type: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

/// Whether a version may go live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    Pending,
    Approved,
    Rejected,
}

impl Approval {
    /// The word of AWS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PendingManualApproval",
            Self::Approved => "Approved",
            Self::Rejected => "Rejected",
        }
    }
}

/// How far SageMaker has come with a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationState {
    UnderWay,
    Completed,
    /// With AWS's words.
    Failed(String),
    Deleting,
}

/// A version in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSummary {
    pub arn: String,
    pub number: u32,
    pub description: String,
    pub state: RegistrationState,
    pub approval: Approval,
    pub created: Option<SystemTime>,
}

/// A part of a list, and the token of the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelVersionPage {
    pub versions: Vec<VersionSummary>,
    pub next: Option<String>,
}

/// A version, as AWS describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVersion {
    pub arn: String,
    pub group: String,
    pub number: u32,
    pub description: String,
    pub state: RegistrationState,
    pub approval: Approval,
    pub approval_description: String,
    pub created: Option<SystemTime>,
    /// Image of the first container, as AWS gives it.
    pub image: String,
    pub image_digest: Option<String>,
    /// Images of all containers, also of additional specifications: as AWS gives them, and by digest where it knows that.
    pub images: Vec<String>,
    pub model_data_url: String,
    /// Variables of the first container.
    pub environment: BTreeMap<String, String>,
    pub metrics: Option<StoredMetrics>,
    pub metadata: BTreeMap<String, String>,
}

/// Changes of a version; what is `None` or not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionChange {
    pub approval: Option<Approval>,
    /// At most 1024 characters in one line.
    pub approval_description: Option<String>,
    /// All records, not only the changed ones: AWS adds them to the others, other registries replace these.
    pub metadata: BTreeMap<String, String>,
}
