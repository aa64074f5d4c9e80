//! Runs every stage on fakes: `config`, `prepare`, a host stage, a container stage with a scripted agent, `cleanup`.

mod credentials;
mod secrets;
mod simulation;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Context, cleanup, config, prepare, run};
use crate::base::clock::{Clock as _, HostClock, TestClock};
use crate::base::failure::{ExitCodes, Kind, kind_of};
use crate::base::node::NodeId;
use crate::base::seal::Seal;
use crate::base::signals::Cancellation;
use crate::cloud::testing::Memory;
use crate::cloud::{JobStatus, ObjectStore as _, SecondaryStatus};
use crate::config::env::{Contract, Environment, short_or_long};
use crate::protocol::agent_env::AgentEnv;
use crate::protocol::keys::{self, Open, SessionKeys};
use crate::protocol::mailbox::{self, ByeReason, ExitReport, Order, Report, RunOrder};
use crate::protocol::project::Trees;
use crate::session::record::{Records, SessionRecord};
use crate::session::stamp::Stamp;
use crate::session::{SessionId, left_over};
use crate::trace::FrameEncoder;
use crate::ui::{Captured, Printer};
use crate::workspace::{self, Snapshot};

const NODE: NodeId = NodeId::LEADER;

/// One job on a host of its own, with fakes for AWS.
struct StageHarness {
    dir: tempfile::TempDir,
    memory: Memory,
    clock: Arc<TestClock>,
    printer: Printer,
    captured: Captured,
    /// The variables that `config` asked the runner to set for the later stages.
    job_env: BTreeMap<String, String>,
    /// Variables of the job.
    variables: BTreeMap<&'static str, String>,
}

impl StageHarness {
    /// A job on which `config` has run.
    fn configured() -> Self {
        Self::with_steps(&serde_json::json!([{"name": "script", "script": ["train"]}]))
    }

    fn with_steps(steps: &serde_json::Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        let git = dir.path().join("bin/git");
        std::fs::write(&git, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&git, std::fs::Permissions::from_mode(0o755)).unwrap();
        let payload = serde_json::json!({
            "id": 2, "token": "t", "job_info": {"project_id": 1},
            "steps": steps,
            "artifacts": [{"paths": ["model"]}],
        });
        std::fs::write(dir.path().join("response.json"), payload.to_string()).unwrap();
        // Whole seconds, so that rounding gives the same result each time.
        let now = HostClock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let day = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let (clock, memory) = (Arc::new(TestClock::at(day)), Memory::new());
        // AWS has a clock of its own, which does not jump with the host's.
        memory.set_clock(&(Arc::new(TestClock::at(day)) as _));
        let (printer, captured) = Printer::captured();
        let mut harness =
            Self { dir, memory, clock, printer, captured, job_env: BTreeMap::new(), variables: BTreeMap::new() };
        config::run(&harness.context()).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&harness.captured.data()).unwrap();
        assert!(harness.memory.made().is_empty(), "`config` needs no account");
        harness.job_env = serde_json::from_value(answer["job_env"].clone()).unwrap();
        std::fs::create_dir_all(harness.host().project).unwrap();
        harness
    }

    /// The context in which the runner calls a stage.
    fn context(&self) -> Context {
        let place = |name: &str| self.dir.path().join(name);
        let settings = format!(
            "rules = [{{ name = \"all\", allow = {{ instance_types = [\"*\"], max_instance_count = 9 }} }}]\n[aws]\nendpoint_url = \"http://127.0.0.1:1\"\n[storage]\nbucket = \"b\"\n\
             [job]\nimage = \"i\"\ninstance_type = \"ml.m5.large\"\nrole_arn = \"arn:aws:iam::123456789012:role/x\"\n\
             [runner]\nshell = \"/bin/sh\"\nbuilds_dir = {:?}\ncache_dir = {:?}\nstate_dir = {:?}\n",
            place("builds"),
            place("cache"),
            place("state")
        );
        let mut pairs = vec![
            ("PATH".into(), format!("{}:/usr/bin:/bin", place("bin").display()).into()),
            ("CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR".into(), self.host().tmp.into()),
            // Jobs with artifacts need the runner's helper, except in a try.
            (crate::config::env::TRY.into(), "1".into()),
        ];
        pairs.extend(self.job_env.iter().map(|(name, value)| (name.into(), value.into())));
        let variables = self.variables.iter();
        pairs.extend(variables.map(|(name, value)| (format!("CUSTOM_ENV_{name}").into(), value.into())));
        Context {
            env: Environment::from_pairs(pairs),
            contract: Contract {
                job_response_file: Some(place("response.json")),
                build_exit_code_file: Some(place("build_exit_code")),
                exit_codes: ExitCodes::default(),
                session: self.job_env.get(crate::config::env::SESSION).cloned(),
            },
            settings: toml::from_str(&settings).unwrap(),
            config: place("operator.toml"),
            printer: self.printer.clone(),
            cancellation: Cancellation::default(),
            connect: Arc::new(self.memory.clone()),
            clock: self.clock.clone(),
        }
    }

    fn host(&self) -> Trees {
        let slot = self.job_env.get(crate::config::env::SLOT).map_or("0", String::as_str);
        trees(&self.dir.path().join("builds/1").join(slot).join("ml"))
    }

    fn id(&self) -> SessionId {
        SessionId::parse(&self.job_env[crate::config::env::SESSION]).unwrap()
    }

    fn records(&self) -> Records {
        Records::at(&self.dir.path().join("state"))
    }

    fn script(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("script");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn agent(&self) -> Agent {
        self.agent_with(agent_keys(&self.memory, &self.id().to_string()).expect("`prepare` has opened the session"))
    }

    fn agent_with(&self, keys: SessionKeys) -> Agent {
        let container = trees(&self.dir.path().join("container"));
        std::fs::create_dir_all(&container.project).unwrap();
        Agent { memory: self.memory.clone(), job: self.id().to_string(), keys, container, reports: 0 }
    }
}

fn trees(project: &Path) -> Trees {
    Trees { project: project.to_owned(), tmp: project.with_extension("tmp"), host: None }
}

/// The session's keys as an agent reads them; `None` when the session is closed.
fn agent_keys(memory: &Memory, job: &str) -> Option<SessionKeys> {
    let environment = memory.jobs.spec(job)?.environment;
    let env = AgentEnv::read(|name| environment.get(name).map(String::as_str)).unwrap();
    let open = memory.objects.contents(&SessionKeys::new(&env.root, Seal::Absent).open())?;
    let Open { key, .. } = serde_json::from_slice(&open).unwrap();
    assert_eq!(env.key_hash, Some(key.commitment()));
    Some(SessionKeys::new(env.root, Seal::Keyed(key)))
}

/// An agent without a container.
struct Agent {
    memory: Memory,
    job: String,
    keys: SessionKeys,
    container: Trees,
    reports: u32,
}

impl Agent {
    fn report(&mut self, report: &Report) {
        self.reports += 1;
        let key = self.keys.report(NODE, self.reports);
        self.memory.objects.insert(&key, mailbox::encode_report(&self.keys, NODE, self.reports, report));
    }

    /// Takes orders until the one to leave. Its script prints a line, runs for `takes`, and leaves a file.
    async fn work(mut self, takes: Duration, code: i32) {
        self.memory.jobs.set_status(&self.job, JobStatus::InProgress, SecondaryStatus::Training);
        self.report(&Report::Ready {
            agent: "0".into(),
            nodes: vec![NODE.to_string()],
            restarts: 0,
            after: 0,
            checkpoints: None,
        });
        let mut asked = None;
        for seq in 1.. {
            let key = self.keys.order(seq);
            let order = loop {
                if let Ok(Some(body)) = self.memory.objects.get(&key).await {
                    break mailbox::decode_order(&self.keys, seq, &body).unwrap();
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            match order {
                Order::Workspace(order) => asked = Some(order.selection),
                Order::Run(RunOrder { run, .. }) => {
                    self.report(&Report::Started { run, order: seq });
                    tokio::time::sleep(takes).await;
                    std::fs::write(self.container.project.join("model"), "weights").unwrap();
                    let (mut encoder, mut lines) = (FrameEncoder::new(run, self.keys.seal().of_node(NODE)), Vec::new());
                    encoder.encode(b"trained\n", &mut lines);
                    encoder.end(code, &mut lines);
                    self.memory.objects.insert(&self.keys.trace(NODE, run, 0), lines);
                    let (bytes, hash) = (encoder.bytes(), encoder.hash());
                    let exit = ExitReport {
                        has_model: false,
                        code,
                        bytes,
                        hash,
                        canceled: false,
                        at: 1,
                        ran: None,
                        copy: Some(1),
                    };
                    self.report(&Report::Exited { run, exit });
                }
                Order::Cancel { .. } => {}
                Order::Finish { .. } => break,
            }
        }
        let (selection, snapshot, progress) = (asked.unwrap(), Snapshot::default(), Arc::default());
        let (objects, route) = (self.memory.objects.clone(), self.keys.results(NodeId::LEADER, 0));
        workspace::send_changes(&*objects, &route, &self.container, &snapshot, &selection, &progress).await.unwrap();
        self.report(&Report::Collected { summary: String::new(), restarts: 0 });
        self.report(&Report::Bye { reason: ByeReason::Finished });
        self.memory.jobs.set_status(&self.job, JobStatus::Completed, SecondaryStatus::Completed);
    }
}

#[tokio::test]
async fn a_stage_on_the_host_runs_the_runners_script() {
    let harness = StageHarness::configured();
    prepare::run(harness.context()).await.unwrap();
    assert_eq!(harness.memory.jobs.names(), [harness.id().to_string()]);
    let wrote = harness.dir.path().join("wrote");
    let script = harness.script(&format!("echo fetched > {}; exit ${{CODE:-0}}\n", wrote.display()));
    run::run(harness.context(), &script, "get_sources").await.unwrap();
    assert_eq!(std::fs::read_to_string(wrote).unwrap(), "fetched\n");
    let failed = run::run(harness.context(), &harness.script("exit 3\n"), "get_sources").await.unwrap_err();
    assert_eq!(kind_of(&failed), Kind::Script { code: 3 });
    cleanup::run(harness.context()).await.unwrap();
    assert_eq!(harness.memory.made(), ["jobs", "objects"], "no stage on the host reads the log");
    assert!(harness.records().sessions().unwrap().is_empty());
    let is_kept = |key: &String| key.starts_with("agents/") || key == keys::SCOPE_KEY;
    assert!(harness.memory.objects.keys().iter().all(is_kept), "the agent and the hosts' key alone are kept");
}

/// The runner leaves out its stage `cleanup_file_variables` after an abort.
#[tokio::test]
async fn cleanup_removes_the_file_variables_of_its_own_directory_alone() {
    let harness = StageHarness::configured();
    prepare::run(harness.context()).await.unwrap();
    let (own, neighbour) = (harness.host().tmp, trees(&harness.dir.path().join("builds/1/1/ml")).tmp);
    for tmp in [&own, &neighbour] {
        std::fs::create_dir_all(tmp).unwrap();
        std::fs::write(tmp.join("KUBECONFIG"), "secret").unwrap();
    }
    cleanup::run(harness.context()).await.unwrap();
    assert!(!own.exists() && neighbour.exists() && harness.host().project.exists());
    // Another job may have the directory now.
    std::fs::create_dir(&own).unwrap();
    cleanup::run(harness.context()).await.unwrap();
    assert!(own.exists());
}

#[tokio::test(start_paused = true)]
async fn a_stage_in_the_container_brings_its_output_its_code_and_its_results() {
    for code in [0, 7] {
        let harness = StageHarness::configured();
        prepare::run(harness.context()).await.unwrap();
        let script = harness.script("train\n");
        let agent = tokio::spawn(harness.agent().work(Duration::from_secs(5), code));
        let ended = run::run(harness.context(), &script, "build_script").await;
        match code {
            0 => ended.unwrap(),
            code => assert_eq!(kind_of(&ended.unwrap_err()), Kind::Script { code }),
        }
        agent.await.unwrap();
        assert!(harness.captured.data().ends_with(b"trained\n"), "{}", harness.captured.text());
        assert_eq!(std::fs::read_to_string(harness.host().project.join("model")).unwrap(), "weights");
        cleanup::run(harness.context()).await.unwrap();
        assert!(harness.records().sessions().unwrap().is_empty());
        assert!(!harness.memory.jobs.calls().contains(&format!("stop {}", harness.id())), "it left by itself");
    }
}

/// A session that the version without keys began: a record without a place, messages without tags, and its agent beside it.
#[tokio::test(start_paused = true)]
async fn a_session_of_the_version_without_keys_is_carried_to_its_end() {
    for code in [0, 7] {
        let harness = StageHarness::configured();
        prepare::run(harness.context()).await.unwrap();
        let id = harness.id();
        let SessionRecord { place, .. } = harness.records().load(&id).unwrap().unwrap();
        let place = place.expect("a session of this version has one");
        let open = SessionKeys::of_session(id.as_str(), Some(&place)).open();
        harness.memory.objects.delete(&[open]).await.unwrap();
        let path = harness.dir.path().join(format!("state/sessions/{id}.json"));
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for newer in ["place", "scope"] {
            record.as_object_mut().unwrap().remove(newer).expect(newer);
        }
        record["version"] = 1.into();
        std::fs::write(&path, record.to_string()).unwrap();
        let agent = harness.agent_with(SessionKeys::of_session(id.as_str(), None));
        let agent = tokio::spawn(agent.work(Duration::from_secs(5), code));
        let ended = run::run(harness.context(), &harness.script("train\n"), "build_script").await;
        match code {
            0 => ended.unwrap(),
            code => assert_eq!(kind_of(&ended.unwrap_err()), Kind::Script { code }),
        }
        agent.await.unwrap();
        let folder = format!("sessions/{id}/");
        let keys = harness.memory.objects.keys();
        let of_session: Vec<_> = keys.iter().filter_map(|key| key.strip_prefix(&folder)).collect();
        assert!(of_session.contains(&"lease.json") && of_session.contains(&"reports/algo-1/000001.json"), "{keys:?}");
        let order = harness.memory.objects.contents(&format!("{folder}orders/000003.json")).unwrap();
        assert!(order.starts_with(br#"{"version":1,"seq":3,"#), "{}", String::from_utf8_lossy(&order));
        assert!(harness.captured.data().ends_with(b"trained\n"), "{}", harness.captured.text());
        assert_eq!(std::fs::read_to_string(harness.host().project.join("model")).unwrap(), "weights");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(record["version"], 1, "the version before may go on with it");
        cleanup::run(harness.context()).await.unwrap();
        let left = harness.memory.objects.keys();
        assert!(left.iter().all(|key| key.starts_with("agents/") || key.starts_with("hosts/")), "{left:?}");
    }
}

/// The host's clock is set twice during the job, and a pass over left-over sessions finds the session alive.
#[tokio::test(start_paused = true)]
async fn a_job_of_many_hours_does_not_mind_a_clock_that_jumps() {
    let harness = StageHarness::configured();
    prepare::run(harness.context()).await.unwrap();
    let script = harness.script("train\n");
    let runs = Duration::from_hours(short_or_long(3, 30));
    let agent = tokio::spawn(harness.agent().work(runs, 0));
    let (clock, records, id) = (harness.clock.clone(), harness.records(), harness.id());
    let jumps = async {
        let jumps: [fn(SystemTime) -> SystemTime; 2] =
            [|day| day + Duration::from_hours(48), |day| day - Duration::from_hours(96)];
        for jump in jumps {
            tokio::time::sleep(runs / 3).await;
            clock.jump(jump);
            let now = Stamp::of(&*clock);
            let age = records.untouched_for(&id, &now).unwrap().unwrap();
            assert!(age <= Duration::from_mins(1), "{age:?}");
            assert!(left_over::of(&records, &id, Duration::from_hours(1), &now).unwrap().is_none());
        }
        std::future::pending::<()>().await;
    };
    let started = tokio::time::Instant::now();
    let context = harness.context();
    tokio::select! {
        ended = run::run(context, &script, "build_script") => ended.unwrap(),
        () = jumps => unreachable!(),
    }
    agent.await.unwrap();
    let took = started.elapsed();
    assert!(took >= runs && took < runs + Duration::from_mins(2), "{took:?}");
    assert_eq!(std::fs::read_to_string(harness.host().project.join("model")).unwrap(), "weights");
    cleanup::run(harness.context()).await.unwrap();
    assert!(harness.records().sessions().unwrap().is_empty());
}
