//! The part of the manifest about builds of images in CodeBuild. Its doc comments are descriptions in the JSON schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const ROLE: &str = "^arn:aws[a-z-]*:iam::[0-9]{12}:role/[a-zA-Z_0-9+=,.@/-]+$";
/// Names of projects (`ProjectName`).
const PROJECT: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{1,149}$";
/// A part of a project's name, and the value of a tag.
const PART: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";
const COMPUTE_TYPE: &str = "^BUILD_GENERAL1_(SMALL|MEDIUM|LARGE|XLARGE|2XLARGE)$";
const LOG_GROUP: &str = "^[.\\-_/#A-Za-z0-9]+$";
const VPC: &str = "^vpc-[0-9a-zA-Z]{1,25}$";
/// Id or ARN of a secret, and behind `#` one of its fields.
const SECRET: &str = "^[^#\\s]+(#[^#\\s]+)?$";
/// Minutes that CodeBuild takes (`timeoutInMinutes`, `queuedTimeoutInMinutes`).
const SHORTEST: u32 = 5;
const LONGEST: u32 = 480;

/// Builds in CodeBuild: the project in AWS, which the command makes, and its machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CodeBuildEntry {
    /// Role of the builds, in the environment's account: it reads the source, writes the log and pushes the image.
    #[schemars(regex(pattern = ROLE))]
    pub role: Option<String>,
    /// Name of the project in CodeBuild; of client, product and version when absent, else of GitLab's project.
    #[schemars(regex(pattern = PROJECT))]
    pub project: Option<String>,
    /// Client for whom the image is: a part of the project's name, and a tag.
    #[schemars(regex(pattern = PART), length(max = 60))]
    pub client: Option<String>,
    /// Product that the image is a part of: a part of the project's name, and a tag.
    #[schemars(regex(pattern = PART), length(max = 60))]
    pub product: Option<String>,
    /// Version of the product's model: a part of the project's name, and a tag.
    #[schemars(regex(pattern = PART), length(max = 28))]
    pub version: Option<String>,
    /// Buildspec in the source; one for the Dockerfile when absent.
    #[schemars(length(min = 1, max = 1024))]
    pub buildspec: Option<String>,
    /// Image in which the commands run.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Machine: `BUILD_GENERAL1_SMALL` to `BUILD_GENERAL1_2XLARGE`.
    #[schemars(regex(pattern = COMPUTE_TYPE))]
    pub compute_type: String,
    /// The build may start containers and mount file systems, which docker and buildah need.
    pub privileged: bool,
    /// Most minutes of a build, from 5 to 480.
    #[schemars(range(min = SHORTEST, max = LONGEST))]
    pub timeout_minutes: u32,
    /// Most minutes that a build waits for a machine, from 5 to 480.
    #[schemars(range(min = SHORTEST, max = LONGEST))]
    pub queued_timeout_minutes: u32,
    /// Log group; `/aws/codebuild/` and the project's name when absent.
    #[schemars(regex(pattern = LOG_GROUP), length(min = 1, max = 512))]
    pub log_group: Option<String>,
    /// VPC of the environment's `subnets` and `security_groups`, in which builds run; AWS's own network when absent.
    #[schemars(regex(pattern = VPC))]
    pub vpc: Option<String>,
    /// Variables from Secrets Manager: `id#field`, or `id` for the whole, by the name of the variable. CodeBuild reads them by the role.
    #[schemars(schema_with = "secrets")]
    pub secrets: BTreeMap<String, String>,
}

impl Default for CodeBuildEntry {
    fn default() -> Self {
        Self {
            role: None,
            project: None,
            client: None,
            product: None,
            version: None,
            buildspec: None,
            image: "aws/codebuild/amazonlinux-x86_64-standard:5.0".to_owned(),
            compute_type: "BUILD_GENERAL1_SMALL".to_owned(),
            privileged: true,
            timeout_minutes: 60,
            queued_timeout_minutes: 60,
            log_group: None,
            vpc: None,
            secrets: BTreeMap::new(),
        }
    }
}

impl CodeBuildEntry {
    /// Builds run on ARM processors: AWS's own images name theirs.
    pub(crate) fn is_arm(&self) -> bool {
        self.image.contains("aarch64")
    }
}

fn secrets(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
        "additionalProperties": {"type": "string", "pattern": SECRET}
    })
}
