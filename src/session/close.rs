//! The end of a session as a reconcile pass: whatever is left is gone afterwards. It may run twice, beside a live
//! stage, or never.

use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{Cloud, CloudError, CloudErrorKind, TrainingJob};
use crate::mailbox::Order;
use crate::reader;
use crate::session::output::Output;
use crate::session::{Session, transport};

/// How long a stage that still lives is waited for before its session is taken away.
const STAGE_GRACE: Duration = Duration::from_secs(15);
/// `StopTrainingJob` gives the container 120 s; a little more until SageMaker tells so.
const STOPPED_WITHIN: Duration = Duration::from_secs(150);
/// A finished agent leaves by itself within this time; SageMaker's upload of outputs included.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);
/// How late a `CreateTrainingJob` whose caller was killed can take effect.
const LATE_CREATE: Duration = Duration::from_secs(5);
/// How long a look that is throttled is tried again; the job is stopped blindly after that.
const THROTTLED_WITHIN: Duration = Duration::from_mins(1);
const FIRST_POLL: Duration = Duration::from_millis(50);
const LAST_POLL: Duration = Duration::from_secs(15);

/// Stops the training job, deletes the session's objects, forgets the record. An error leaves the record, so that a
/// later pass finds the session again.
pub async fn close(mut session: Session<'_>) -> anyhow::Result<()> {
    session.records.mark_closing(&session.id)?;
    let lock = wait_for_stage(&session).await?;
    // The stage may have written since.
    if let Some(record) = session.records.load(&session.id)? {
        session.record = record;
    }
    let ended = end_job(&mut session).await;
    if let Err(error) = print_rest(&session).await {
        tracing::warn!(error = format!("{error:#}"), "failed to print the rest of the job's output");
    }
    // Scripts and orders hold secrets: they go even when the job cannot be ended now.
    // An agent that still lives may have to find the order to leave, which holds none.
    let leaves = ended.is_err() && session.record.finished;
    let kept = leaves.then(|| session.layout.order(session.record.orders));
    delete_objects(&session.cloud, &session.layout.root(), kept.as_deref()).await?;
    ended?;
    drop(lock);
    reader::forget(&session.settings.runner.state_dir, session.id.as_str())?;
    session.records.remove(&session.id)
}

/// What a stage whose process was killed had not printed: GitLab Runner writes it to its own log.
async fn print_rest(session: &Session<'_>) -> anyhow::Result<()> {
    let Some(current) = session.record.current.as_ref().filter(|current| current.ordered && current.code.is_none())
    else {
        return Ok(());
    };
    let (objects, printer) = (&*session.cloud.objects, session.printer);
    let cursor = session.records.cursor(&session.id, current.run)?;
    let nodes = &session.record.nodes;
    let shown = session.record.shown_events.clone();
    let mut output = Output::new(&session.layout, current.run, nodes, cursor, shown);
    for node in nodes {
        output.seek_copy(objects, node, None).await?;
        while output.read_copy(objects, node).await? {
            output.print(printer, Duration::ZERO)?;
        }
    }
    output.print(printer, Duration::ZERO)?;
    output.print_incomplete(printer, Duration::ZERO)?;
    Ok(())
}

async fn wait_for_stage(session: &Session<'_>) -> anyhow::Result<Option<std::fs::File>> {
    let deadline = Instant::now() + STAGE_GRACE;
    loop {
        let lock = session.records.lock(&session.id)?;
        if lock.is_some() || Instant::now() >= deadline {
            return Ok(lock);
        }
        tokio::time::sleep(FIRST_POLL * 2).await;
    }
}

async fn end_job(session: &mut Session<'_>) -> anyhow::Result<()> {
    let name = session.id.as_str().to_owned();
    let mut job = match look(&session.cloud, &name).await {
        Ok(job) => job,
        Err(error) => {
            // Blind; but an instance must not go on for want of a look at it.
            tell_to_leave(session).await;
            if let Err(error) = session.cloud.jobs.stop(&name).await {
                tracing::warn!(%error, "failed to stop the training job");
            }
            return Err(error.into());
        }
    };
    if job.is_none() && (session.record.creating || session.record.arn.is_some()) {
        // The request may still be on its way, or its effect not visible yet.
        session.cloud.jobs.stop(&name).await?;
        tokio::time::sleep(LATE_CREATE).await;
        job = session.cloud.jobs.describe(&name).await?;
    }
    let Some(job) = job else {
        return Ok(());
    };
    if job.status.is_terminal() {
        return Ok(());
    }
    if session.record.finished {
        if wait_for_end(&session.cloud, &name, LEAVES_WITHIN).await? {
            return Ok(());
        }
        // The container is gone and SageMaker stores what it left: a stop would win nothing.
        let uploading = |job: TrainingJob| job.secondary == "Uploading";
        if session.cloud.jobs.describe(&name).await?.is_some_and(uploading)
            && wait_for_end(&session.cloud, &name, STOPPED_WITHIN).await?
        {
            return Ok(());
        }
    }
    if !session.record.finished {
        tell_to_leave(session).await;
    }
    if let Err(error) = session.cloud.jobs.stop(&name).await {
        tracing::warn!(%error, "failed to stop the training job");
        // An agent that listens leaves all the same.
        return if wait_for_end(&session.cloud, &name, LEAVES_WITHIN).await? { Ok(()) } else { Err(error.into()) };
    }
    if !wait_for_end(&session.cloud, &name, STOPPED_WITHIN).await? {
        anyhow::bail!("the training job {name} was asked to stop and has not ended yet");
    }
    Ok(())
}

/// Looks at the job. Hundreds of jobs that end together are throttled, which passes.
async fn look(cloud: &Cloud, name: &str) -> Result<Option<TrainingJob>, CloudError> {
    let deadline = Instant::now() + THROTTLED_WITHIN;
    let mut pause = FIRST_POLL;
    loop {
        match cloud.jobs.describe(name).await {
            Err(error) if error.kind == CloudErrorKind::Throttled && Instant::now() < deadline => {
                tracing::debug!(%error, "failed to look at the training job");
            }
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_POLL);
    }
}

/// An agent that listens leaves sooner than a stop takes; one that does not is stopped all the same.
async fn tell_to_leave(session: &mut Session<'_>) {
    let (objects, layout) = (session.cloud.objects.clone(), session.layout.clone());
    let order = Order::Finish { collect: false };
    match transport::send(&*objects, &layout, &mut session.record, &order).await {
        Ok(()) => session.record.finished = true,
        Err(error) => tracing::warn!(%error, "failed to tell the agent to leave"),
    }
}

/// `true` when the job has ended within the time.
async fn wait_for_end(cloud: &Cloud, name: &str, within: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + within;
    let mut pause = FIRST_POLL;
    loop {
        match cloud.jobs.describe(name).await {
            Ok(job) if job.as_ref().is_none_or(|job| job.status.is_terminal()) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind.may_pass() => tracing::warn!(%error, "failed to look at the training job"),
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_POLL);
    }
}

/// Deletes page by page until nothing is left: an agent that is killed may write until its end.
async fn delete_objects(cloud: &Cloud, prefix: &str, kept: Option<&str>) -> anyhow::Result<()> {
    let mut keys = cloud.objects.list(prefix).await?;
    keys.retain(|key| Some(key.as_str()) != kept);
    if !keys.is_empty() {
        cloud.objects.delete(&keys).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::JobStatus;
    use crate::cloud::memory::{Memory, example_spec};
    use crate::session::record::{Records, SessionRecord};
    use crate::session::{SessionId, spec};
    use crate::settings::Settings;
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
            let text =
                format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
            Self {
                memory: Memory::new(),
                settings: toml::from_str(&text).unwrap(),
                printer: Printer::captured().0,
                _dir: dir,
            }
        }

        async fn open(&self, record: SessionRecord) {
            self.memory.cloud().jobs.create(&example_spec(NAME)).await.unwrap();
            self.memory.objects.insert(&spec::layout(&Self::id()).script(1), "secret");
            self.memory.objects.insert("sessions/gitlab-1-2-abcdef123/orders/000001.json", "a neighbour's");
            Records::open(&self.settings.runner.state_dir).unwrap().save(&Self::id(), &record).unwrap();
        }

        fn id() -> SessionId {
            SessionId::parse(NAME).unwrap()
        }

        fn attach(&self) -> Option<Session<'_>> {
            Session::attach(Self::id(), self.memory.cloud(), &self.settings, &self.printer).unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_job_is_stopped_and_everything_of_the_session_is_gone() {
        let desk = Desk::new();
        desk.open(SessionRecord::default()).await;
        let session = desk.attach().unwrap();
        desk.memory.jobs.advance_on_describe(
            NAME,
            &[(JobStatus::InProgress, "Training"), (JobStatus::Stopping, "Stopping"), (JobStatus::Stopped, "Stopped")],
        );
        close(session).await.unwrap();
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
                (JobStatus::InProgress, "Training"),
                (JobStatus::InProgress, "Uploading"),
                (JobStatus::Completed, "Completed"),
            ],
        );
        close(session).await.unwrap();
        assert!(!desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_does_not_end_keeps_its_record() {
        let desk = Desk::new();
        desk.open(SessionRecord::default()).await;
        let session = desk.attach().unwrap();
        desk.memory.jobs.advance_on_describe(NAME, &[(JobStatus::Stopping, "Stopping"); 200]);
        assert!(close(session).await.is_err());
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
        desk.memory.jobs.set_status(NAME, JobStatus::Stopped, "Stopped");
        let (first, second) = (desk.attach().unwrap(), desk.attach().unwrap());
        close(first).await.unwrap();
        close(second).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_was_created_and_is_not_visible_yet_is_looked_for_again() {
        let desk = Desk::new();
        desk.open(SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() }).await;
        let record = SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() };
        let id = SessionId::parse("gitlab-9-9-abcdef12").unwrap();
        Records::open(&desk.settings.runner.state_dir).unwrap().save(&id, &record).unwrap();
        let session = Session::attach(id, desk.memory.cloud(), &desk.settings, &desk.printer).unwrap().unwrap();
        let before = Instant::now();
        close(session).await.unwrap();
        assert!(before.elapsed() >= LATE_CREATE, "it was given time to appear");
        assert!(desk.memory.jobs.calls().contains(&"stop gitlab-9-9-abcdef12".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_that_is_refused_because_the_job_ends_by_itself_is_none() {
        use crate::cloud::faulty::{Fault, Faulty, When};
        let desk = Desk::new();
        desk.open(SessionRecord::default()).await;
        desk.memory.jobs.advance_on_describe(
            NAME,
            &[(JobStatus::InProgress, "Training"), (JobStatus::Failed, "Failed"), (JobStatus::Failed, "Failed")],
        );
        let stop = Fault::new("stop", 1, When::Before, CloudErrorKind::Invalid).forever();
        let cloud =
            Cloud { jobs: std::sync::Arc::new(Faulty::new(desk.memory.jobs.clone(), [stop])), ..desk.memory.cloud() };
        let session = Session::attach(Desk::id(), cloud, &desk.settings, &desk.printer).unwrap().unwrap();
        close(session).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_may_not_be_looked_at_is_stopped_and_its_record_kept() {
        use crate::cloud::faulty::{Fault, Faulty, When};
        let desk = Desk::new();
        desk.open(SessionRecord::default()).await;
        let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Denied).forever();
        let cloud = Cloud {
            jobs: std::sync::Arc::new(Faulty::new(desk.memory.jobs.clone(), [describe])),
            ..desk.memory.cloud()
        };
        let session = Session::attach(Desk::id(), cloud, &desk.settings, &desk.printer).unwrap().unwrap();
        assert!(close(session).await.is_err());
        assert!(desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
        assert!(desk.attach().is_some());
    }
    /// Hundreds of jobs that end together meet the quota of `DescribeTrainingJob`: no reason to fail.
    #[tokio::test(start_paused = true)]
    async fn throttling_is_waited_out() {
        use crate::cloud::faulty::{Fault, Faulty, When};
        let desk = Desk::new();
        desk.open(SessionRecord::default()).await;
        desk.memory.jobs.set_status(NAME, JobStatus::Completed, "Completed");
        let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Throttled).times(5);
        let cloud = Cloud {
            jobs: std::sync::Arc::new(Faulty::new(desk.memory.jobs.clone(), [describe])),
            ..desk.memory.cloud()
        };
        let session = Session::attach(Desk::id(), cloud, &desk.settings, &desk.printer).unwrap().unwrap();
        close(session).await.unwrap();
        assert!(!desk.memory.jobs.calls().contains(&format!("stop {NAME}")));
        assert!(desk.attach().is_none());
    }
}
