//! Something around a driver ends or fails at one of its requests to AWS, or of the agent's: the agent, the runner, a connection, the disk,
//! a record that another version of the program wrote. The script runs at most once, the trace is exact up to the event, and nothing is
//! left.
//!
//! The ordinary suite runs a few trials, chosen by a fixed seed; `TRIALS=200` runs 200, and `TRIAL_SEED=2` chooses others. A failure names
//! its trial: `TRIAL="<trial>"` runs only that one.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use rustix::process::Signal;
use serde_json::{Map, Value};

use super::disk::{Disk, Lack};
use super::judge::{Fate, Piece, Results, Script, judge};
use super::notes::Notes;
use super::{JOBS_PER_DESK, PATIENCE, asked, job, sources};
use crate::scenarios::sagemaker_desk::{BUILD_FAILURE, Desk, Ended, Running, SYSTEM_FAILURE, TOKEN};
use crate::support::proxy::{Hold, Proxy};
use crate::support::random::Random;
use crate::support::waiting::{poll, tell};

/// Its keys are those that a version before sessions had a place that nobody can guess knew.
const OLDER_RECORD: &str = include_str!("../../../fixtures/records/version-1.json");
/// In the ordinary suite.
const TRIALS: u64 = 22;

/// The event while a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// SIGKILL of the agent, and with it of its container, at a request of its own.
    Agent,
    /// The runner is killed: nobody reads the driver's output any more, and no stage follows.
    Runner,
    /// The driver's connection is closed.
    Connection,
    /// The agent's connection is closed.
    AgentConnection,
    /// No room is left in the state directory until the job's end ...
    FullState,
    /// ... or no inode ...
    NoInodes,
    /// ... or nothing can be written there, from the end of the stage on: a mount with files that are open for writing stays writable.
    ReadOnlyState,
    /// No room is left below `runner.builds_dir`.
    FullBuilds,
    /// SIGKILL of the driver; `cleanup`, or `sweep` when `cleanup` is killed, finds a record that a newer version wrote ...
    NewerRecord,
    /// ... or an older one ...
    OlderRecord,
    /// ... or half of a record.
    BrokenRecord,
}

const EVENTS: [Event; 11] = [
    Event::Agent,
    Event::Runner,
    Event::Connection,
    Event::AgentConnection,
    Event::FullState,
    Event::NoInodes,
    Event::ReadOnlyState,
    Event::FullBuilds,
    Event::NewerRecord,
    Event::OlderRecord,
    Event::BrokenRecord,
];

impl Event {
    fn is_of_agent(self) -> bool {
        matches!(self, Self::Agent | Self::AgentConnection)
    }

    fn lack(self) -> Option<Lack> {
        match self {
            Self::FullState | Self::FullBuilds => Some(Lack::Room),
            Self::NoInodes => Some(Lack::Inodes),
            Self::ReadOnlyState => Some(Lack::Writing),
            _ => None,
        }
    }
}

/// One event at one request of a job, counted from 1 over all its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trial {
    event: Event,
    at: u64,
    hold: Hold,
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} {:?}", self.event, self.at, self.hold)
    }
}

impl std::str::FromStr for Trial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let [event, at, hold] = words[..] else { return Err(format!("{text:?} is no trial")) };
        Ok(Self {
            event: EVENTS.into_iter().find(|known| format!("{known:?}") == event).ok_or("no such event")?,
            at: at.parse().map_err(|_| "no number")?,
            hold: if hold == "Before" { Hold::Before } else { Hold::After },
        })
    }
}

/// A desk whose driver and agents speak to the emulator through a proxy each.
struct Site {
    desk: Desk,
    of_driver: Proxy,
    of_agent: Proxy,
    notes: Rc<Notes>,
    jobs: u64,
    /// Requests of an undisturbed job: of its driver, and of its agent.
    usual: (u64, u64),
}

impl Site {
    fn new() -> Self {
        let desk = Desk::with(&job(true), &["--log-delay", "500ms"], "");
        let emulator = desk.emulator.endpoint.clone();
        let (of_driver, of_agent) = (Proxy::start(&emulator), Proxy::start(&emulator));
        desk.edit_operator_file(
            &format!("endpoint_url = \"{emulator}\""),
            &format!("endpoint_url = \"{}\"\ncontainer_endpoint_url = \"{}\"", of_driver.url, of_agent.url),
        );
        let mut site = Self { desk, of_driver, of_agent, notes: Rc::new(Notes::start()), jobs: 0, usual: (0, 0) };
        // The first job sends the agent and the project.
        site.play(None);
        site.play(None);
        site.usual = (site.of_driver.seen(), site.of_agent.seen());
        site
    }

    /// Plays one job; `true` when its event came.
    fn play(&mut self, trial: Option<Trial>) -> bool {
        self.jobs += 1;
        let id = 6000 + self.jobs;
        let payload = self.desk.root().join(format!("response-{id}.json"));
        std::fs::write(&payload, job(true).payload(id, TOKEN, "http://gitlab.example.com").to_string()).unwrap();
        self.desk.env.retain(|(key, _)| key != "JOB_RESPONSE_FILE");
        self.desk.env.push(("JOB_RESPONSE_FILE".to_owned(), payload.to_string_lossy().into_owned()));
        let disk = trial.and_then(|trial| {
            let folder = if trial.event == Event::FullBuilds { "builds" } else { "state" };
            trial.event.lack().map(|_| Disk::mounted(&mut self.desk, folder))
        });
        // Without mount namespaces there is nothing to see.
        let trial = trial.filter(|trial| trial.event.lack().is_none() || matches!(disk, Some(Some(_))));
        let mut play = Play {
            main: Script::main(id, 0, &self.notes),
            after: Script::after(id, &self.notes),
            desk: &mut self.desk,
            proxies: [&self.of_driver, &self.of_agent],
            trial,
            disk: disk.flatten(),
            came: false,
            is_over: false,
            stages: Vec::new(),
        };
        play.job();
        play.judge();
        play.came
    }
}

struct Play<'s> {
    desk: &'s mut Desk,
    /// Of the driver and of the agent.
    proxies: [&'s Proxy; 2],
    main: Script,
    after: Script,
    trial: Option<Trial>,
    disk: Option<Disk>,
    came: bool,
    /// No stage follows.
    is_over: bool,
    stages: Vec<(&'static str, Ended)>,
}

/// A process that reads a driver's output.
fn reader(file: std::fs::File) -> (Child, Stdio) {
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(file).spawn().expect("cat is there");
    let pipe = cat.stdin.take().expect("it is a pipe");
    (cat, Stdio::from(pipe))
}

impl Play<'_> {
    fn job(&mut self) {
        let _ = std::fs::remove_dir_all(self.desk.project());
        self.desk.config().passed();
        for (proxy, is_of_agent) in self.proxies.into_iter().zip([false, true]) {
            let trial = self.trial.filter(|trial| trial.event.is_of_agent() == is_of_agent);
            proxy.arm(trial.map(|trial| (trial.at, trial.hold)));
        }
        let project = sources(&self.desk.project());
        let (main, after) = (self.main.text(), self.after.text());
        if self.call("prepare", "") && self.call("get_sources", &project) {
            let has_passed = self.call("build_script", &main);
            self.call("after_script", &after);
            self.call(if has_passed { "upload_artifacts_on_success" } else { "upload_artifacts_on_failure" }, "true");
            self.call("cleanup_file_variables", "true");
        }
        let is_runner_gone = self.came && self.trial.is_some_and(|trial| trial.event == Event::Runner);
        if !is_runner_gone {
            self.is_over = false;
            if let Some(trial) = self.trial.filter(|_| self.came) {
                self.rewrite_record(trial.event);
            }
            self.call("cleanup", "");
            if self.is_cleanup_killed() {
                self.rewrite_record(self.trial.expect("it came").event);
            }
        }
    }

    fn is_cleanup_killed(&self) -> bool {
        self.stages.last().is_some_and(|(stage, ended)| *stage == "cleanup" && ended.code.is_none())
    }

    /// Calls a stage, unless none follows; `true` when it passed.
    fn call(&mut self, stage: &'static str, script: &str) -> bool {
        if self.is_over {
            return false;
        }
        let mut cat = None;
        let into = |file| {
            let (child, pipe) = reader(file);
            cat = Some(child);
            pipe
        };
        let mut running = match stage {
            "prepare" | "cleanup" => self.desk.start_into(&[stage], into),
            _ => self.desk.start_run_into(stage, script, into),
        };
        let mut cat = cat.expect("every stage has a reader");
        let held = poll(PATIENCE, || {
            let held = self.proxies.iter().find_map(|proxy| proxy.held()).filter(|_| !self.came);
            held.map(Some).or_else(|| running.has_ended().then_some(None))
        });
        let held = held.expect("the stage comes to the request or to its end");
        if let (Some(line), Some(trial)) = (&held, self.trial) {
            println!("  {trial}: {line}");
            self.came = true;
            self.happens(trial, &running, &mut cat);
        }
        let ended = running.end();
        if let (Some(_), Some(Event::ReadOnlyState), Some(disk)) =
            (&held, self.trial.map(|trial| trial.event), &self.disk)
        {
            disk.lacks(Lack::Writing);
        }
        // The driver has closed its end of the pipe; what it printed is read whole.
        cat.wait().unwrap();
        let ended = Ended { stdout: self.desk.last_output(), ..ended };
        println!("  {stage}: {:?}", ended.code);
        ended.stderr.lines().for_each(|line| println!("    {line}"));
        let has_passed = ended.code == Some(0);
        self.stages.push((stage, ended));
        has_passed
    }

    fn happens(&mut self, trial: Trial, running: &Running, cat: &mut Child) {
        let [of_driver, of_agent] = self.proxies;
        match trial.event {
            Event::Agent => {
                self.desk.emulator.strike_if_running("kill");
                of_agent.settle(false);
            }
            Event::AgentConnection => of_agent.settle(false),
            Event::Connection => of_driver.settle(false),
            Event::Runner => {
                cat.kill().unwrap();
                of_driver.settle(true);
                self.is_over = true;
            }
            Event::ReadOnlyState => of_driver.settle(true),
            Event::FullState | Event::NoInodes | Event::FullBuilds => {
                let disk = self.disk.as_ref().expect("it is mounted");
                disk.lacks(trial.event.lack().expect("it lacks something"));
                of_driver.settle(true);
            }
            Event::NewerRecord | Event::OlderRecord | Event::BrokenRecord => {
                running.signal(Signal::KILL);
                of_driver.settle(false);
                self.is_over = true;
            }
        }
    }

    /// Changes the record as another version of the program would have written it.
    fn rewrite_record(&self, event: Event) {
        let id = self.desk.session.as_ref().expect("`config` named the session");
        let path: PathBuf = self.desk.root().join("state/sessions").join(format!("{id}.json"));
        let Ok(text) = std::fs::read_to_string(&path) else { return };
        let mut record: Value = serde_json::from_str(&text).unwrap();
        match event {
            Event::NewerRecord => {
                record["version"] = 1000.into();
                record["of_the_future"] = serde_json::json!({"orders": "many"});
            }
            Event::OlderRecord => {
                // It tells of the same orders, in the folder where this job's agents look for them.
                let older: Map<String, Value> = serde_json::from_str(OLDER_RECORD).unwrap();
                let known = record.as_object_mut().expect("a record is an object");
                known.retain(|key, _| key == "place" || older.contains_key(key));
                if let Some(current) = known["current"].as_object_mut() {
                    current.retain(|key, _| older["current"].get(key).is_some());
                }
            }
            Event::BrokenRecord => {
                std::fs::write(&path, &text[..text.len() / 2]).unwrap();
                return;
            }
            _ => return,
        }
        std::fs::write(&path, record.to_string()).unwrap();
    }

    fn judge(&mut self) {
        let event = self.trial.filter(|_| self.came).map(|trial| trial.event);
        let printed: Vec<u8> = self.stages.iter().flat_map(|(_, ended)| ended.stdout.iter().copied()).collect();
        let failed: Vec<_> = self.stages.iter().filter(|(_, ended)| ended.code != Some(0)).collect();
        if matches!(event, None | Some(Event::Connection | Event::AgentConnection)) {
            assert!(failed.is_empty(), "{failed:?}");
            let pieces = [Piece { bytes: printed, killed: false }];
            let project = self.desk.project();
            judge(&[(&self.main, Fate::Whole), (&self.after, Fate::Whole)], &pieces, Results::All, &project);
        } else {
            assert!(self.main.begun() <= 1 && self.after.begun() <= 1, "a script was begun twice");
            assert!(self.main.is_cut_before(&printed, &self.after), "{}", String::from_utf8_lossy(&printed));
            let script = self.stages.iter().find(|(stage, _)| *stage == "build_script");
            if let Some((_, ended)) = script.filter(|(_, ended)| ended.code == Some(0)) {
                assert!(self.main.is_whole(&ended.stdout), "the script passed, and its output is not whole\n{ended}");
            }
            for (stage, ended) in &failed {
                let is_known = [Some(BUILD_FAILURE), Some(SYSTEM_FAILURE), None].contains(&ended.code);
                assert!(is_known, "{stage}: {ended}");
                let is_killed = ended.code.is_none();
                let errors = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
                assert!(is_killed || errors == 1, "{stage} has {errors} errors\n{ended}");
                assert!(!ended.stderr.contains("panicked"), "{ended}");
            }
        }
        if event == Some(Event::Runner) {
            // Its last driver has ended the job by itself.
            self.until_no_job_lives();
        }
        if let Some(disk) = self.disk.take() {
            // `cleanup` needs no disk.
            self.until_no_job_lives();
            disk.unmounted(self.desk);
            self.sweep();
        } else if self.is_cleanup_killed() {
            // No call of the runner follows.
            self.until_no_job_lives();
            self.sweep();
        }
        self.desk.is_left_clean();
    }

    fn sweep(&mut self) {
        self.end_pause();
        self.desk.call(&["sweep", "--older-than", "0s"]);
    }

    /// Ends the time in which a runner may call the next stage, as ten minutes do.
    fn end_pause(&self) {
        for entry in std::fs::read_dir(self.desk.root().join("state/sessions")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "alive") {
                let mut note: Value =
                    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap_or_default();
                note["paused"] = false.into();
                std::fs::write(&path, note.to_string()).unwrap();
            }
        }
    }

    #[track_caller]
    fn until_no_job_lives(&self) {
        let jobs = || self.desk.emulator.live_jobs();
        assert!(poll(PATIENCE, || jobs().is_empty().then_some(())).is_some(), "{:?}", jobs());
    }
}

fn drawn(random: &mut Random, number: u64, usual: (u64, u64)) -> Trial {
    let event = EVENTS[usize::try_from(number).unwrap() % EVENTS.len()];
    let most = if event.is_of_agent() { usual.1 } else { usual.0 };
    Trial { event, at: 1 + random.below(most), hold: random.one(&[Hold::Before, Hold::After]) }
}

/// Plays every second trial, from this one on.
fn plays(half: u64) {
    let number = |name: &str| asked(name).map(|text| text.parse::<u64>().expect("a number"));
    let one = asked("TRIAL").map(|text| text.parse::<Trial>().expect("a trial as a failure names it"));
    let trials = if one.is_some() { 1 - half } else { number("TRIALS").unwrap_or(TRIALS) };
    let mut random = Random(number("TRIAL_SEED").unwrap_or(1) << 8 | half);
    let (mut site, mut failed, mut came, mut played) = (None, String::new(), 0, 0);
    for number in (half..trials).step_by(2) {
        played += 1;
        site = site.filter(|site: &Site| site.jobs < JOBS_PER_DESK);
        let now = site.get_or_insert_with(Site::new);
        let trial = one.unwrap_or_else(|| drawn(&mut random, number, now.usual));
        println!("TRIAL=\"{trial}\"");
        if let Ok(has_come) = catch_unwind(AssertUnwindSafe(|| now.play(Some(trial)))) {
            came += u64::from(has_come);
        } else {
            let _ = writeln!(failed, "TRIAL=\"{trial}\"");
            site = None;
        }
    }
    if asked("TRIALS").is_some() {
        tell(&format!("{came} events came in {played} trials"));
    }
    assert!(failed.is_empty(), "what happened stands above; to play one again:\n{failed}");
    assert!(one.is_some() || came * 2 >= played, "{came} events of {played} trials came: too few");
}

#[test]
fn something_around_a_driver_ends_or_fails() {
    plays(0);
}

#[test]
fn something_around_another_driver_ends_or_fails() {
    plays(1);
}
