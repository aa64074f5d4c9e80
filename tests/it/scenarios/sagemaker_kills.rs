//! The driver's process is killed, or gets SIGTERM, at one of its requests to AWS; then the job continues. For every request,
//! the output has no gap, the script runs once, its own exit code counts, files are complete, and nothing is left.
//!
//! A [`Point`] gives the request and the events after it. The ordinary suite runs a few, chosen by a fixed seed; `KILLS=200` runs
//! 200, and `KILL_SEED=2` chooses others. A failure names its point: `KILL_POINT="<point>"` runs only that one.

mod around;
mod disk;
pub(super) mod judge;
pub(super) mod notes;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::Signal;

use self::judge::{Fate, Piece, Results, Script, judge};
use self::notes::Notes;
use super::sagemaker_desk::{BUILD_FAILURE, Desk, Ended, SYSTEM_FAILURE, TOKEN};
use crate::support::job::{Artifacts, Job};
use crate::support::proxy::{Hold, Proxy};
use crate::support::random::Random;
use crate::support::waiting::{poll, tell};

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(90);
/// Of each kind, in the ordinary suite.
const POINTS: u64 = 7;
/// An emulator is asked about all its jobs at the end of each.
const JOBS_PER_DESK: u64 = 12;

/// What the process gets, and what is called then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// SIGKILL; the same stage is called again and takes over.
    Again,
    /// SIGKILL; the stages of a failed job follow, as GitLab Runner calls them. A `cleanup` is followed by `sweep`.
    Next,
    /// SIGKILL; `cleanup` follows, as after an abort.
    Cleanup,
    /// SIGTERM, as by a cancel; the stages of a canceled job follow.
    Term,
}

/// The one place where a driver is ended, or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    kind: Kind,
    /// The job has an `after_script`, and its script fails; else it has none, and its script succeeds.
    fails: bool,
    stage: &'static str,
    /// Number of the stage's request, from 1.
    at: u64,
    hold: Hold,
    /// Number of the request at which the call that follows is killed as well; 0 for no second kill.
    second: u64,
}

const STAGES: [&str; 4] = ["prepare", "build_script", "after_script", "cleanup"];

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, fails, stage, at, hold, second } = self;
        write!(f, "{kind:?} {fails} {stage} {at} {hold:?} {second}")
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let [kind, fails, stage, at, hold, second] = words[..] else { return Err(format!("{text:?} is no point")) };
        let kinds = [Kind::Again, Kind::Next, Kind::Cleanup, Kind::Term];
        Ok(Self {
            kind: kinds.into_iter().find(|known| format!("{known:?}") == kind).ok_or("no such kind")?,
            fails: fails.parse().map_err(|_| "`fails` is true or false")?,
            stage: STAGES.into_iter().find(|known| *known == stage).ok_or("no such stage")?,
            at: at.parse().map_err(|_| "no number")?,
            hold: if hold == "Before" { Hold::Before } else { Hold::After },
            second: second.parse().map_err(|_| "no number")?,
        })
    }
}

/// A desk whose driver speaks to the emulator through the proxy.
struct Bench {
    desk: Desk,
    proxy: Proxy,
    notes: Rc<Notes>,
    jobs: u64,
    /// Requests of each stage of an undisturbed job, by `fails`.
    usual: BTreeMap<bool, BTreeMap<String, u64>>,
}

impl Bench {
    fn new() -> Self {
        let desk = Desk::with(&job(true), &["--log-delay", "500ms"], "");
        let proxy = Proxy::start(&desk.emulator.endpoint);
        let emulator = &desk.emulator.endpoint;
        desk.edit_operator_file(
            &format!("endpoint_url = \"{emulator}\""),
            &format!("endpoint_url = \"{}\"\ncontainer_endpoint_url = \"{emulator}\"", proxy.url),
        );
        Self { desk, proxy, notes: Rc::new(Notes::start()), jobs: 0, usual: BTreeMap::new() }
    }

    /// Requests of the stages of an undisturbed job.
    fn usual(&mut self, fails: bool) -> BTreeMap<String, u64> {
        if !self.usual.contains_key(&fails) {
            let played = self.play(fails, None);
            self.usual.insert(fails, played.requests);
        }
        self.usual[&fails].clone()
    }

    /// Plays one job.
    fn play(&mut self, fails: bool, point: Option<Point>) -> Played {
        self.jobs += 1;
        let id = 5000 + self.jobs;
        let folder = self.desk.root().join(format!("job-{id}"));
        std::fs::create_dir(&folder).unwrap();
        if point.is_some_and(|point| point.stage == "prepare" && sends_agent(point.kind)) {
            self.desk.emulator.expire("sagemaker-executor/agents/");
        }
        let mut play = Play {
            main: Script::main(id, if fails { 7 } else { 0 }, &self.notes),
            after: Script::after(id, &self.notes),
            payload: job(fails).payload(id, TOKEN, "http://gitlab.example.com").to_string(),
            folder,
            fails,
            kind: point.map_or(Kind::Again, |point| point.kind),
            kills: kills(point),
            pieces: Vec::new(),
            played: Played::default(),
            desk: &mut self.desk,
            proxy: &self.proxy,
        };
        play.job();
        play.played
    }
}

fn job(fails: bool) -> Job {
    let job = Job::new().script(["true"]).artifacts(Artifacts::paths(["out/*"]).when("always"));
    if fails { job.after_script(["true"]) } else { job }
}

/// A `prepare` that is killed sends the agent anew, for its upload is worth a kill; one that nothing follows need not.
fn sends_agent(kind: Kind) -> bool {
    matches!(kind, Kind::Again | Kind::Next)
}

/// What `get_sources` would do: an old job's files go, and a project of some chunks comes.
fn sources(project: &Path) -> String {
    format!(
        "set -e; rm -rf '{project}'; mkdir -p '{project}/input' '{project}/out'; cd '{project}'\n\
         echo arrived >input/text; echo kept >out/kept; seq 1 200000 >input/numbers",
        project = project.display()
    )
}

/// A kill that is still to come: in which stage (any, for the second one), and at which request.
struct Kill {
    stage: Option<&'static str>,
    at: u64,
    hold: Hold,
}

fn kills(point: Option<Point>) -> VecDeque<Kill> {
    let first = point.map(|point| Kill { stage: Some(point.stage), at: point.at, hold: point.hold });
    let second = point.filter(|point| point.second > 0);
    let second = second.map(|point| Kill { stage: None, at: point.second, hold: point.hold });
    first.into_iter().chain(second).collect()
}

/// What came of a job.
#[derive(Debug, Default)]
struct Played {
    /// By stage, of its first call.
    requests: BTreeMap<String, u64>,
    /// First lines of the requests that were held.
    held: Vec<String>,
    /// Bytes printed twice.
    twice: usize,
}

/// One job on its way.
struct Play<'a> {
    desk: &'a mut Desk,
    proxy: &'a Proxy,
    folder: PathBuf,
    main: Script,
    after: Script,
    payload: String,
    fails: bool,
    kind: Kind,
    kills: VecDeque<Kill>,
    pieces: Vec<Piece>,
    played: Played,
}

/// How a stage ended, takeovers included.
enum Came {
    Ended(Ended),
    /// It was killed or got a signal, and is not called again.
    Cut(Ended),
}

impl Play<'_> {
    fn job(&mut self) {
        let absent = if self.fails { Fate::Ended } else { Fate::Absent };
        // A job that ends before `get_sources` leaves the files of the one before it.
        let _ = std::fs::remove_dir_all(self.desk.project());
        self.attempt(1);
        if let Came::Cut(ended) = self.stage("prepare", None) {
            self.is_own_end_or_cut(&ended, 0, None);
            self.cleanup();
            if self.kind != Kind::Next {
                return self.judge(&[(Fate::Ended, absent)], Results::Some);
            }
            // GitLab Runner prepares anew.
            self.attempt(2);
            self.desk.prepare().passed();
        }
        self.run("get_sources", &sources(&self.desk.project())).passed();
        let (fates, results) = self.scripts(absent);
        self.cleanup();
        self.judge(&[fates], results);
    }

    /// The stages from the script to the last one before `cleanup`.
    fn scripts(&mut self, absent: Fate) -> ((Fate, Fate), Results) {
        let (code, file) = if self.fails { (BUILD_FAILURE, Some("7")) } else { (0, None) };
        let whole = if self.fails { Fate::Whole } else { Fate::Absent };
        let (mut main, mut after) = (Fate::Whole, whole);
        let mut failed = self.fails;
        match self.stage("build_script", Some(&self.main.text())) {
            Came::Ended(ended) => {
                ended.with_code(code);
                assert_eq!(ended.exit_code.as_deref(), file, "{ended}");
            }
            Came::Cut(ended) => {
                self.is_own_end_or_cut(&ended, code, file);
                (main, failed) = (Fate::Ended, true);
                if self.kind == Kind::Cleanup {
                    return ((main, absent), Results::Some);
                }
            }
        }
        if self.fails {
            match self.stage("after_script", Some(&self.after.text())) {
                Came::Ended(ended) => {
                    let skipped = ended.passed().stderr.contains("`after_script` is skipped");
                    after = if skipped && main == Fate::Ended { Fate::Absent } else { Fate::Whole };
                }
                Came::Cut(ended) => {
                    self.is_own_end_or_cut(&ended, 0, None);
                    after = Fate::Ended;
                    if self.kind == Kind::Cleanup {
                        return ((main, after), Results::Some);
                    }
                }
            }
        }
        let upload = if failed { "upload_artifacts_on_failure" } else { "upload_artifacts_on_success" };
        let results = match self.stage(upload, Some("true")) {
            Came::Ended(ended) => {
                ended.passed();
                Results::All
            }
            Came::Cut(_) => Results::Some,
        };
        if results == Results::All || self.kind == Kind::Next {
            self.run("cleanup_file_variables", "true").passed();
        }
        ((main, after), results)
    }

    /// A process that got SIGTERM ends for it, or with its own end when that came first.
    #[track_caller]
    fn is_own_end_or_cut(&self, ended: &Ended, code: i32, file: Option<&str>) {
        let own = ended.code == Some(code) && ended.exit_code.as_deref() == file;
        let expected = match self.kind {
            Kind::Term => own || ended.code == Some(SYSTEM_FAILURE),
            Kind::Again | Kind::Next | Kind::Cleanup => ended.code.is_none(),
        };
        assert!(expected, "{ended}");
    }

    /// `config` of a new preparation attempt, which has a temporary directory and so a session of its own.
    fn attempt(&mut self, number: u32) {
        let payload = self.folder.join(format!("attempt-{number}"));
        std::fs::write(&payload, &self.payload).unwrap();
        self.desk.env.retain(|(key, _)| key != "JOB_RESPONSE_FILE");
        self.desk.env.push(("JOB_RESPONSE_FILE".to_owned(), payload.to_string_lossy().into_owned()));
        self.desk.session = None;
        self.desk.config().passed();
    }

    /// `cleanup` until one comes to its end, or `sweep` in its place.
    fn cleanup(&mut self) {
        match self.stage("cleanup", None) {
            Came::Ended(ended) => ended.passed(),
            Came::Cut(_) if self.kind == Kind::Next => self.desk.call(&["sweep"]).passed(),
            Came::Cut(_) => self.run("cleanup", "").passed(),
        };
    }

    /// A call that is not killed.
    fn run(&mut self, stage: &str, script: &str) -> Ended {
        self.kills.retain(|kill| kill.stage.is_some_and(|wanted| wanted != stage));
        self.call(stage, Some(script)).0
    }

    fn stage(&mut self, stage: &str, script: Option<&str>) -> Came {
        loop {
            let (ended, was_held) = self.call(stage, script);
            let killed = was_held && ended.code.is_none();
            match self.kind {
                Kind::Term if was_held => return Came::Cut(ended),
                Kind::Again if killed => {}
                Kind::Next | Kind::Cleanup if killed => return Came::Cut(ended),
                _ => return Came::Ended(ended),
            }
        }
    }

    /// Calls a stage, with the next kill when that is for it; whether a request of it was held.
    fn call(&mut self, stage: &str, script: Option<&str>) -> (Ended, bool) {
        let is_due = self.kills.front().is_some_and(|kill| kill.stage.is_none_or(|wanted| wanted == stage));
        let kill = if is_due { self.kills.pop_front() } else { None };
        self.proxy.arm(kill.map(|kill| (kill.at, kill.hold)));
        let mut running = match script {
            Some(script) if stage != "cleanup" => self.desk.start_run(stage, script),
            _ => self.desk.start(&[stage]),
        };
        let held = poll(PATIENCE, || self.proxy.held().map(Some).or_else(|| running.has_ended().then_some(None)));
        let held = held.expect("the stage comes to a request or to its end");
        if held.is_some() {
            let is_killed = self.kind != Kind::Term;
            running.signal(if is_killed { Signal::KILL } else { Signal::TERM });
            if !is_killed {
                self.proxy.settle(true);
            }
        }
        let ended = running.end();
        self.proxy.settle(false);
        self.played.requests.entry(stage.to_owned()).or_insert_with(|| self.proxy.seen());
        println!("  {stage}: {:?}, {} requests, held {held:?}", ended.code, self.proxy.seen());
        ended.stderr.lines().for_each(|line| println!("    {line}"));
        let was_held = held.is_some();
        self.played.held.extend(held);
        self.pieces.push(Piece { bytes: ended.stdout.clone(), killed: was_held && ended.code.is_none() });
        (ended, was_held)
    }

    fn judge(&mut self, fates: &[(Fate, Fate)], results: Results) {
        for (main, after) in fates {
            let scripts = [(&self.main, *main), (&self.after, *after)];
            self.played.twice = judge(&scripts, &self.pieces, results, &self.desk.project());
        }
        self.desk.is_left_clean();
    }
}

/// Draws the point with this number of a kind: in turn while the results come back, amid the output, near the script's begin, and
/// in the stages around it.
fn drawn(random: &mut Random, bench: &mut Bench, kind: Kind, number: u64) -> Point {
    let fails = random.below(2) == 0;
    let last = if fails { "after_script" } else { "build_script" };
    let stage = [last, "build_script", "build_script", random.one(&["prepare", last, "cleanup"])];
    let stage = stage[usize::try_from(number % 4).unwrap()];
    // Without the upload of the agent, which `Bench::play` asks for where something comes after `prepare`.
    let most = if stage == "prepare" && !sends_agent(kind) { 3 } else { bench.usual(fails)[stage].max(1) };
    let at = match number % 4 {
        0 => most.saturating_sub(2 + random.below(9)).max(1),
        1 => (most / 2 + random.below(most / 2)).max(1),
        2 => 1 + random.below(most.min(20)),
        _ => 1 + random.below(most),
    };
    let hold = random.one(&[Hold::Before, Hold::After]);
    let second = if kind != Kind::Term && random.below(3) == 0 { 1 + random.below(20) } else { 0 };
    Point { kind, fails, stage, at, hold, second }
}

#[expect(clippy::disallowed_methods, reason = "the size of the test")]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Plays points of one kind and reports all that failed.
fn plays(kind: Kind) {
    let number = |name: &str| asked(name).map(|text| text.parse::<u64>().expect("a number"));
    let one = asked("KILL_POINT").map(|text| text.parse::<Point>().expect("a point as a failure names it"));
    if one.is_some_and(|point| point.kind != kind) {
        return;
    }
    let points = if one.is_some() { 1 } else { number("KILLS").map_or(POINTS, |all| all.div_ceil(4)) };
    let mut random = Random(number("KILL_SEED").unwrap_or(1) << 8 | kind as u64);
    let held = play_all(points, |bench, number| one.unwrap_or_else(|| drawn(&mut random, bench, kind, number)));
    if asked("KILLS").is_some() {
        tell(&format!("{kind:?}: {held} of {points} points were met"));
    }
    assert!(one.is_some() || held * 2 >= points, "{held} of {points} points were met: most are none");
}

/// Plays so many points, and fails with the names of those that failed; how many were met.
fn play_all(points: u64, mut point: impl FnMut(&mut Bench, u64) -> Point) -> u64 {
    let (mut bench, mut failed, mut held) = (None, String::new(), 0);
    for number in 0..points {
        // Gives its place at the gate back before another one is made.
        bench = bench.filter(|bench: &Bench| bench.jobs < JOBS_PER_DESK);
        let now = bench.get_or_insert_with(Bench::new);
        let point = point(now, number);
        // The requests of the first job of an emulator have other numbers: it sends the agent and the project.
        now.usual(point.fails);
        println!("KILL_POINT=\"{point}\"");
        if let Ok(played) = catch_unwind(AssertUnwindSafe(|| now.play(point.fails, Some(point)))) {
            held += u64::from(!played.held.is_empty());
            if played.twice > 0 {
                tell(&format!("KILL_POINT=\"{point}\": {} bytes were printed twice", played.twice));
            }
        } else {
            let _ = writeln!(failed, "KILL_POINT=\"{point}\"");
            bench = None;
        }
    }
    assert!(failed.is_empty(), "what happened stands above; to play one again:\n{failed}");
    held
}

/// The order to run the script is stored, and that it was is not noted: the sixth request at present.
#[test]
fn a_kill_while_the_script_is_ordered() {
    if asked("KILL_POINT").is_some() {
        return;
    }
    let requests = 5..=7;
    let points = [Kind::Next, Kind::Cleanup].into_iter().flat_map(|kind| {
        let point = move |at| Point { kind, fails: true, stage: "build_script", at, hold: Hold::After, second: 0 };
        requests.clone().map(point)
    });
    let points: Vec<_> = points.collect();
    play_all(points.len() as u64, |_, number| points[usize::try_from(number).unwrap()]);
}

#[test]
fn a_killed_stage_that_is_called_again() {
    plays(Kind::Again);
}

#[test]
fn a_killed_stage_that_the_next_one_follows() {
    plays(Kind::Next);
}

#[test]
fn a_killed_stage_that_cleanup_follows() {
    plays(Kind::Cleanup);
}

#[test]
fn a_stage_that_gets_a_signal() {
    plays(Kind::Term);
}
