//! Closes sessions on fakes, in paused time.

use super::*;
use crate::base::clock::HostClock;
use crate::base::node::{NodeId, Nodes};
use crate::cloud::JobStatus;
use crate::cloud::testing::{Fault, Memory, When, example_spec};
use crate::config::settings::Settings;
use crate::protocol::mailbox::{self, ByeReason, Report};
use crate::session::node_record::NodeRecord;
use crate::session::record::{Records, SessionRecord};
use crate::session::{Host, SessionId, spec};
use crate::ui::{Captured, Printer};

const NAME: &str = "gitlab-1-2-abcdef12";

struct Harness {
    memory: Memory,
    settings: Settings,
    printer: Printer,
    captured: Captured,
    _dir: tempfile::TempDir,
}

impl Harness {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
        let (printer, captured) = Printer::captured();
        Self { memory: Memory::new(), settings: toml::from_str(&text).unwrap(), printer, captured, _dir: dir }
    }

    async fn open(&self, record: SessionRecord) {
        self.memory.jobs.create(&example_spec(NAME)).await.unwrap();
        self.memory.objects.insert(&spec::session_keys(&Self::id(), None).script(1), "secret");
        self.memory.objects.insert("sessions/gitlab-1-2-abcdef123/orders/000001.json", "a neighbour's");
        let record = SessionRecord { arn: record.arn.clone().or_else(|| Some("arn".into())), ..record };
        Records::open(&self.settings.runner.state_dir).unwrap().save(&Self::id(), &record).unwrap();
    }

    fn id() -> SessionId {
        SessionId::parse(NAME).unwrap()
    }

    fn attach(&self) -> Option<Session<'_>> {
        self.attach_to(Self::id())
    }

    fn attach_to(&self, id: SessionId) -> Option<Session<'_>> {
        Session::attach(id, self.memory.jobs.clone(), self.memory.objects.clone(), self.host()).unwrap()
    }

    fn to_close(&self) -> Session<'_> {
        Session::to_close(Self::id(), self.memory.jobs.clone(), self.memory.objects.clone(), self.host())
    }

    fn host(&self) -> Host<'_> {
        Host::with_real_time(&self.settings, &self.printer)
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_stopped_and_everything_of_the_session_is_gone() {
    let harness = Harness::new();
    harness.open(SessionRecord::default()).await;
    let session = harness.attach().unwrap();
    harness.memory.jobs.advance_on_describe(
        NAME,
        &[
            (JobStatus::InProgress, SecondaryStatus::Training),
            (JobStatus::Stopping, SecondaryStatus::Stopping),
            (JobStatus::Stopped, SecondaryStatus::Stopped),
        ],
    );
    close(session, Patience::Long).await.unwrap();
    assert!(harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert_eq!(harness.memory.objects.keys(), ["sessions/gitlab-1-2-abcdef123/orders/000001.json"]);
    assert!(harness.attach().is_none(), "the record is forgotten");
    assert_eq!(harness.captured.text(), format!("Training job {NAME}: Nothing is billed: no instance came up\n"));
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_given_time_to_leave_by_itself() {
    let harness = Harness::new();
    harness.open(SessionRecord { finished: true, ..SessionRecord::default() }).await;
    let session = harness.attach().unwrap();
    harness.memory.jobs.advance_on_describe(
        NAME,
        &[
            (JobStatus::InProgress, SecondaryStatus::Training),
            (JobStatus::InProgress, SecondaryStatus::Uploading),
            (JobStatus::Completed, SecondaryStatus::Completed),
        ],
    );
    close(session, Patience::Long).await.unwrap();
    assert!(!harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert_eq!(harness.captured.text(), "", "the job's last stage has told its bill");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_end_keeps_its_record() {
    let harness = Harness::new();
    harness.open(SessionRecord::default()).await;
    let session = harness.attach().unwrap();
    harness.memory.jobs.advance_on_describe(NAME, &[const { (JobStatus::Stopping, SecondaryStatus::Stopping) }; 200]);
    assert!(close(session, Patience::Long).await.is_err());
    assert!(harness.attach().is_some());
    let left = harness.memory.objects.keys();
    assert_eq!(
        left,
        ["sessions/gitlab-1-2-abcdef12/orders/000001.json", "sessions/gitlab-1-2-abcdef123/orders/000001.json"],
        "the order to leave, and no secret"
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_pass_finds_nothing_to_do() {
    let harness = Harness::new();
    harness.open(SessionRecord::default()).await;
    harness.memory.jobs.set_status(NAME, JobStatus::Stopped, SecondaryStatus::Stopped);
    let (first, second) = (harness.attach().unwrap(), harness.attach().unwrap());
    close(first, Patience::Long).await.unwrap();
    close(second, Patience::Long).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_created_and_is_not_visible_yet_is_looked_for_again() {
    let harness = Harness::new();
    harness.open(SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() }).await;
    let record = SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() };
    let id = SessionId::parse("gitlab-9-9-abcdef12").unwrap();
    Records::open(&harness.settings.runner.state_dir).unwrap().save(&id, &record).unwrap();
    let session = harness.attach_to(id).unwrap();
    let before = Instant::now();
    close(session, Patience::Long).await.unwrap();
    assert!(before.elapsed() >= LATE_CREATE, "it was given time to appear");
    assert!(harness.memory.jobs.calls().contains(&"stop gitlab-9-9-abcdef12".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_refused_because_the_job_ends_by_itself_is_none() {
    let harness = Harness::new();
    harness.open(SessionRecord::default()).await;
    harness.memory.jobs.advance_on_describe(
        NAME,
        &[
            (JobStatus::InProgress, SecondaryStatus::Training),
            (JobStatus::Failed, SecondaryStatus::Failed),
            (JobStatus::Failed, SecondaryStatus::Failed),
        ],
    );
    let stop = Fault::new("stop", 1, When::Before, CloudErrorKind::Invalid).forever();
    harness.memory.jobs.plan([stop]);
    let session = harness.attach().unwrap();
    close(session, Patience::Long).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_may_not_be_looked_at_is_stopped_and_its_record_kept() {
    let harness = Harness::new();
    harness.open(SessionRecord::default()).await;
    let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Denied).forever();
    harness.memory.jobs.plan([describe]);
    let session = harness.attach().unwrap();
    assert!(close(session, Patience::Long).await.is_err());
    assert!(harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(harness.attach().is_some());
}
/// Hundreds of jobs that end together exceed the rate of `DescribeTrainingJob`; their cleanups must not fail.
#[tokio::test(start_paused = true)]
async fn throttling_is_waited_out() {
    let harness = Harness::new();
    harness.open(SessionRecord::default()).await;
    harness.memory.jobs.set_status(NAME, JobStatus::Completed, SecondaryStatus::Completed);
    let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Throttled).times(5);
    harness.memory.jobs.plan([describe]);
    let session = harness.attach().unwrap();
    close(session, Patience::Long).await.unwrap();
    assert!(!harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(harness.attach().is_none());
}

/// A session whose training job was requested and is unknown to SageMaker.
fn asked_for(harness: &Harness, requested: Stamp) -> Session<'_> {
    let record = SessionRecord { creating: true, requested: Some(requested), ..SessionRecord::default() };
    let records = Records::open(&harness.settings.runner.state_dir).unwrap();
    records.save(&Harness::id(), &record).unwrap();
    records.staging(&Harness::id()).unwrap();
    harness.to_close()
}

#[tokio::test(start_paused = true)]
async fn a_job_that_may_still_come_keeps_its_record_and_nothing_else() {
    let harness = Harness::new();
    assert_eq!(close(asked_for(&harness, Stamp::of(&HostClock)), Patience::Long).await.unwrap(), Closed::MayAppear);
    let records = Records::at(&harness.settings.runner.state_dir);
    assert_eq!(records.files(&Harness::id()).unwrap().len(), 2, "the record and the mark");
    // The job appears later, and another pass ends it.
    harness.memory.jobs.create(&example_spec(NAME)).await.unwrap();
    let again = harness.to_close();
    assert_eq!(close(again, Patience::Long).await.unwrap(), Closed::Whole);
    assert!(harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(records.sessions().unwrap().is_empty());
}

/// `StopTrainingJob` may be denied or unsupported while there is nothing to stop.
#[tokio::test(start_paused = true)]
async fn a_job_that_may_still_come_and_cannot_be_stopped_is_looked_for_later() {
    let harness = Harness::new();
    let session = asked_for(&harness, Stamp::of(&HostClock));
    let stop = Fault::new("stop", 1, When::Before, CloudErrorKind::Denied).forever();
    harness.memory.jobs.plan([stop]);
    assert_eq!(close(session, Patience::Long).await.unwrap(), Closed::MayAppear);
    assert!(harness.attach().unwrap().state.creation() == Creation::Requested);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_not_come_for_long_is_forgotten() {
    let harness = Harness::new();
    let requested = Stamp::of_day(std::time::SystemTime::now() - APPEARS_WITHIN - Duration::from_secs(1));
    assert_eq!(close(asked_for(&harness, requested), Patience::Long).await.unwrap(), Closed::Whole);
    assert!(Records::at(&harness.settings.runner.state_dir).sessions().unwrap().is_empty());
}

/// No job was requested: `cleanup` of a job that `prepare` refused needs no AWS.
#[tokio::test(start_paused = true)]
async fn a_session_that_asked_for_nothing_is_forgotten_without_a_call() {
    let harness = Harness::new();
    Records::open(&harness.settings.runner.state_dir).unwrap().save(&Harness::id(), &SessionRecord::default()).unwrap();
    let session = harness.to_close();
    assert_eq!(close(session, Patience::Long).await.unwrap(), Closed::Whole);
    assert!(harness.memory.jobs.calls().is_empty() && harness.memory.objects.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_record_every_training_job_of_the_session_is_ended() {
    let harness = Harness::new();
    let second = format!("{NAME}-2");
    for name in [NAME, &second] {
        harness.memory.jobs.create(&example_spec(name)).await.unwrap();
    }
    harness.memory.jobs.set_status(NAME, JobStatus::Failed, SecondaryStatus::Failed);
    harness.memory.objects.insert(&spec::session_keys(&Harness::id(), None).script(1), "secret");
    let session = harness.to_close();
    assert_eq!(close(session, Patience::Long).await.unwrap(), Closed::Whole);
    assert!(harness.memory.jobs.calls().contains(&format!("stop {second}")));
    assert!(harness.memory.objects.contents(&spec::session_keys(&Harness::id(), None).script(1)).is_none());
}

/// The objects tell that `prepare` was there; its request may take effect yet.
#[tokio::test(start_paused = true)]
async fn without_a_record_and_a_training_job_objects_leave_a_record() {
    let harness = Harness::new();
    let session = harness.to_close();
    assert_eq!(close(session, Patience::Long).await.unwrap(), Closed::Whole, "nothing was ever begun");
    let keys = spec::session_keys(&Harness::id(), None);
    harness.memory.objects.insert(&keys.script(1), "secret");
    let session = harness.to_close();
    assert_eq!(close(session, Patience::Long).await.unwrap(), Closed::MayAppear);
    assert!(harness.memory.objects.keys().is_empty() && harness.attach().is_some());
    harness.memory.jobs.create(&example_spec(NAME)).await.unwrap();
    let session = harness.to_close();
    assert_eq!(close(session, Patience::Long).await.unwrap(), Closed::Whole);
    assert!(harness.memory.jobs.calls().contains(&format!("stop {NAME}")) && harness.attach().is_none());
}

/// The job is stopped even if the objects cannot be deleted; the record stays for a later pass.
#[tokio::test(start_paused = true)]
async fn each_part_is_ended_whatever_becomes_of_the_others() {
    let harness = Harness::new();
    harness.open(SessionRecord::default()).await;
    let delete = Fault::new("delete", 1, When::Before, CloudErrorKind::Denied).forever();
    harness.memory.objects.plan([delete]);
    let session = harness.to_close();
    let error = close(session, Patience::Long).await.unwrap_err();
    assert!(format!("{error:#}").contains("failed to delete the objects"), "{error:#}");
    assert!(harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(harness.attach().is_some());
}

/// A session whose agents were ordered to leave; those of `byes` have reported it. SageMaker does not end the job soon.
async fn told_to_leave(harness: &Harness, byes: &[NodeId]) {
    let nodes = Nodes::new(2, |_| NodeRecord::default());
    harness.open(SessionRecord { finished: true, nodes, ..SessionRecord::default() }).await;
    harness.memory.jobs.set_status(NAME, JobStatus::InProgress, SecondaryStatus::Uploading);
    let keys = spec::session_keys(&Harness::id(), None);
    for node in byes.iter().copied() {
        let ready = Report::Ready { agent: "0".into(), nodes: Vec::new(), restarts: 0, after: 0, checkpoints: None };
        harness.memory.objects.insert(&keys.report(node, 1), mailbox::encode_report(&keys, node, 1, &ready));
        let bye = Report::Bye { reason: ByeReason::Finished };
        harness.memory.objects.insert(&keys.report(node, 2), mailbox::encode_report(&keys, node, 2, &bye));
    }
}

async fn closed(harness: &Harness, patience: Patience) -> Closed {
    let session = harness.to_close();
    close(session, patience).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_job_whose_agents_have_left_is_not_waited_for() {
    let harness = Harness::new();
    told_to_leave(&harness, &[NodeId::LEADER, NodeId::at(1)]).await;
    let before = Instant::now();
    assert_eq!(closed(&harness, Patience::Long).await, Closed::Leaving);
    assert!(before.elapsed() <= leaving::ENDS_AT_ONCE * 2, "{:?}", before.elapsed());
    assert_eq!(harness.memory.objects.keys(), ["sessions/gitlab-1-2-abcdef123/orders/000001.json"]);
    let records = Records::at(&harness.settings.runner.state_dir);
    assert_eq!(records.files(&Harness::id()).unwrap().len(), 2, "the record and the mark");
    // The next pass sees that the job still exists, the one after it that it ended.
    assert_eq!(closed(&harness, Patience::Brief).await, Closed::Leaving);
    assert!(!harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
    harness.memory.jobs.set_status(NAME, JobStatus::Completed, SecondaryStatus::Completed);
    // SageMaker has stored its output since then.
    let keys = spec::session_keys(&Harness::id(), None);
    harness.memory.objects.insert(&format!("{}/{NAME}/output/model.tar.gz", keys.output()), "model");
    assert_eq!(closed(&harness, Patience::Brief).await, Closed::Whole);
    assert!(harness.attach().is_none());
    assert_eq!(harness.memory.objects.keys(), ["sessions/gitlab-1-2-abcdef123/orders/000001.json"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_end_after_its_agents_is_stopped_by_a_later_pass() {
    let harness = Harness::new();
    told_to_leave(&harness, &[NodeId::LEADER, NodeId::at(1)]).await;
    assert_eq!(closed(&harness, Patience::Long).await, Closed::Leaving);
    let records = Records::at(&harness.settings.runner.state_dir);
    let mut record = records.load(&Harness::id()).unwrap().unwrap();
    record.leaving = Some(Stamp::of_day(std::time::SystemTime::now() - leaving::ENDS_WITHIN - Duration::from_secs(1)));
    records.save(&Harness::id(), &record).unwrap();
    assert_eq!(closed(&harness, Patience::Long).await, Closed::Whole);
    assert!(harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_has_not_left_is_waited_for() {
    let harness = Harness::new();
    told_to_leave(&harness, &[NodeId::LEADER]).await;
    harness.memory.jobs.set_status(NAME, JobStatus::InProgress, SecondaryStatus::Training);
    let before = Instant::now();
    assert_eq!(closed(&harness, Patience::Long).await, Closed::Whole);
    assert!(before.elapsed() >= Patience::Long.leaves_within());
    assert!(harness.memory.jobs.calls().contains(&format!("stop {NAME}")), "it did not leave");
}

/// Canceled before an agent came up: no script of the job can run any more.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_job_that_was_given_up_is_not_waited_for() {
    let harness = Harness::new();
    harness.open(SessionRecord { given_up: true, ..SessionRecord::default() }).await;
    let stopping = [const { (JobStatus::Stopping, SecondaryStatus::Stopping) }; 200];
    harness.memory.jobs.set_status(NAME, JobStatus::Stopping, SecondaryStatus::Stopping);
    harness.memory.jobs.advance_on_describe(NAME, &stopping);
    assert_eq!(closed(&harness, Patience::Long).await, Closed::Leaving);
    harness.memory.jobs.set_status(NAME, JobStatus::Stopped, SecondaryStatus::Stopped);
    assert_eq!(closed(&harness, Patience::Brief).await, Closed::Whole);
}

/// A container may store anything as its report, and runs on until it is stopped.
#[tokio::test(start_paused = true)]
async fn a_job_whose_reports_cannot_be_understood_is_stopped() {
    let harness = Harness::new();
    told_to_leave(&harness, &[NodeId::LEADER]).await;
    harness.memory.jobs.set_status(NAME, JobStatus::InProgress, SecondaryStatus::Training);
    harness.memory.objects.insert(&spec::session_keys(&Harness::id(), None).report(NodeId::LEADER, 1), "not a report");
    assert_eq!(closed(&harness, Patience::Long).await, Closed::Whole);
    assert!(harness.memory.jobs.calls().contains(&format!("stop {NAME}")));
}
