//! Poll intervals: exponential back-off for S3, at most one `DescribeTrainingJob` per 14 s.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::cloud::{CloudError, TrainingJob};
use crate::session::Session;

/// Shortest interval of `DescribeTrainingJob`: all jobs of the account share its rate. With the last look for log lines it is less
/// than the 20 s within which the end of a container is told.
const DESCRIBE_EVERY: Duration = Duration::from_secs(14);
/// Longest interval, reached under throttling.
const DESCRIBE_RARELY: Duration = Duration::from_mins(2);
/// Delay of the first call: shorter, so that a refused image or role shows soon.
const FIRST_DESCRIBE: Duration = Duration::from_secs(3);
/// Interval that a [`Poll`] starts from.
const FIRST_PAUSE: Duration = Duration::from_millis(40);

/// Interval of one polled thing: the shortest after something came, growing by half while nothing does.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) next: Instant,
    pause: Duration,
}

impl Poll {
    pub(super) fn new(next: Instant) -> Self {
        Self { next, pause: FIRST_PAUSE }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    pub(super) fn done(&mut self, now: Instant, came: bool, least: Duration, most: Duration) {
        self.pause = if came { least } else { (self.pause * 3 / 2).clamp(least, most) };
        self.next = now + self.pause;
    }
}

/// Polls the training job in a task of its own, so that a slow call, as under throttling, delays nothing else.
#[derive(Debug)]
pub(super) struct Describe {
    next: Instant,
    every: Duration,
    running: Option<AbortOnDropHandle<Result<Option<TrainingJob>, CloudError>>>,
}

impl Describe {
    /// `at_once`: the first call must not wait.
    pub(super) fn new(now: Instant, at_once: bool) -> Self {
        let next = if at_once { now } else { now + FIRST_DESCRIBE };
        Self { next, every: DESCRIBE_EVERY, running: None }
    }

    /// Starts a call when one is due, and returns the answer of a finished one.
    pub(super) async fn turn(&mut self, session: &Session<'_>) -> Option<Result<Option<TrainingJob>, CloudError>> {
        if self.running.is_none() && Instant::now() >= self.next {
            let (jobs, name) = (session.jobs.clone(), session.job_name());
            self.running = Some(AbortOnDropHandle::new(tokio::spawn(async move { jobs.describe_once(&name).await })));
            self.next = Instant::now() + self.every;
        }
        let is_over = self.running.as_ref().is_some_and(AbortOnDropHandle::is_finished);
        self.running.take_if(|_| is_over)?.await.ok()
    }

    /// A status is known, from this call or another one: back to the usual interval, in steps once an agent has left.
    pub(super) fn answered(&mut self, is_leaving: bool) {
        self.every = if is_leaving { (self.every * 2).min(DESCRIBE_EVERY) } else { DESCRIBE_EVERY };
        self.next = Instant::now() + self.every;
    }

    /// The call failed: doubles the interval.
    pub(super) fn failed(&mut self) {
        self.every = (self.every * 2).min(DESCRIBE_RARELY);
        self.next = Instant::now() + self.every;
    }

    /// When the caller must wake up for it.
    pub(super) fn wake(&self) -> Instant {
        if self.running.is_some() { Instant::now() + FIRST_PAUSE } else { self.next }
    }

    /// An agent has left, so the job is about to end: polls soon, and then with back-off up to the usual interval.
    pub(super) fn hasten(&mut self) {
        self.every = FIRST_DESCRIBE;
        self.next = Instant::now();
    }
}
