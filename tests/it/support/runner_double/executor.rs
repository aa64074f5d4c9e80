//! The custom executor of the runner double: its driver calls, their environment and the files handed over.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::super::world::{Executor as WantedExecutor, World};
use super::call::{Call, Failed, Sink};
use super::scope::Scope;
use super::stages::{Build, Surroundings};
use super::trace::{Stream, Trace};
use super::variables::Variables;

/// One attempt of preparation, and the stages after a good one.
pub(super) struct Executor<'a> {
    world: &'a World,
    wanted: WantedExecutor,
    trace: &'a Arc<Trace>,
    payload: Value,
    folder: tempfile::TempDir,
    job_env: Vec<(String, String)>,
    build: Option<Build>,
    status: Mutex<String>,
}

impl<'a> Executor<'a> {
    pub(super) fn new(world: &'a World, payload: &Value, wanted: WantedExecutor, trace: &'a Arc<Trace>) -> Self {
        let folder = tempfile::Builder::new().prefix("custom-executor").tempdir_in(world.dirs.temp()).unwrap();
        world.account.give(folder.path());
        let (payload, status) = (payload.clone(), Mutex::new("running".to_owned()));
        Self { world, wanted, trace, payload, folder, job_env: Vec::new(), build: None, status }
    }

    /// `config_exec` and `prepare_exec`.
    pub(super) fn prepare(&mut self, scope: &Scope) -> Result<(), Failed> {
        self.write_private(&self.folder.path().join("response.json"), &self.payload.to_string(), 0o600);
        self.build = Some(self.build("", "", true, "")?);
        let settings = &self.world.settings;
        let answer = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&answer);
        let stdout: Sink = Box::new(move |bytes| copy.lock().unwrap().extend_from_slice(bytes));
        let limit = Scope::new(Some(scope), Some(Duration::from_secs(settings.config_exec_timeout)));
        self.call(&["config"], &limit).run(stdout, self.stream())?;
        let answer = answer.lock().unwrap().clone();
        let mut config = Value::Null;
        if !answer.is_empty() {
            config = serde_json::from_slice(&answer)
                .map_err(|error| Failed::System { text: format!("error while parsing JSON output: {error}") })?;
        }
        if let Some(pairs) = config["job_env"].as_object() {
            let pairs = pairs.iter().map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                _ => {
                    Err(Failed::System { text: format!("error while parsing JSON output: job_env.{key} is no string") })
                }
            });
            self.job_env = pairs.collect::<Result<_, _>>()?;
        }
        let driver = match (config["driver"]["name"].as_str(), config["driver"]["version"].as_str()) {
            (Some(name), Some(version)) => format!(" with driver {name} {version}"),
            (Some(name), None) => format!(" with driver {name}"),
            _ => String::new(),
        };
        self.trace.say("", &format!("Using Custom executor{driver}..."));
        let text = |key: &str| config[key].as_str().unwrap_or_default();
        for (key, name) in [("builds_dir", "builds_dir"), ("cache_dir", "cache_dir")] {
            if text(key).is_empty() {
                let text = format!("the {name} is not configured");
                return Err(Failed::Build { reason: "configuration_error", code: 0, text });
            }
        }
        let shared = config["builds_dir_is_shared"].as_bool().unwrap_or_default();
        self.build = Some(self.build(text("builds_dir"), text("cache_dir"), shared, text("hostname"))?);
        let limit = Scope::new(Some(scope), Some(Duration::from_secs(settings.prepare_exec_timeout)));
        self.call(&["prepare"], &limit).run(self.stream(), self.stream())
    }

    fn build(&self, builds_dir: &str, cache_dir: &str, shared: bool, hostname: &str) -> Result<Build, Failed> {
        let settings = &self.world.settings;
        let around = Surroundings {
            url: self.world.gitlab.url(),
            environment: &settings.environment,
            builds_dir,
            cache_dir,
            shared,
            hostname,
            debug_trace_disabled: settings.debug_trace_disabled,
            custom_build_dir: settings.custom_build_dir,
        };
        Build::new(&self.payload, &around).map_err(|text| Failed::Build {
            reason: "configuration_error",
            code: 0,
            text,
        })
    }

    fn prepared(&self) -> &Build {
        self.build.as_ref().expect("prepare comes first")
    }

    /// The job's variables with the present `CI_JOB_STATUS`.
    pub(super) fn variables(&self) -> Variables {
        let mut variables = self.build.as_ref().map(|build| build.variables.clone()).unwrap_or_default();
        variables.set("CI_JOB_STATUS", &self.status.lock().unwrap());
        variables
    }

    pub(super) fn set_status(&self, status: &str) {
        status.clone_into(&mut self.status.lock().unwrap());
    }

    pub(super) fn get_sources_limit(&self) -> Option<Duration> {
        self.world.settings.get_sources_timeout.and_then(|limit| humantime::parse_duration(limit).ok())
    }

    pub(super) fn user_stages(&self) -> Vec<String> {
        self.prepared().user_stages()
    }

    pub(super) fn script(&self, stage: &str) -> Option<String> {
        let build = self.prepared();
        let now = Build {
            variables: self.variables(),
            payload: build.payload.clone(),
            project_dir: build.project_dir.clone(),
            cache_dir: build.cache_dir.clone(),
            hostname: build.hostname.clone(),
            url: build.url.clone(),
            debug_trace_disabled: build.debug_trace_disabled,
        };
        now.script(stage)
    }

    /// `run_exec` with a stage's script.
    pub(super) fn run(&self, stage: &str, script: &str, scope: &Scope) -> Result<(), Failed> {
        let folder = tempfile::Builder::new().prefix("script").tempdir_in(self.folder.path()).unwrap().keep();
        self.world.account.give(&folder);
        let path = folder.join("script");
        self.write_private(&path, script, 0o700);
        let stage = if stage == "step_script" { "build_script" } else { stage };
        self.call(&["run", &path.to_string_lossy(), stage], scope).run(self.stream(), self.stream())
    }

    /// `cleanup_exec`; its failure is only a warning in the runner's own log.
    pub(super) fn cleanup(&self) {
        let limit = Duration::from_secs(self.world.settings.cleanup_exec_timeout);
        let sink = || -> Sink { Box::new(|_| {}) };
        let _ = self.call(&["cleanup"], &Scope::new(None, Some(limit))).run(sink(), sink());
    }

    fn stream(&self) -> Sink {
        let mut stream = Stream::new(self.trace);
        Box::new(move |bytes| stream.feed(bytes))
    }

    fn call(&self, args: &[&str], scope: &Scope) -> Call<'_> {
        let folder = self.folder.path().to_path_buf();
        let code_file = folder.join("build_exit_code");
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut env = self.world.runner_env_of(self.wanted);
        env.extend([
            ("TMPDIR".to_owned(), text(folder.clone())),
            ("JOB_RESPONSE_FILE".to_owned(), text(folder.join("response.json"))),
            ("BUILD_EXIT_CODE_FILE".to_owned(), text(code_file.clone())),
            ("BUILD_FAILURE_EXIT_CODE".to_owned(), "1".to_owned()),
            ("SYSTEM_FAILURE_EXIT_CODE".to_owned(), "2".to_owned()),
        ]);
        env.extend(self.job_env.iter().cloned());
        for variable in self.variables().iter() {
            env.push((format!("CUSTOM_ENV_{}", variable.key), variable.value.clone()));
        }
        env.push(("CUSTOM_ENV_CI_JOB_SERVICES".to_owned(), self.services()));
        Call {
            program: self.world.recorder_of(self.wanted).to_path_buf(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env,
            folder,
            code_file,
            scope: scope.clone(),
            account: self.world.account,
            graceful: Duration::from_secs(self.world.settings.graceful_kill_timeout),
            force: Duration::from_secs(self.world.settings.force_kill_timeout),
            deadline: self.world.settings.deadline,
            trace: self.trace,
        }
    }

    /// The services as JSON, each with its first alias; empty without services.
    fn services(&self) -> String {
        let services = self.payload["services"].as_array().cloned().unwrap_or_default();
        if services.is_empty() {
            return String::new();
        }
        let service = |service: &Value| {
            let alias = service["alias"].as_str().unwrap_or_default().split([' ', ',']).next().unwrap_or_default();
            serde_json::json!({"name": service["name"], "alias": alias, "entrypoint": service["entrypoint"],
                "command": service["command"]})
        };
        Value::Array(services.iter().map(service).collect()).to_string()
    }

    /// A file for the driver's user alone.
    fn write_private(&self, path: &Path, content: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        self.world.account.give(path);
    }
}
