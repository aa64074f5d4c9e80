//! The program is replaced while jobs run, as a package does it: each job ends exactly, with the stages of both versions and with the agent
//! of the version that created its training job. A version that does not understand a newer record says so, and `cleanup` ends the job.
//!
//! `UPGRADE=/path/to/other/program` names the other version, `UPGRADE=/path:20` the number of jobs as well; each is in another moment of its
//! life when the program is replaced. Without it, few jobs run and this program replaces itself.
//! `UPGRADE_RECORD=FOLDER` writes the messages of the other version as `tests/fixtures/messages` has them.

mod gate;
mod recorded;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use self::gate::Gate;
use super::sagemaker_desk::{BUILD_FAILURE, Desk, Ended, Running, SYSTEM_FAILURE, TOKEN};
use crate::support::driver::{sandboxed_as_root, write_program};
use crate::support::job::{Artifacts, Job};
use crate::support::program;
use crate::support::proxy::{Hold, Proxy};
use crate::support::waiting::{find_program, poll, tell};

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(90);
/// In the ordinary suite.
const JOBS: usize = 3;

/// The step of a job in which the program is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amid {
    /// The stage was not begun.
    Before,
    /// The stage waits for the reply to a request that has this word, or the request waits.
    Request(&'static str, Hold),
    /// Its script waits.
    Script,
    /// Its script waits; then the driver is killed and called again.
    Killed,
    /// Its script waits; then the job is canceled.
    Canceled,
}

const STAGES: [&str; 7] = [
    "prepare",
    "get_sources",
    "build_script",
    "after_script",
    "upload_artifacts_on_success",
    "cleanup_file_variables",
    "cleanup",
];

/// Jobs have these moments in turn. The first ones are those of the ordinary suite.
const MOMENTS: [(&str, Amid); 18] = [
    ("build_script", Amid::Script),
    ("prepare", Amid::Request("SageMaker.CreateTrainingJob", Hold::After)),
    ("cleanup", Amid::Request("?delete", Hold::Before)),
    ("after_script", Amid::Script),
    ("prepare", Amid::Before),
    ("prepare", Amid::Request("SageMaker.CreateTrainingJob", Hold::Before)),
    ("get_sources", Amid::Before),
    ("get_sources", Amid::Script),
    ("build_script", Amid::Before),
    ("build_script", Amid::Request("/workspace/", Hold::Before)),
    ("build_script", Amid::Request("/scripts/", Hold::After)),
    ("build_script", Amid::Killed),
    ("build_script", Amid::Canceled),
    ("after_script", Amid::Before),
    ("upload_artifacts_on_success", Amid::Before),
    ("after_script", Amid::Request("/results/", Hold::After)),
    ("cleanup_file_variables", Amid::Before),
    ("cleanup", Amid::Before),
];

#[expect(clippy::disallowed_methods, reason = "the other program, and the size of the test")]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The other version, and the number of jobs.
fn other() -> Option<(PathBuf, usize)> {
    let text = asked("UPGRADE")?;
    let (path, jobs) = match text.rsplit_once(':') {
        Some((path, jobs)) => (path, jobs.parse().expect("a number of jobs")),
        None => (text.as_str(), JOBS),
    };
    assert!(Path::new(path).is_file(), "{path} is no file");
    Some((path.into(), jobs))
}

fn job() -> Job {
    Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["out/*"]).when("always"))
}

/// Puts the program into place as a package manager does: written beside it, and renamed.
fn install(program: &Path, place: &Path) {
    let new = place.with_extension("new");
    fs::copy(program, &new).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, place).unwrap();
}

/// A host whose program lies where a package installs it, and its jobs.
struct Host {
    desk: Desk,
    proxy: Proxy,
    gate: Gate,
    env: Vec<(String, String)>,
}

/// A job on its way.
struct HostJob {
    id: u64,
    /// Index of the stage of its moment, and what happens there.
    moment: (usize, Amid),
    session: String,
    /// The environment that `config` gives the later stages.
    job_env: Vec<(String, String)>,
    folder: PathBuf,
    project: PathBuf,
    /// Index of the next stage.
    next: usize,
    running: Option<Running>,
    /// Stages by name as they ended, and what they printed.
    ended: Vec<(&'static str, Ended)>,
    /// The program did not understand its record.
    refused: bool,
}

impl HostJob {
    fn fails(&self) -> bool {
        self.id % 2 == 1
    }

    fn stage(&self, index: usize) -> &'static str {
        match STAGES[index] {
            "upload_artifacts_on_success" if self.fails() || self.moment.1 == Amid::Canceled => {
                "upload_artifacts_on_failure"
            }
            stage => stage,
        }
    }

    /// Prints two lines, between which it may be made to wait, and makes a file.
    fn script(&self, stage: &str, gate: &Gate) -> String {
        let (id, port, code) = (self.id, gate.port, if stage == "build_script" && self.fails() { 7 } else { 0 });
        let (first, second) = lines(id, stage);
        let make = match stage {
            "get_sources" => {
                format!("rm -rf '{0}'; mkdir -p '{0}/out'; cd '{0}'; echo arrived >input", self.project.display())
            }
            "build_script" | "after_script" => format!("[ \"$(cat input)\" = arrived ] && echo {stage} >out/{stage}"),
            _ => return "true".to_owned(),
        };
        format!(
            "exec 9<>/dev/tcp/127.0.0.1/{port}; echo {id}-{stage} >&9; printf '{first}'; read -r line <&9\n\
             {make}; printf '{second}'; exit {code}\n"
        )
    }

    /// Checks how a stage ended, and turns to the next one.
    fn note(&mut self, ended: Ended) {
        let stage = self.stage(self.next);
        let code = fs::read_to_string(self.folder.join("code")).ok();
        let is_canceled = self.moment == (self.next, Amid::Canceled);
        let context = format!("job {} ({:?}), {stage}: {ended}", self.id, self.moment);
        if ended.code == Some(SYSTEM_FAILURE) && ended.stderr.contains("; this program knows ") {
            ended.one_error().says("hint: ");
            self.refused = true;
            self.next = STAGES.len() - 1;
        } else {
            let fails = stage == "build_script" && self.fails();
            let expected = match (is_canceled, fails) {
                (true, _) => (SYSTEM_FAILURE, None),
                (false, true) => (BUILD_FAILURE, Some("7")),
                (false, false) => (0, None),
            };
            assert_eq!((ended.code, code.as_deref()), (Some(expected.0), expected.1), "{context}");
            assert!(!ended.stderr.contains("panicked"), "{context}");
            self.next += 1;
        }
        self.ended.push((stage, ended));
    }

    /// The output of the stage; of more than one call, all that stand after each other.
    fn printed(&self, stage: &str) -> String {
        self.ended.iter().filter(|(name, _)| *name == stage).map(|(_, ended)| ended.out()).collect()
    }
}

/// The two lines that a script prints.
fn lines(id: u64, stage: &str) -> (String, String) {
    (format!("{id} {stage} begins\\n"), format!("{id} {stage} ends\\n"))
}

impl Host {
    fn with(program: &Path) -> Self {
        let mut desk = Desk::new(&job());
        let proxy = Proxy::start(&desk.emulator.endpoint);
        let emulator = &desk.emulator.endpoint;
        desk.edit_operator_file(
            &format!("endpoint_url = \"{emulator}\""),
            &format!("endpoint_url = \"{}\"\ncontainer_endpoint_url = \"{emulator}\"", proxy.url),
        );
        desk.program = desk.root().join("usr/bin/sagemaker-executor");
        fs::create_dir_all(desk.program.parent().unwrap()).unwrap();
        install(program, &desk.program);
        let env = desk.env.clone();
        Self { desk, proxy, gate: Gate::start(), env }
    }

    /// Lets the desk's next call be one of this job.
    fn turn_to(&mut self, job: &HostJob) {
        let mut env = self.env.clone();
        let mut set = |key: &str, value: &Path| env.push((key.to_owned(), value.to_string_lossy().into_owned()));
        set("JOB_RESPONSE_FILE", &job.folder.join("response.json"));
        set("BUILD_EXIT_CODE_FILE", &job.folder.join("code"));
        set("CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR", &PathBuf::from(format!("{}.tmp", job.project.display())));
        env.extend(job.job_env.iter().cloned());
        self.desk.env = env;
        self.desk.session = (!job.session.is_empty()).then(|| job.session.clone());
    }

    /// A job after its `config`.
    fn begin(&mut self, id: u64, (stage, amid): (&'static str, Amid)) -> HostJob {
        let folder = self.desk.root().join(format!("job-{id}"));
        fs::create_dir(&folder).unwrap();
        let payload = job().payload(id, TOKEN, "http://gitlab.example.com").to_string();
        fs::write(folder.join("response.json"), payload).unwrap();
        let at = STAGES.iter().position(|known| *known == stage).unwrap();
        let mut job = HostJob {
            id,
            moment: (at, amid),
            session: String::new(),
            job_env: Vec::new(),
            project: PathBuf::new(),
            folder,
            next: 0,
            running: None,
            ended: Vec::new(),
            refused: false,
        };
        self.turn_to(&job);
        let ended = self.desk.config();
        let answer: Value = serde_json::from_slice(&ended.passed().stdout).unwrap();
        let given = answer["job_env"].as_object().unwrap().iter();
        job.job_env = given.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect();
        job.session = self.desk.session.clone().unwrap();
        job.project = Path::new(answer["builds_dir"].as_str().unwrap()).join(format!("tok/{id}/ml/churn"));
        job
    }

    fn start(&mut self, job: &HostJob) -> Running {
        self.turn_to(job);
        let _ = fs::remove_file(job.folder.join("code"));
        let stage = job.stage(job.next);
        match stage {
            "prepare" | "cleanup" => self.desk.start(&[stage]),
            _ => self.desk.start_run(stage, &job.script(stage, &self.gate)),
        }
    }

    /// Plays a job up to its moment.
    fn play_first(&mut self, job: &mut HostJob) {
        let (at, amid) = job.moment;
        while job.next < at {
            let ended = self.start(job).end();
            job.note(ended);
        }
        let name = format!("{}-{}", job.id, STAGES[at]);
        match amid {
            Amid::Before => return,
            Amid::Request(word, hold) => self.proxy.hold_words(&[word, &job.session], hold),
            Amid::Script | Amid::Killed | Amid::Canceled => self.gate.close(&name),
        }
        let mut running = self.start(job);
        let is_there = poll(PATIENCE, || {
            let is_there = if matches!(amid, Amid::Request(..)) {
                self.proxy.held().is_some()
            } else {
                self.gate.waits(&name) && running.out().contains("begins\n")
            };
            is_there.then_some(true).or_else(|| running.has_ended().then_some(false))
        });
        assert!(is_there == Some(true), "job {} did not come to {amid:?} of {}\n{}", job.id, STAGES[at], running.end());
        job.running = Some(running);
    }

    /// Plays the rest of the job.
    fn play_rest(&mut self, job: &mut HostJob) {
        if let Some(running) = job.running.take() {
            let ended = running.end();
            if ended.code.is_none() {
                job.ended.push((job.stage(job.next), ended));
            } else {
                job.note(ended);
            }
        }
        while job.next < STAGES.len() {
            let ended = self.start(job).end();
            job.note(ended);
        }
    }

    /// Trace, files and the number of training jobs of a job that has ended.
    fn judge(&self, job: &HostJob) {
        let names = self.desk.emulator.jobs().into_iter().map(|job| job["TrainingJobName"].to_string());
        let count = names.filter(|name| name.contains(&job.session)).count();
        assert_eq!(count, 1, "training jobs of {} ({:?})", job.session, job.moment);
        for stage in ["get_sources", "build_script", "after_script"] {
            let begun = self.gate.begun(&format!("{}-{stage}", job.id));
            let printed = job.printed(stage);
            let (first, second) = lines(job.id, stage);
            let (first, whole) = (first.replace("\\n", "\n"), (first + &second).replace("\\n", "\n"));
            let is_canceled = stage == "build_script" && job.moment.1 == Amid::Canceled;
            if job.refused {
                assert!(begun <= 1 && whole.starts_with(&printed), "{begun} {printed}");
                continue;
            }
            let expected = if is_canceled { &first } else { &whole };
            // A killed driver may have printed bytes that it had not noted: these are printed again.
            let repeated = format!("{first}{whole}");
            let may_repeat = stage == "build_script" && job.moment.1 == Amid::Killed;
            assert!(printed == *expected || may_repeat && printed == repeated, "{:?}\n{printed}", job.moment);
            assert_eq!(begun, 1, "{stage} of {:?}", job.moment);
            if stage != "get_sources" && !is_canceled {
                let made = fs::read_to_string(job.project.join("out").join(stage)).ok();
                assert_eq!(made, Some(format!("{stage}\n")), "{:?}", job.moment);
            }
        }
    }
}

/// Plays so many jobs, during which one program replaces another, as another does that one after them; how many of the jobs the second one
/// did not understand.
fn replaced([first, second, last]: [&Path; 3], jobs: usize) -> usize {
    let mut host = Host::with(first);
    let mut all = Vec::new();
    for (number, moment) in (0..jobs).zip(MOMENTS.iter().cycle()) {
        let mut job = host.begin(5000 + number as u64, *moment);
        host.play_first(&mut job);
        all.push(job);
    }
    // A sweep is in the middle of its work, too.
    host.proxy.hold_words(&["SageMaker.ListTrainingJobs"], Hold::Before);
    host.desk.session = None;
    let sweep = host.desk.start(&["sweep"]);
    assert!(poll(PATIENCE, || host.proxy.held()).is_some(), "the sweep does not list the jobs");

    let place = host.desk.program.clone();
    install(second, &place);

    for job in &mut all {
        if let Some(running) = &job.running {
            match job.moment.1 {
                Amid::Killed => running.signal(Signal::KILL),
                Amid::Canceled => running.signal(Signal::TERM),
                _ => {}
            }
        }
        // Its script waits until then.
        if let (Amid::Killed | Amid::Canceled, Some(running)) = (job.moment.1, &mut job.running) {
            assert!(poll(PATIENCE, || running.has_ended().then_some(())).is_some(), "{:?}", job.moment);
        }
    }
    host.gate.open();
    host.proxy.settle(true);
    sweep.end().passed();
    for job in &mut all {
        host.play_rest(job);
    }
    for job in &all {
        host.judge(job);
    }
    // Notes that only the newer version knows stay until its sweep.
    install(last, &place);
    host.desk.call(&["sweep", "--older-than", "0s"]).passed();
    host.desk.is_left_clean();
    all.iter().filter(|job| job.refused).count()
}

#[test]
fn jobs_go_on_with_a_newer_program() {
    let own = program::executor();
    let Some((older, jobs)) = other() else {
        tell("SKIPPED: an upgrade to another version: UPGRADE names no program; this program replaces itself");
        assert_eq!(replaced([own, own, own], JOBS), 0);
        return;
    };
    assert_eq!(replaced([&older, own, own], jobs), 0, "a newer version understands all records of an older one");
}

#[test]
fn jobs_go_on_with_an_older_program() {
    let Some((older, jobs)) = other() else {
        tell("SKIPPED: the way back to another version: UPGRADE names no program");
        return;
    };
    let own = program::executor();
    let refused = replaced([own, &older, own], jobs);
    tell(&format!("{refused} of {jobs} jobs had a record that the older program does not understand"));
}

/// The file of the program is gone before the driver makes the sandbox.
#[test]
fn a_host_stage_whose_program_was_replaced() {
    if find_program("bwrap").is_none() {
        tell("SKIPPED: a sandbox of a program that was replaced: no bwrap here");
        return;
    }
    let mut desk = Desk::of(&sandboxed_as_root(), &std::env::temp_dir(), &job());
    desk.config().passed();
    desk.prepare().passed();
    let driver = desk.program.clone();
    desk.program = desk.root().join("replaced-at-once");
    let script = "#!/usr/bin/env bash\nset -e\ncp '{driver}' \"$0.copy\"\nexec 3<\"$0.copy\"\nrm \"$0.copy\"\nexec /proc/self/fd/3 \"$@\"\n";
    write_program(&desk.program, &script.replace("{driver}", &driver.to_string_lossy()));
    let ended = desk.run("get_sources", "echo made");
    ended.passed().hides("warning: ");
    assert_eq!(ended.out(), "made\n");
    desk.program = driver;
    desk.close();
}
