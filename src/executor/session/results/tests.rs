//! Tests of the download of results.

use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::base::failure::{Kind, kind_of};
use crate::base::node::Nodes;
use crate::cloud::testing::{Fault, Memory, When, example_spec};
use crate::cloud::{CloudErrorKind, JobStatus, SecondaryStatus, TrainingJobs as _};
use crate::config::settings::Settings;
use crate::protocol::project::HostTrees;
use crate::protocol::{isolation, keys, mailbox};
use crate::session::node_record::NodeRecord;
use crate::session::record::{Records, SessionRecord};
use crate::session::requested_job::RequestedJob;
use crate::session::stage_jobs::StageJobs;
use crate::session::state::SessionState;
use crate::session::{Host, SessionId, spec};
use crate::ui::Printer;
use crate::workspace;

const NAME: &str = "gitlab-1-2-abcdef12";

const NEW: NodeRecord = NodeRecord { ready: false, left: false, told: false, reports: 0 };
const READY: NodeRecord = NodeRecord { ready: true, ..NEW };
const LEFT: NodeRecord = NodeRecord { left: true, ..NEW };

fn one(node: NodeRecord) -> Nodes<NodeRecord> {
    Nodes::new(1, |_| node)
}

/// A one-node job without any report.
fn silent() -> SessionRecord {
    SessionRecord { nodes: one(NEW), ..SessionRecord::default() }
}

fn attach<'a>(id: SessionId, memory: &Memory, settings: &'a Settings, printer: &'a Printer) -> Session<'a> {
    let host = Host::with_real_time(settings, printer);
    Session::attach(id, memory.jobs.clone(), memory.objects.clone(), host).unwrap().unwrap()
}

async fn wait(memory: &Memory, record: SessionRecord, cancel: &Cancellation) -> anyhow::Result<bool> {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
    let settings: Settings = toml::from_str(&text).unwrap();
    let printer = Printer::captured().0;
    memory.jobs.create(&example_spec(NAME)).await.unwrap();
    let id = SessionId::parse(NAME).unwrap();
    Records::open(dir.path()).unwrap().save(&id, &record).unwrap();
    let mut session = attach(id, memory, &settings, &printer);
    wait_for_results(&mut session, NodeId::LEADER, cancel).await
}

#[tokio::test(start_paused = true)]
async fn results_that_were_told_to_an_earlier_stage_are_fetched_although_the_job_has_ended() {
    let memory = Memory::new();
    let record = SessionRecord { collected: true, nodes: one(LEFT), ..SessionRecord::default() };
    assert!(wait(&memory, record, &Cancellation::default()).await.unwrap());
    let record = SessionRecord { nodes: one(LEFT), ..SessionRecord::default() };
    let memory = Memory::new();
    assert!(!wait(&memory, record, &Cancellation::default()).await.unwrap());
}

#[tokio::test]
async fn results_are_applied_once_they_are_there_whatever_the_agent_says() {
    let folder = tempfile::tempdir().unwrap();
    let side = |name: &str| {
        let project = folder.path().join(name);
        std::fs::create_dir(&project).unwrap();
        Trees { tmp: project.with_extension("tmp"), project, host: None }
    };
    let (container, host) = (side("container"), side("host"));
    std::fs::write(container.project.join("model"), "weights").unwrap();
    let (memory, id) = (Memory::new(), SessionId::parse(NAME).unwrap());
    let route = spec::session_keys(&id, None).results(NodeId::LEADER, 0);
    let selection = Selection { everything: true, ..Selection::default() };
    let (snapshot, progress) = (workspace::Snapshot::default(), Arc::default());
    workspace::send_changes(&*memory.objects, &route, &container, &snapshot, &selection, &progress).await.unwrap();

    let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", folder.path().display());
    let settings: Settings = toml::from_str(&text).unwrap();
    let record = SessionRecord { nodes: one(READY), finished: true, ..SessionRecord::default() };
    Records::open(folder.path()).unwrap().save(&id, &record).unwrap();
    let (printer, _) = Printer::captured();
    let mut session = attach(id, &memory, &settings, &printer);
    memory.jobs.create(&example_spec(NAME)).await.unwrap();
    download_results(&mut session, &host, &Cancellation::default()).await.unwrap();
    assert_eq!(std::fs::read_to_string(host.project.join("model")).unwrap(), "weights");
    assert_eq!(session.state.results(), Outcome::Applied);

    // Its report may even be a failure, or never come.
    for report in [
        Report::Failed { order: "send the results".to_owned(), reason: "no time was left".to_owned(), by_job: false },
        Report::Bye { reason: crate::protocol::mailbox::ByeReason::Stopped },
    ] {
        std::fs::remove_file(host.project.join("model")).unwrap();
        let known = session.state.snapshot().clone();
        let number = session.state.leader().reports + 1;
        let nodes = one(NodeRecord { reports: number - 1, ..READY });
        session.state = SessionState::from(SessionRecord { results_applied: false, nodes, ..known });
        let (keys, node) = (session.keys(), NodeId::LEADER);
        memory.objects.insert(&keys.report(node, number), mailbox::encode_report(&keys, node, number, &report));
        download_results(&mut session, &host, &Cancellation::default()).await.unwrap();
        assert_eq!(std::fs::read_to_string(host.project.join("model")).unwrap(), "weights");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_and_a_service_that_falter_are_waited_for() {
    let memory = Memory::new();
    let keys = spec::session_keys(&SessionId::parse(NAME).unwrap(), None);
    let report = Report::Collected { summary: String::new(), restarts: 0 };
    let report = mailbox::encode_report(&keys, NodeId::LEADER, 1, &report);
    memory.objects.insert(&keys.report(NodeId::LEADER, 1), report);
    let get = Fault::new("get", 1, When::Before, CloudErrorKind::Transient).times(100);
    let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Throttled);
    memory.objects.plan([get]);
    memory.jobs.plan([describe]);
    assert!(wait(&memory, silent(), &Cancellation::default()).await.unwrap());

    let memory = Memory::new();
    let get = Fault::new("get", 1, When::Before, CloudErrorKind::Transient).forever();
    memory.objects.plan([get]);
    assert!(wait(&memory, silent(), &Cancellation::default()).await.is_err(), "for one lease");
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_as_long_as_the_training_job_may_run() {
    let memory = Memory::new();
    let most = 600;
    let request = RequestedJob { most_seconds: most, ..RequestedJob::default() };
    let record = SessionRecord { nodes: one(READY), request, ..SessionRecord::default() };
    memory.jobs.plan([Fault::new("describe", 1, When::Before, CloudErrorKind::Throttled).forever()]);
    let before = Instant::now();
    assert!(wait(&memory, record, &Cancellation::default()).await.is_err());
    assert_eq!(before.elapsed().as_secs(), most, "not the default of the operator's file");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_wait() {
    let memory = Memory::new();
    let cancel = Cancellation::default();
    cancel.raise();
    let record = SessionRecord { nodes: one(READY), ..SessionRecord::default() };
    assert!(wait(&memory, record, &cancel).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_came_is_not_waited_for() {
    let memory = Memory::new();
    let before = Instant::now();
    assert!(!wait(&memory, silent(), &Cancellation::default()).await.unwrap());
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// A session without network whose last container, of stage 2, never began.
struct Isolated {
    folder: tempfile::TempDir,
    memory: Memory,
    host: Trees,
}

impl Isolated {
    /// The container of stage 1 has kept the project, with a model.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let side = |name: &str| {
            let project = folder.path().join(name);
            std::fs::create_dir(&project).unwrap();
            Trees { tmp: project.with_extension("tmp"), project, host: None }
        };
        let (container, host) = (side("container"), side("host"));
        let (memory, id) = (Memory::new(), SessionId::parse(NAME).unwrap());
        let keys = spec::session_keys(&id, None).of_stage(1);
        let packs = keys::project_packs("scope");
        let (progress, cache, now) = (Arc::default(), folder.path().join("cache"), SystemTime::now());
        workspace::send(&*memory.objects, &keys.workspace(1, &packs), &host, &cache, now, &progress).await.unwrap();
        std::fs::write(container.project.join("model"), "weights").unwrap();
        let before = memory.objects.keys();
        workspace::send_tree(&*memory.objects, &keys.kept_tree(&packs), &container, now, &progress).await.unwrap();
        let output = isolation::output(&keys, &spec::job_name(&id, 1));
        for key in memory.objects.keys().into_iter().filter(|key| !before.contains(key)) {
            memory.objects.insert(&format!("{output}{key}"), memory.objects.contents(&key).unwrap());
            memory.objects.expire(&key);
        }
        Self { folder, memory, host }
    }

    /// Downloads the results; returns their state, and what the job's log shows.
    async fn download(&self, change: impl FnOnce(&mut SessionRecord)) -> (Result<(), LostResults>, String) {
        let dir = self.folder.path().display();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{dir}\"\n");
        let settings: Settings = toml::from_str(&text).unwrap();
        let selection = Selection { everything: true, ..Selection::default() };
        let stages = StageJobs { number: 2, earlier: Some(1), attempt: 1, has_exited: true, ..StageJobs::default() };
        let mut record = SessionRecord {
            nodes: one(NEW),
            scope: Some("scope".to_owned()),
            selection: Some(selection),
            job_number: 2,
            stage_jobs: Some(stages),
            ..SessionRecord::default()
        };
        change(&mut record);
        let id = SessionId::parse(NAME).unwrap();
        Records::open(self.folder.path()).unwrap().save(&id, &record).unwrap();
        let (printer, shown) = Printer::captured();
        let mut session = attach(id, &self.memory, &settings, &printer);
        download_results(&mut session, &self.host, &Cancellation::default()).await.unwrap();
        let state = match session.state.results() {
            Outcome::Lost(lost) => Err(lost.clone()),
            Outcome::Applied => Ok(()),
            Outcome::Pending => panic!("nothing is settled"),
        };
        (state, shown.text())
    }

    fn model(&self) -> Option<String> {
        std::fs::read_to_string(self.host.project.join("model")).ok()
    }
}

#[tokio::test]
async fn results_come_from_the_stage_before_when_the_last_one_never_began() {
    let job = Isolated::new().await;
    let (state, shown) = job.download(|record| record.given_up = true).await;
    assert_eq!(state, Ok(()));
    assert!(shown.contains("the results are those that the stage before it left"), "{shown}");
    assert_eq!(job.model().as_deref(), Some("weights"));
}

/// The container ended, and SageMaker has none of its results.
#[tokio::test]
async fn results_come_from_the_stage_before_when_the_last_one_was_lost() {
    let job = Isolated::new().await;
    let (state, _) = job.download(|record| record.nodes = one(READY)).await;
    assert_eq!((state, job.model().as_deref()), (Ok(()), Some("weights")));
}

/// The wait between two stages was canceled, so the next one was never entered.
#[tokio::test]
async fn results_come_from_a_stage_that_no_other_followed() {
    let job = Isolated::new().await;
    let entered = |record: &mut SessionRecord| {
        let stages = StageJobs { number: 1, has_exited: true, ..StageJobs::default() };
        (record.stage_jobs, record.job_number, record.workspace_attempt) = (Some(stages), 1, 1);
        (record.nodes, record.collected) = (one(LEFT), true);
    };
    let (state, _) = job.download(entered).await;
    assert_eq!((state, job.model().as_deref()), (Ok(()), Some("weights")));
}

#[tokio::test]
async fn without_a_kept_project_the_results_of_a_stage_that_never_began_are_lost() {
    let job = Isolated::new().await;
    for key in job.memory.objects.keys() {
        job.memory.objects.expire(&key);
    }
    let (state, shown) = job.download(|record| record.given_up = true).await;
    assert!(state.unwrap_err().why.contains("the files of the script are lost"));
    assert!(shown.contains("`RUNNER_AFTER_SCRIPT_TIMEOUT`"), "{shown}");
}

/// The agent has reported its files, but SageMaker's upload failed.
#[tokio::test]
async fn an_upload_that_failed_is_told_by_sagemakers_reason() {
    let job = Isolated::new().await;
    let name = spec::job_name(&SessionId::parse(NAME).unwrap(), 1);
    job.memory.jobs.create(&example_spec(&name)).await.unwrap();
    job.memory.jobs.set_status(&name, JobStatus::Failed, SecondaryStatus::Failed);
    job.memory.jobs.change(&name, |job| job.failure_reason = Some("ClientError: no access to the bucket".to_owned()));
    let only_stage = |record: &mut SessionRecord| {
        let stages = StageJobs { number: 1, has_exited: true, ..StageJobs::default() };
        (record.stage_jobs, record.job_number, record.scope) = (Some(stages), 1, None);
        (record.nodes, record.collected) = (one(LEFT), true);
    };
    let (state, shown) = job.download(only_stage).await;
    let why = state.unwrap_err().why;
    assert!(why.starts_with("SageMaker has not stored the files of the container: "), "{why}");
    assert!(why.contains("no access to the bucket") && shown.contains("no access to the bucket"), "{why}");
}

/// All reports of the nodes came with the log, so they have left before their results are looked for.
#[tokio::test]
async fn no_warning_is_given_when_the_results_of_a_node_that_left_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("project");
    std::fs::create_dir(&project).unwrap();
    let trees = Trees { tmp: project.with_extension("tmp"), project, host: None };
    let (memory, id) = (Memory::new(), SessionId::parse(NAME).unwrap());
    let selection = Selection { every_node: true, everything: true, ..Selection::default() };
    let (snapshot, progress) = (workspace::Snapshot::default(), Arc::default());
    for node in [NodeId::LEADER, NodeId::at(1)] {
        let route = spec::session_keys(&id, None).of_stage(1).results(node, 0);
        let selection = selection.of_node(node);
        workspace::send_changes(&*memory.objects, &route, &trees, &snapshot, &selection, &progress).await.unwrap();
    }
    let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", folder.path().display());
    let settings: Settings = toml::from_str(&text).unwrap();
    let stages = StageJobs { number: 1, has_exited: true, ..StageJobs::default() };
    let left = NodeRecord { ready: true, left: true, ..NEW };
    let record = SessionRecord {
        nodes: Nodes::new(2, |_| left),
        collected: true,
        selection: Some(selection),
        stage_jobs: Some(stages),
        ..SessionRecord::default()
    };
    Records::open(folder.path()).unwrap().save(&id, &record).unwrap();
    let (printer, shown) = Printer::captured();
    let mut session = attach(id, &memory, &settings, &printer);
    download_results(&mut session, &trees, &Cancellation::default()).await.unwrap();
    assert_eq!(session.state.results(), Outcome::Applied);
    assert!(!shown.text().contains("ended before"), "{}", shown.text());
}

/// The host has a folder in the place of a file of the second node: that is refused, and the third node's files come.
#[tokio::test]
async fn a_node_whose_files_are_refused_does_not_keep_those_of_the_next_ones() {
    let folder = tempfile::tempdir().unwrap();
    let side = |name: &str| {
        let project = folder.path().join(name);
        std::fs::create_dir(&project).unwrap();
        Trees { tmp: project.with_extension("tmp"), project, host: None }
    };
    let (container, mut host) = (side("container"), side("host"));
    let (project, tmp) = (host.project.clone(), host.tmp.clone());
    host.host = Some(HostTrees { base: folder.path().to_owned(), project, tmp });
    std::fs::write(container.project.join("model"), "weights").unwrap();
    std::fs::create_dir_all(host.project.join("algo-2/model/held")).unwrap();
    let (memory, id) = (Memory::new(), SessionId::parse(NAME).unwrap());
    let selection = Selection { every_node: true, everything: true, ..Selection::default() };
    let (snapshot, progress) = (workspace::Snapshot::default(), Arc::default());
    for node in [NodeId::LEADER, NodeId::at(1), NodeId::at(2)] {
        let (route, selection) = (spec::session_keys(&id, None).results(node, 0), selection.of_node(node));
        workspace::send_changes(&*memory.objects, &route, &container, &snapshot, &selection, &progress).await.unwrap();
    }
    let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", folder.path().display());
    let settings: Settings = toml::from_str(&text).unwrap();
    let nodes = Nodes::new(3, |_| NodeRecord { ready: true, left: true, ..NEW });
    let record = SessionRecord { nodes, finished: true, selection: Some(selection), ..SessionRecord::default() };
    Records::open(folder.path()).unwrap().save(&id, &record).unwrap();
    let (printer, _) = Printer::captured();
    let mut session = attach(id, &memory, &settings, &printer);
    let error = download_results(&mut session, &host, &Cancellation::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to fetch the files of algo-2");
    assert_eq!(kind_of(&error), Kind::User, "{error:#}");
    for path in ["model", "algo-3/model"] {
        assert_eq!(std::fs::read_to_string(host.project.join(path)).unwrap(), "weights", "{path}");
    }
}
