//! Poll intervals: exponential back-off for S3, at most one `DescribeTrainingJob` per 14 s, and fewer while the account is throttled.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::cloud::{CloudError, CloudErrorKind, TrainingJob};
use crate::session::Session;

/// Shortest interval of `DescribeTrainingJob`: all jobs of the account share its rate. With the last look for log lines it is less
/// than the 20 s within which the end of a container is told.
const DESCRIBE_EVERY: Duration = Duration::from_secs(14);
/// Longest interval after faults.
const DESCRIBE_RARELY: Duration = Duration::from_mins(2);
/// Longest interval in an account with so many jobs that it is throttled: its jobs are looked at in turn.
const DESCRIBE_IN_CROWD: Duration = Duration::from_mins(20);
/// Weight of one call in the share of throttled ones.
const WEIGHT: f64 = 0.05;
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
    /// The share of this job's calls that were throttled lately, 0 to 1.
    throttled: f64,
    answered: Instant,
    running: Option<AbortOnDropHandle<Result<Option<TrainingJob>, CloudError>>>,
}

impl Describe {
    /// `at_once`: the first call must not wait.
    pub(super) fn new(now: Instant, at_once: bool) -> Self {
        let next = if at_once { now } else { now + FIRST_DESCRIBE };
        Self { next, every: DESCRIBE_EVERY, throttled: 0.0, answered: now, running: None }
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
        self.throttled *= 1.0 - WEIGHT;
        self.answered = Instant::now();
        let share = self.share();
        self.every = if is_leaving { (self.every * 2).min(share) } else { share };
        self.next = self.answered + self.spread(self.every);
    }

    /// The call failed: doubles the interval. Under throttling all jobs of the account take longer intervals, and one that has waited
    /// for several of them comes again sooner.
    pub(super) fn failed(&mut self, kind: CloudErrorKind) {
        let now = Instant::now();
        if kind != CloudErrorKind::Throttled {
            self.every = (self.every * 2).min(DESCRIBE_RARELY);
            self.next = now + self.every;
            return;
        }
        self.throttled += (1.0 - self.throttled) * WEIGHT;
        let share = self.share();
        let waited = now.saturating_duration_since(self.answered).as_secs_f64() / share.as_secs_f64();
        self.next = now + self.spread(share.div_f64(1.0 + waited).max(DESCRIBE_EVERY));
    }

    /// The interval that leaves room for the other jobs of the account.
    fn share(&self) -> Duration {
        DESCRIBE_EVERY.div_f64((1.0 - self.throttled).powi(4).max(0.01)).min(DESCRIBE_IN_CROWD)
    }

    /// The interval, up to a quarter longer after throttling: jobs that were throttled together come at different times.
    fn spread(&self, interval: Duration) -> Duration {
        if self.throttled > 0.01 { interval.mul_f64(1.0 + fastrand::f64() / 4.0) } else { interval }
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

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;
    use crate::config::env::Environment;

    /// Assumed `DescribeTrainingJob` a second of an account; AWS publishes no figure.
    const QUOTA: f64 = 10.0;

    /// The time between two answers of jobs that share the account's rate, in seconds: median, p99 and longest, after the first quarter
    /// of the time; and the share of requests that were throttled.
    async fn gaps(jobs: u32, time: Duration) -> ([f64; 3], f64) {
        fastrand::seed(5);
        let start = Instant::now();
        let mut looks: Vec<_> = (0..jobs)
            .map(|_| (Describe::new(start + Duration::from_millis(fastrand::u64(0..14_000)), false), start))
            .collect();
        let mut due: BinaryHeap<_> =
            looks.iter().enumerate().map(|(job, (look, _))| Reverse((look.next, job))).collect();
        let (mut tokens, mut refilled) = (QUOTA, start);
        let (mut gaps, mut requests, mut throttled) = (Vec::new(), 0, 0);
        while let Some(Reverse((at, job))) = due.pop().filter(|Reverse((at, _))| *at < start + time) {
            tokio::time::advance(at.saturating_duration_since(Instant::now())).await;
            let now = Instant::now();
            tokens = (tokens + (now - refilled).as_secs_f64() * QUOTA).min(QUOTA);
            refilled = now;
            let Some((look, answered)) = looks.get_mut(job) else { continue };
            requests += 1;
            if tokens >= 1.0 {
                tokens -= 1.0;
                look.answered(false);
                if now > start + time / 4 {
                    gaps.push((now - *answered).as_secs_f64());
                }
                *answered = now;
            } else {
                throttled += 1;
                look.failed(CloudErrorKind::Throttled);
            }
            due.push(Reverse((look.next, job)));
        }
        // Those that wait still.
        let end = Instant::now();
        gaps.extend(looks.iter().map(|(_, answered)| (end - *answered).as_secs_f64()));
        gaps.sort_by(f64::total_cmp);
        let at = |share: usize| gaps.get((gaps.len() - 1) * share / 100).copied().unwrap_or_default();
        ([50, 99, 100].map(at), f64::from(throttled) / f64::from(requests))
    }

    /// `ACCOUNT=20x500` adds an account with 20 hosts of 500 jobs each.
    #[tokio::test(start_paused = true)]
    async fn every_job_of_a_crowded_account_is_looked_at_in_turn() {
        let wanted = Environment::of_process().get("ACCOUNT").map(str::to_owned);
        let wanted = wanted.as_deref().and_then(|text| text.split_once('x'));
        let wanted = wanted.map(|(hosts, jobs)| hosts.parse::<u32>().unwrap() * jobs.parse::<u32>().unwrap());
        println!("| Jobs | Median | p99 | Longest | Throttled |\n| --- | --- | --- | --- | --- |");
        for jobs in [100, 300].into_iter().chain(wanted) {
            let ([median, most, longest], throttled) =
                gaps(jobs, Duration::from_hours(if jobs > 1000 { 4 } else { 1 })).await;
            println!("| {jobs} | {median:.0} s | {most:.0} s | {longest:.0} s | {:.0} % |", throttled * 100.0);
            // A turn of all jobs takes this long at the account's rate.
            let turn = (f64::from(jobs) / QUOTA).max(DESCRIBE_EVERY.as_secs_f64());
            assert!(
                median <= turn * 1.3 && most <= turn * 6.0 && longest <= turn * 13.0,
                "{jobs} jobs, a turn is {turn} s"
            );
            assert!(jobs > 100 || longest <= 16.0, "{jobs} jobs: {longest} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_alone_is_looked_at_at_the_usual_interval_again_after_throttling() {
        let mut look = Describe::new(Instant::now(), true);
        look.answered(false);
        assert_eq!(look.next - Instant::now(), DESCRIBE_EVERY);
        look.failed(CloudErrorKind::Throttled);
        look.answered(false);
        assert!(look.next - Instant::now() > DESCRIBE_EVERY);
        for _ in 0..60 {
            look.answered(false);
        }
        let pause = look.next - Instant::now();
        assert!(pause < DESCRIBE_EVERY + Duration::from_secs(1), "{pause:?}");
    }
}
