//! The image that the project builds, as the manifest has it. Its doc comments are descriptions in the JSON schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::code_build::CodeBuildEntry;

/// Names of repositories in ECR (`RepositoryName`).
const REPOSITORY: &str = "^([a-z0-9]+([._-]+[a-z0-9]+)*/)*[a-z0-9]+([._-]+[a-z0-9]+)*$";
/// A tag with names in braces, whose values the command puts in.
const TAG_FORMAT: &str = "^([a-zA-Z0-9_.-]|\\{(sha|short_sha|pipeline|pipeline_iid|branch|tag)\\})+$";
const VARIABLE_NAME: &str = "^[a-zA-Z_][a-zA-Z0-9_]*$";

/// The image that the project builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// Repository in the registry of the environment's account, as `team/train`. It exists.
    #[schemars(regex(pattern = REPOSITORY), length(min = 2, max = 256))]
    pub repository: String,
    /// The Dockerfile, relative to the manifest.
    #[serde(default = "dockerfile")]
    #[schemars(length(min = 1))]
    pub dockerfile: String,
    /// Folder whose files the Dockerfile may copy, relative to the manifest.
    #[serde(default = "context")]
    #[schemars(length(min = 1))]
    pub context: String,
    /// Stage of the Dockerfile that becomes the image; the last one when absent.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub target: Option<String>,
    /// Arguments of the Dockerfile, as `BASE_IMAGE`. They are in the image's history: no secrets.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// Secrets of `RUN --mount=type=secret`: the variable that holds each, by its id.
    #[serde(default)]
    #[schemars(schema_with = "secrets")]
    pub secrets: BTreeMap<String, String>,
    /// Tags by format: `{sha}`, `{short_sha}`, `{pipeline}`, `{pipeline_iid}`, `{branch}` and `{tag}` stand for values of the job. At most 20.
    #[serde(default = "tag_formats")]
    #[schemars(length(max = 20), inner(regex(pattern = TAG_FORMAT), length(max = 128)))]
    pub tags: Vec<String>,
    /// Builder: `buildah` in the job, or `codebuild` in AWS.
    #[serde(default)]
    pub builder: ImageBuilder,
    /// Repository that keeps the layers of earlier builds. It exists, and its tags can be moved.
    #[serde(default)]
    #[schemars(regex(pattern = REPOSITORY), length(min = 2, max = 256))]
    pub cache: Option<String>,
    /// Builds in CodeBuild.
    #[serde(default)]
    pub codebuild: CodeBuildEntry,
    /// Most MiB of the context, from 1 to 10240.
    #[serde(default = "context_limit_mb")]
    #[schemars(range(min = 1, max = 10240))]
    pub context_limit_mb: u32,
    /// Most files of the context, from 1 to 1000000.
    #[serde(default = "context_limit_files")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub context_limit_files: u32,
}

impl Default for ImageEntry {
    fn default() -> Self {
        Self {
            repository: String::new(),
            dockerfile: dockerfile(),
            context: context(),
            target: None,
            args: BTreeMap::new(),
            secrets: BTreeMap::new(),
            tags: tag_formats(),
            builder: ImageBuilder::default(),
            cache: None,
            codebuild: CodeBuildEntry::default(),
            context_limit_mb: context_limit_mb(),
            context_limit_files: context_limit_files(),
        }
    }
}

fn dockerfile() -> String {
    "Dockerfile".to_owned()
}

fn context() -> String {
    ".".to_owned()
}

fn tag_formats() -> Vec<String> {
    vec!["{short_sha}".to_owned()]
}

fn context_limit_mb() -> u32 {
    512
}

fn context_limit_files() -> u32 {
    50_000
}

fn secrets(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "additionalProperties": {"type": "string", "pattern": VARIABLE_NAME}})
}

/// Builder of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ImageBuilder {
    #[default]
    Buildah,
    Codebuild,
}
