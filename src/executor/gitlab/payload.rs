//! The trusted job payload (`JOB_RESPONSE_FILE`): the GitLab job and its ids.
//!
//! Identity and decisions come from it, never from `CUSTOM_ENV_*`, which a job can override.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Deserializer};

use super::stage::BuildStage;
use crate::base::failure::Failure;

/// Declares an id type of GitLab; its `Debug` output shows the kind.
macro_rules! id {
    ($name:ident, $kind:literal) => {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, ":{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
id!(JobId, "job");
id!(ProjectId, "project");

/// The fields of GitLab's job that the executor reads. Unknown fields of a newer GitLab are ignored, lists may be null.
#[derive(Clone, Deserialize)]
pub struct JobContext {
    pub id: JobId,
    /// The job token; a secret.
    #[serde(default)]
    pub token: String,
    pub job_info: JobInfo,
    #[serde(default)]
    pub git_info: GitInfo,
    #[serde(default)]
    pub runner_info: RunnerInfo,
    #[serde(default, deserialize_with = "null_is_default")]
    pub variables: Vec<Variable>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub steps: Vec<Step>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub image: JobImage,
    #[serde(default, deserialize_with = "null_is_default")]
    pub services: Vec<JobImage>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub artifacts: Vec<Artifact>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub cache: Vec<Cache>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub dependencies: Vec<Dependency>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub features: Features,
    /// Names of the variables whose values the runner resolves from a secrets provider; the values are masked.
    #[serde(default, deserialize_with = "keys")]
    pub secrets: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct JobInfo {
    #[serde(default)]
    pub name: String,
    pub project_id: ProjectId,
    #[serde(default)]
    pub project_full_path: String,
    #[serde(default)]
    pub pipeline_id: u64,
    #[serde(default)]
    pub instance_id: String,
    #[serde(default)]
    pub instance_uuid: String,
    /// The user who started the job.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user_id: u64,
}

#[derive(Clone, Default, Deserialize)]
pub struct GitInfo {
    /// Contains the job token.
    #[serde(default)]
    pub repo_url: String,
    /// Branch or tag, or `refs/merge-requests/<iid>/head`.
    #[serde(default, rename = "ref", deserialize_with = "null_is_default")]
    pub git_ref: String,
    /// The ref is protected; `None` from GitLab before 18.3.
    #[serde(default)]
    pub protected: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct RunnerInfo {
    /// Time limit of the job in seconds; 0 when the runner did not set one.
    #[serde(default)]
    pub timeout: u64,
}

#[derive(Clone, Deserialize)]
pub struct Variable {
    pub key: String,
    #[serde(default)]
    pub value: String,
    #[serde(default)]
    pub masked: bool,
    /// Scripts get the path of a file that holds the value.
    #[serde(default)]
    pub file: bool,
}

#[derive(Clone, Deserialize)]
pub struct Step {
    pub name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub script: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct JobImage {
    #[serde(default)]
    pub name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    #[serde(default, rename = "executor_opts", deserialize_with = "null_is_default")]
    pub options: ImageOptions,
}

/// Options for certain executors, of which the Docker executor's say something about the image.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ImageOptions {
    #[serde(default, deserialize_with = "null_is_default")]
    pub docker: DockerOptions,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct DockerOptions {
    #[serde(default, deserialize_with = "null_is_default")]
    pub platform: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub user: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Artifact {
    #[serde(default)]
    pub untracked: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub paths: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub exclude: Vec<String>,
    /// `zip`, `gzip`, `raw`; empty for `zip`.
    #[serde(default, rename = "artifact_format", deserialize_with = "null_is_default")]
    pub format: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Cache {
    /// As in the job's definition, with variables; empty for the default, the job's name and branch.
    #[serde(default, deserialize_with = "null_is_default")]
    pub key: String,
    #[serde(default)]
    pub untracked: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub paths: Vec<String>,
    /// `pull`, `push`, `pull-push`; empty for `pull-push`. May hold variables.
    #[serde(default, deserialize_with = "null_is_default")]
    pub policy: String,
}

/// An earlier job whose artifacts the runner downloads.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Dependency {
    #[serde(default, deserialize_with = "null_is_default")]
    pub artifacts_file: ArtifactsFile,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct ArtifactsFile {
    /// Empty when the job has no artifacts.
    #[serde(default, deserialize_with = "null_is_default")]
    pub filename: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Features {
    #[serde(default, deserialize_with = "null_is_default")]
    pub token_mask_prefixes: Vec<String>,
    /// `true` when the trace's viewer understands section markers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub trace_sections: bool,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The keys of a map whose values are ignored.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let map: Option<serde_json::Map<String, serde_json::Value>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_iter().map(|(name, _)| name).collect())
}

impl JobContext {
    /// Reads the payload that the runner wrote. Errors never contain its content.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("failed to read the job payload {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("failed to understand the job payload {}", path.display()))
    }

    /// Reads the payload's text. Errors name the place, and never contain its content.
    pub fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let (path, inner) = (error.path().to_string(), error.inner());
            Failure::system(format!(
                "`{path}` has an unexpected form (line {}, column {})",
                inner.line(),
                inner.column()
            ))
            .hint("this driver follows GitLab Runner 19; check the runner's version")
            .into()
        })
    }

    /// Values that must appear in no log, without empty ones: masked variables as sent and as the runner expanded them
    /// (`expanded`), resolved secrets, the job token.
    pub fn masked_values(&self, expanded: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let masked = self.variables.iter().filter(|variable| variable.masked);
        let names = masked.clone().map(|variable| &variable.key).chain(&self.secrets);
        let sent = masked.map(|variable| variable.value.clone()).chain([self.token.clone()]);
        let mut values: Vec<_> = names.filter_map(|name| expanded(name)).chain(sent).collect();
        values.retain(|value| !value.is_empty());
        values.sort();
        values.dedup();
        values
    }

    /// `true` when a host stage calls the `gitlab-runner` program, which moves caches and artifacts.
    pub fn needs_helper(&self) -> bool {
        let has_files = |dependency: &Dependency| !dependency.artifacts_file.filename.is_empty();
        let moves = |cache: &Cache| cache.untracked || !cache.paths.is_empty();
        !self.artifacts.is_empty() || self.cache.iter().any(moves) || self.dependencies.iter().any(has_files)
    }

    /// The build stages that run in the container, in the order of the payload. The runner calls `script` `build_script`.
    pub fn container_stages(&self) -> Vec<BuildStage> {
        let with_work = |step: &&Step| step.name != "after_script" || !step.script.is_empty();
        self.steps.iter().filter(with_work).map(|step| BuildStage::of_step(&step.name)).collect()
    }
}

/// Shows only the identity, so that secrets stay out of every log.
impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext").field("id", &self.id).field("job_info", &self.job_info).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_lists_and_unknown_fields_are_accepted() {
        let job = JobContext::parse(
            br#"{"id": 7, "token": "t", "job_info": {"project_id": 3, "new": 1}, "variables": null, "steps":
                [{"name": "script", "script": ["a"]}, {"name": "release", "script": ["b"]},
                 {"name": "after_script", "script": null}], "image": null, "artifacts": null, "cache": null,
                 "features": {"token_mask_prefixes": null}, "from_the_future": {}}"#,
        )
        .unwrap();
        assert_eq!(job.container_stages(), [BuildStage::Script, BuildStage::Step("release".into())]);
        assert_eq!(format!("{:?}", job.id), "job:7");
        assert_eq!(job.masked_values(|_| None), ["t"]);
    }

    #[test]
    fn an_error_names_the_field_and_never_its_content() {
        let error = JobContext::parse(br#"{"id": 7, "job_info": {"project_id": "s3cret"}}"#).unwrap_err();
        let text = crate::base::failure::render(&error);
        assert!(text.contains("job_info.project_id") && !text.contains("s3cret"), "{text}");
    }
}
