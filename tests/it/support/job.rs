//! A builder for jobs and the payload that GitLab makes of them.
//!
//! The payload has every field that GitLab Runner 19.4 reads; a job sets only the fields that matter to it.

use serde_json::{Value, json};

use super::gitlab::Repository;

/// An event while a job runs, once its trace contains a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The job is canceled: `Job-Status: canceling`.
    Cancel,
    /// The job is gone for GitLab: `Job-Status: canceled`.
    Abort,
    /// The runner process gets SIGTERM.
    InterruptRunner,
    /// The runner process gets SIGKILL; only with the real runner.
    KillRunner,
}

/// A CI/CD variable.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the shape that GitLab gives it")]
pub(crate) struct Variable {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) public: bool,
    pub(crate) file: bool,
    pub(crate) masked: bool,
    pub(crate) raw: bool,
}

impl Variable {
    pub(crate) fn new(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), value: value.to_owned(), public: true, ..Self::default() }
    }
    pub(crate) fn file(mut self) -> Self {
        self.file = true;
        self
    }
    pub(crate) fn masked(mut self) -> Self {
        self.masked = true;
        self.public = false;
        self
    }
    pub(crate) fn raw(mut self) -> Self {
        self.raw = true;
        self
    }

    fn payload(&self) -> Value {
        json!({"key": self.key, "value": self.value, "public": self.public, "file": self.file, "masked": self.masked,
            "raw": self.raw})
    }
}

/// One entry of `artifacts` or `artifacts:reports`.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    pub(crate) name: String,
    pub(crate) paths: Vec<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) untracked: bool,
    pub(crate) when: &'static str,
    pub(crate) kind: String,
    pub(crate) format: &'static str,
    /// `1 week`, `never`.
    pub(crate) expire_in: String,
}

impl Artifacts {
    pub(crate) fn paths<'p>(paths: impl IntoIterator<Item = &'p str>) -> Self {
        Self {
            name: String::new(),
            paths: paths.into_iter().map(str::to_owned).collect(),
            exclude: Vec::new(),
            untracked: false,
            when: "on_success",
            kind: "archive".to_owned(),
            format: "zip",
            expire_in: "1 week".to_owned(),
        }
    }
    pub(crate) fn dotenv(path: &str) -> Self {
        Self::report("dotenv", path)
    }
    /// A report of `artifacts:reports`, which GitLab takes of failed jobs too.
    pub(crate) fn report(kind: &str, path: &str) -> Self {
        Self { kind: kind.to_owned(), format: "gzip", when: "always", ..Self::paths([path]) }
    }
    pub(crate) fn when(mut self, when: &'static str) -> Self {
        self.when = when;
        self
    }
    pub(crate) fn untracked(mut self) -> Self {
        self.untracked = true;
        self
    }
    pub(crate) fn exclude(mut self, pattern: &str) -> Self {
        self.exclude.push(pattern.to_owned());
        self
    }

    fn payload(&self) -> Value {
        json!({"name": self.name, "untracked": self.untracked, "paths": self.paths, "exclude": self.exclude,
            "when": self.when, "artifact_type": self.kind, "artifact_format": self.format, "expire_in": self.expire_in})
    }
}

/// One entry of `cache`.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    pub(crate) key: String,
    pub(crate) paths: Vec<String>,
    pub(crate) policy: &'static str,
    pub(crate) when: &'static str,
}

impl Cache {
    pub(crate) fn new<const N: usize>(key: &str, paths: [&str; N]) -> Self {
        Self { key: key.to_owned(), paths: paths.map(str::to_owned).to_vec(), policy: "pull-push", when: "on_success" }
    }
    pub(crate) fn when(mut self, when: &'static str) -> Self {
        self.when = when;
        self
    }

    fn payload(&self) -> Value {
        json!({"key": self.key, "untracked": false, "policy": self.policy, "paths": self.paths, "when": self.when,
            "fallback_keys": []})
    }
}

/// The pipeline and project of a job, where they are not those that all other jobs here have.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) project_id: u64,
    pub(crate) pipeline_id: u64,
    pub(crate) stage: String,
    /// `main`, `refs/merge-requests/12/head`.
    pub(crate) git_ref: String,
    pub(crate) refspecs: Vec<String>,
    /// Commits to fetch; 0 for all.
    pub(crate) depth: u64,
}

impl Origin {
    /// Of a job on this branch, in the only project and pipeline of most scenarios.
    fn of_branch(branch: &str) -> Self {
        Self {
            project_id: 231,
            pipeline_id: 88120,
            stage: "train".to_owned(),
            git_ref: branch.to_owned(),
            refspecs: vec![format!("+refs/heads/{branch}:refs/remotes/origin/{branch}")],
            depth: 20,
        }
    }
}

/// The commit a job works on.
#[derive(Debug, Clone)]
struct Sources {
    project: String,
    branch: String,
    sha: String,
}

/// A job of the double. Without [`Job::sources`] it runs with `GIT_STRATEGY: none`.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    name: String,
    timeout: u64,
    image: String,
    steps: Vec<(String, Vec<String>)>,
    variables: Vec<Variable>,
    artifacts: Vec<Artifacts>,
    cache: Vec<Cache>,
    dependencies: Vec<(u64, String)>,
    hooks: Vec<(String, Vec<String>)>,
    services: Vec<Value>,
    sources: Option<Sources>,
    origin: Option<Origin>,
    triggers: Vec<(String, Trigger)>,
    is_protected: bool,
}

impl Job {
    /// A job named `train` with one hour of time and `FF_TIMESTAMPS` off, so that traces compare byte for byte.
    pub(crate) fn new() -> Self {
        Self {
            name: "train".to_owned(),
            timeout: 3600,
            image: "registry.example.com/train:2.4".to_owned(),
            steps: Vec::new(),
            variables: vec![Variable::new("FF_TIMESTAMPS", "false")],
            artifacts: Vec::new(),
            cache: Vec::new(),
            dependencies: Vec::new(),
            hooks: Vec::new(),
            services: Vec::new(),
            sources: None,
            origin: None,
            triggers: Vec::new(),
            is_protected: true,
        }
    }
    pub(crate) fn script<const N: usize>(self, lines: [&str; N]) -> Self {
        self.step("script", lines)
    }
    pub(crate) fn after_script<const N: usize>(self, lines: [&str; N]) -> Self {
        self.step("after_script", lines)
    }
    /// A further step, such as `release`; steps run in the order in which they are added.
    pub(crate) fn step<const N: usize>(self, name: &str, lines: [&str; N]) -> Self {
        self.step_of(name, lines.map(str::to_owned).to_vec())
    }
    /// As [`Job::step`], with lines whose number is not known before.
    pub(crate) fn step_of(mut self, name: &str, lines: Vec<String>) -> Self {
        self.steps.push((name.to_owned(), lines));
        self
    }
    pub(crate) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }
    pub(crate) fn image(mut self, image: &str) -> Self {
        image.clone_into(&mut self.image);
        self
    }
    /// The job's time limit in seconds.
    pub(crate) fn timeout(mut self, seconds: u64) -> Self {
        self.timeout = seconds;
        self
    }
    pub(crate) fn variable(mut self, variable: Variable) -> Self {
        self.variables.push(variable);
        self
    }
    /// A plain public variable.
    pub(crate) fn set(self, key: &str, value: &str) -> Self {
        self.variable(Variable::new(key, value))
    }
    pub(crate) fn artifacts(mut self, artifacts: Artifacts) -> Self {
        self.artifacts.push(artifacts);
        self
    }
    pub(crate) fn cache(mut self, cache: Cache) -> Self {
        self.cache.push(cache);
        self
    }
    /// A dependency on the artifacts of an earlier job of the same world.
    pub(crate) fn dependency(mut self, id: u64, name: &str) -> Self {
        self.dependencies.push((id, name.to_owned()));
        self
    }
    /// `pre_get_sources_script` or `post_get_sources_script`.
    pub(crate) fn hook<const N: usize>(mut self, name: &str, lines: [&str; N]) -> Self {
        self.hooks.push((name.to_owned(), lines.map(str::to_owned).to_vec()));
        self
    }
    pub(crate) fn service(mut self, name: &str, alias: &str) -> Self {
        self.services.push(json!({"name": name, "alias": alias, "entrypoint": null, "command": null, "variables": []}));
        self
    }
    /// Works on a commit of a repository of the double.
    pub(crate) fn sources(mut self, repository: &Repository, branch: &str, sha: &str) -> Self {
        let (branch, sha) = (branch.to_owned(), sha.to_owned());
        self.sources = Some(Sources { project: repository.project.clone(), branch, sha });
        self
    }
    /// Belongs to this pipeline and project. Its own variables replace those that GitLab would set.
    pub(crate) fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }
    /// Its ref is not protected.
    pub(crate) fn unprotected(mut self) -> Self {
        self.is_protected = false;
        self
    }
    /// Pulls the trigger once the trace contains the text.
    pub(crate) fn when_trace_contains(mut self, text: &str, trigger: Trigger) -> Self {
        self.triggers.push((text.to_owned(), trigger));
        self
    }

    /// Values that must not appear anywhere.
    pub(crate) fn masked_values(&self) -> Vec<String> {
        let masked = self.variables.iter().filter(|variable| variable.masked && !variable.value.is_empty());
        masked.map(|variable| variable.value.clone()).collect()
    }
    pub(crate) fn triggers(&self) -> &[(String, Trigger)] {
        &self.triggers
    }

    /// The reply to `POST /jobs/request`. `url` is the address of the double.
    pub(crate) fn payload(&self, id: u64, token: &str, url: &str) -> Value {
        let none = Sources {
            project: "ml/churn".to_owned(),
            branch: "main".to_owned(),
            sha: "9f2c4e7ab0d1c35e6f8097a1b2c3d4e5f6071829".to_owned(),
        };
        let sources = self.sources.as_ref().unwrap_or(&none);
        let origin = self.origin.clone().unwrap_or_else(|| Origin::of_branch(&sources.branch));
        let (scheme, host) = url.split_once("://").expect("an address has a scheme");
        let repo_url = format!("{scheme}://gitlab-ci-token:{token}@{host}/{}.git", sources.project);
        let (group, project) = sources.project.rsplit_once('/').unwrap_or(("", &sources.project));
        let secret =
            |key: &str, value: &str, masked: bool| Variable { public: false, masked, ..Variable::new(key, value) };
        let mut variables = vec![
            Variable::new("CI_PIPELINE_ID", &origin.pipeline_id.to_string()),
            Variable::new("CI_JOB_ID", &id.to_string()),
            secret("CI_JOB_TOKEN", token, true),
            Variable::new("CI_JOB_NAME", &self.name),
            Variable::new("CI_JOB_STAGE", &origin.stage),
            Variable::new("CI", "true"),
            Variable::new("GITLAB_CI", "true"),
            Variable::new("CI_SERVER_URL", url),
            Variable::new("CI_PROJECT_ID", &origin.project_id.to_string()),
            Variable::new("CI_PROJECT_NAME", project),
            Variable::new("CI_PROJECT_NAMESPACE", group),
            Variable::new("CI_PROJECT_PATH", &sources.project),
            Variable::new("CI_COMMIT_SHA", &sources.sha),
            Variable::new("CI_COMMIT_SHORT_SHA", sources.sha.get(..8).unwrap_or_default()),
            Variable::new("CI_COMMIT_REF_NAME", &sources.branch),
            Variable::new("CI_COMMIT_REF_SLUG", &sources.branch),
            secret("CI_REPOSITORY_URL", &repo_url, false),
        ];
        if self.sources.is_none() {
            variables.push(Variable::new("GIT_STRATEGY", "none"));
        }
        if self.origin.is_some() {
            variables.retain(|known| self.variables.iter().all(|own| own.key != known.key));
        }
        variables.extend(self.variables.iter().cloned());
        let step = |(name, script): &(String, Vec<String>)| {
            let after = name == "after_script";
            let when = if after { "always" } else { "on_success" };
            json!({"name": name, "script": script, "timeout": self.timeout, "when": when, "allow_failure": after})
        };
        let dependency = |(id, name): &(u64, String)| json!({"id": id, "token": token, "name": name, "artifacts_file": {"filename": "artifacts.zip", "size": 1}});
        json!({
            "id": id, "token": token, "allow_git_fetch": true,
            "job_info": {"name": self.name, "stage": origin.stage, "pipeline_id": origin.pipeline_id, "project_id": origin.project_id,
                "project_name": project, "project_full_path": sources.project, "namespace_id": 57, "root_namespace_id": 12,
                "organization_id": 1, "instance_id": "b3f1c2", "instance_uuid": "5a0f7c1e-0000-4000-8000-000000000001",
                "user_id": 96, "time_in_queue_seconds": 2.41, "project_jobs_running_on_instance_runners_count": "0",
                "queue_size": 3, "queue_depth": 1},
            "git_info": {"repo_url": repo_url, "repo_object_format": "sha1", "ref": origin.git_ref, "sha": sources.sha,
                "before_sha": "0".repeat(40), "ref_type": "branch",
                "refspecs": origin.refspecs, "depth": origin.depth, "protected": self.is_protected},
            "runner_info": {"timeout": self.timeout, "runner_session_url": null},
            "inputs": [],
            "variables": variables.iter().map(Variable::payload).collect::<Vec<_>>(),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "image": {"name": self.image, "entrypoint": null, "ports": [], "executor_opts": {}, "pull_policy": null},
            "services": self.services,
            "artifacts": self.artifacts.iter().map(Artifacts::payload).collect::<Vec<_>>(),
            "cache": self.cache.iter().map(Cache::payload).collect::<Vec<_>>(),
            "credentials": [{"type": "registry", "url": "registry.example.com", "username": "gitlab-ci-token", "password": token}],
            "dependencies": self.dependencies.iter().map(dependency).collect::<Vec<_>>(),
            "features": {"trace_sections": true, "token_mask_prefixes": ["glpat-"], "failure_reasons": FAILURE_REASONS},
            "hooks": self.hooks.iter().map(|(name, script)| json!({"name": name, "script": script})).collect::<Vec<_>>(),
            "policy_options": {"execution_policy_job": false, "policy_name": ""},
        })
    }
}

/// The failure reasons that GitLab says it understands.
const FAILURE_REASONS: [&str; 9] = [
    "unknown_failure",
    "script_failure",
    "api_failure",
    "stuck_or_timeout_failure",
    "runner_system_failure",
    "runner_interrupted",
    "job_execution_timeout",
    "image_pull_failure",
    "job_canceled",
];
