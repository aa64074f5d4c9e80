//! Which streams the jobs have: listings for single jobs, and of the newest streams of all when many jobs look for theirs. No
//! I/O, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::query::{Call, PATIENCE, backoff};
use super::state::Job;
use super::subscription::Intervals;
use crate::base::stream::StreamName;
use crate::cloud::CloudErrorKind;

/// Jobs that look for a stream before a listing of the newest streams pays.
const CROWD: usize = 8;
/// Listings of the newest streams in a row.
const PAGES: u32 = 20;

/// By the drivers' keys.
pub(super) type Jobs = BTreeMap<String, Job>;

/// Jobs without a stream of every node.
fn seekers(jobs: &Jobs) -> usize {
    jobs.values().filter(|job| !job.is_complete()).count()
}

/// So many jobs look for streams that the newest ones are listed for all.
pub(super) fn is_crowd(jobs: &Jobs) -> bool {
    seekers(jobs) >= CROWD
}

/// Listing the newest streams of all jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamDiscovery {
    due: Duration,
    token: Option<String>,
    pages: u32,
    /// Streams that were looked for, on the pages of this listing.
    found: u32,
    pause: Duration,
    in_flight: bool,
}

impl StreamDiscovery {
    /// There is more to find.
    pub(super) fn hasten(&mut self, intervals: &Intervals, now: Duration) {
        self.pause = Duration::ZERO;
        self.due = self.due.min(now + intervals.discovery.shortest);
    }

    pub(super) fn due(&self, jobs: &Jobs) -> Option<Duration> {
        (is_crowd(jobs) && !self.in_flight).then_some(self.due)
    }

    /// A listing that is due; without an ordinary grant only what is urgent or has waited for long.
    pub(super) fn next(
        &mut self,
        jobs: &mut Jobs,
        only_urgent: bool,
        intervals: &Intervals,
        now: Duration,
    ) -> Option<Call> {
        let waits_long = |due: Duration| due + PATIENCE <= now;
        let is_allowed = !only_urgent || waits_long(self.due);
        if is_allowed && self.due(jobs).is_some_and(|due| due <= now) {
            self.in_flight = true;
            return Some(Call::Newest { token: self.token.clone() });
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
        Some(Call::List { key: key.clone(), job: job.subscription.job.clone() })
    }

    /// One page of the newest streams of the account; goes on while it is of use.
    pub(super) fn found(
        &mut self,
        jobs: &mut Jobs,
        streams: &[String],
        token: Option<String>,
        intervals: &Intervals,
        now: Duration,
    ) {
        // Streams that are read already are newer than those that were silent since they began.
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
        // A page that finds less than one stream is of no more use than a listing of one job.
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

/// What does not pass is asked again after a longer time.
pub(super) fn pause_after(kind: CloudErrorKind, chance: f64, intervals: &Intervals) -> Duration {
    if kind.may_pass() { backoff(2, chance) } else { intervals.refused }
}
