//! One double of GitLab, one set of directories, one driver and one runner: everything a scenario needs.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::account::Account;
use super::driver::{Driver, Fault, write_host_recorder, write_program, write_recorder};
use super::emulator::{Emulator, command, processes};
use super::gitlab::{GitLab, Repository};
use super::iam;
use super::job::Job;
use super::outcome::Outcome;
use super::proxy::Proxy;
use super::tls::TlsFront;
use super::waiting::{find_program, poll};
use super::{real_runner, runner_double};

/// Who runs the jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Runner {
    /// GitLab Runner itself.
    Real(PathBuf),
    /// The runner double; needs bash only.
    Double,
}

impl Runner {
    /// The real runner, when it is on `PATH`.
    pub(crate) fn real() -> Option<Self> {
        find_program("gitlab-runner").map(Self::Real)
    }
}

/// Which executor the real runner uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Executor {
    #[default]
    Custom,
    /// GitLab Runner's own; there is no driver then. Only with [`Runner::Real`].
    Shell,
}

/// The keys of the runner's `config.toml` that scenarios set. Times in seconds.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Settings {
    pub(crate) executor: Executor,
    pub(crate) graceful_kill_timeout: u64,
    pub(crate) force_kill_timeout: u64,
    pub(crate) config_exec_timeout: u64,
    pub(crate) prepare_exec_timeout: u64,
    pub(crate) cleanup_exec_timeout: u64,
    /// `30s`, `1h30m`; none means the job's own limit.
    pub(crate) get_sources_timeout: Option<&'static str>,
    /// The shell that `config.toml` names; only with the real runner.
    pub(crate) shell: &'static str,
    /// Size of the trace in KiB; 0 is the runner's default of 4 MiB.
    pub(crate) output_limit: u64,
    /// `environment`: `KEY=value`.
    pub(crate) environment: Vec<&'static str>,
    pub(crate) debug_trace_disabled: bool,
    pub(crate) custom_build_dir: bool,
    /// `[runners.feature_flags]`.
    pub(crate) feature_flags: Vec<(&'static str, bool)>,
    pub(crate) faults: Vec<Fault>,
    /// Driver and containers reach the emulator through [`World::proxy`], which keeps their requests.
    pub(crate) kept_requests: bool,
    /// GitLab speaks TLS with a certificate authority of its own. Only with [`Runner::Real`].
    pub(crate) tls: bool,
    /// Runner and driver run as [`account::ORDINARY`], which owns the directories, as the quick start sets it up. A suite that
    /// itself runs as an ordinary user keeps that user.
    pub(crate) ordinary_user: bool,
    /// Load the project's own `runner-config/config.toml` in place of a generated one; only address, token and paths differ.
    pub(crate) shipped_config: bool,
    /// Time limit of the whole job; the scenario fails after it.
    pub(crate) deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            executor: Executor::Custom,
            graceful_kill_timeout: 5,
            force_kill_timeout: 2,
            config_exec_timeout: 30,
            prepare_exec_timeout: 30,
            cleanup_exec_timeout: 30,
            get_sources_timeout: None,
            shell: "bash",
            output_limit: 0,
            environment: Vec::new(),
            debug_trace_disabled: false,
            custom_build_dir: false,
            feature_flags: Vec::new(),
            faults: Vec::new(),
            kept_requests: false,
            tls: false,
            ordinary_user: false,
            shipped_config: false,
            deadline: Duration::from_mins(2),
        }
    }
}

/// The directories of one world; removed with it.
pub(crate) struct Dirs {
    root: tempfile::TempDir,
}

impl Dirs {
    /// Only `account` (or this process's own user) may enter them.
    fn create(account: Account) -> Self {
        let dirs = Self { root: tempfile::Builder::new().prefix("world").tempdir().unwrap() };
        account.give(dirs.root());
        for folder in [dirs.home(), dirs.temp(), dirs.builds(), dirs.cache(), dirs.bin()] {
            std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
            account.give(&folder);
        }
        dirs
    }
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }
    pub(crate) fn home(&self) -> PathBuf {
        self.root().join("home")
    }
    pub(crate) fn temp(&self) -> PathBuf {
        self.root().join("temp")
    }
    pub(crate) fn builds(&self) -> PathBuf {
        self.root().join("builds")
    }
    pub(crate) fn cache(&self) -> PathBuf {
        self.root().join("cache")
    }
    /// For jobs that run on the host beside the driver's.
    pub(crate) fn host_builds(&self) -> PathBuf {
        self.root().join("host-builds")
    }
    /// Programs that come before the machine's own on `PATH`.
    pub(crate) fn bin(&self) -> PathBuf {
        self.root().join("bin")
    }
    /// One line per driver call.
    pub(crate) fn stage_log(&self) -> PathBuf {
        self.root().join("stages")
    }
    /// Replaces the placeholders of a text by paths.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{builds_dir}", &self.builds().to_string_lossy())
            .replace("{cache_dir}", &self.cache().to_string_lossy())
            .replace("{home}", &self.home().to_string_lossy())
            .replace("{operator_config}", &self.root().join("operator.toml").to_string_lossy())
            .replace("{root}", &self.root().to_string_lossy())
    }
    fn stages(&self) -> Vec<String> {
        std::fs::read_to_string(self.stage_log()).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// The environment of one scenario.
pub(crate) struct World {
    _front: Option<TlsFront>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) gitlab: GitLab,
    /// Ended before the directories are removed.
    pub(crate) emulator: Option<Emulator>,
    pub(crate) dirs: Dirs,
    pub(crate) settings: Settings,
    pub(crate) driver: Driver,
    /// The program that the runner calls in place of the driver.
    pub(crate) recorder: PathBuf,
    /// The program in its place for jobs on the host.
    host_recorder: PathBuf,
    pub(crate) runner: Runner,
    /// The account of runner and driver.
    pub(crate) account: Account,
    /// Tokens and masked values of the jobs so far.
    secrets: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn new(runner: Runner, mut driver: Driver, mut settings: Settings) -> Self {
        (driver.adjust)(&mut settings);
        let account = if settings.ordinary_user { Account::ordinary() } else { Account::own() };
        driver.program = account.reachable(&driver.program);
        let dirs = Dirs::create(account);
        if runner == Runner::Double {
            write_program(&dirs.bin().join("gitlab-runner"), include_str!("../../fixtures/gitlab/runner-helper.sh"));
        }
        let emulator = (settings.executor == Executor::Custom)
            .then_some(driver.emulator.as_ref())
            .flatten()
            .map(|args| iam::start_emulator(dirs.root(), &driver, &dirs.fill(&driver.operator_config), args));
        let endpoint = emulator.as_ref().map_or("", |emulator| &emulator.endpoint);
        let proxy = settings.kept_requests.then(|| Proxy::keeping(endpoint));
        let endpoint = proxy.as_ref().map_or(endpoint, |proxy| &proxy.url);
        let recorder = write_recorder(&dirs, &driver, &settings.faults, endpoint);
        let host_recorder = write_host_recorder(&dirs, &dirs.host_builds());
        let mut gitlab = GitLab::start();
        let front = settings.tls.then(|| TlsFront::start(dirs.root(), gitlab.url()));
        if let Some(front) = &front {
            gitlab.stand_behind(&front.url);
        }
        let secrets = Mutex::default();
        Self {
            _front: front,
            proxy,
            gitlab,
            emulator,
            dirs,
            settings,
            driver,
            recorder,
            host_recorder,
            runner,
            account,
            secrets,
        }
    }

    /// Checks after every scenario with AWS that no training job, object, record, process or secret is left.
    /// A world whose cleanup meets a fault is not checked, because only the cleanup removes them.
    pub(crate) fn is_left_clean(&self) {
        let Some(emulator) = &self.emulator else { return };
        if self.settings.faults.iter().any(|fault| fault.stage == "cleanup") {
            return;
        }
        let records = emulator.left_records(&self.dirs.root().join("state/sessions"), || self.sweep());
        emulator.is_left_clean(&self.secrets.lock().unwrap());
        assert!(records.is_empty(), "session records are left: {records:?}");
        let taken = super::driver::taken_slots(&self.dirs.root().join("state"));
        assert!(taken.is_empty(), "directories are reserved still: {taken:?}");
        let root = self.dirs.root().to_string_lossy().into_owned();
        let left = || -> Vec<String> {
            let ours = |pid: &u32| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&environment).contains(&root)
            };
            processes().filter(ours).map(|pid| format!("{pid} {}", command(pid))).collect()
        };
        let mut last = Vec::new();
        poll(Duration::from_secs(20), || {
            last = left();
            last.is_empty().then_some(())
        });
        assert!(last.is_empty(), "processes are left: {last:?}");
    }

    /// `sweep`, as an operator would call it.
    pub(crate) fn sweep(&self) {
        let mut command = std::process::Command::new(&self.driver.program);
        command.args(self.driver.args.iter().map(|arg| self.dirs.fill(arg))).arg("sweep");
        let status = command.env_clear().envs(self.runner_env()).status().expect("the driver is a program");
        assert!(status.success(), "the sweep failed: {status}");
    }

    /// A repository of this world's GitLab.
    pub(crate) fn repository(&self, project: &str) -> Repository {
        Repository::create(self.gitlab.repositories(), project)
    }

    /// The program that the runner double calls for jobs of an executor.
    pub(crate) fn recorder_of(&self, executor: Executor) -> &Path {
        match executor {
            Executor::Custom => &self.recorder,
            Executor::Shell => &self.host_recorder,
        }
    }

    /// The environment of the runner process; nothing else is inherited.
    pub(crate) fn runner_env(&self) -> Vec<(String, String)> {
        let mut env = self.bare_env();
        env.extend(self.emulator.iter().flat_map(Emulator::environment));
        env.extend(self.driver.env.iter().map(|(key, value)| (key.clone(), self.dirs.fill(value))));
        env
    }

    /// [`World::runner_env`] of a runner with this executor: jobs on the host do not see the credentials of the driver.
    pub(crate) fn runner_env_of(&self, executor: Executor) -> Vec<(String, String)> {
        if executor == Executor::Custom { self.runner_env() } else { self.bare_env() }
    }

    /// `PATH` of the runner process.
    pub(crate) fn path(&self) -> String {
        format!("{}:{}", self.dirs.bin().display(), super::waiting::search_path())
    }

    fn bare_env(&self) -> Vec<(String, String)> {
        vec![
            ("PATH".to_owned(), self.path()),
            ("HOME".to_owned(), self.dirs.home().to_string_lossy().into_owned()),
            ("TMPDIR".to_owned(), self.dirs.temp().to_string_lossy().into_owned()),
            ("USER".to_owned(), "gitlab-runner".to_owned()),
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
            ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
        ]
    }

    /// GitLab's current state of a job.
    pub(crate) fn outcome(&self, id: u64) -> Outcome {
        self.gitlab.question(id, |record| {
            let mut outcome = Outcome::new(id, record.trace.bytes().to_vec(), record.result.clone());
            outcome.artifacts.clone_from(&record.artifacts);
            outcome.events.clone_from(&record.events);
            outcome
        })
    }

    /// Sends one job through the runner and waits for its end.
    pub(crate) fn run(&self, job: &Job) -> Outcome {
        let id = self.gitlab.enqueue(job);
        self.run_queued(id, job, self.settings.executor)
    }

    /// Sends the job that was enqueued last through a runner with this executor, and waits for its end.
    pub(crate) fn run_queued(&self, id: u64, job: &Job, executor: Executor) -> Outcome {
        let before = self.dirs.stages().len();
        let runner_log = match &self.runner {
            Runner::Real(program) => real_runner::run(self, program, id, job, executor),
            Runner::Double => runner_double::run(self, job, executor),
        };
        let mut outcome = self.outcome(id);
        outcome.stages = self.dirs.stages().split_off(before);
        outcome.runner_log = runner_log;
        let mut secrets = job.masked_values();
        secrets.push(self.gitlab.question(id, |record| record.token.clone()));
        for secret in &secrets {
            assert!(!outcome.runner_log.contains(secret.as_str()), "the runner's log has {secret:?}\n{outcome}");
        }
        self.secrets.lock().unwrap().extend(secrets);
        outcome
    }
}
