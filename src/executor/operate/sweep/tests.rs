//! Sweeps of hosts on the fakes, in virtual time.

mod of_host;
mod proofs;

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::*;
use crate::base::clock::TestClock;
use crate::base::seal::{Seal, SealKey};
use crate::cloud::CloudErrorKind;
use crate::cloud::testing::{Fault, Memory, When, example_spec};
use crate::cloud::{Channel, ChannelMode, ChannelSource, TrainingJobSpec};
use crate::protocol::keys;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;
use crate::session::record::SessionRecord;
use crate::session::spec::{job_name, tag};
use crate::session::state::SessionState;

const HOUR: Duration = Duration::from_hours(1);
const LEASE: Duration = Duration::from_mins(15);
const DEAD: &str = "gitlab-1-2-abcdef12";
const LIVE: &str = "gitlab-1-3-abcdef12";

fn id(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

/// A runner host: its operator's file, its state and its clocks.
struct RunnerHost {
    dir: tempfile::TempDir,
    memory: Memory,
    clock: Arc<dyn Clock>,
}

impl RunnerHost {
    fn new(memory: &Memory, clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let file = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = {state:?}\n");
        std::fs::write(dir.path().join("sagemaker-executor.toml"), file).unwrap();
        Self { dir, memory: memory.clone(), clock }
    }

    fn records(&self) -> Records {
        Records::open(&self.dir.path().join("state")).unwrap()
    }

    /// Its output, and whether all of it succeeded.
    async fn sweep(&self, older_than: Option<Duration>, dry_run: bool) -> (String, bool) {
        let args = SweepArgs { older_than, dry_run, json: false };
        let (printer, captured) = Printer::captured();
        let config = self.dir.path().join("sagemaker-executor.toml");
        let code = run(args, &config, &self.memory, Arc::clone(&self.clock), &printer).await;
        (captured.text(), code == ExitCode::SUCCESS)
    }

    async fn swept(&self) -> String {
        let (text, is_whole) = self.sweep(None, false).await;
        assert!(is_whole, "{text}");
        text
    }
}

/// An account, whose clocks follow the test's time.
struct Account {
    memory: Memory,
    clock: Arc<TestClock>,
}

impl Account {
    fn new() -> Self {
        let (memory, clock) = (Memory::new(), Arc::new(TestClock::at(SystemTime::now())));
        memory.objects.set_clock(clock.clone());
        Self { memory, clock }
    }

    /// A host whose own clock is set by this much.
    fn host(&self, ahead: Duration) -> RunnerHost {
        let clock = TestClock::at(self.clock.now());
        clock.jump(|now| now + ahead);
        RunnerHost::new(&self.memory, Arc::new(clock))
    }

    /// Leaves in the account the session of a host that nobody knows: its `open` object and its training job, as `prepare` does.
    async fn session(&self, name: &str, lease: Duration) -> SessionKeeper<'_> {
        let keeper = self.open(name, lease).await;
        keeper.create(1).await;
        keeper
    }

    async fn open(&self, name: &str, lease: Duration) -> SessionKeeper<'_> {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = {:?}\n", dir.path());
        let (settings, printer): (Settings, _) = (toml::from_str(&text).unwrap(), Printer::captured().0);
        let host = Host { settings: &settings, printer: &printer, clock: self.clock.clone() };
        let (jobs, objects) = (self.memory.jobs.clone(), self.memory.objects.clone());
        let mut session = Session::open(id(name), jobs, objects, host, SessionState::new("k".into(), 1)).unwrap();
        session.take_place().unwrap();
        let place = session.state().place().unwrap().clone();
        session.exchange().open(lease, "k").await.unwrap();
        let keys = session.keys();
        SessionKeeper { account: self, id: id(name), keys, place, lease }
    }

    fn is_stopped(&self, name: &str) -> bool {
        self.memory.jobs.calls().contains(&format!("stop {name}"))
    }

    fn objects(&self, name: &str) -> usize {
        let folder = keys::session_folder(name);
        self.memory.objects.keys().iter().filter(|key| key.starts_with(&folder)).count()
    }
}

/// The part of a host that works on one session.
struct SessionKeeper<'a> {
    account: &'a Account,
    id: SessionId,
    keys: keys::SessionKeys,
    place: keys::SessionPlace,
    lease: Duration,
}

impl SessionKeeper<'_> {
    fn tags(&self) -> BTreeMap<String, String> {
        let commitment = self.keys.seal().commitment().unwrap();
        BTreeMap::from([(tag::SESSION.to_owned(), self.id.to_string()), (tag::KEY.to_owned(), commitment)])
    }

    async fn create(&self, number: u32) {
        self.create_as(TrainingJobSpec { tags: self.tags(), ..of_executor(&job_name(&self.id, number)) }).await;
    }

    async fn create_as(&self, spec: TrainingJobSpec) {
        let (jobs, now) = (&self.account.memory.jobs, self.account.clock.now());
        jobs.create(&spec).await.unwrap();
        jobs.change(&spec.name, |job| job.created = Some(now));
    }

    async fn renew(&self) {
        self.account.memory.objects.put(&self.keys.lease(), b"lease".to_vec()).await.unwrap();
    }

    /// Renews the lease for this long, as a stage does.
    async fn work(&self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            self.renew().await;
            tokio::time::sleep(self.lease / 3).await;
        }
    }
}

/// A request as the executor makes it, without tags.
fn of_executor(name: &str) -> TrainingJobSpec {
    let source =
        ChannelSource::S3 { uri: "s3://memory/agents/0123456789abcdef0123456789abcdef/".to_owned(), is_sharded: false };
    let agent = Channel { name: "sagemaker-executor".to_owned(), source, mode: ChannelMode::File, content_type: None };
    TrainingJobSpec { channels: vec![agent], tags: BTreeMap::new(), ..example_spec(name) }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_over_is_told_then_ended() {
    let memory = Memory::new();
    let host = RunnerHost::new(&memory, Arc::new(TestClock::at(SystemTime::now())));
    memory.jobs.create(&example_spec(DEAD)).await.unwrap();
    let record = SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() };
    let records = host.records();
    records.save(&id(DEAD), &record).unwrap();
    let is_stopped = || memory.jobs.calls().contains(&format!("stop {DEAD}"));
    assert!(host.sweep(Some(Duration::ZERO), false).await.0.contains("Nothing"), "the pause between two stages");
    tokio::time::sleep(Duration::from_mins(11)).await;
    assert!(host.sweep(Some(HOUR), false).await.0.contains("Nothing is left over"));
    assert!(host.sweep(Some(Duration::ZERO), true).await.0.contains("Would end gitlab-1-2-abcdef12, untouched for"));
    assert!(!is_stopped() && !records.sessions().unwrap().is_empty());
    assert!(host.sweep(Some(Duration::ZERO), false).await.0.contains("Ended gitlab-1-2-abcdef12"));
    assert!(is_stopped() && records.sessions().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_job_and_the_objects_of_a_dead_host_are_ended_by_another_and_those_of_a_live_one_are_not() {
    let account = Account::new();
    // Ten days ahead: no clock of a host counts.
    let host = account.host(HOUR * 240);
    let (dead, live) = (account.session(DEAD, LEASE).await, account.session(LIVE, LEASE).await);
    dead.renew().await;
    live.work(LEASE * 3).await;
    assert!(host.sweep(Some(Duration::ZERO), false).await.0.contains("Nothing is left over"));
    live.work(LEASE * 2).await;
    let (told, _) = host.sweep(None, true).await;
    assert!(told.contains("Would end gitlab-1-2-abcdef12, found by its objects") && !told.contains(LIVE), "{told}");
    assert!(!account.is_stopped(DEAD) && account.objects(DEAD) == 2, "a dry run");
    let (told, _) = host.sweep(Some(HOUR * 2), false).await;
    assert!(told.contains("Nothing"), "a longer time than the lease's is kept: {told}");
    assert!(host.swept().await.contains("Ended gitlab-1-2-abcdef12"));
    assert!(account.is_stopped(DEAD) && account.objects(DEAD) == 0);
    assert!(!account.is_stopped(LIVE) && account.objects(LIVE) == 2);
    assert!(host.swept().await.contains("Nothing is left over") && host.records().sessions().unwrap().is_empty());
}

/// Neither the length of a lease nor its existence is that of the host that sweeps.
#[tokio::test(start_paused = true)]
async fn a_session_is_judged_by_its_own_lease() {
    for (lease, hours) in [(HOUR * 3, 12), (Duration::from_mins(1), 1), (HOUR * 1000, 96)] {
        let account = Account::new();
        let host = account.host(Duration::ZERO);
        let _dead = account.session(DEAD, lease).await;
        tokio::time::sleep(Duration::from_secs(hours * 3600 - 2)).await;
        assert!(host.swept().await.contains("Nothing"), "{lease:?}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(host.swept().await.contains("Ended"), "{lease:?}");
    }
}

/// Versions before this one wrote no lease's length, and the first ones no `open` object.
#[tokio::test(start_paused = true)]
async fn a_session_of_an_earlier_version_is_lost_after_a_day() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let dead = account.session(DEAD, LEASE).await;
    let open: serde_json::Value =
        serde_json::from_slice(&account.memory.objects.contents(&dead.keys.open()).unwrap()).unwrap();
    let older = serde_json::json!({"version": open["version"], "key": open["key"]});
    account.memory.objects.insert(&dead.keys.open(), older.to_string());
    // Of a version without keys: its job has no commitment, so it is left alone.
    let first = keys::SessionKeys::new(format!("sessions/{LIVE}"), Seal::Absent);
    account.memory.objects.insert(&first.lease(), "lease");
    let mut spec = of_executor(LIVE);
    spec.tags = BTreeMap::from([(tag::SESSION.to_owned(), LIVE.to_owned())]);
    dead.create_as(spec).await;
    tokio::time::sleep(Duration::from_secs(24 * 3600 - 1)).await;
    assert!(host.swept().await.contains("Nothing"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = host.swept().await;
    assert!(told.contains(&format!("Ended {DEAD}")), "{told}");
    assert!(told.contains(&format!("Deleted the objects of {LIVE}; a training job of this name is not")), "{told}");
    assert!(account.is_stopped(DEAD) && !account.is_stopped(LIVE));
    assert_eq!(account.objects(DEAD) + account.objects(LIVE), 0);
}

/// Makes a job's tags.
type Tags = fn(&SessionKeeper<'_>) -> BTreeMap<String, String>;

/// Anybody who may create jobs or write into the bucket can use a name.
#[tokio::test(start_paused = true)]
async fn a_name_alone_stops_no_job() {
    let own = |job: &SessionKeeper<'_>| job.tags();
    let other_key = |job: &SessionKeeper<'_>| {
        let mut tags = job.tags();
        tags.insert(tag::KEY.to_owned(), SealKey::new([9; 32]).commitment());
        tags
    };
    let other_session = |job: &SessionKeeper<'_>| {
        let mut tags = job.tags();
        tags.insert(tag::SESSION.to_owned(), LIVE.to_owned());
        tags
    };
    let none = |_: &SessionKeeper<'_>| BTreeMap::new();
    let cases: [(&str, Tags, bool); 4] =
        [("own", own, true), ("key", other_key, false), ("session", other_session, false), ("none", none, false)];
    for has_objects in [true, false] {
        for (case, tags, is_own) in cases {
            for has_agent in [true, false] {
                let account = Account::new();
                let host = account.host(Duration::ZERO);
                let keeper = account.open(DEAD, LEASE).await;
                let spec = if has_agent { of_executor(DEAD) } else { example_spec(DEAD) };
                keeper.create_as(TrainingJobSpec { tags: tags(&keeper), ..spec }).await;
                if !has_objects {
                    account.memory.objects.expire(&keeper.keys.open());
                }
                tokio::time::sleep(HOUR * 25).await;
                host.swept().await;
                // Without objects any key will do, and the agent's channel shows the bucket.
                let is_ended = if has_objects { is_own } else { (is_own || case == "key") && has_agent };
                assert_eq!(account.is_stopped(DEAD), is_ended, "{case}, objects {has_objects}, agent {has_agent}");
                assert_eq!(account.objects(DEAD), 0);
            }
        }
    }
}

/// As when a request took effect after its host, and the cleanup there, were gone.
#[tokio::test(start_paused = true)]
async fn a_job_without_objects_is_found_by_its_tags() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let keeper = account.open(DEAD, LEASE).await;
    keeper.create(1).await;
    account.memory.jobs.set_status(DEAD, crate::cloud::JobStatus::Failed, crate::cloud::SecondaryStatus::Failed);
    keeper.create(2).await;
    account.memory.objects.expire(&keeper.keys.open());
    tokio::time::sleep(HOUR * 23).await;
    assert!(host.swept().await.contains("Nothing"));
    tokio::time::sleep(HOUR * 2).await;
    let told = host.swept().await;
    assert!(told.contains("Ended gitlab-1-2-abcdef12, found by the tags of its training job"), "{told}");
    assert!(account.is_stopped("gitlab-1-2-abcdef12-2") && !account.is_stopped(DEAD));
}

#[tokio::test(start_paused = true)]
async fn a_session_of_this_host_is_judged_by_its_record_alone() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let _session = account.session(DEAD, LEASE).await;
    host.records().save(&id(DEAD), &SessionRecord::default()).unwrap();
    let hold = host.records().hold(&id(DEAD), &host.clock).await;
    tokio::time::sleep(HOUR * 30).await;
    assert!(host.sweep(Some(Duration::ZERO), false).await.0.contains("Nothing"), "a stage holds it");
    drop(hold);
    // In the pause between two stages.
    assert!(host.swept().await.contains("Nothing"));
    assert!(!account.is_stopped(DEAD));
}

#[tokio::test(start_paused = true)]
async fn one_failure_does_not_stop_the_rest_and_the_code_tells_it() {
    let denied = |method, call| Fault::new(method, call, When::Before, CloudErrorKind::Denied);
    // The list of jobs is denied, as by the policy of an earlier version.
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let _dead = account.session(DEAD, LEASE).await;
    tokio::time::sleep(HOUR * 2).await;
    account.memory.jobs.plan([denied("running", 1)]);
    let (told, is_whole) = host.sweep(None, false).await;
    assert!(told.contains("Ended gitlab-1-2-abcdef12") && told.contains("the search for sessions is incomplete"));
    assert!(!is_whole, "{told}");
    // One of three sessions cannot be looked at, and one cannot be stopped.
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    for number in 1..=3 {
        account.session(&format!("gitlab-1-{number}-abcdef12"), LEASE).await;
    }
    tokio::time::sleep(HOUR * 2).await;
    account.memory.objects.plan([denied("page", 1)]);
    account.memory.jobs.plan([denied("tags", 1)]);
    let (told, is_whole) = host.sweep(None, false).await;
    assert!(!is_whole && told.contains("2 sessions could not be ended"), "{told}");
    assert_eq!(told.matches("Ended gitlab-").count(), 1, "{told}");
    account.memory.objects.plan([]);
    assert_eq!(host.swept().await.matches("Ended gitlab-").count(), 2);
    // Without S3's time nothing is judged.
    let name = "gitlab-1-9-abcdef12";
    account.session(name, LEASE).await;
    tokio::time::sleep(HOUR * 2).await;
    account.memory.objects.plan([denied("now", 1)]);
    assert!(!host.sweep(None, false).await.1 && account.objects(name) == 1);
}

/// A container writes what it likes below its own session, and below any name.
#[tokio::test(start_paused = true)]
async fn folders_and_objects_of_others_hide_nothing_and_end_nothing() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let live = account.session(LIVE, LEASE).await;
    let objects = &account.memory.objects;
    for key in ["sessions/x/open", "sessions/gitlab-1-2/open", "sessions/open", "sessions//open", "sessions/../open"] {
        objects.insert(key, "x");
    }
    let token = "00000000000000000000000000000000";
    let forged = SealKey::new([1; 32]);
    let forged =
        serde_json::to_vec(&keys::Open { version: 2, key: forged, lease_seconds: Some(1), job_key: None }).unwrap();
    for name in [DEAD, LIVE] {
        objects.insert(&format!("sessions/{name}/{token}/open"), forged.clone());
        for number in 0..1500 {
            objects.insert(&format!("sessions/{name}/{token}/x/{number:06}"), "x");
        }
    }
    live.work(HOUR * 30).await;
    let told = host.swept().await;
    assert!(told.contains(&format!("Ended {DEAD}")) && !told.contains(LIVE), "{told}");
    assert!(!account.is_stopped(LIVE) && objects.contents(&live.keys.open()).is_some());
    assert!(objects.contents("sessions/gitlab-1-2/open").is_some(), "not ours");
}

/// The calls that `docs/PERFORMANCE.md` tells.
#[tokio::test(start_paused = true)]
async fn a_sweep_needs_few_calls() {
    const SESSIONS: usize = 40;
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    for number in 0..SESSIONS {
        account.open(&format!("gitlab-1-{number}-abcdef12"), LEASE).await;
    }
    tokio::time::sleep(HOUR * 2).await;
    for number in 0..SESSIONS {
        account.session(&format!("gitlab-2-{number}-abcdef12"), LEASE).await.renew().await;
    }
    let (jobs, objects) = (account.memory.jobs.calls().len(), account.memory.objects.calls().len());
    assert_eq!(host.swept().await.matches("Ended ").count(), SESSIONS);
    let jobs = account.memory.jobs.calls().split_off(jobs);
    let objects = account.memory.objects.calls().split_off(objects);
    let count =
        |calls: &[String], method: &str| calls.iter().filter(|call| call.split(' ').next() == Some(method)).count();
    assert_eq!((count(&jobs, "running"), jobs.len()), (1, 1));
    assert_eq!((count(&objects, "page"), count(&objects, "get")), (2 * SESSIONS, SESSIONS));
    assert_eq!((count(&objects, "list"), count(&objects, "delete")), (SESSIONS, SESSIONS));
    assert_eq!(objects.len(), 2 + 5 * SESSIONS);
    // Without the list a lost session needs one more.
    account.open(DEAD, LEASE).await;
    tokio::time::sleep(HOUR * 2).await;
    account.memory.jobs.plan([Fault::new("running", 1, When::Before, CloudErrorKind::Denied)]);
    host.sweep(None, false).await;
    assert!(account.memory.jobs.calls().contains(&format!("describe {DEAD}")));
}

/// Hosts that work, die, wait for an instance and sweep, two of them at once, with clocks of their own.
#[tokio::test(start_paused = true)]
async fn sweeps_at_any_moment_end_what_is_dead_and_nothing_that_lives() {
    for seed in 0..30 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let account = &Account::new();
        let hosts: Vec<_> = (0..2).map(|_| account.host(Duration::from_secs(dice.u64(0..100_000)))).collect();
        let lives: Vec<_> = (0..6)
            .map(|number| {
                let mut dice = dice.fork();
                async move {
                    let lease = Duration::from_secs(dice.u64(60..5400));
                    let name = format!("gitlab-{seed}-{number}-abcdef12");
                    tokio::time::sleep(Duration::from_secs(dice.u64(0..7200))).await;
                    let keeper = account.open(&name, lease).await;
                    // Host stages that renew nothing, then a wait for an instance.
                    tokio::time::sleep(Duration::from_secs(dice.u64(0..1500))).await;
                    keeper.work(Duration::from_secs(dice.u64(0..7200))).await;
                    keeper.create(1).await;
                    for _ in 0..dice.u32(0..4) {
                        keeper.work(Duration::from_secs(dice.u64(0..9000))).await;
                        // The pause between two stages.
                        tokio::time::sleep(Duration::from_secs(dice.u64(0..300))).await;
                    }
                    assert!(!account.is_stopped(&name) && account.objects(&name) > 0, "seed {seed}: {name} was ended");
                }
            })
            .collect();
        let sweeps = hosts.iter().map(|host| {
            let mut dice = dice.fork();
            async move {
                for _ in 0..dice.u32(5..20) {
                    tokio::time::sleep(Duration::from_secs(dice.u64(0..3600))).await;
                    host.swept().await;
                }
            }
        });
        tokio::join!(futures::future::join_all(lives), futures::future::join_all(sweeps));
        tokio::time::sleep(HOUR * 7).await;
        tokio::join!(hosts[0].swept(), hosts[1].swept());
        assert!(account.memory.objects.keys().is_empty(), "seed {seed}: {:?}", account.memory.objects.keys());
        for name in account.memory.jobs.names() {
            assert!(account.is_stopped(&name), "seed {seed}: {name} lives");
        }
        assert!(hosts.iter().all(|host| host.records().sessions().unwrap().is_empty()));
    }
}

/// A request that took effect late: its record stays until the job was absent for ten minutes, so a pass finds the job.
#[tokio::test(start_paused = true)]
async fn a_job_that_appears_after_its_cleanup_is_ended() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let settings = operator_file::load(&host.dir.path().join("sagemaker-executor.toml")).unwrap();
    let printer = Printer::captured().0;
    let of_host = || Host { settings: &settings, printer: &printer, clock: host.clock.clone() };
    let (jobs, objects) = (account.memory.jobs.clone(), account.memory.objects.clone());
    let mut session = Session::open(id(DEAD), jobs, objects, of_host(), SessionState::new("k".into(), 1)).unwrap();
    session.apply(SessionEvent::JobMayExist(&Stamp::of(&*host.clock))).unwrap();
    let closed = close::close(session, Patience::Long).await.unwrap();
    assert_eq!(closed, close::Closed::MayAppear);
    tokio::time::sleep(Duration::from_mins(9)).await;
    assert!(host.swept().await.contains("Kept gitlab-1-2-abcdef12: SageMaker may still create"));
    account.memory.jobs.create(&of_executor(DEAD)).await.unwrap();
    assert!(host.swept().await.contains("Ended gitlab-1-2-abcdef12"));
    assert!(account.is_stopped(DEAD) && host.records().sessions().unwrap().is_empty());
}
