//! The end of a session with the fakes, in paused time.

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
use crate::ui::Printer;

const NAME: &str = "gitlab-1-2-abcdef12";

struct Desk {
    memory: Memory,
    settings: Settings,
    printer: Printer,
    _dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
        Self {
            memory: Memory::new(),
            settings: toml::from_str(&text).unwrap(),
            printer: Printer::captured().0,
            _dir: dir,
        }
    }

    async fn open(&self, record: SessionRecord) {
        self.memory.jobs.create(&example_spec(NAME)).await.unwrap();
        self.memory.objects.insert(&spec::layout(&Self::id()).script(1), "secret");
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
    let desk = Desk::new();
    desk.open(SessionRecord::default()).await;
    let session = desk.attach().unwrap();
    desk.memory.jobs.advance_on_describe(
        NAME,
        &[
            (JobStatus::InProgress, SecondaryStatus::Training),
            (JobStatus::Stopping, SecondaryStatus::Stopping),
            (JobStatus::Stopped, SecondaryStatus::Stopped),
        ],
    );
    close(session, Pace::Patient).await.unwrap();
    assert!(desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert_eq!(desk.memory.objects.keys(), ["sessions/gitlab-1-2-abcdef123/orders/000001.json"]);
    assert!(desk.attach().is_none(), "the record is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_given_time_to_leave_by_itself() {
    let desk = Desk::new();
    desk.open(SessionRecord { finished: true, ..SessionRecord::default() }).await;
    let session = desk.attach().unwrap();
    desk.memory.jobs.advance_on_describe(
        NAME,
        &[
            (JobStatus::InProgress, SecondaryStatus::Training),
            (JobStatus::InProgress, SecondaryStatus::Uploading),
            (JobStatus::Completed, SecondaryStatus::Completed),
        ],
    );
    close(session, Pace::Patient).await.unwrap();
    assert!(!desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_end_keeps_its_record() {
    let desk = Desk::new();
    desk.open(SessionRecord::default()).await;
    let session = desk.attach().unwrap();
    desk.memory.jobs.advance_on_describe(NAME, &[const { (JobStatus::Stopping, SecondaryStatus::Stopping) }; 200]);
    assert!(close(session, Pace::Patient).await.is_err());
    assert!(desk.attach().is_some());
    let left = desk.memory.objects.keys();
    assert_eq!(
        left,
        ["sessions/gitlab-1-2-abcdef12/orders/000001.json", "sessions/gitlab-1-2-abcdef123/orders/000001.json"],
        "the order to leave, and no secret"
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_pass_finds_nothing_to_do() {
    let desk = Desk::new();
    desk.open(SessionRecord::default()).await;
    desk.memory.jobs.set_status(NAME, JobStatus::Stopped, SecondaryStatus::Stopped);
    let (first, second) = (desk.attach().unwrap(), desk.attach().unwrap());
    close(first, Pace::Patient).await.unwrap();
    close(second, Pace::Patient).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_created_and_is_not_visible_yet_is_looked_for_again() {
    let desk = Desk::new();
    desk.open(SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() }).await;
    let record = SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() };
    let id = SessionId::parse("gitlab-9-9-abcdef12").unwrap();
    Records::open(&desk.settings.runner.state_dir).unwrap().save(&id, &record).unwrap();
    let session = desk.attach_to(id).unwrap();
    let before = Instant::now();
    close(session, Pace::Patient).await.unwrap();
    assert!(before.elapsed() >= LATE_CREATE, "it was given time to appear");
    assert!(desk.memory.jobs.calls().contains(&"stop gitlab-9-9-abcdef12".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_refused_because_the_job_ends_by_itself_is_none() {
    let desk = Desk::new();
    desk.open(SessionRecord::default()).await;
    desk.memory.jobs.advance_on_describe(
        NAME,
        &[
            (JobStatus::InProgress, SecondaryStatus::Training),
            (JobStatus::Failed, SecondaryStatus::Failed),
            (JobStatus::Failed, SecondaryStatus::Failed),
        ],
    );
    let stop = Fault::new("stop", 1, When::Before, CloudErrorKind::Invalid).forever();
    desk.memory.jobs.plan([stop]);
    let session = desk.attach().unwrap();
    close(session, Pace::Patient).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_may_not_be_looked_at_is_stopped_and_its_record_kept() {
    let desk = Desk::new();
    desk.open(SessionRecord::default()).await;
    let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Denied).forever();
    desk.memory.jobs.plan([describe]);
    let session = desk.attach().unwrap();
    assert!(close(session, Pace::Patient).await.is_err());
    assert!(desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(desk.attach().is_some());
}
/// Hundreds of jobs that end together meet the quota of `DescribeTrainingJob`: no reason to fail.
#[tokio::test(start_paused = true)]
async fn throttling_is_waited_out() {
    let desk = Desk::new();
    desk.open(SessionRecord::default()).await;
    desk.memory.jobs.set_status(NAME, JobStatus::Completed, SecondaryStatus::Completed);
    let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Throttled).times(5);
    desk.memory.jobs.plan([describe]);
    let session = desk.attach().unwrap();
    close(session, Pace::Patient).await.unwrap();
    assert!(!desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(desk.attach().is_none());
}

/// A session whose training job was asked for, and of which SageMaker knows nothing.
fn asked_for(desk: &Desk, requested: Stamp) -> Session<'_> {
    let record = SessionRecord { creating: true, requested: Some(requested), ..SessionRecord::default() };
    let records = Records::open(&desk.settings.runner.state_dir).unwrap();
    records.save(&Desk::id(), &record).unwrap();
    records.staging(&Desk::id()).unwrap();
    desk.to_close()
}

#[tokio::test(start_paused = true)]
async fn a_job_that_may_still_come_keeps_its_record_and_nothing_else() {
    let desk = Desk::new();
    assert_eq!(close(asked_for(&desk, Stamp::of(&HostClock)), Pace::Patient).await.unwrap(), Closed::MayCome);
    let records = Records::at(&desk.settings.runner.state_dir);
    assert_eq!(records.files(&Desk::id()).unwrap().len(), 2, "the record and the mark");
    // Later it is there, and a further pass ends it.
    desk.memory.jobs.create(&example_spec(NAME)).await.unwrap();
    let again = desk.to_close();
    assert_eq!(close(again, Pace::Patient).await.unwrap(), Closed::Whole);
    assert!(desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(records.sessions().unwrap().is_empty());
}

/// As where `StopTrainingJob` is not allowed, or not known: there is nothing to stop so far.
#[tokio::test(start_paused = true)]
async fn a_job_that_may_still_come_and_cannot_be_stopped_is_looked_for_later() {
    let desk = Desk::new();
    let session = asked_for(&desk, Stamp::of(&HostClock));
    let stop = Fault::new("stop", 1, When::Before, CloudErrorKind::Denied).forever();
    desk.memory.jobs.plan([stop]);
    assert_eq!(close(session, Pace::Patient).await.unwrap(), Closed::MayCome);
    assert!(desk.attach().unwrap().state.creation() == Creation::Requested);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_not_come_for_long_is_forgotten() {
    let desk = Desk::new();
    let requested = Stamp::of_day(std::time::SystemTime::now() - COMES_WITHIN - Duration::from_secs(1));
    assert_eq!(close(asked_for(&desk, requested), Pace::Patient).await.unwrap(), Closed::Whole);
    assert!(Records::at(&desk.settings.runner.state_dir).sessions().unwrap().is_empty());
}

/// Nothing was asked for: `cleanup` of a job that `prepare` refused needs no AWS.
#[tokio::test(start_paused = true)]
async fn a_session_that_asked_for_nothing_is_forgotten_without_a_call() {
    let desk = Desk::new();
    Records::open(&desk.settings.runner.state_dir).unwrap().save(&Desk::id(), &SessionRecord::default()).unwrap();
    let session = desk.to_close();
    assert_eq!(close(session, Pace::Patient).await.unwrap(), Closed::Whole);
    assert!(desk.memory.jobs.calls().is_empty() && desk.memory.objects.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_record_every_training_job_of_the_session_is_ended() {
    let desk = Desk::new();
    let second = format!("{NAME}-2");
    for name in [NAME, &second] {
        desk.memory.jobs.create(&example_spec(name)).await.unwrap();
    }
    desk.memory.jobs.set_status(NAME, JobStatus::Failed, SecondaryStatus::Failed);
    desk.memory.objects.insert(&spec::layout(&Desk::id()).script(1), "secret");
    let session = desk.to_close();
    assert_eq!(close(session, Pace::Patient).await.unwrap(), Closed::Whole);
    assert!(desk.memory.jobs.calls().contains(&format!("stop {second}")));
    assert!(desk.memory.objects.contents(&spec::layout(&Desk::id()).script(1)).is_none());
}

/// Objects that may not be deleted keep nothing from being stopped, and the record stays for a later pass.
#[tokio::test(start_paused = true)]
async fn each_part_is_ended_whatever_becomes_of_the_others() {
    let desk = Desk::new();
    desk.open(SessionRecord::default()).await;
    let delete = Fault::new("delete", 1, When::Before, CloudErrorKind::Denied).forever();
    desk.memory.objects.plan([delete]);
    let session = desk.to_close();
    let error = close(session, Pace::Patient).await.unwrap_err();
    assert!(format!("{error:#}").contains("failed to delete the objects"), "{error:#}");
    assert!(desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(desk.attach().is_some());
}

/// A session whose agents were told to leave, with what each node said last, on a job that SageMaker does not end soon.
async fn told_to_leave(desk: &Desk, byes: &[NodeId]) {
    let nodes = Nodes::new(2, |_| NodeRecord::default());
    desk.open(SessionRecord { finished: true, nodes, ..SessionRecord::default() }).await;
    desk.memory.jobs.set_status(NAME, JobStatus::InProgress, SecondaryStatus::Uploading);
    let layout = spec::layout(&Desk::id());
    for node in byes.iter().copied() {
        let ready = Report::Ready { agent: "0".into(), nodes: Vec::new() };
        desk.memory.objects.insert(&layout.report(node, 1), mailbox::encode(1, ready));
        let bye = Report::Bye { reason: ByeReason::Finished };
        desk.memory.objects.insert(&layout.report(node, 2), mailbox::encode(2, bye));
    }
}

async fn closed(desk: &Desk, pace: Pace) -> Closed {
    let session = desk.to_close();
    close(session, pace).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_job_whose_agents_have_left_is_not_waited_for() {
    let desk = Desk::new();
    told_to_leave(&desk, &[NodeId::LEADER, NodeId::at(1)]).await;
    let before = Instant::now();
    assert_eq!(closed(&desk, Pace::Patient).await, Closed::Leaving);
    assert!(before.elapsed() <= leaving::ENDS_AT_ONCE * 2, "{:?}", before.elapsed());
    assert_eq!(desk.memory.objects.keys(), ["sessions/gitlab-1-2-abcdef123/orders/000001.json"]);
    let records = Records::at(&desk.settings.runner.state_dir);
    assert_eq!(records.files(&Desk::id()).unwrap().len(), 2, "the record and the mark");
    // A later pass sees that it is still there, a further one that it ended.
    assert_eq!(closed(&desk, Pace::Brief).await, Closed::Leaving);
    assert!(!desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
    desk.memory.jobs.set_status(NAME, JobStatus::Completed, SecondaryStatus::Completed);
    assert_eq!(closed(&desk, Pace::Brief).await, Closed::Whole);
    assert!(desk.attach().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_end_after_its_agents_is_stopped_by_a_later_pass() {
    let desk = Desk::new();
    told_to_leave(&desk, &[NodeId::LEADER, NodeId::at(1)]).await;
    assert_eq!(closed(&desk, Pace::Patient).await, Closed::Leaving);
    let records = Records::at(&desk.settings.runner.state_dir);
    let mut record = records.load(&Desk::id()).unwrap().unwrap();
    record.leaving = Some(Stamp::of_day(std::time::SystemTime::now() - leaving::ENDS_WITHIN - Duration::from_secs(1)));
    records.save(&Desk::id(), &record).unwrap();
    assert_eq!(closed(&desk, Pace::Patient).await, Closed::Whole);
    assert!(desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_has_not_left_is_waited_for() {
    let desk = Desk::new();
    told_to_leave(&desk, &[NodeId::LEADER]).await;
    desk.memory.jobs.set_status(NAME, JobStatus::InProgress, SecondaryStatus::Training);
    let before = Instant::now();
    assert_eq!(closed(&desk, Pace::Patient).await, Closed::Whole);
    assert!(before.elapsed() >= Pace::Patient.leaves_within());
    assert!(desk.memory.jobs.calls().contains(&format!("stop {NAME}")), "it did not leave");
}

/// Canceled before an agent was there: nothing of the job can run any more.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_job_that_was_given_up_is_not_waited_for() {
    let desk = Desk::new();
    desk.open(SessionRecord { given_up: true, ..SessionRecord::default() }).await;
    let stopping = [const { (JobStatus::Stopping, SecondaryStatus::Stopping) }; 200];
    desk.memory.jobs.set_status(NAME, JobStatus::Stopping, SecondaryStatus::Stopping);
    desk.memory.jobs.advance_on_describe(NAME, &stopping);
    assert_eq!(closed(&desk, Pace::Patient).await, Closed::Leaving);
    desk.memory.jobs.set_status(NAME, JobStatus::Stopped, SecondaryStatus::Stopped);
    assert_eq!(closed(&desk, Pace::Brief).await, Closed::Whole);
}

/// A container may write what it likes where its reports stand, and goes on while nobody stops it.
#[tokio::test(start_paused = true)]
async fn a_job_whose_reports_cannot_be_understood_is_stopped() {
    let desk = Desk::new();
    told_to_leave(&desk, &[NodeId::LEADER]).await;
    desk.memory.jobs.set_status(NAME, JobStatus::InProgress, SecondaryStatus::Training);
    desk.memory.objects.insert(&spec::layout(&Desk::id()).report(NodeId::LEADER, 1), "not a report");
    assert_eq!(closed(&desk, Pace::Patient).await, Closed::Whole);
    assert!(desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
}
