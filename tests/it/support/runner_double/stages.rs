//! The stage scripts of one job; stages without work have none.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::job::Variable;
use super::script::Script;
use super::variables::{Variables, of_payload};

/// A job with its directories; made again when `config_exec` has returned them.
pub(super) struct Build {
    pub(super) payload: Value,
    pub(super) variables: Variables,
    pub(super) project_dir: String,
    pub(super) cache_dir: String,
    pub(super) hostname: String,
    /// The address of GitLab.
    pub(super) url: String,
    pub(super) debug_trace_disabled: bool,
}

/// The runner's settings beside the payload.
pub(super) struct Surroundings<'a> {
    pub(super) url: &'a str,
    pub(super) environment: &'a [&'static str],
    pub(super) builds_dir: &'a str,
    pub(super) cache_dir: &'a str,
    pub(super) shared: bool,
    pub(super) hostname: &'a str,
    pub(super) debug_trace_disabled: bool,
    pub(super) custom_build_dir: bool,
}

impl Build {
    /// Fails with a configuration error when the job asks for a forbidden directory.
    pub(super) fn new(payload: &Value, around: &Surroundings<'_>) -> Result<Self, String> {
        let repo_url = payload["git_info"]["repo_url"].as_str().unwrap_or_default();
        let project = repo_url.splitn(4, '/').nth(3).unwrap_or_default().trim_end_matches(".git");
        let token: String = super::super::gitlab::RUNNER_TOKEN.trim_start_matches("glrt-").chars().take(9).collect();
        let unique = if around.shared { format!("{token}/0/{project}") } else { project.to_owned() };
        let mut project_dir =
            if around.builds_dir.is_empty() { String::new() } else { format!("{}/{unique}", around.builds_dir) };
        let own = of_payload(payload);
        if let Some(wish) = own.iter().rev().find(|variable| variable.key == "GIT_CLONE_PATH") {
            let known = Variables::expand(vec![Variable::new("CI_BUILDS_DIR", around.builds_dir)], "");
            let wish = known.expand_text(&wish.value);
            if !around.custom_build_dir {
                return Err("setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature".to_owned());
            }
            project_dir = wish;
        }
        if own.iter().any(|variable| variable.key == "GIT_STRATEGY" && variable.value == "empty") {
            project_dir.push_str("-empty");
        }
        let image = payload["image"]["name"].as_str().unwrap_or_default();
        let mut raw = vec![Variable::new("CI_JOB_IMAGE", image), Variable::new("CI_RUNNER_SHORT_TOKEN", &token)];
        let pairs = around.environment.iter().filter_map(|pair| pair.split_once('='));
        raw.extend(pairs.map(|(key, value)| Variable::new(key, value)));
        raw.extend([
            Variable::new("CI_BUILDS_DIR", around.builds_dir),
            Variable::new("CI_PROJECT_DIR", &project_dir),
            Variable::new("CI_CONCURRENT_ID", "0"),
            Variable::new("CI_CONCURRENT_PROJECT_ID", "0"),
            Variable::new("CI_SERVER", "yes"),
            Variable::new("CI_JOB_STATUS", "running"),
        ]);
        raw.extend(own);
        let temporary = format!("{project_dir}.tmp");
        raw.extend([
            Variable::new("CI_SHARED_ENVIRONMENT", "true"),
            Variable::new("CI_RUNNER_VERSION", "19.4.0"),
            Variable::new("CI_RUNNER_REVISION", "double"),
            Variable::new("CI_RUNNER_EXECUTABLE_ARCH", "linux/amd64"),
            Variable::new("RUNNER_TEMP_PROJECT_DIR", &temporary),
        ]);
        Ok(Self {
            payload: payload.clone(),
            variables: Variables::expand(raw, &temporary),
            cache_dir: format!("{}/{project}", around.cache_dir),
            project_dir,
            hostname: around.hostname.to_owned(),
            url: around.url.to_owned(),
            debug_trace_disabled: around.debug_trace_disabled,
        })
    }

    /// The names of the user's steps in order, without `after_script`.
    pub(super) fn user_stages(&self) -> Vec<String> {
        let steps = self.payload["steps"].as_array().into_iter().flatten();
        let names = steps.map(|step| step["name"].as_str().unwrap_or_default().to_lowercase());
        names.filter(|name| name != "after_script").map(|name| format!("step_{name}")).collect()
    }

    /// The script of a stage, or `None` when it has nothing to do.
    pub(super) fn script(&self, stage: &str) -> Option<String> {
        let mut script = Script::new(&format!("{}.tmp", self.project_dir));
        let something = match stage {
            "prepare_script" => {
                let via = if self.hostname.is_empty() { String::new() } else { format!(" via {}", self.hostname) };
                script.line(&format!("echo \"Running on $(hostname){via}...\""));
                for name in ["gitlab_runner_env", "masking.db"] {
                    let path = script.temporary(name);
                    script.remove_file(&path);
                }
                true
            }
            "get_sources" => {
                self.write_get_sources(&mut script);
                true
            }
            "clear_worktree" => {
                self.write_clear_worktree(&mut script);
                true
            }
            "restore_cache" => self.write_restore_cache(&mut script),
            "download_artifacts" => self.write_download(&mut script),
            "after_script" => self.write_after_script(&mut script),
            "archive_cache" => self.write_archive_cache(&mut script, true),
            "archive_cache_on_failure" => self.write_archive_cache(&mut script, false),
            "upload_artifacts_on_success" => self.write_upload(&mut script, true),
            "upload_artifacts_on_failure" => self.write_upload(&mut script, false),
            "cleanup_file_variables" => {
                self.write_cleanup(&mut script);
                true
            }
            step => self.write_step(&mut script, step),
        };
        let xtrace = self.variables.is_on("CI_DEBUG_TRACE") && !self.debug_trace_disabled;
        something.then(|| script.finish(xtrace))
    }

    /// All variables and `GITLAB_ENV`. Without `contents` file variables are exported, but not written again.
    pub(super) fn write_exports(&self, script: &mut Script, contents: bool) {
        for variable in self.variables.iter() {
            if variable.file && !contents {
                let path = script.temporary(&variable.key);
                script.variable(&Variable::new(&variable.key, &path));
            } else {
                script.variable(variable);
            }
        }
        script.gitlab_env();
    }

    fn write_start(&self, script: &mut Script) {
        self.write_exports(script, true);
        script.command(&["cd", &self.project_dir]);
    }

    fn write_step(&self, script: &mut Script, stage: &str) -> bool {
        let steps = self.payload["steps"].as_array().cloned().unwrap_or_default();
        let named =
            |step: &&Value| format!("step_{}", step["name"].as_str().unwrap_or_default().to_lowercase()) == stage;
        let Some(step) = steps.iter().find(named) else { return false };
        self.write_start(script);
        let mut lines = lines(&step["script"]);
        if step["name"] == "release" {
            lines = lines.iter().map(|line| self.variables.expand_text(line)).collect();
        }
        script.user_lines(&lines, self.variables.is_on("FF_SCRIPT_SECTIONS").then_some("script_step"));
        true
    }

    fn write_after_script(&self, script: &mut Script) -> bool {
        let steps = self.payload["steps"].as_array().cloned().unwrap_or_default();
        let lines = steps.iter().find(|step| step["name"] == "after_script").map(|step| lines(&step["script"]));
        let Some(lines) = lines.filter(|lines| !lines.is_empty()) else { return false };
        self.write_start(script);
        script.notice("Running after script...");
        script.user_lines(&lines, self.variables.is_on("FF_SCRIPT_SECTIONS").then_some("after_script_step"));
        true
    }

    fn cache_file(&self, cache: &Value) -> (String, String) {
        let key = match cache["key"].as_str().unwrap_or_default() {
            "" => format!(
                "{}/{}",
                self.payload["job_info"]["name"].as_str().unwrap_or_default(),
                self.variables.get("CI_COMMIT_REF_NAME")
            ),
            key => self.variables.expand_text(key),
        };
        let file = format!("{}/{key}/cache.zip", self.cache_dir);
        (key, file)
    }

    fn caches(&self) -> impl Iterator<Item = &Value> {
        let all = self.payload["cache"].as_array().into_iter().flatten();
        all.filter(|cache| !lines(&cache["paths"]).is_empty() || cache["untracked"] == true)
    }

    fn write_restore_cache(&self, script: &mut Script) -> bool {
        let mut something = false;
        self.write_start(script);
        for cache in self.caches() {
            something = true;
            let (key, file) = self.cache_file(cache);
            script.notice(&format!("Checking cache for {key}..."));
            script.line(&format!(
                "if gitlab-runner cache-extractor --file {} --timeout 10; then",
                super::script::quote(&file)
            ));
            script.notice("Successfully extracted cache");
            script.line("else");
            script.warning("Failed to extract cache");
            script.line("fi");
        }
        something
    }

    fn write_archive_cache(&self, script: &mut Script, success: bool) -> bool {
        let mut something = false;
        self.write_start(script);
        for cache in self.caches().filter(|cache| fits(&cache["when"], success)) {
            something = true;
            let (key, file) = self.cache_file(cache);
            script.notice(&format!("Creating cache {key}..."));
            let mut words = format!("gitlab-runner cache-archiver --file {} --timeout 10", super::script::quote(&file));
            words.push_str(&selection(cache));
            script.line(&format!("if {words}; then"));
            script.notice("Created cache");
            script.line("else");
            script.warning("Failed to create cache");
            script.line("fi");
        }
        something
    }

    fn write_download(&self, script: &mut Script) -> bool {
        let mut something = false;
        self.write_start(script);
        for job in self.payload["dependencies"].as_array().into_iter().flatten() {
            let (name, id, token) =
                (job["name"].as_str().unwrap_or_default(), job["id"].to_string(), job["token"].as_str());
            something = true;
            script.notice(&format!("Downloading artifacts for {name} ({id})..."));
            let token = token.unwrap_or_default();
            script.command(&[
                "gitlab-runner",
                "artifacts-downloader",
                "--url",
                &self.url,
                "--token",
                token,
                "--id",
                &id,
            ]);
        }
        something
    }

    fn write_upload(&self, script: &mut Script, success: bool) -> bool {
        let mut something = false;
        self.write_start(script);
        for artifact in self.payload["artifacts"].as_array().into_iter().flatten() {
            if !fits(&artifact["when"], success) || selection(artifact).is_empty() {
                continue;
            }
            something = true;
            script.notice("Uploading artifacts...");
            let word = |key: &str| super::script::quote(artifact[key].as_str().unwrap_or_default());
            let token = self.payload["token"].as_str().unwrap_or_default();
            script.line(&format!(
                "gitlab-runner artifacts-uploader --url {} --token {token} --id {}{} --name {} --artifact-type {} --artifact-format {}",
                super::script::quote(&self.url), self.payload["id"], selection(artifact), word("name"), word("artifact_type"),
                word("artifact_format"),
            ));
        }
        something
    }
}

/// The arguments that select files: paths, excludes, untracked.
fn selection(rule: &Value) -> String {
    let mut words = String::new();
    for (option, key) in [("--path", "paths"), ("--exclude", "exclude")] {
        for pattern in lines(&rule[key]) {
            let _ = write!(words, " {option} {}", super::script::quote(&pattern));
        }
    }
    if rule["untracked"] == true {
        words.push_str(" --untracked");
    }
    words
}

fn fits(when: &Value, success: bool) -> bool {
    match when.as_str().unwrap_or_default() {
        "always" => true,
        "on_failure" => !success,
        _ => success,
    }
}

/// The strings of a JSON array.
pub(super) fn lines(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|line| line.as_str().map(str::to_owned)).collect()
}
