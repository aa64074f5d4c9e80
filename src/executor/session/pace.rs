//! How often what is looked at: the store ever less while nothing comes, the training job at most once in 15 s.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::cloud::{CloudError, TrainingJob};
use crate::session::Session;

/// `DescribeTrainingJob` is asked this often at most: its rate is shared by all jobs of the account.
const DESCRIBE_EVERY: Duration = Duration::from_secs(15);
/// Under throttling it is asked ever less, down to this.
const DESCRIBE_RARELY: Duration = Duration::from_mins(2);
/// The first look comes sooner: a refused image or role shows at once.
const FIRST_DESCRIBE: Duration = Duration::from_secs(3);
/// The pause after the first look.
const FIRST_PAUSE: Duration = Duration::from_millis(40);

/// Something that is looked for again and again: soon after it came, ever less while it does not.
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

/// Looks at the training job. A look that takes long, as under throttling, keeps nothing else from its turn.
#[derive(Debug)]
pub(super) struct Describe {
    next: Instant,
    every: Duration,
    running: Option<AbortOnDropHandle<Result<Option<TrainingJob>, CloudError>>>,
}

impl Describe {
    /// `at_once`: what is known already makes the first look urgent.
    pub(super) fn new(now: Instant, at_once: bool) -> Self {
        let next = if at_once { now } else { now + FIRST_DESCRIBE };
        Self { next, every: DESCRIBE_EVERY, running: None }
    }

    /// Begins a look when one is due, and returns the answer of one that has ended.
    pub(super) async fn turn(&mut self, session: &Session<'_>) -> Option<Result<Option<TrainingJob>, CloudError>> {
        if self.running.is_none() && Instant::now() >= self.next {
            let (jobs, name) = (session.jobs.clone(), session.job_name());
            self.running = Some(AbortOnDropHandle::new(tokio::spawn(async move { jobs.glance(&name).await })));
            self.next = Instant::now() + self.every;
        }
        let is_over = self.running.as_ref().is_some_and(AbortOnDropHandle::is_finished);
        self.running.take_if(|_| is_over)?.await.ok()
    }

    /// There was an answer, here or to somebody else's question.
    pub(super) fn learnt(&mut self, is_leaving: bool) {
        self.every = if is_leaving { (self.every * 2).min(DESCRIBE_EVERY) } else { DESCRIBE_EVERY };
        self.next = Instant::now() + self.every;
    }

    /// There was none: it is asked more rarely.
    pub(super) fn refused(&mut self) {
        self.every = (self.every * 2).min(DESCRIBE_RARELY);
        self.next = Instant::now() + self.every;
    }

    /// When to wake up for it.
    pub(super) fn wake(&self) -> Instant {
        if self.running.is_some() { Instant::now() + FIRST_PAUSE } else { self.next }
    }

    /// An agent has left, so the job ends: looked at soon, and then less and less up to the usual pace.
    pub(super) fn hasten(&mut self) {
        self.every = FIRST_DESCRIBE;
        self.next = Instant::now();
    }
}
