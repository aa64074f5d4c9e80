//! Runs the jobs of a compiled pipeline, one after the other: each in a clone of the commit, with the files and variables of the jobs that
//! it needs, and with what GitLab would set. A job is one shell that ends at the first error, as with GitLab's shell executor.
//!
//! Not there yet: cache, services and timeouts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use super::schedule::{JobState, PlannedJob, Schedule};
use crate::conformance::shown;
use crate::templates::compiler::Listed;
use crate::templates::yaml::texts;

/// What a job left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) log: String,
    /// The script's; 0 is success.
    pub(super) code: i32,
    /// Of its dotenv report.
    pub(super) variables: BTreeMap<String, String>,
    /// Files of its artifacts, by their paths, and reports by `report:KIND`.
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

/// Runs a job in a training job, with these variables.
pub(super) type TrainingExecutor<'a> = dyn Fn(&Value, &BTreeMap<String, String>) -> Left + 'a;

pub(super) struct Pipeline {
    /// Jobs as the compiler made them.
    jobs: Map<String, Value>,
    pub(super) schedule: Schedule,
    repository: PathBuf,
    /// Of the pipeline and the project: they win over those of jobs.
    predefined: BTreeMap<String, String>,
    pub(super) left: BTreeMap<String, Left>,
}

impl Pipeline {
    pub(super) fn new(
        jobs: Map<String, Value>,
        listed: &[Listed],
        repository: &Path,
        predefined: BTreeMap<String, String>,
    ) -> Self {
        let planned = |job: &Listed| PlannedJob {
            name: job.name.clone(),
            when: job.when.clone(),
            may_fail: job.may_fail,
            needs: job.needs.clone(),
        };
        let planned = listed.iter().filter(|job| job.when != "never").map(planned).collect();
        let schedule = Schedule::new(planned);
        Self { jobs, schedule, repository: repository.to_owned(), predefined, left: BTreeMap::new() }
    }

    /// Runs every job that needs nobody to start it. Those with `id_tokens` get this one; those for the executor's runner go to `executor`,
    /// if there is one.
    pub(super) fn run(&mut self, id_token: &str, executor: Option<&TrainingExecutor<'_>>) {
        while let Some(name) = self.schedule.next() {
            let left = self.run_job(&name, id_token, executor);
            let allowed = self.jobs[&name]["allow_failure"]["exit_codes"].as_array();
            let is_allowed = allowed.is_some_and(|codes| codes.contains(&left.code.into()));
            self.schedule.ended(&name, left.code == 0 || is_allowed);
            self.left.insert(name, left);
        }
    }

    /// The jobs with how they ended, for messages.
    pub(super) fn told(&self) -> String {
        let line = |(name, state): (&str, JobState)| {
            let log = self.left.get(name).filter(|left| left.code != 0).map_or("", |left| left.log.as_str());
            format!("{name}: {state:?}\n{log}")
        };
        self.schedule.states().map(line).collect()
    }

    /// The names of jobs in this state.
    pub(super) fn in_state(&self, state: JobState) -> Vec<&str> {
        self.schedule.states().filter(|(_, found)| *found == state).map(|(name, _)| name).collect()
    }

    fn run_job(&self, name: &str, id_token: &str, executor: Option<&TrainingExecutor<'_>>) -> Left {
        let job = &self.jobs[name];
        if let Some(executor) = executor.filter(|_| job["tags"] == json!(["sagemaker"])) {
            let own = job["variables"].as_object().into_iter().flatten();
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            return executor(
                job,
                &own.map(|(key, value)| (key.clone(), expanded(&text(value), &self.predefined))).collect(),
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        let cloned =
            Command::new("git").args(["clone", "--quiet"]).arg(&self.repository).arg(&project).output().unwrap();
        assert!(cloned.status.success(), "{}", shown(&cloned));
        let mut variables = self.predefined.clone();
        variables.insert("CI_PROJECT_DIR".to_owned(), project.to_str().unwrap().to_owned());
        variables.insert("CI_JOB_NAME".to_owned(), name.to_owned());
        for token in job["id_tokens"].as_object().into_iter().flat_map(Map::keys) {
            variables.insert(token.clone(), id_token.to_owned());
        }
        variables.extend(of_environment(&job["environment"], &variables));
        for (key, value) in job["variables"].as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text = expanded(&text, &variables);
            variables.entry(key.clone()).or_insert(text);
        }
        for need in job["needs"].as_array().into_iter().flatten().filter(|need| need["artifacts"] != false) {
            let Some(left) = need["job"].as_str().and_then(|name| self.left.get(name)) else { continue };
            variables.extend(left.variables.clone());
            for (path, bytes) in left.files.iter().filter(|(path, _)| !path.starts_with("report:")) {
                let path = project.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
        let lines: Vec<_> = ["before_script", "script"].iter().flat_map(|key| texts(&job[key])).collect();
        let ended = Command::new("/bin/sh")
            .args(["-e", "-c", &lines.join("\n")])
            .current_dir(&project)
            .env_clear()
            .envs(&variables)
            .output()
            .unwrap();
        let code = ended.status.code().unwrap_or(128);
        let mut left = Left { log: shown(&ended), code, ..Left::default() };
        let when = job["artifacts"]["when"].as_str().unwrap_or("on_success");
        if when == "always" || (when == "on_success") == (code == 0) {
            collect(&mut left, &job["artifacts"], &project);
        }
        left
    }
}

/// The variables of a job with an environment.
fn of_environment(environment: &Value, variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let Some(name) = environment["name"].as_str() else { return BTreeMap::new() };
    let name = expanded(name, variables);
    let slug: String = name.chars().map(|next| if next.is_ascii_alphanumeric() { next } else { '-' }).collect();
    let mut own = BTreeMap::from([("CI_ENVIRONMENT_NAME", name), ("CI_ENVIRONMENT_SLUG", slug.to_lowercase())]);
    own.extend(environment["deployment_tier"].as_str().map(|tier| ("CI_ENVIRONMENT_TIER", tier.to_owned())));
    own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A text with `$NAME` replaced by the values of variables that exist.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    // The longest names first, since one may begin with another.
    let mut names: Vec<_> = variables.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names.into_iter().fold(text.to_owned(), |text, name| text.replace(&format!("${name}"), &variables[name]))
}

/// Takes files as `artifacts:paths` names them: a path, a folder with `/` at its end, or a name with one `*`.
fn collect(left: &mut Left, artifacts: &Value, project: &Path) {
    for wanted in texts(&artifacts["paths"]) {
        let matches = |path: &str| match wanted.split_once('*') {
            Some((first, last)) => path.starts_with(first) && path.ends_with(last) && !path.contains('/'),
            None => path == wanted || (wanted.ends_with('/') && path.starts_with(wanted)),
        };
        for path in below(project, "").into_iter().filter(|path| matches(path)) {
            left.files.insert(path.clone(), std::fs::read(project.join(path)).unwrap());
        }
    }
    for (kind, file) in artifacts["reports"].as_object().into_iter().flatten() {
        let file = file.as_str().or_else(|| file["path"].as_str()).unwrap_or_default();
        let Ok(bytes) = std::fs::read(project.join(file)) else { continue };
        if kind == "dotenv" {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            left.variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        left.files.insert(format!("report:{kind}"), bytes);
    }
}

/// Files below a folder, without git's.
fn below(folder: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if name == ".git" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path(), &format!("{name}/")));
        } else {
            found.push(name);
        }
    }
    found
}
