//! Calls the driver's stages one by one, as the runner does, and shows exit codes, both outputs, the operator's file, the
//! record and the training job. For behavior that a runner hides, or calls that it never makes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::driver::{Driver, sagemaker_with, taken_slots, write_program};
use crate::support::emulator::Emulator;
use crate::support::iam::start_emulator;
use crate::support::job::Job;
use crate::support::waiting::{Place, enter_gate, poll, search_path};

/// Codes that no program would choose by itself.
pub(super) const BUILD_FAILURE: i32 = 91;
pub(super) const SYSTEM_FAILURE: i32 = 92;
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(90);
pub(super) const TOKEN: &str = "glcbt-64_desk_job_token";

/// One job, an emulator, and the stages at hand.
pub(super) struct Desk {
    pub(super) emulator: Emulator,
    dirs: tempfile::TempDir,
    pub(super) program: PathBuf,
    /// The environment of the driver beside the runner's contract; later entries win.
    pub(super) env: Vec<(String, String)>,
    pub(super) session: Option<String>,
    calls: std::cell::Cell<u32>,
    secrets: Vec<String>,
    _place: Place,
}

/// A stage that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None` when a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    /// Content of `BUILD_EXIT_CODE_FILE`.
    pub(super) exit_code: Option<String>,
}

impl Ended {
    #[track_caller]
    pub(super) fn with_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }
    #[track_caller]
    pub(super) fn passed(&self) -> &Self {
        self.with_code(0)
    }
    #[track_caller]
    pub(super) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "stderr lacks {text:?}\n{self}");
        self
    }
    #[track_caller]
    pub(super) fn hides(&self, text: &str) -> &Self {
        assert!(!self.stderr.contains(text), "stderr has {text:?}\n{self}");
        self
    }
    pub(super) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
    /// How many errors it told.
    #[track_caller]
    pub(super) fn one_error(&self) -> &Self {
        assert_eq!(self.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{self}");
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out: String = self.out().chars().take(3000).collect();
        writeln!(
            f,
            "code {:?}, exit code file {:?}\n--- stdout\n{out}\n--- stderr\n{}",
            self.code, self.exit_code, self.stderr
        )
    }
}

/// A stage that runs.
pub(super) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    exit_code: PathBuf,
}

impl Running {
    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has printed so far.
    pub(super) fn out(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.out).unwrap()).into_owned()
    }

    /// Waits until stdout or stderr has the text.
    #[track_caller]
    pub(super) fn until(&mut self, text: &str) {
        let has = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(text);
        let shown = poll(PATIENCE, || {
            if has(&self.out) || has(&self.err) {
                return Some(true);
            }
            self.child.try_wait().unwrap().map(|_| false)
        });
        assert_eq!(shown, Some(true), "{text:?} was never shown\n{}", std::fs::read_to_string(&self.err).unwrap());
    }

    pub(super) fn end(self) -> Ended {
        self.end_within(PATIENCE)
    }

    pub(super) fn end_within(mut self, limit: Duration) -> Ended {
        let status = poll(limit, || self.child.try_wait().unwrap());
        let stdout = std::fs::read(&self.out).unwrap();
        let stderr = plain(&String::from_utf8_lossy(&std::fs::read(&self.err).unwrap()));
        let Some(status) = status else {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            panic!("the stage did not end within {limit:?}\n{}\n{stderr}", String::from_utf8_lossy(&stdout));
        };
        Ended { code: status.code(), stdout, stderr, exit_code: std::fs::read_to_string(&self.exit_code).ok() }
    }
}

/// A test that fails leaves no process.
impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Without the colors of labels, which the job log shows.
fn plain(stderr: &str) -> String {
    stderr.replace("\x1b[31merror:\x1b[0m", "error:").replace("\x1b[33mwarning:\x1b[0m", "warning:")
}

impl Desk {
    pub(super) fn new(job: &Job) -> Self {
        Self::with(job, &[], "")
    }

    /// `tail`: further lines of the operator's file, from within `[limits]`.
    pub(super) fn with(job: &Job, emulator: &[&str], tail: &str) -> Self {
        Self::below(&std::env::temp_dir(), job, emulator, tail)
    }

    /// Everything of it, the project included, lies below `folder`.
    pub(super) fn below(folder: &Path, job: &Job, emulator: &[&str], tail: &str) -> Self {
        Self::of(&sagemaker_with(emulator, tail), folder, job)
    }

    /// The account's policies are made from the driver's operator's file; later edits of it do not change them.
    pub(super) fn of(driver: &Driver, folder: &Path, job: &Job) -> Self {
        let place = enter_gate();
        let dirs = tempfile::Builder::new().prefix("desk").tempdir_in(folder).unwrap();
        let path = |name: &str| dirs.path().join(name).to_string_lossy().trim_end_matches('/').to_owned();
        let operator = (driver.operator_config.replace("{builds_dir}", &path("builds")))
            .replace("{cache_dir}", &path("cache"))
            .replace("{root}", &path(""));
        let emulator = start_emulator(dirs.path(), driver, &operator, driver.emulator.as_ref().unwrap());
        let desk = Self {
            program: driver.program.clone(),
            env: [emulator.environment(), driver.env.clone()].concat(),
            session: None,
            calls: std::cell::Cell::new(0),
            secrets: [job.masked_values(), vec![TOKEN.to_owned()]].concat(),
            _place: place,
            emulator,
            dirs,
        };
        for folder in ["home", "temp", "bin"] {
            std::fs::create_dir(desk.root().join(folder)).unwrap();
        }
        // `prepare` wants the runner's helper on PATH for a job with artifacts, and not every machine has it.
        write_program(&desk.root().join("bin/gitlab-runner"), include_str!("../../fixtures/gitlab/runner-helper.sh"));
        std::fs::write(desk.operator_file(), operator.replace("{emulator}", &desk.emulator.endpoint)).unwrap();
        let payload = job.payload(4711, TOKEN, "http://gitlab.example.com");
        std::fs::write(desk.root().join("response.json"), payload.to_string()).unwrap();
        desk
    }

    pub(super) fn root(&self) -> &Path {
        self.dirs.path()
    }
    fn path(&self, name: &str) -> String {
        self.root().join(name).to_string_lossy().trim_end_matches('/').to_owned()
    }
    pub(super) fn operator_file(&self) -> PathBuf {
        self.root().join("operator.toml")
    }
    pub(super) fn project(&self) -> PathBuf {
        self.root().join("builds/231/tok/0/ml/churn")
    }
    /// Edits the operator's file; the text must be there.
    #[track_caller]
    pub(super) fn edit_operator_file(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.operator_file()).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(self.operator_file(), text.replace(from, to)).unwrap();
    }
    /// Sets a job variable as the runner hands it on.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.env.push((format!("CUSTOM_ENV_{key}"), value.to_owned()));
    }

    pub(super) fn start(&self, args: &[&str]) -> Running {
        self.start_into(args, Stdio::from)
    }

    /// As [`Desk::start`], with another stdout that leads to the file.
    pub(super) fn start_into(&self, args: &[&str], stdout: impl FnOnce(File) -> Stdio) -> Running {
        let number = self.calls.get() + 1;
        self.calls.set(number);
        let file = |kind: &str| self.root().join(format!("{kind}-{number}"));
        let (out, err) = (file("stdout"), file("stderr"));
        let exit_code = self.root().join("build_exit_code");
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.operator_file())
            .args(args)
            .env_clear()
            .env("PATH", format!("{}:{}", search_path(), self.path("bin")))
            .env("HOME", self.root().join("home"))
            .env("TMPDIR", self.root().join("temp"))
            .env("JOB_RESPONSE_FILE", self.root().join("response.json"))
            .env("BUILD_EXIT_CODE_FILE", &exit_code)
            .env("BUILD_FAILURE_EXIT_CODE", BUILD_FAILURE.to_string())
            .env("SYSTEM_FAILURE_EXIT_CODE", SYSTEM_FAILURE.to_string())
            .env("CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR", format!("{}.tmp", self.project().display()))
            .envs(self.session.iter().map(|session| ("SAGEMAKER_EXECUTOR_SESSION", session)))
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(stdout(File::create(&out).unwrap()))
            .stderr(File::create(&err).unwrap())
            .spawn()
            .expect("the driver is this package's binary");
        Running { child, out, err, exit_code }
    }

    pub(super) fn call(&self, args: &[&str]) -> Ended {
        self.start(args).end()
    }

    /// `config`, whose session the later calls get, and the project directory that `get_sources` would make.
    pub(super) fn config(&mut self) -> Ended {
        self.session = None;
        let ended = self.call(&["config"]);
        if ended.code == Some(0) {
            let answer: Value = serde_json::from_slice(&ended.stdout).unwrap();
            let session = answer["job_env"]["SAGEMAKER_EXECUTOR_SESSION"].as_str().unwrap();
            self.session = Some(session.to_owned());
        }
        ended
    }

    pub(super) fn prepare(&self) -> Ended {
        self.call(&["prepare"])
    }

    /// `config` and `prepare`, which must pass, and an empty project.
    #[track_caller]
    pub(super) fn prepared(mut self) -> Self {
        self.config().passed();
        self.prepare().passed();
        std::fs::create_dir_all(self.project()).unwrap();
        self
    }

    /// Another job of the project on the same host, when the one before is cleaned up: `config` and `prepare`, which must pass.
    #[track_caller]
    pub(super) fn next_job(&mut self, job: &Job, id: u64) {
        let payload = job.payload(id, TOKEN, "http://gitlab.example.com");
        std::fs::write(self.root().join("response.json"), payload.to_string()).unwrap();
        self.config().passed();
        self.prepare().passed();
    }

    /// Puts a file into the project.
    pub(super) fn put(&self, path: &str, content: &[u8]) {
        let path = self.project().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// The output of the last call so far.
    pub(super) fn last_output(&self) -> Vec<u8> {
        std::fs::read(self.root().join(format!("stdout-{}", self.calls.get()))).unwrap()
    }

    pub(super) fn start_run(&self, stage: &str, script: &str) -> Running {
        self.start_run_into(stage, script, Stdio::from)
    }

    /// As [`Desk::start_run`], with another stdout that leads to the file.
    pub(super) fn start_run_into(&self, stage: &str, script: &str, stdout: impl FnOnce(File) -> Stdio) -> Running {
        let path = self.root().join(format!("script-{stage}-{}", self.calls.get()));
        std::fs::write(&path, script).unwrap();
        self.start_into(&["run", &path.to_string_lossy(), stage], stdout)
    }

    pub(super) fn run(&self, stage: &str, script: &str) -> Ended {
        self.start_run(stage, script).end()
    }

    pub(super) fn cleanup(&self) -> Ended {
        self.call(&["cleanup"])
    }

    /// The only training job.
    #[track_caller]
    pub(super) fn training_job(&self) -> Value {
        let jobs = self.emulator.jobs();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs[0].clone()
    }

    /// Cleans up and looks whether anything is left.
    #[track_caller]
    pub(super) fn close(self) {
        self.cleanup().passed();
        self.is_left_clean();
    }

    #[track_caller]
    pub(super) fn is_left_clean(&self) {
        let sweep = || {
            self.call(&["sweep"]).passed();
        };
        let records = self.emulator.left_records(&self.root().join("state/sessions"), sweep);
        self.emulator.is_left_clean(&self.secrets);
        assert!(records.is_empty(), "session records are left: {records:?}");
        let state: Vec<_> = std::fs::read_dir(self.root().join("state")).into_iter().flatten().flatten().collect();
        let scratch = state.iter().filter(|entry| {
            let of_the_host = ["agent.json", "agent.lock", "audit.log", "create.json", "look.lock", "retention.json"];
            let folders = ["sessions", "logs", "projects", "rules", "slots", "jobs", "metrics"];
            !of_the_host.iter().chain(&folders).any(|name| entry.file_name() == *name)
        });
        assert_eq!(scratch.count(), 0, "scratch is left: {state:?}");
        let notes = std::fs::read_dir(self.root().join("state/jobs")).into_iter().flatten().flatten();
        assert_eq!(notes.count(), 0, "notes about jobs are left");
        let taken = taken_slots(&self.root().join("state"));
        assert!(taken.is_empty(), "directories are reserved still: {taken:?}");
        // What the host's drivers share of the log stays; what belongs to one job does not.
        let scopes = std::fs::read_dir(self.root().join("state/logs")).into_iter().flatten().flatten();
        let shared: Vec<_> = scopes.flat_map(|scope| std::fs::read_dir(scope.path()).unwrap().flatten()).collect();
        let session = self.session.clone().unwrap_or_default();
        let own: Vec<_> =
            shared.iter().filter(|entry| entry.file_name().to_string_lossy().contains(&session)).collect();
        assert!(session.is_empty() || own.is_empty(), "files of the job's log are left: {own:?}");
    }
}
