//! Several runners on one host, as docs/OPERATING.md has them: one process of GitLab Runner with two entries, each with an operator's file,
//! and another process of another user. Each has a GitLab of its own; bucket, prefix and account are one.

use std::fs::File;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;
use toml::{Table, Value};

use crate::conformance::shown;
use crate::docs::read;
use crate::support::account::Account;
use crate::support::driver::{Driver, sandboxed_as_root, taken_slots};
use crate::support::emulator::{Emulator, command, processes};
use crate::support::gitlab::{GitLab, RUNNER_TOKEN, Repository};
use crate::support::iam;
use crate::support::job::{Artifacts, Job};
use crate::support::outcome::Outcome;
use crate::support::waiting::{enter_gate, poll, search_path, tell};
use crate::support::world::Runner;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_mins(2);
const NOTHING: &str = "Nothing is left over";
/// Lines of each job's output.
const LINES: usize = 200;

/// A runner, and all that it shares with no other one.
struct Tenant {
    name: &'static str,
    gitlab: GitLab,
    /// Of `account` alone: directories, operator's file, home.
    folder: TempDir,
    account: Account,
    program: PathBuf,
}

impl Tenant {
    fn new(name: &'static str, account: Account, driver: &Driver) -> Self {
        let folder = tempfile::Builder::new().prefix(name).tempdir().unwrap();
        account.give(folder.path());
        for part in ["home", "temp", "builds", "cache"] {
            std::fs::create_dir(folder.path().join(part)).unwrap();
            account.give(&folder.path().join(part));
        }
        Self { name, gitlab: GitLab::start(), folder, account, program: account.reachable(&driver.program) }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    fn operator_file(&self) -> PathBuf {
        self.path("operator.toml")
    }

    fn configure(&self, driver: &Driver, endpoint: &str) {
        let text = operator_text(driver, self.folder.path()).replace("{emulator}", endpoint);
        std::fs::write(self.operator_file(), text).unwrap();
    }

    /// Its entry in `config.toml`: that which the project ships, with what an operator replaces.
    fn entry(&self, of: &Table) -> Value {
        let mut entry = of.clone();
        let text = |value: &str| Value::String(value.to_owned());
        entry.insert("name".to_owned(), text(self.name));
        entry.insert("url".to_owned(), text(self.gitlab.url()));
        entry.insert("token".to_owned(), text(&format!("{RUNNER_TOKEN}-{}", self.name)));
        let custom = entry["custom"].as_table_mut().unwrap();
        for stage in ["config", "prepare", "run", "cleanup"] {
            custom.insert(format!("{stage}_exec"), text(self.program.to_str().unwrap()));
            custom[&format!("{stage}_args")][1] = text(self.operator_file().to_str().unwrap());
        }
        Value::Table(entry)
    }

    fn command(&self, program: &Path, emulator: &Emulator) -> Command {
        let mut command = Command::new(program);
        self.account.become_of(&mut command);
        command.current_dir(self.folder.path()).env_clear().envs(emulator.environment()).stdin(Stdio::null());
        command.env("PATH", search_path()).env("HOME", self.path("home")).env("TMPDIR", self.path("temp"));
        command.env("LC_ALL", "C.UTF-8").env("GIT_CONFIG_NOSYSTEM", "1");
        command
    }

    /// Puts a job into its GitLab that waits at the gate, before the last of its lines.
    fn enqueue(&self, gate: &Gate) -> u64 {
        let repository = Repository::create(self.gitlab.repositories(), "ml/churn");
        let sha = repository.commit("main", &[("name", self.name)]);
        let talk = format!("for line in $(seq {LINES}); do echo \"$(cat name) line $line\"; done");
        let job = Job::new().sources(&repository, "main", &sha).artifacts(Artifacts::paths(["made"]));
        self.gitlab.enqueue(&job.script([&talk, &gate.wait(self.name), "cp name made", "echo the-end"]))
    }

    fn outcome(&self, id: u64) -> Outcome {
        self.gitlab.question(id, |record| {
            let mut outcome = Outcome::new(id, record.trace.bytes().to_vec(), record.result.clone());
            outcome.artifacts.clone_from(&record.artifacts);
            outcome
        })
    }

    fn sweep(&self, emulator: &Emulator) -> String {
        let mut command = self.command(&self.program, emulator);
        let swept = command.arg("--config").arg(self.operator_file()).args(["sweep", "--older-than", "0s"]);
        let swept = swept.output().unwrap();
        assert!(swept.status.success(), "{}", shown(&swept));
        shown(&swept)
    }

    fn doctor(&self, runner_config: &Path, emulator: &Emulator) -> Output {
        let mut command = self.command(&self.program, emulator);
        command.arg("--config").arg(self.operator_file()).args(["doctor", "--json", "--runner-config"]);
        command.arg(runner_config).output().unwrap()
    }

    /// Tells whether no session is open, and no directory taken.
    fn is_left_clean(&self) -> bool {
        let sessions = std::fs::read_dir(self.path("state/sessions")).unwrap().count();
        sessions == 0 && taken_slots(&self.path("state")).is_empty()
    }
}

/// The driver's operator's file with directories below a folder; the emulator's address is left open.
fn operator_text(driver: &Driver, folder: &Path) -> String {
    let marks = [("{builds_dir}", "builds"), ("{cache_dir}", "cache"), ("{root}/state", "state")];
    marks.iter().fold(driver.operator_config.clone(), |text, (mark, part)| {
        text.replace(mark, &folder.join(part).to_string_lossy())
    })
}

/// Where the jobs wait for the test, past the product.
struct Gate {
    listener: TcpListener,
}

impl Gate {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    /// The line of a script that waits.
    fn wait(&self, name: &str) -> String {
        let port = self.listener.local_addr().unwrap().port();
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo {name} >&3; read -r word <&3; exec 3>&-; echo \"$word\"")
    }

    /// Waits for this many jobs. What is written to them lets them go on.
    fn arrived(&self, jobs: usize, told: impl Fn() -> String) -> Vec<TcpStream> {
        let mut arrived = Vec::new();
        let all = poll(PATIENCE, || {
            arrived.extend(self.listener.accept().ok().map(|(stream, _)| stream));
            (arrived.len() == jobs).then_some(())
        });
        assert!(all.is_some(), "{} of {jobs} jobs wait\n{}", arrived.len(), told());
        arrived
    }
}

/// GitLab Runner as a service, killed with the value.
struct Process {
    child: Child,
    config: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Writes the file of these tenants, and runs GitLab Runner as the user of the first.
    fn start(program: &Path, tenants: &[&Tenant], emulator: &Emulator) -> Self {
        let mut file: Table = toml::from_str(&read("runner-config/config.toml")).unwrap();
        let shipped = file["runners"][0].as_table().unwrap().clone();
        let entries = tenants.iter().map(|tenant| tenant.entry(&shipped)).collect();
        file.insert("runners".to_owned(), Value::Array(entries));
        file.insert("check_interval".to_owned(), Value::Integer(1));
        let first = tenants[0];
        let (config, log) = (first.path("config.toml"), first.path("runner.log"));
        std::fs::write(&config, toml::to_string(&file).unwrap()).unwrap();
        std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        first.account.give(&config);
        let output = File::create(&log).unwrap();
        let mut command = first.command(&first.account.reachable(program), emulator);
        command.args(["run", "--config"]).arg(&config).arg("--working-directory").arg(first.path("home"));
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Self { child, config, log }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// It takes no further job, and ends after those that it has.
    fn leave(mut self) {
        self.signal(Signal::QUIT);
        let left = poll(PATIENCE, || self.child.try_wait().unwrap());
        assert!(left.is_some(), "{}", self.text());
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The runner dies with its drivers, as at the end of its user's session: nobody calls `cleanup`.
fn kill(process: Process, tenant: &Tenant) {
    process.signal(Signal::STOP);
    let file = tenant.operator_file().to_string_lossy().into_owned();
    for pid in processes().filter(|pid| command(*pid).contains(&file)) {
        // One that has ended in the meantime is no driver any more.
        let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
    }
    drop(process);
}

/// `config.operator_file` of each runner's entry, as `doctor` with a tenant's file tells it.
fn told_files(doctor: &Output) -> Vec<(String, String)> {
    let report: Json =
        serde_json::from_slice(&doctor.stdout).unwrap_or_else(|error| panic!("{error}: {}", shown(doctor)));
    let findings = report["findings"].as_array().unwrap().iter();
    let of_files = findings.filter(|finding| finding["id"] == "config.operator_file");
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    of_files.map(|finding| (text(&finding["subject"]), text(&finding["verdict"]))).collect()
}

/// Three jobs at once, four sweeps and two reports of `doctor` are too much for the ordinary suite.
#[expect(clippy::disallowed_methods, reason = "the size of the suite, which the project's own modules know nothing of")]
fn is_asked_for() -> bool {
    std::env::var_os("SEVERAL_RUNNERS").is_some()
}

#[test]
fn runners_of_one_host_do_not_touch_each_other() {
    if !is_asked_for() {
        return tell("SKIPPED: several runners on one host, which `SEVERAL_RUNNERS=1` plays");
    }
    let Some(Runner::Real(runner)) = Runner::real() else {
        return tell("SKIPPED: several runners on one host: no gitlab-runner on PATH");
    };
    let _place = enter_gate();
    let driver = sandboxed_as_root();
    let root = tempfile::tempdir().unwrap();
    let emulator = iam::start_emulator(root.path(), &driver, &operator_text(&driver, root.path()), &[]);
    let tenant = |name, account| {
        let tenant = Tenant::new(name, account, &driver);
        tenant.configure(&driver, &emulator.endpoint);
        tenant
    };
    let (a, b) = (tenant("team-a", Account::own()), tenant("team-b", Account::own()));
    let c = tenant("team-c", Account::ordinary());
    let gate = Gate::new();
    let [of_a, of_b, of_c] = [&a, &b, &c].map(|tenant| tenant.enqueue(&gate));
    // Ids of projects, jobs and pipelines are the same, as in three installations of GitLab.
    assert!(of_a == of_b && of_b == of_c);
    let both = Process::start(&runner, &[&a, &b], &emulator);
    let own = Process::start(&runner, &[&c], &emulator);
    let told =
        || format!("{}\n{}\n{}\n{}\n{}", a.outcome(of_a), b.outcome(of_b), c.outcome(of_c), both.text(), own.text());
    let waiting = gate.arrived(3, told);
    assert_eq!(emulator.live_jobs().len(), 3);

    for tenant in [&a, &b, &c] {
        let swept = tenant.sweep(&emulator);
        assert!(swept.contains(NOTHING), "{}: {swept}", tenant.name);
    }
    let (ok, warning) = ("ok".to_owned(), "warning".to_owned());
    let doctor = a.doctor(&both.config, &emulator);
    let files = told_files(&doctor);
    assert!(files.len() == 2 && files[0].1 == ok && files[1].1 == warning, "{files:?}");
    assert!(!shown(&doctor).contains("each `[[runners]]` a `token` of its own"), "{}", shown(&doctor));
    let files = told_files(&c.doctor(&own.config, &emulator));
    assert!(files.len() == 1 && files[0].1 == ok, "{files:?}");

    // One runner dies: its own sweep alone ends what it left.
    kill(own, &c);
    for tenant in [&a, &b] {
        let swept = tenant.sweep(&emulator);
        assert!(swept.contains(NOTHING), "{}: {swept}", tenant.name);
    }
    assert_eq!(emulator.live_jobs().len(), 3);
    let swept = c.sweep(&emulator);
    assert!(swept.matches("Ended gitlab-").count() == 1 && !swept.contains("found by"), "{swept}");
    assert_eq!(emulator.live_jobs().len(), 2);

    for mut job in waiting {
        // That of the dead runner has gone.
        let _ = job.write_all(b"go-on\n");
    }
    let ended = |tenant: &Tenant, id| poll(PATIENCE, || tenant.outcome(id).state).is_some();
    assert!(ended(&a, of_a) && ended(&b, of_b), "{}", both.text());
    both.leave();
    for (tenant, id) in [(&a, of_a), (&b, of_b)] {
        let outcome = tenant.outcome(id);
        outcome.succeeded();
        let lines: Vec<String> = (1..=LINES).map(|line| format!("{} line {line}", tenant.name)).collect();
        outcome.shows(&format!("\n{}\n", lines.join("\n"))).shows("\ngo-on\n").shows("\nthe-end\n");
        assert_eq!(outcome.artifact("archive").files().get("made").map(Vec::as_slice), Some(tenant.name.as_bytes()));
        assert!(tenant.is_left_clean(), "{}", tenant.name);
    }
    assert_eq!(c.outcome(of_c).state, None);
    assert!(c.is_left_clean());
    emulator.is_left_clean(&[]);
}
