//! Port of builds of images outside of the job: CodeBuild projects and builds. `aws` and `testing` implement it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::error::CloudError;

/// CodeBuild of the caller's account and region.
#[async_trait]
pub trait ImageBuilds: Send + Sync {
    /// The project of this name; `None` when there is none.
    async fn project(&self, name: &str) -> Result<Option<BuildProject>, CloudError>;

    /// # Errors
    /// [`Exists`](super::CloudErrorKind::Exists) when a project has the name.
    async fn create_project(&self, project: &BuildProject) -> Result<(), CloudError>;

    /// Replaces everything that a [`BuildProject`] has.
    async fn update_project(&self, project: &BuildProject) -> Result<(), CloudError>;

    /// Starts a build and gives back its id; the same build when the token was used in the last five minutes.
    async fn start(&self, request: &BuildRequest) -> Result<String, CloudError>;

    /// The newest builds of a project, at most so many of a hundred, the newest first.
    async fn newest(&self, project: &str, most: usize) -> Result<Vec<BuildSight>, CloudError>;

    /// The build of an id; `None` when there is none.
    async fn sight(&self, id: &str) -> Result<Option<BuildSight>, CloudError>;

    /// Stops a build; one that has ended is no error.
    async fn stop(&self, id: &str) -> Result<(), CloudError>;

    /// One page of a build's log from the begin, or from where the token says; empty when the stream does not exist yet.
    async fn log(&self, place: &BuildLog, token: Option<&str>) -> Result<BuildLogPage, CloudError>;
}

/// A project as it should be, or as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildProject {
    pub name: String,
    pub description: String,
    /// `BUCKET/KEY` of a zip file; each build has its own.
    pub source: String,
    /// The text of a buildspec, or its path in the source.
    pub buildspec: String,
    /// Image in which builds run.
    pub image: String,
    /// The service role pulls the image; else CodeBuild does.
    pub pulls_by_role: bool,
    /// `LINUX_CONTAINER` or `ARM_CONTAINER`.
    pub environment_type: String,
    /// `BUILD_GENERAL1_SMALL`
    pub compute_type: String,
    pub is_privileged: bool,
    pub variables: BTreeMap<String, BuildVariable>,
    /// ARN.
    pub service_role: String,
    pub timeout_minutes: u32,
    pub queued_timeout_minutes: u32,
    /// AWS's own key for S3 when `None`.
    pub kms_key: Option<String>,
    pub network: Option<BuildNetwork>,
    /// Log group; `/aws/codebuild/NAME` when `None`.
    pub log_group: Option<String>,
    pub tags: BTreeMap<String, String>,
}

/// The value of a variable of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildVariable {
    /// Everybody who may look at the project reads it.
    Plain(String),
    /// Secrets Manager: `ID`, `ID:FIELD`.
    Secret(String),
}

/// Network of a project's builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildNetwork {
    pub vpc: String,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
}

/// A build to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    pub project: String,
    /// At most 64 characters.
    pub token: String,
    /// `BUCKET/KEY`
    pub source: String,
    /// Over those of the project.
    pub variables: BTreeMap<String, String>,
}

/// A build as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSight {
    /// `PROJECT:UUID`
    pub id: String,
    pub number: Option<u64>,
    pub state: BuildState,
    /// The phases that have begun, in their order.
    pub phases: Vec<BuildPhase>,
    pub source: String,
    /// The plain variables of the build.
    pub variables: BTreeMap<String, String>,
    /// `None` while the build has no log.
    pub log: Option<BuildLog>,
}

/// State of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildState {
    Running,
    Succeeded,
    Failed,
    /// A fault of CodeBuild.
    Fault,
    TimedOut,
    Stopped,
}

/// One phase of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildPhase {
    /// `DOWNLOAD_SOURCE`
    pub name: String,
    /// `None` while it runs.
    pub has_succeeded: Option<bool>,
    pub seconds: Option<u64>,
    /// Code and message of each reason.
    pub reasons: Vec<String>,
}

/// Group and stream of a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLog {
    pub group: String,
    pub stream: String,
}

/// One page of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildLogPage {
    pub messages: Vec<String>,
    /// From where the next page goes on; the same as before at the end of the log.
    pub token: Option<String>,
}
