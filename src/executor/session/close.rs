//! Closes a session as a reconcile pass: stops and deletes whatever exists of it. Safe to run twice, or beside a live
//! stage.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder, Retryable as _};
use tokio::time::Instant;

use crate::base::backoff::backoff;
use crate::base::failure::Failure;
use crate::cloud::{CloudError, CloudErrorKind, SecondaryStatus, TrainingJob, TrainingJobs};
use crate::protocol::keys::SessionPlace;
use crate::protocol::mailbox::Order;
use crate::session::event::SessionEvent;
use crate::session::exchange::{Exchange as _, Kept};
use crate::session::job_note::JobNotes;
use crate::session::output::{CopyEnd, Output};
use crate::session::record::Records;
use crate::session::stamp::Stamp;
use crate::session::state::Creation;
use crate::session::{Session, billing, job_limit, leaving, slots, spec};

/// Grace for a stage that still runs, before its session is closed regardless.
const STAGE_GRACE: Duration = Duration::from_secs(15);
/// A `CreateTrainingJob` whose caller was killed mostly takes effect within this time ...
const LATE_CREATE: Duration = Duration::from_secs(5);
/// ... and at the latest within this time: until then a job that is absent may still appear.
const APPEARS_WITHIN: Duration = Duration::from_mins(10);
const FIRST_POLL: Duration = Duration::from_millis(50);
const POLLS: ExponentialBuilder = backoff(FIRST_POLL, Duration::from_secs(15));

/// Outcome of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Nothing of the session is left.
    Whole,
    /// The training job is absent and may still appear: the record stays for a later pass.
    MayAppear,
    /// Every agent has left, and SageMaker has not reported the job's end yet: the record stays for a later pass.
    Leaving,
}

/// How long a pass waits for a stage or a training job to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// `cleanup` and `sweep`.
    Long,
    /// Beside another job's `prepare`: one moment at most, the rest is left to a later pass. Nothing of the session is
    /// printed.
    Brief,
}

/// Longest wait of a brief pass.
const MOMENT: Duration = Duration::from_secs(2);

impl Patience {
    fn of(self, time: Duration) -> Duration {
        if self == Self::Long { time } else { MOMENT }
    }

    /// Logs a failed step. Beside another job's `prepare` not as a warning: its trace has nothing to do with this
    /// session.
    fn note(self, what: &str, error: &dyn std::fmt::Display) {
        match self {
            Self::Long => tracing::warn!(%error, "{what}"),
            Self::Brief => tracing::info!(%error, "{what}"),
        }
    }

    /// `StopTrainingJob` gives the container 120 s, and SageMaker takes a little longer to report the end.
    fn stopped_within(self) -> Duration {
        self.of(Duration::from_secs(150))
    }

    /// A finished agent leaves within this time, SageMaker's upload of outputs included.
    fn leaves_within(self) -> Duration {
        self.of(Duration::from_secs(30))
    }

    /// Retries of a throttled `DescribeTrainingJob` end after this time; then the job is stopped without knowing its
    /// status.
    fn throttled_within(self) -> Duration {
        self.of(Duration::from_mins(1))
    }
}

/// State of a training job after the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobEnd {
    Ended,
    /// No such job.
    Absent,
    /// No such job yet; one may still appear.
    MayAppear,
    /// Its agents have left, or will never come: SageMaker ends it by itself.
    Leaving,
}

/// Stops the training job, deletes the session's objects and forgets the record, in this order; a failed step does not
/// keep the others from running. Failures are reported, and then the record stays, so that a later pass finds the
/// session again.
///
/// Works without a record too, as after a lost disk: all names follow from the session's id.
pub async fn close(mut session: Session<'_>, patience: Patience) -> anyhow::Result<Closed> {
    let id = session.id.clone();
    let record = session.records.load(&id);
    // With files here but no readable record, the job may have been requested.
    let has_files = session.records.files(&id).is_ok_and(|files| !files.is_empty());
    if let Err(error) = session.records.mark_closing(&id) {
        tracing::info!(error = format!("{error:#}"), "failed to mark the session as closing");
    }
    let lock = wait_for_stage(&session, patience).await;
    // The stage may have written it in the meantime.
    let record = session.records.load(&id).or(record);
    let (is_known, now) = (matches!(record, Ok(Some(_))), Stamp::of(&*session.clock));
    // In memory only: closing never creates a record.
    match record {
        Ok(Some(record)) => session.state = record.into(),
        Ok(None) if has_files => session.state.apply(SessionEvent::JobMayExist(&now)),
        Ok(None) => {}
        Err(error) => {
            session.state.apply(SessionEvent::JobMayExist(&now));
            let text = format!("{error:#}; looking for the training job of {id} by its name");
            if patience == Patience::Long { session.printer.warn(text) } else { tracing::info!(text) }
        }
    }
    if is_known && session.state.is_unused() {
        // `prepare` failed before it requested a job, perhaps for lack of AWS access: nothing to look for in AWS.
        delete_place(&session).await;
        return conclude(&session, forget(&session).map(|()| Closed::Whole));
    }
    if !is_known {
        match find_place(&session).await {
            Ok(place) => place.iter().for_each(|place| session.state.apply(SessionEvent::PlaceTaken(place))),
            Err(error) => patience.note("failed to look for the session's objects", &error),
        }
        // `prepare` stores some before it requests the job, so the request may be on its way.
        match session.exchange().has_objects().await {
            Ok(true) => session.state.apply(SessionEvent::JobMayExist(&now)),
            Ok(false) => {}
            Err(error) => patience.note("failed to look for the session's objects", &error),
        }
    }
    let was_finished = session.state.is_finished();
    let job = if is_known { end_job(&mut session, patience).await } else { end_all(&mut session, patience).await };
    if patience == Patience::Long {
        if let Err(error) = print_rest(&session).await {
            tracing::warn!(error = format!("{error:#}"), "failed to print the rest of the job's output");
        }
        if is_known && !was_finished && matches!(job, Ok(JobEnd::Ended)) {
            billing::print_of_cleanup(&session).await;
        }
    }
    // Scripts and orders hold secrets: delete them even when the job cannot be ended now. Keep the order to leave,
    // which holds none: an agent that still lives may have to find it; and what proves to any host whose the job is.
    let leaves = job.is_err() && session.state.is_finished();
    let kept = Kept { order: leaves.then_some(session.state.orders()), is_open: job.is_err() };
    let deleted = session.exchange().delete(kept).await;
    let deleted = deleted.with_context(|| format!("failed to delete the objects of the session {id}"));
    let closed = match (job, deleted) {
        (Ok(JobEnd::MayAppear), Ok(())) => keep_for_later(&mut session).map(|()| Closed::MayAppear),
        (Ok(JobEnd::Leaving), Ok(())) => leaving::keep(&mut session).map(|()| Closed::Leaving),
        (Ok(_), Ok(())) => forget(&session).map(|()| Closed::Whole),
        (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        (Err(job), Err(objects)) => {
            Err(Failure::system(format!("neither the training job nor the objects of {id} are gone: {objects:#}"))
                .caused_by(job)
                .into())
        }
    };
    drop(lock);
    conclude(&session, closed)
}

/// Counts the job when its session is closed.
fn conclude(session: &Session<'_>, closed: anyhow::Result<Closed>) -> anyhow::Result<Closed> {
    if closed.is_ok() {
        JobNotes::at(&session.settings.runner.state_dir).conclude(&session.id, session.clock.now());
    }
    closed
}

/// Finds where the agents of the session's training job look. Another job may have stored an `open` object below the session's
/// folder too, but only the driver's key has the hash that the job was created with.
async fn find_place(session: &Session<'_>) -> Result<Option<SessionPlace>, CloudError> {
    let Some(job) = session.jobs.describe(&session.job_name()).await? else { return Ok(None) };
    let tags = session.jobs.tags(&job.arn).await?;
    let Some(key_hash) = tags.get(spec::tag::KEY) else { return Ok(None) };
    session.exchange().find_place(key_hash).await
}

/// Deletes what a `prepare` that requested no job has stored: the object that holds the session's key. It opens nothing, so that
/// one which cannot be deleted is left to the bucket's lifecycle rule, and keeps no record on this host.
async fn delete_place(session: &Session<'_>) {
    if session.state.place().is_some()
        && let Err(error) = session.exchange().delete(Kept::default()).await
    {
        tracing::info!(%error, "failed to delete the objects of a session without a training job");
    }
}

/// Removes the session's files on this host.
fn forget(session: &Session<'_>) -> anyhow::Result<()> {
    let read = leaving::forget_log(session);
    slots::release(&session.settings.runner.state_dir, &session.id)?;
    job_limit::release(&session.settings.runner.state_dir, &session.id);
    session.records.remove(&session.id)?;
    read
}

/// Keeps the record until the training job has been absent for long enough after it was requested.
fn keep_for_later(session: &mut Session<'_>) -> anyhow::Result<()> {
    let now = Stamp::of(&*session.clock);
    // The directory may be lost with all records.
    Records::open(&session.settings.runner.state_dir)?;
    let kept = session.apply(SessionEvent::JobMayExist(&now)).and_then(|()| session.records.mark_closing(&session.id));
    kept.context("failed to keep the record of a training job that may still appear")?;
    // The GitLab job has ended regardless.
    slots::release(&session.settings.runner.state_dir, &session.id)?;
    session.records.keep_record_alone(&session.id)
}

/// Prints the output that a killed stage had not printed. GitLab Runner writes it to its own log.
async fn print_rest(session: &Session<'_>) -> anyhow::Result<()> {
    // The order is not always noted; without a script there is nothing to print.
    let Some(current) = session.state.run().filter(|current| current.code.is_none()) else {
        return Ok(());
    };
    let (exchange, printer) = (session.exchange(), session.printer);
    let mut output = Output::of(session, current.run)?;
    for node in output.nodes.ids() {
        output.seek_copy(&exchange, node).await?;
        let mut end = CopyEnd::default();
        while !end.is_reached(&output, node) && output.read_copy(&exchange, node).await? {
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

/// Takes the lock of the session's container stage. Goes on without a lock that cannot be had, as on a full disk.
async fn wait_for_stage(session: &Session<'_>, patience: Patience) -> Option<std::fs::File> {
    let deadline = Instant::now() + patience.of(STAGE_GRACE);
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

/// Ends every training job of the session: without a record their number is unknown.
async fn end_all(session: &mut Session<'_>, patience: Patience) -> anyhow::Result<JobEnd> {
    // The number of orders is unknown too, and the order to leave must be the next. Those that every node has read are deleted: then
    // the stop ends the agents.
    match session.exchange().orders().await {
        Ok(number) => session.state.apply(SessionEvent::OrdersFound(number)),
        Err(error) => patience.note("failed to list the orders that were sent", &error),
    }
    loop {
        match end_job(session, patience).await? {
            JobEnd::Ended => {
                session.state.apply(SessionEvent::JobReplaced);
                // A job with a higher number is requested only after this one has ended.
                session.state.apply(SessionEvent::JobRefused);
            }
            JobEnd::Absent if session.state.job_number() > 1 => return Ok(JobEnd::Ended),
            job => return Ok(job),
        }
    }
}

async fn end_job(session: &mut Session<'_>, patience: Patience) -> anyhow::Result<JobEnd> {
    let name = session.job_name();
    let mut job = match look(&*session.jobs, &name, patience).await {
        Ok(job) => job,
        Err(error) => {
            // The status is unknown; but the instance must not run on because of that.
            order_to_leave(session, patience).await;
            if let Err(error) = session.jobs.stop(&name).await {
                patience.note("failed to stop the training job", &error);
            }
            return Err(error.into());
        }
    };
    if job.is_none() && may_appear(session) {
        // The request may still be on its way, or its effect not visible yet. A later pass checks again.
        if let Err(error) = session.jobs.stop(&name).await {
            patience.note("failed to stop a training job that may still appear", &error);
        }
        if patience == Patience::Long {
            tokio::time::sleep(LATE_CREATE).await;
            job = session.jobs.describe(&name).await?;
        }
        if job.is_none() {
            return Ok(JobEnd::MayAppear);
        }
    }
    let Some(job) = job else {
        return Ok(JobEnd::Absent);
    };
    if job.status.is_terminal() {
        billing::log(session, &job);
        return Ok(JobEnd::Ended);
    }
    if let Some(since) = session.state.leaving()
        && since.age(&Stamp::of(&*session.clock)) < leaving::ENDS_WITHIN
    {
        return Ok(JobEnd::Leaving);
    }
    // No order reaches a container without network.
    if session.state.is_finished() && session.state.leaving().is_none() && !session.state.is_isolated() {
        // Damaged or unreadable reports are no reason to keep the instance running.
        match wait_for_finished(session, &name, patience).await {
            Ok(Some(job)) => return Ok(job),
            Ok(None) => {}
            Err(error) => patience.note("failed to wait for the agents to leave", &format!("{error:#}")),
        }
    }
    if !session.state.is_finished() {
        order_to_leave(session, patience).await;
    }
    if let Err(error) = session.jobs.stop(&name).await {
        patience.note("failed to stop the training job", &error);
        // A live agent leaves on the order alone.
        return if wait_for_end(session, &name, patience.leaves_within()).await? {
            Ok(JobEnd::Ended)
        } else {
            Err(error.into())
        };
    }
    if session.state.is_given_up() && session.state.leaving().is_none() {
        // No agent ever came up, and none can begin a script any more.
        return ended_or_leaving(session, &name, patience).await;
    }
    if !wait_for_end(session, &name, patience.stopped_within()).await? {
        anyhow::bail!("the training job {name} was asked to stop and has not ended yet");
    }
    Ok(JobEnd::Ended)
}

/// Waits until a job whose agents were ordered to leave has ended or is about to; `None` when it must be stopped.
async fn wait_for_finished(
    session: &mut Session<'_>,
    name: &str,
    patience: Patience,
) -> anyhow::Result<Option<JobEnd>> {
    if let Some(job) = wait_to_leave(session, name, patience).await? {
        return Ok(Some(job));
    }
    // The container is gone and SageMaker uploads its outputs: a stop gains nothing.
    let uploading = |job: TrainingJob| job.secondary == SecondaryStatus::Uploading;
    let is_uploading = session.jobs.describe(name).await?.is_some_and(uploading);
    let has_ended = is_uploading && wait_for_end(session, name, patience.stopped_within()).await?;
    Ok(has_ended.then_some(JobEnd::Ended))
}

/// Waits until every agent has reported that it leaves, or the job has ended; `None` on timeout. Does not wait for the
/// job's end: SageMaker takes a minute for it, and no later step needs it. (A job that keeps SageMaker's uploads would
/// have to wait.)
async fn wait_to_leave(session: &mut Session<'_>, name: &str, patience: Patience) -> anyhow::Result<Option<JobEnd>> {
    let deadline = Instant::now() + patience.leaves_within();
    let mut look_at = Instant::now();
    for pause in POLLS.build() {
        if leaving::all_left(session).await? {
            return ended_or_leaving(session, name, patience).await.map(Some);
        }
        if Instant::now() >= look_at {
            if wait_for_end(session, name, Duration::ZERO).await? {
                return Ok(Some(JobEnd::Ended));
            }
            look_at = Instant::now() + pause;
        }
        if Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(pause.min(leaving::LOOK)).await;
    }
    Ok(None)
}

/// Waits a moment for the end: a job that ends at once needs no later pass.
async fn ended_or_leaving(session: &Session<'_>, name: &str, patience: Patience) -> anyhow::Result<JobEnd> {
    let ended = wait_for_end(session, name, patience.of(leaving::ENDS_AT_ONCE)).await?;
    Ok(if ended { JobEnd::Ended } else { JobEnd::Leaving })
}

/// A job that was requested a moment ago may not be visible, or not be created yet.
fn may_appear(session: &Session<'_>) -> bool {
    let state = &session.state;
    let of_day = || (state.created() > 0).then(|| Stamp::of_day(UNIX_EPOCH + Duration::from_secs(state.created())));
    let requested = state.requested().cloned().or_else(of_day);
    let is_recent = requested.is_none_or(|requested| requested.age(&Stamp::of(&*session.clock)) < APPEARS_WITHIN);
    state.creation() != Creation::None && is_recent
}

/// Describes the job, and retries while throttled, as when hundreds of jobs end together.
pub(super) async fn look(
    jobs: &dyn TrainingJobs,
    name: &str,
    patience: Patience,
) -> Result<Option<TrainingJob>, CloudError> {
    let deadline = Instant::now() + patience.throttled_within();
    (|| jobs.describe(name))
        .retry(POLLS)
        .when(|error| error.kind == CloudErrorKind::Throttled && Instant::now() < deadline)
        .notify(|error, _| tracing::debug!(%error, "failed to describe the training job"))
        .await
}

/// Stops one training job, whatever else its session has, and waits for its end.
pub(super) async fn stop_one(jobs: &dyn TrainingJobs, name: &str) -> anyhow::Result<()> {
    jobs.stop(name).await?;
    let deadline = Instant::now() + Patience::Long.stopped_within();
    for pause in POLLS.build() {
        if look(jobs, name, Patience::Long).await?.is_none_or(|job| job.status.is_terminal()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    anyhow::bail!("the training job {name} was asked to stop and has not ended yet")
}

/// Orders the agents to leave, which is faster than a stop. An agent that does not listen is stopped afterwards.
async fn order_to_leave(session: &mut Session<'_>, patience: Patience) {
    let order = Order::Finish { collect: false };
    match session.exchange().send(&session.state, &order).await {
        // In memory only: there may be no record, and closing creates none.
        Ok(number) => session.state.apply(SessionEvent::OrderStored { number, order: &order }),
        Err(error) => patience.note("failed to order the agent to leave", &format!("{error:#}")),
    }
}

/// Returns `true` when the job ends within the time.
async fn wait_for_end(session: &Session<'_>, name: &str, within: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + within;
    for pause in POLLS.build() {
        match session.jobs.describe(name).await {
            Ok(None) => return Ok(true),
            Ok(Some(job)) if job.status.is_terminal() => {
                billing::log(session, &job);
                return Ok(true);
            }
            Ok(Some(_)) => {}
            Err(error) if error.kind.may_pass() => tracing::info!(%error, "failed to describe the training job"),
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
