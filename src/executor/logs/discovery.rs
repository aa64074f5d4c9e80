//! Finds the jobs' streams: by a listing of one job, or of the account's newest streams when many jobs wait for theirs. No I/O, no
//! clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::query::{LogRequest, PATIENCE, backoff};
use super::state::TrackedJob;
use super::subscription::Intervals;
use crate::base::stream::StreamName;
use crate::cloud::CloudErrorKind;

/// Number of waiting jobs from which a listing of the newest streams pays.
const CROWD: usize = 8;
/// Most pages of one listing of the newest streams.
const PAGES: u32 = 20;

/// The jobs by their drivers' keys.
pub(super) type TrackedJobs = BTreeMap<String, TrackedJob>;

/// Number of jobs that lack a node's stream.
fn seekers(jobs: &TrackedJobs) -> usize {
    jobs.values().filter(|job| !job.is_complete()).count()
}

/// True when so many jobs wait for streams that the newest streams are listed for all.
pub(super) fn is_crowd(jobs: &TrackedJobs) -> bool {
    seekers(jobs) >= CROWD
}

/// The listing of the newest streams.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamDiscovery {
    due: Duration,
    token: Option<String>,
    pages: u32,
    /// Streams of waiting jobs on the pages of this listing.
    found: u32,
    pause: Duration,
    in_flight: bool,
}

impl StreamDiscovery {
    /// Lists earlier: new streams are expected.
    pub(super) fn expect_more(&mut self, intervals: &Intervals, now: Duration) {
        self.pause = Duration::ZERO;
        self.due = self.due.min(now + intervals.discovery.shortest);
    }

    pub(super) fn due(&self, jobs: &TrackedJobs) -> Option<Duration> {
        (is_crowd(jobs) && !self.in_flight).then_some(self.due)
    }

    /// Returns a listing that is due; with `only_urgent`, only an urgent or long overdue one.
    pub(super) fn next(
        &mut self,
        jobs: &mut TrackedJobs,
        only_urgent: bool,
        intervals: &Intervals,
        now: Duration,
    ) -> Option<LogRequest> {
        let waits_long = |due: Duration| due + PATIENCE <= now;
        let is_allowed = !only_urgent || waits_long(self.due);
        if is_allowed && self.due(jobs).is_some_and(|due| due <= now) {
            self.in_flight = true;
            return Some(LogRequest::Newest { token: self.token.clone() });
        }
        let (_, key, job) = jobs
            .iter_mut()
            .filter(|(_, job)| !only_urgent || job.subscription.urgent || waits_long(job.list_due))
            .filter_map(|(key, job)| {
                let rank = (!job.subscription.urgent, !job.subscription.started, job.list_due);
                job.wants_list(intervals, now).then_some((rank, key, job))
            })
            .min_by_key(|(rank, ..)| *rank)?;
        job.listing = true;
        Some(LogRequest::List { key: key.clone(), job: job.subscription.job.clone() })
    }

    /// Takes one page of the account's newest streams; asks for the next page while it is worth it.
    pub(super) fn found(
        &mut self,
        jobs: &mut TrackedJobs,
        streams: &[String],
        token: Option<String>,
        intervals: &Intervals,
        now: Duration,
    ) {
        // Streams that are read already come first in the listing, so they also are a reason to go on.
        let (mut ours, mut found) = (false, self.found);
        for stream in streams {
            let Some(StreamName { job: name, .. }) = StreamName::parse(stream) else { continue };
            for job in jobs.values_mut().filter(|job| job.subscription.job == name) {
                ours = true;
                if !job.is_complete() && job.add(stream, &BTreeMap::new(), intervals.deep, now) {
                    found += 1;
                    if job.is_complete() {
                        job.list_due = now + intervals.list_silent.shortest;
                    }
                }
            }
        }
        let pages = self.pages + 1;
        if ours && token.is_some() && pages < PAGES && seekers(jobs) > 0 {
            *self = Self { due: now, token, pages, found, in_flight: false, ..*self };
            return;
        }
        // A page that finds less than one stream is worth no more than a listing of one job.
        let pause = match found {
            _ if found > pages * 4 => Duration::ZERO,
            _ if found > pages => intervals.discovery.shortest,
            _ => intervals.discovery.longer(self.pause),
        };
        *self = Self { due: now + pause, pause, ..Self::default() };
    }

    pub(super) fn failed(&mut self, kind: CloudErrorKind, chance: f64, intervals: &Intervals, now: Duration) {
        let pause = pause_after(kind, chance, intervals);
        *self = Self { due: now + pause, pause, ..Self::default() };
    }
}

/// The pause after a failed request: longer for an error that a retry does not fix.
pub(super) fn pause_after(kind: CloudErrorKind, chance: f64, intervals: &Intervals) -> Duration {
    if kind.may_pass() { backoff(2, chance) } else { intervals.refused }
}
