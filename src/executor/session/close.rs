//! The end of a session as a reconcile pass: whatever is left is gone afterwards. It may run twice, beside a live
//! stage, or never.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::cloud::{CloudError, CloudErrorKind, SecondaryStatus, TrainingJob, TrainingJobs};
use crate::protocol::mailbox::Order;
use crate::session::age::Stamp;
use crate::session::exchange::Exchange as _;
use crate::session::output::Output;
use crate::session::state::{Creation, SessionEvent};
use crate::session::{Session, leaving, slots};

/// How long a stage that still lives is waited for before its session is taken away.
const STAGE_GRACE: Duration = Duration::from_secs(15);
/// How late a `CreateTrainingJob` whose caller was killed mostly takes effect ...
const LATE_CREATE: Duration = Duration::from_secs(5);
/// ... and how late it may: until then a job that is not there may still come.
const COMES_WITHIN: Duration = Duration::from_mins(10);
const FIRST_POLL: Duration = Duration::from_millis(50);
const LAST_POLL: Duration = Duration::from_secs(15);

/// What came of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Nothing of the session is left.
    Whole,
    /// Its training job is not there and may still come: the record stays, and a later pass looks again.
    MayCome,
    /// Nothing runs in its training job any more, and SageMaker has not told its end yet: as before.
    Leaving,
}

/// How long a pass may wait for the ends of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// `cleanup` and `sweep`.
    Patient,
    /// Beside another job's `prepare`: what has not ended in a moment is looked at by the next one. Nothing of the session is
    /// printed.
    Brief,
}

/// What a pass beside a `prepare` waits for an end.
const MOMENT: Duration = Duration::from_secs(2);

impl Pace {
    fn of(self, time: Duration) -> Duration {
        if self == Self::Patient { time } else { MOMENT }
    }

    /// Beside another job's `prepare` a warning would stand in a trace that has nothing to do with it.
    fn note(self, what: &str, error: &dyn std::fmt::Display) {
        match self {
            Self::Patient => tracing::warn!(%error, "{what}"),
            Self::Brief => tracing::info!(%error, "{what}"),
        }
    }

    /// `StopTrainingJob` gives the container 120 s; a little more until SageMaker tells so.
    fn stopped_within(self) -> Duration {
        self.of(Duration::from_secs(150))
    }

    /// A finished agent leaves by itself within this time; SageMaker's upload of outputs included.
    fn leaves_within(self) -> Duration {
        self.of(Duration::from_secs(30))
    }

    /// How long a look that is throttled is tried again; the job is stopped blindly after that.
    fn throttled_within(self) -> Duration {
        self.of(Duration::from_mins(1))
    }
}

/// How a training job was found and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Ended,
    /// There is none.
    Absent,
    /// There is none, and there may still come one.
    MayCome,
    /// Its agents have left, or were never to come: SageMaker ends it by itself.
    Leaving,
}

/// Stops the training job, deletes the session's objects, forgets the record: in this order, and each whatever became of the
/// others. What failed is told; then the record stays, so that a later pass finds the session again.
///
/// It works without a record too, as after a lost disk: names and places follow from the session's id.
pub async fn close(mut session: Session<'_>, pace: Pace) -> anyhow::Result<Closed> {
    let id = session.id.clone();
    let record = session.records.load(&id);
    // Of a session that has files here and no record that can be read, nobody knows whether its job was asked for.
    let has_files = session.records.files(&id).is_ok_and(|files| !files.is_empty());
    if let Err(error) = session.records.mark_closing(&id) {
        tracing::info!(error = format!("{error:#}"), "failed to mark the session as closing");
    }
    let lock = wait_for_stage(&session, pace).await;
    // The stage may have written since.
    let record = session.records.load(&id).or(record);
    let (is_known, now) = (matches!(record, Ok(Some(_))), Stamp::of(&*session.clock));
    // In memory alone, where nothing of the session is known: no record comes of a look.
    match record {
        Ok(Some(record)) => session.state = record.into(),
        Ok(None) if has_files => session.state.apply(SessionEvent::JobMayCome(&now)),
        Ok(None) => {}
        Err(error) => {
            session.state.apply(SessionEvent::JobMayCome(&now));
            let text = format!("{error:#}; the training job of {id} is looked for by its name");
            if pace == Pace::Patient { session.printer.warn(text) } else { tracing::info!(text) }
        }
    }
    if is_known && session.state.is_unused() {
        // `prepare` did not come so far: there is nothing to look for in AWS, which may be what it failed at.
        return forget(&session).map(|()| Closed::Whole);
    }
    let job = if is_known { end_job(&mut session, pace).await } else { end_all(&mut session, pace).await };
    if pace == Pace::Patient
        && let Err(error) = print_rest(&session).await
    {
        tracing::warn!(error = format!("{error:#}"), "failed to print the rest of the job's output");
    }
    // Scripts and orders hold secrets: they go even when the job cannot be ended now.
    // An agent that still lives may have to find the order to leave, which holds none.
    let leaves = job.is_err() && session.state.is_finished();
    let kept = leaves.then_some(session.state.orders());
    let deleted = session.exchange().delete(kept).await;
    let deleted = deleted.with_context(|| format!("failed to delete the objects of the session {id}"));
    let closed = match (job, deleted) {
        (Ok(Job::MayCome), Ok(())) => keep_for_later(&mut session).map(|()| Closed::MayCome),
        (Ok(Job::Leaving), Ok(())) => leaving::keep(&mut session).map(|()| Closed::Leaving),
        (Ok(_), Ok(())) => forget(&session).map(|()| Closed::Whole),
        (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        (Err(job), Err(objects)) => {
            Err(Failure::system(format!("neither the training job nor the objects of {id} are gone: {objects:#}"))
                .caused_by(job)
                .into())
        }
    };
    drop(lock);
    closed
}

/// Removes what the host keeps of the session.
fn forget(session: &Session<'_>) -> anyhow::Result<()> {
    let read = leaving::forget_log(session);
    slots::release(&session.settings.runner.state_dir, &session.id)?;
    session.records.remove(&session.id)?;
    read
}

/// The record stays until the training job has been absent for long enough after it was asked for.
fn keep_for_later(session: &mut Session<'_>) -> anyhow::Result<()> {
    let now = Stamp::of(&*session.clock);
    let kept = session.apply(SessionEvent::JobMayCome(&now));
    kept.context("failed to keep the record of a training job that may still come")?;
    // The GitLab job is over all the same.
    slots::release(&session.settings.runner.state_dir, &session.id)?;
    session.records.keep_record_alone(&session.id)
}

/// What a stage whose process was killed had not printed: GitLab Runner writes it to its own log.
async fn print_rest(session: &Session<'_>) -> anyhow::Result<()> {
    // Whether it was ordered is not always noted; of a script that was not there is nothing to print.
    let Some(current) = session.state.run().filter(|current| current.code.is_none()) else {
        return Ok(());
    };
    let (exchange, printer) = (session.exchange(), session.printer);
    let mut output = Output::of(session, current.run)?;
    for node in output.nodes.ids() {
        output.seek_copy(&exchange, node).await?;
        while output.read_copy(&exchange, node).await? {
            output.print(printer, Duration::ZERO)?;
        }
    }
    output.print(printer, Duration::ZERO)?;
    output.print_incomplete(printer, Duration::ZERO)?;
    if let Some(text) = output.take_left_out() {
        printer.warn(text);
    }
    Ok(())
}

/// The lock of the session's container stage; a lock that cannot be had, as on a full disk, holds nothing up.
async fn wait_for_stage(session: &Session<'_>, pace: Pace) -> Option<std::fs::File> {
    let deadline = Instant::now() + pace.of(STAGE_GRACE);
    loop {
        match session.records.lock(&session.id) {
            Ok(Some(lock)) => return Some(lock),
            Ok(None) if Instant::now() < deadline => {}
            Ok(None) => return None,
            Err(error) => {
                tracing::info!(error = format!("{error:#}"), "failed to lock the session");
                return None;
            }
        }
        tokio::time::sleep(FIRST_POLL * 2).await;
    }
}

/// Ends whichever training jobs of the session there are: without a record nobody knows their number.
async fn end_all(session: &mut Session<'_>, pace: Pace) -> anyhow::Result<Job> {
    // Nor how many orders were sent: they are numbered without gaps, and the one to leave must be the next.
    match session.exchange().orders().await {
        Ok(number) => session.state.apply(SessionEvent::OrdersFound(number)),
        Err(error) => pace.note("failed to look for the orders that were sent", &error),
    }
    loop {
        match end_job(session, pace).await? {
            Job::Ended => {
                session.state.apply(SessionEvent::ContainerRenewed);
                // What comes behind one that is there was not asked for before this one had ended.
                session.state.apply(SessionEvent::JobRefused);
            }
            Job::Absent if session.state.incarnation() > 1 => return Ok(Job::Ended),
            job => return Ok(job),
        }
    }
}

async fn end_job(session: &mut Session<'_>, pace: Pace) -> anyhow::Result<Job> {
    let name = session.job_name();
    let mut job = match look(&*session.jobs, &name, pace).await {
        Ok(job) => job,
        Err(error) => {
            // Blind; but an instance must not go on for want of a look at it.
            tell_to_leave(session, pace).await;
            if let Err(error) = session.jobs.stop(&name).await {
                pace.note("failed to stop the training job", &error);
            }
            return Err(error.into());
        }
    };
    if job.is_none() && may_come(session) {
        // The request may still be on its way, or its effect not visible yet. A later pass looks again.
        if let Err(error) = session.jobs.stop(&name).await {
            pace.note("failed to stop a training job that may still come", &error);
        }
        if pace == Pace::Patient {
            tokio::time::sleep(LATE_CREATE).await;
            job = session.jobs.describe(&name).await?;
        }
        if job.is_none() {
            return Ok(Job::MayCome);
        }
    }
    let Some(job) = job else {
        return Ok(Job::Absent);
    };
    if job.status.is_terminal() {
        return Ok(Job::Ended);
    }
    if let Some(since) = session.state.leaving()
        && since.age(&Stamp::of(&*session.clock)) < leaving::ENDS_WITHIN
    {
        return Ok(Job::Leaving);
    }
    if session.state.is_finished() && session.state.leaving().is_none() {
        // Reports that say nothing sensible, or cannot be read, are no reason to let the instance go on.
        match wait_for_finished(session, &name, pace).await {
            Ok(Some(job)) => return Ok(job),
            Ok(None) => {}
            Err(error) => pace.note("failed to see the agents leave", &format!("{error:#}")),
        }
    }
    if !session.state.is_finished() {
        tell_to_leave(session, pace).await;
    }
    if let Err(error) = session.jobs.stop(&name).await {
        pace.note("failed to stop the training job", &error);
        // An agent that listens leaves all the same.
        return if wait_for_end(&*session.jobs, &name, pace.leaves_within()).await? {
            Ok(Job::Ended)
        } else {
            Err(error.into())
        };
    }
    if session.state.is_given_up() && session.state.leaving().is_none() {
        // No agent was ever there, and none can begin a script any more.
        return ended_or_leaving(session, &name, pace).await;
    }
    if !wait_for_end(&*session.jobs, &name, pace.stopped_within()).await? {
        anyhow::bail!("the training job {name} was asked to stop and has not ended yet");
    }
    Ok(Job::Ended)
}

/// Waits until a job whose agents were told to leave has ended, or is about to; `None` when it has to be stopped.
async fn wait_for_finished(session: &mut Session<'_>, name: &str, pace: Pace) -> anyhow::Result<Option<Job>> {
    if let Some(job) = wait_to_leave(session, name, pace).await? {
        return Ok(Some(job));
    }
    // The container is gone and SageMaker stores what it left: a stop would win nothing.
    let uploading = |job: TrainingJob| job.secondary == SecondaryStatus::Uploading;
    let is_uploading = session.jobs.describe(name).await?.is_some_and(uploading);
    let has_ended = is_uploading && wait_for_end(&*session.jobs, name, pace.stopped_within()).await?;
    Ok(has_ended.then_some(Job::Ended))
}

/// Waits until every agent has said its last word, or the job has ended; `None` when neither came in time. The end is not
/// waited for: what SageMaker does afterwards takes a minute, and nobody needs it. (A job that keeps what SageMaker uploads
/// would wait for it here.)
async fn wait_to_leave(session: &mut Session<'_>, name: &str, pace: Pace) -> anyhow::Result<Option<Job>> {
    let deadline = Instant::now() + pace.leaves_within();
    let (mut pause, mut look_at) = (FIRST_POLL, Instant::now());
    loop {
        if leaving::all_left(session).await? {
            return ended_or_leaving(session, name, pace).await.map(Some);
        }
        if Instant::now() >= look_at {
            if wait_for_end(&*session.jobs, name, Duration::ZERO).await? {
                return Ok(Some(Job::Ended));
            }
            look_at = Instant::now() + pause;
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(pause.min(leaving::LOOK)).await;
        pause = (pause * 2).min(LAST_POLL);
    }
}

/// A job that ends at once leaves nothing for a later pass.
async fn ended_or_leaving(session: &Session<'_>, name: &str, pace: Pace) -> anyhow::Result<Job> {
    let ended = wait_for_end(&*session.jobs, name, pace.of(leaving::ENDS_AT_ONCE)).await?;
    Ok(if ended { Job::Ended } else { Job::Leaving })
}

/// A job that was asked for a moment ago may not be visible, or not be made yet.
fn may_come(session: &Session<'_>) -> bool {
    let state = &session.state;
    let of_day = || (state.created() > 0).then(|| Stamp::of_day(UNIX_EPOCH + Duration::from_secs(state.created())));
    let requested = state.requested().cloned().or_else(of_day);
    let is_recent = requested.is_none_or(|requested| requested.age(&Stamp::of(&*session.clock)) < COMES_WITHIN);
    state.creation() != Creation::None && is_recent
}

/// Looks at the job. Hundreds of jobs that end together are throttled, which passes.
async fn look(jobs: &dyn TrainingJobs, name: &str, pace: Pace) -> Result<Option<TrainingJob>, CloudError> {
    let deadline = Instant::now() + pace.throttled_within();
    let mut pause = FIRST_POLL;
    loop {
        match jobs.describe(name).await {
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
async fn tell_to_leave(session: &mut Session<'_>, pace: Pace) {
    let order = Order::Finish { collect: false };
    match session.exchange().send(&session.state, &order).await {
        // Not on disk: there may be no record, and nothing may be written.
        Ok(number) => session.state.apply(SessionEvent::OrderStored { number, order: &order }),
        Err(error) => pace.note("failed to tell the agent to leave", &format!("{error:#}")),
    }
}

/// `true` when the job has ended within the time.
async fn wait_for_end(jobs: &dyn TrainingJobs, name: &str, within: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + within;
    let mut pause = FIRST_POLL;
    loop {
        match jobs.describe(name).await {
            Ok(job) if job.as_ref().is_none_or(|job| job.status.is_terminal()) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind.may_pass() => tracing::info!(%error, "failed to look at the training job"),
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_POLL);
    }
}

#[cfg(test)]
mod tests;
