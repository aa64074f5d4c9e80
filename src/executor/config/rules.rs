//! The operator's rules: which jobs may have what. The first rule that matches a job decides.
//!
//! A rule matches on the trusted payload alone. The file of `[[rules]]` is checked in `check`, and `policy` applies it.

use globset::{Glob, GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// One entry of `[[rules]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// Name that refusals and the audit log give; unique in the file.
    pub name: String,
    /// The jobs that the rule is for; all jobs when it is absent.
    #[serde(default, rename = "match")]
    pub jobs: JobMatch,
    /// The values that these jobs may have, besides the defaults of `[job]`.
    #[serde(default)]
    pub allow: Allowance,
}

/// Conditions on the payload; all that are given must hold, and of a list one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobMatch {
    /// Globs on the project's full path, such as `ml/churn`, `ml/*` (one level), `ml/**` (any depth). Case is ignored.
    #[serde(deserialize_with = "filled")]
    #[schemars(length(min = 1))]
    pub projects: Vec<String>,
    /// Full paths of groups; their projects at any depth match. Globs; case is ignored.
    #[serde(deserialize_with = "filled")]
    #[schemars(length(min = 1))]
    pub namespaces: Vec<String>,
    /// Globs on the branch or tag, such as `main`, `release/*`; `refs/merge-requests/**` for merge requests.
    #[serde(deserialize_with = "filled")]
    #[schemars(length(min = 1))]
    pub refs: Vec<String>,
    /// Whether the ref is protected. A GitLab before 18.3 does not tell, which counts as unprotected.
    pub protected: Option<bool>,
    /// Whether the job belongs to a merge request from another project.
    pub fork: Option<bool>,
    /// Hosts of GitLab instances, as in the clone URL: `gitlab.example.com`, `gitlab.example.com:8443`.
    #[serde(deserialize_with = "filled")]
    #[schemars(length(min = 1))]
    pub instances: Vec<String>,
}

/// Bounds of a job's request. A key that is absent leaves the default of `[job]` as the only value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Allowance {
    /// Globs, such as `ml.g5.*`.
    pub instance_types: Option<Vec<String>>,
    pub max_instance_count: Option<u32>,
    pub max_volume_size_gb: Option<u32>,
    pub max_runtime_seconds: Option<u64>,
    /// Jobs of the rule at once on this runner host.
    pub max_jobs: Option<u32>,
    /// ARNs of roles. The first one is the default of the rule's jobs, in place of `job.role_arn`.
    pub roles: Option<Vec<String>>,
    /// Globs on the whole name of the image, or on its repository, without tag and digest. All images when absent.
    pub images: Option<Vec<String>>,
    /// Images named by a tag instead of a digest.
    pub image_tags: Option<ImageTags>,
    /// Subnets and security groups in place of those of `[job]`.
    pub subnets: Option<Vec<String>>,
    pub security_group_ids: Option<Vec<String>>,
    /// Globs on the names that `SAGEMAKER_ENV_*` may set. All when absent, but never `AWS_*` and `LD_*`.
    pub environment: Option<Vec<String>>,
    /// Regions in which the jobs may run.
    pub regions: Option<Vec<String>>,
    /// Largest cost of a job: instances × price of an hour in `[prices]` × longest run time and keep-alive.
    pub max_cost: Option<f64>,
    /// Spot instances.
    pub spot: Option<Choice>,
    /// Checkpoints in the executor's bucket.
    pub checkpoints: Option<Choice>,
    /// Containers without a network.
    pub network_isolation: Option<Choice>,
    pub max_retries: Option<u32>,
    pub max_keep_alive_seconds: Option<u64>,
    /// Globs on ARNs.
    pub training_plans: Option<Vec<String>>,
    pub max_queue_timeout_seconds: Option<u64>,
    pub max_pending_seconds: Option<u64>,
    /// Shells in the running container by AWS Systems Manager.
    pub remote_debug: Option<Choice>,
    pub max_keep_on_failure_seconds: Option<u64>,
    /// Globs on the URIs of input channels, without their query. What lies below a match may be read too.
    pub inputs: Option<Vec<String>>,
    /// Globs on the URIs of model outputs.
    pub model_outputs: Option<Vec<String>>,
}

/// One entry of `secrets.allow`: which jobs may read which secrets of AWS Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretGrant {
    /// Projects or namespaces are named; merge requests of forks match only with `fork = true`.
    #[serde(rename = "match")]
    pub jobs: JobMatch,
    /// Globs on names of secrets, or on their ARNs.
    #[serde(deserialize_with = "filled")]
    #[schemars(length(min = 1))]
    pub ids: Vec<String>,
}

/// Whether jobs choose something, all have it, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    Allow,
    Only,
    Refuse,
}

/// Treatment of images that are named by a tag, which may lead to another image tomorrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageTags {
    Allow,
    Warn,
    Refuse,
}

/// The pattern of a list: `*` stops at slashes, `**` does not.
pub(super) fn glob(pattern: &str, any_case: bool) -> Result<GlobMatcher, globset::Error> {
    Ok(built(pattern, any_case)?.compile_matcher())
}

/// Tells whether a text is a pattern. Nothing is compiled: a file may have thousands.
pub(super) fn is_glob(pattern: &str) -> bool {
    built(pattern, false).is_ok()
}

fn built(pattern: &str, any_case: bool) -> Result<Glob, globset::Error> {
    let mut glob = GlobBuilder::new(pattern);
    glob.literal_separator(true).backslash_escape(false).case_insensitive(any_case);
    glob.build()
}

/// A list with an entry: an empty one would look like "no job" and match all jobs.
fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.is_empty() {
        Err(serde::de::Error::custom("the list is empty; remove the key to match all"))
    } else {
        Ok(list)
    }
}
