//! Decides the reader's next request and evaluates the reply. No I/O and no clock: `now` is the time since the reader's start;
//! `budget` decides whether a request may be sent.
//!
//! A *query* reads up to 100 streams from one point in time to the end, page by page. It combines streams whose floors are close as
//! long as the page is not expected to overflow, so a heavy stream is read alone. The stream that waits longest is served first
//! (round robin). Urgent streams come before all others; but an ordinary one that has waited a few seconds gets every other request.

use std::collections::BTreeMap;
use std::time::Duration;

use super::budget::Grant;
use super::discovery::{StreamDiscovery, TrackedJobs, is_crowd, pause_after};
use super::query::{LogRequest, PATIENCE, Query, backoff};
use super::seen::Novelty;
use super::state::{ReadStart, TrackedJob};
use super::subscription::{Intervals, Subscription};
use crate::cloud::{CloudErrorKind, FILTER_STREAMS, LogEvent};

/// Planned size of a reply in bytes. AWS limits a page to 1 MB of messages, and three replies are held at a time.
const PAGE_BYTES: f64 = 700_000.0;
/// Largest distance of the floors of one query's streams, in milliseconds: streams that are far ahead are not read again.
const SPREAD: u64 = 90_000;
/// Ordinary disorder of a stream's batches, which become visible after 5 to 15 s.
const LOOK_BACK: Duration = Duration::from_secs(15);
/// Limit of the remembered ids of all streams: about 5 MB.
const IDS: usize = 120_000;
/// New events for one driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) key: String,
    query: u64,
    pub(super) events: Vec<LogEvent>,
}

/// New floors of silent streams, for one driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) key: String,
    pub(super) floors: BTreeMap<String, u64>,
}

/// A query or stream that can be read next, and since when it waits.
struct Turn {
    due: Duration,
    target: Target,
}

enum Target {
    Query(u64),
    TrackedStream { key: String, name: String },
}

/// The jobs of all drivers and the running queries.
#[derive(Debug)]
pub(super) struct Plan {
    intervals: Intervals,
    /// Reads slowly for one driver alone.
    alone: bool,
    jobs: TrackedJobs,
    queries: BTreeMap<u64, Query>,
    queries_made: u64,
    discovery: StreamDiscovery,
    /// The newest ingestion time seen in a reply, epoch milliseconds.
    newest: Option<u64>,
    listed_last: bool,
    urgent_last: bool,
}

impl Plan {
    pub(super) fn new(intervals: &Intervals, alone: bool) -> Self {
        Self {
            intervals: *intervals,
            alone,
            jobs: BTreeMap::new(),
            queries: BTreeMap::new(),
            queries_made: 0,
            discovery: StreamDiscovery::default(),
            newest: None,
            listed_last: false,
            urgent_last: false,
        }
    }

    /// Adds a driver or replaces its subscription. `reached` are the floors that the driver published since it joined.
    pub(super) fn subscribe(
        &mut self,
        key: &str,
        subscription: Subscription,
        reached: &BTreeMap<String, u64>,
        now: Duration,
    ) {
        if let Some(job) = self.jobs.get_mut(key) {
            if subscription.started && !job.subscription.started {
                self.discovery.expect_more(&self.intervals, now);
            }
            job.update(subscription, &self.intervals, now);
            return;
        }
        self.discovery.expect_more(&self.intervals, now);
        let list_due = if is_crowd(&self.jobs) { now + self.intervals.discovery.shortest * 2 } else { now };
        let known: Vec<String> = subscription.floors.keys().chain(reached.keys()).cloned().collect();
        let again = subscription.again;
        let mut job = TrackedJob::new(subscription, list_due);
        for stream in known {
            job.add(&stream, reached, self.intervals.deep, now);
        }
        for stream in job.streams.values_mut() {
            stream.again = again.map(|again| again.since);
        }
        self.jobs.insert(key.to_owned(), job);
    }

    pub(super) fn unsubscribe(&mut self, key: &str) {
        self.jobs.remove(key);
    }

    /// Sets whether a driver's feed is full.
    pub(super) fn block(&mut self, key: &str, blocked: bool) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.blocked = blocked;
        }
    }

    pub(super) fn blocked(&self) -> Vec<String> {
        self.jobs.iter().filter(|(_, job)| job.blocked).map(|(key, _)| key.clone()).collect()
    }

    /// Returns the next request, if one is due and allowed by `grant`.
    pub(super) fn next(&mut self, grant: Grant, now: Duration) -> Option<LogRequest> {
        if grant == Grant::Nothing {
            return None;
        }
        let waits_long = |turn: &Turn| turn.due + PATIENCE <= now;
        let urgent = self.turn(true, now);
        let ordinary = self.turn(false, now).filter(|turn| grant == Grant::Any || waits_long(turn));
        // Listings get at most every other request.
        if (!self.listed_last || (urgent.is_none() && ordinary.is_none()))
            && let Some(call) = self.discovery.next(&mut self.jobs, grant == Grant::Urgent, &self.intervals, now)
        {
            self.listed_last = true;
            return Some(call);
        }
        let turn = match (urgent, ordinary) {
            (Some(_), Some(ordinary)) if self.urgent_last && waits_long(&ordinary) => ordinary,
            (Some(turn), _) | (None, Some(turn)) => turn,
            (None, None) => return None,
        };
        let (query, urgent) = match turn.target {
            Target::Query(query) => (query, self.queries.get(&query)?.urgent),
            Target::TrackedStream { key, name } => {
                let query = self.begin(&key, &name, now)?;
                (query, self.queries.get(&query)?.urgent)
            }
        };
        (self.listed_last, self.urgent_last) = (false, urgent);
        self.step(query)
    }

    /// Time of the next request, apart from those in flight.
    pub(super) fn due(&self) -> Option<Duration> {
        let queries = self.queries.values().filter(|query| !query.in_flight).map(|query| query.due);
        let open = self.jobs.values().filter(|job| !job.blocked);
        let streams = open.flat_map(|job| job.streams.values()).filter(|stream| stream.query.is_none());
        let lists = self.jobs.values().filter(|job| !job.listing).map(|job| job.list_due);
        queries.chain(streams.map(|stream| stream.due)).chain(lists).chain(self.discovery.due(&self.jobs)).min()
    }

    /// The query or stream that waits longest, among the urgent or among the ordinary ones.
    fn turn(&self, urgent: bool, now: Duration) -> Option<Turn> {
        let open =
            self.queries.iter().filter(|(_, query)| query.urgent == urgent && !query.in_flight && query.due <= now);
        let query = open.map(|(id, query)| (query.due, *id)).min();
        let jobs = self.jobs.iter().filter(|(_, job)| job.subscription.urgent == urgent && !job.blocked);
        let stream = jobs
            .flat_map(|(key, job)| {
                let free = job.streams.iter().filter(|(_, stream)| stream.query.is_none() && stream.due <= now);
                free.map(move |(name, stream)| (stream.due, key, name))
            })
            .min();
        match (query, stream) {
            (Some((due, query)), stream) if stream.is_none_or(|(other, ..)| due <= other) => {
                Some(Turn { due, target: Target::Query(query) })
            }
            (_, Some((due, key, name))) => {
                Some(Turn { due, target: Target::TrackedStream { key: key.clone(), name: name.clone() } })
            }
            (_, None) => None,
        }
    }

    /// Opens a query for the stream and for others that are due and fit.
    fn begin(&mut self, key: &str, name: &str, now: Duration) -> Option<u64> {
        let job = self.jobs.get(key)?;
        let (urgent, seed) = (job.subscription.urgent, job.streams.get(name)?);
        let (start, floor) = (seed.next_start(now), seed.since(ReadStart::Floor));
        let mut candidates = Vec::new();
        for (other_key, job) in &self.jobs {
            if job.blocked || job.subscription.urgent != urgent {
                continue;
            }
            for (other, stream) in &job.streams {
                let soon = now + stream.pause / 2;
                // Streams that are soon due for a deep read join one, and so do silent streams; an ordinary query leaves them out.
                let fits = match start {
                    ReadStart::Floor => stream.next_start(now) == ReadStart::Floor,
                    ReadStart::Deep => {
                        stream.is_silent() || stream.next_start(now + self.intervals.deep / 4) == ReadStart::Deep
                    }
                    ReadStart::Again(_) => other_key == key && stream.again == seed.again,
                };
                let distance = stream.floor.abs_diff(floor);
                if fits
                    && stream.query.is_none()
                    && stream.due <= soon
                    && (distance <= SPREAD || matches!(start, ReadStart::Again(_)))
                {
                    let since = stream.since(start);
                    candidates.push((distance, other != name, other_key, other, since, stream.rate));
                }
            }
        }
        candidates.sort_unstable_by(|a, b| (a.0, a.1, a.2, a.3).cmp(&(b.0, b.1, b.2, b.3)));
        let (mut members, mut since, mut rate) = (BTreeMap::new(), u64::MAX, 0.0);
        for (_, _, other_key, other, from, bytes) in candidates {
            let (from, bytes) = (since.min(from), rate + bytes);
            let age = Duration::from_millis(self.newest.unwrap_or(0).saturating_sub(from)).as_secs_f64();
            // One driver per stream: a second driver of the same job gets its own query.
            if members.contains_key(other) || (!members.is_empty() && from > 0 && bytes * age > PAGE_BYTES) {
                continue;
            }
            (since, rate) = (from, bytes);
            members.insert(other.clone(), other_key.clone());
            if members.len() == FILTER_STREAMS {
                break;
            }
        }
        if start == ReadStart::Floor && since > 0 {
            since = self.look_back(&members, since, rate);
        }
        Some(self.open(members, since, start, urgent, now))
    }

    /// Moves the begin of a read back, as far as the page has room: batches become visible out of order.
    fn look_back(&self, members: &BTreeMap<String, String>, since: u64, rate: f64) -> u64 {
        let age = Duration::from_millis(self.newest.unwrap_or(0).saturating_sub(since)).as_secs_f64();
        let room = ((PAGE_BYTES - rate * age) / rate.max(1.0)).clamp(0.0, LOOK_BACK.as_secs_f64());
        let room = u64::try_from(Duration::from_secs_f64(room).as_millis()).unwrap_or(0);
        let stream = |(name, key): (&String, &String)| self.jobs.get(key)?.streams.get(name);
        let base = members.iter().filter_map(stream).map(|stream| stream.base).min().unwrap_or(0);
        // Not before the time from which a member wants events.
        since.saturating_sub(room).max(base.min(since))
    }

    fn open(
        &mut self,
        members: BTreeMap<String, String>,
        since: u64,
        start: ReadStart,
        urgent: bool,
        now: Duration,
    ) -> u64 {
        self.queries_made += 1;
        let id = self.queries_made;
        for (name, key) in &members {
            if let Some(stream) = self.jobs.get_mut(key).and_then(|job| job.streams.get_mut(name)) {
                stream.query = Some(id);
            }
        }
        let newest = self.newest;
        let query =
            Query { members, since, token: None, start, urgent, newest, due: now, in_flight: false, failures: 0 };
        self.queries.insert(id, query);
        id
    }

    fn step(&mut self, id: u64) -> Option<LogRequest> {
        let query = self.queries.get_mut(&id)?;
        query.in_flight = true;
        let streams = query.members.keys().cloned().collect();
        Some(LogRequest::Filter { query: id, streams, since: query.since, token: query.token.clone() })
    }

    /// Selects a page's new events by driver. Call [`Plan::delivered`] or [`Plan::undelivered`] for every delivery before
    /// [`Plan::answered`] for the page.
    pub(super) fn sort(&mut self, id: u64, events: Vec<LogEvent>) -> Vec<Delivery> {
        let Some(query) = self.queries.get(&id) else { return Vec::new() };
        let mut by_key: BTreeMap<String, Vec<LogEvent>> = BTreeMap::new();
        for event in events {
            let Some(key) = query.members.get(&event.stream) else { continue };
            let stream = self.jobs.get_mut(key).and_then(|job| job.streams.get_mut(&event.stream));
            let Some(stream) = stream.filter(|stream| stream.query == Some(id)) else { continue };
            let novelty = stream.seen.note(event.timestamp, &event.id);
            let wanted = match query.start {
                ReadStart::Again(since) => event.timestamp >= since,
                ReadStart::Floor | ReadStart::Deep => event.timestamp >= stream.base && novelty == Novelty::First,
            };
            if wanted {
                by_key.entry(key.clone()).or_default().push(event);
            }
        }
        by_key.into_iter().map(|(key, events)| Delivery { key, query: id, events }).collect()
    }

    /// Records that the events are in the driver's feed.
    pub(super) fn delivered(&mut self, delivery: &Delivery, now: Duration) {
        let Some(job) = self.jobs.get_mut(&delivery.key) else { return };
        for event in &delivery.events {
            if let Some(stream) = job.streams.get_mut(&event.stream) {
                stream.delivered(event.timestamp, event.message.len(), now);
            }
        }
        self.bound_ids(&delivery.key);
    }

    /// Records that the events could not be appended: they count as unread, and nothing is read for the driver until its feed is free.
    pub(super) fn undelivered(&mut self, delivery: &Delivery, now: Duration) {
        let Some(job) = self.jobs.get_mut(&delivery.key) else { return };
        job.blocked = true;
        for event in &delivery.events {
            if let Some(stream) = job.streams.get_mut(&event.stream) {
                stream.seen.forget(event.timestamp, &event.id);
                if stream.query == Some(delivery.query) {
                    stream.query = None;
                    stream.due = now + self.intervals.urgent;
                }
            }
        }
    }

    /// Records the end of a page, with its newest ingestion time and its token; returns new floors of silent streams.
    pub(super) fn answered(
        &mut self,
        id: u64,
        ingested: Option<u64>,
        token: Option<String>,
        now: Duration,
    ) -> Vec<Reached> {
        self.newest = self.newest.max(ingested);
        let Some(mut query) = self.queries.remove(&id) else { return Vec::new() };
        query.in_flight = false;
        query.failures = 0;
        if token.is_some() {
            let stuck = |key: &String| self.jobs.get(key).is_none_or(|job| job.blocked);
            if query.members.values().any(stuck) {
                // The token continues for all members or none, so the others start a new query.
                self.release(id, &query, now);
            } else {
                query.token = token;
                query.due = now;
                self.queries.insert(id, query);
            }
            return Vec::new();
        }
        let mut reached: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for (name, key) in &query.members {
            let Some(job) = self.jobs.get_mut(key) else { continue };
            let pause = job.pause(&self.intervals, self.alone);
            let Some(stream) = job.streams.get_mut(name).filter(|stream| stream.query == Some(id)) else { continue };
            stream.query = None;
            if let Some(floor) = stream.read_through(query.start, query.newest, pause, self.intervals.deep, now) {
                reached.entry(key).or_default().insert(name.clone(), floor);
            }
        }
        reached.into_iter().map(|(key, floors)| Reached { key: key.to_owned(), floors }).collect()
    }

    /// Records a failed request for a page. `chance` (0 to 1) spreads the retries.
    pub(super) fn failed(&mut self, id: u64, kind: CloudErrorKind, chance: f64, now: Duration) {
        let Some(mut query) = self.queries.remove(&id) else { return };
        query.in_flight = false;
        match kind {
            CloudErrorKind::Throttled | CloudErrorKind::Transient => {
                query.failures += 1;
                query.due = now + backoff(query.failures, chance);
                self.queries.insert(id, query);
            }
            CloudErrorKind::NotFound => self.split(id, query, now),
            // The token may have expired: read again without it.
            CloudErrorKind::Invalid if query.token.is_some() => self.release(id, &query, now),
            _ => self.release(id, &query, now + self.intervals.refused),
        }
    }

    /// Halves a query with a stream that does not exist, until that stream is found; the others are read on.
    fn split(&mut self, id: u64, mut query: Query, now: Duration) {
        if query.members.len() > 1 {
            let middle = query.members.keys().nth(query.members.len() / 2).cloned().unwrap_or_default();
            let second = query.members.split_off(&middle);
            for members in [query.members, second] {
                self.open(members, query.since, query.start, query.urgent, now);
            }
            return;
        }
        self.release(id, &query, now);
        for (name, key) in &query.members {
            if let Some(job) = self.jobs.get_mut(key) {
                job.remove(name, &self.intervals, now);
            }
        }
    }

    fn release(&mut self, id: u64, query: &Query, due: Duration) {
        for (name, key) in &query.members {
            let stream = self.jobs.get_mut(key).and_then(|job| job.streams.get_mut(name));
            if let Some(stream) = stream.filter(|stream| stream.query == Some(id)) {
                stream.query = None;
                stream.due = due;
            }
        }
    }

    /// Takes the listing of a job's streams.
    pub(super) fn listed(&mut self, key: &str, streams: &[String], now: Duration) {
        // A listing of the newest streams serves all jobs; most containers of a crowd have not started yet.
        let stretch = if is_crowd(&self.jobs) { 8 } else { 1 };
        let Some(job) = self.jobs.get_mut(key) else { return };
        for stream in streams {
            job.add(stream, &BTreeMap::new(), self.intervals.deep, now);
        }
        job.listed(stretch, &self.intervals, now);
    }

    /// Records a failed listing.
    pub(super) fn not_listed(&mut self, key: &str, kind: CloudErrorKind, chance: f64, now: Duration) {
        let pause = pause_after(kind, chance, &self.intervals);
        if let Some(job) = self.jobs.get_mut(key) {
            job.listing = false;
            job.list_due = now + pause;
        }
    }

    /// Takes one page of the account's newest streams.
    pub(super) fn discovered(&mut self, streams: &[String], token: Option<String>, now: Duration) {
        self.discovery.found(&mut self.jobs, streams, token, &self.intervals, now);
    }

    pub(super) fn not_discovered(&mut self, kind: CloudErrorKind, chance: f64, now: Duration) {
        self.discovery.failed(kind, chance, &self.intervals, now);
    }

    /// Keeps the number of remembered ids within [`IDS`], at the cost of the driver's streams that have most.
    fn bound_ids(&mut self, key: &str) {
        let streams = || self.jobs.values().flat_map(|job| job.streams.values());
        let (total, number) = streams().fold((0, 0), |(ids, number), stream| (ids + stream.seen.len(), number + 1));
        let Some(mut excess) = total.checked_sub(IDS).filter(|excess| *excess > 0) else { return };
        let share = IDS / number.max(1);
        for stream in self.jobs.get_mut(key).into_iter().flat_map(|job| job.streams.values_mut()) {
            let before = stream.seen.len();
            stream.seen.shrink_to(before.saturating_sub(excess).max(share));
            excess = excess.saturating_sub(before - stream.seen.len());
        }
    }
}
