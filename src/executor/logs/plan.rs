//! What the elected reader asks next, and what follows from the answer. No I/O and no clock: `now` is the time since a
//! start, and whether a request may be sent at all is decided by `budget`.
//!
//! A *query* reads up to 100 streams from one point in time to the end, page by page. Streams are put together when their
//! floors are close and the page is not expected to overflow, so a heavy stream ends up alone. The stream that waits
//! longest is served first, which is round robin; urgent ones come before all others, which get every other request at
//! least once they have waited for a few seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::budget::Grant;
use super::discovery::{Jobs, StreamDiscovery, is_crowd, pause_after};
use super::query::{Call, PATIENCE, Query, backoff};
use super::seen::Novelty;
use super::state::{Job, Reach};
use super::subscription::{Intervals, Subscription};
use crate::cloud::{CloudErrorKind, FILTER_STREAMS, LogEvent};

/// Bytes of a reply that are planned for. AWS cuts a page at 1 MB of messages; three replies at a time must stay small.
const PAGE_BYTES: f64 = 700_000.0;
/// Streams of one query have floors so close, in milliseconds: old ground is not read again for those that are far ahead.
const SPREAD: u64 = 90_000;
/// Ordinary disorder among the batches of a stream, which the service shows after 5 to 15 s.
const LOOK_BACK: Duration = Duration::from_secs(15);
/// Ids remembered for all streams together: about 5 MB.
const IDS: usize = 120_000;
/// New events of one driver's job.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) key: String,
    query: u64,
    pub(super) events: Vec<LogEvent>,
}

/// Floors that silent streams have reached, for one driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) key: String,
    pub(super) floors: BTreeMap<String, u64>,
}

/// What can be read next, and since when.
struct Turn {
    due: Duration,
    what: What,
}

enum What {
    Query(u64),
    Stream { key: String, name: String },
}

/// All drivers' jobs, and what is being read.
#[derive(Debug)]
pub(super) struct Plan {
    intervals: Intervals,
    /// One driver reads for itself, slowly.
    alone: bool,
    jobs: Jobs,
    queries: BTreeMap<u64, Query>,
    queries_made: u64,
    discovery: StreamDiscovery,
    /// The newest ingestion time that the service has told, epoch milliseconds.
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

    /// Takes a new driver or its newer subscription. `reached` are the floors that the driver wrote down since it joined.
    pub(super) fn subscribe(
        &mut self,
        key: &str,
        subscription: Subscription,
        reached: &BTreeMap<String, u64>,
        now: Duration,
    ) {
        if let Some(job) = self.jobs.get_mut(key) {
            if subscription.started && !job.subscription.started {
                self.discovery.hasten(&self.intervals, now);
            }
            job.update(subscription, &self.intervals, now);
            return;
        }
        self.discovery.hasten(&self.intervals, now);
        let list_due = if is_crowd(&self.jobs) { now + self.intervals.discovery.shortest * 2 } else { now };
        let known: Vec<String> = subscription.floors.keys().chain(reached.keys()).cloned().collect();
        let again = subscription.again;
        let mut job = Job::new(subscription, list_due);
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

    /// Whether a driver's feed can take more.
    pub(super) fn block(&mut self, key: &str, blocked: bool) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.blocked = blocked;
        }
    }

    pub(super) fn blocked(&self) -> Vec<String> {
        self.jobs.iter().filter(|(_, job)| job.blocked).map(|(key, _)| key.clone()).collect()
    }

    /// The next request, if one is due that the grant allows.
    pub(super) fn next(&mut self, grant: Grant, now: Duration) -> Option<Call> {
        if grant == Grant::Nothing {
            return None;
        }
        let waits_long = |turn: &Turn| turn.due + PATIENCE <= now;
        let urgent = self.turn(true, now);
        let ordinary = self.turn(false, now).filter(|turn| grant == Grant::Any || waits_long(turn));
        // Listings get every other request at most.
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
        let (query, urgent) = match turn.what {
            What::Query(query) => (query, self.queries.get(&query)?.urgent),
            What::Stream { key, name } => {
                let query = self.begin(&key, &name, now)?;
                (query, self.queries.get(&query)?.urgent)
            }
        };
        (self.listed_last, self.urgent_last) = (false, urgent);
        self.step(query)
    }

    /// When something is due next, in-flight requests apart.
    pub(super) fn due(&self) -> Option<Duration> {
        let queries = self.queries.values().filter(|query| !query.in_flight).map(|query| query.due);
        let open = self.jobs.values().filter(|job| !job.blocked);
        let streams = open.flat_map(|job| job.streams.values()).filter(|stream| stream.query.is_none());
        let lists = self.jobs.values().filter(|job| !job.listing).map(|job| job.list_due);
        queries.chain(streams.map(|stream| stream.due)).chain(lists).chain(self.discovery.due(&self.jobs)).min()
    }

    /// What waits longest to be read, among what is urgent or among the rest.
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
                Some(Turn { due, what: What::Query(query) })
            }
            (_, Some((due, key, name))) => {
                Some(Turn { due, what: What::Stream { key: key.clone(), name: name.clone() } })
            }
            (_, None) => None,
        }
    }

    /// Opens a query for the stream and others that are due and fit.
    fn begin(&mut self, key: &str, name: &str, now: Duration) -> Option<u64> {
        let job = self.jobs.get(key)?;
        let (urgent, seed) = (job.subscription.urgent, job.streams.get(name)?);
        let (reach, floor) = (seed.reach(now), seed.since(Reach::Floor));
        let mut candidates = Vec::new();
        for (other_key, job) in &self.jobs {
            if job.blocked || job.subscription.urgent != urgent {
                continue;
            }
            for (other, stream) in &job.streams {
                let soon = now + stream.pause / 2;
                // Those whose turn to go back comes soon join a query that does, and those that it costs nothing; an ordinary
                // query leaves them to their own.
                let fits = match reach {
                    Reach::Floor => stream.reach(now) == Reach::Floor,
                    Reach::Deep => stream.is_silent() || stream.reach(now + self.intervals.deep / 4) == Reach::Deep,
                    Reach::Again(_) => other_key == key && stream.again == seed.again,
                };
                let distance = stream.floor.abs_diff(floor);
                if fits
                    && stream.query.is_none()
                    && stream.due <= soon
                    && (distance <= SPREAD || matches!(reach, Reach::Again(_)))
                {
                    let since = stream.since(reach);
                    candidates.push((distance, other != name, other_key, other, since, stream.rate));
                }
            }
        }
        candidates.sort_unstable_by(|a, b| (a.0, a.1, a.2, a.3).cmp(&(b.0, b.1, b.2, b.3)));
        let (mut members, mut since, mut rate) = (BTreeMap::new(), u64::MAX, 0.0);
        for (_, _, other_key, other, from, bytes) in candidates {
            let (from, bytes) = (since.min(from), rate + bytes);
            let age = Duration::from_millis(self.newest.unwrap_or(0).saturating_sub(from)).as_secs_f64();
            // One driver a stream: a second one of the same job gets its own query.
            if members.contains_key(other) || (!members.is_empty() && from > 0 && bytes * age > PAGE_BYTES) {
                continue;
            }
            (since, rate) = (from, bytes);
            members.insert(other.clone(), other_key.clone());
            if members.len() == FILTER_STREAMS {
                break;
            }
        }
        if reach == Reach::Floor && since > 0 {
            since = self.look_back(&members, since, rate);
        }
        Some(self.open(members, since, reach, urgent, now))
    }

    /// Batches become visible out of order, so a read begins as much earlier as the page has room for.
    fn look_back(&self, members: &BTreeMap<String, String>, since: u64, rate: f64) -> u64 {
        let age = Duration::from_millis(self.newest.unwrap_or(0).saturating_sub(since)).as_secs_f64();
        let room = ((PAGE_BYTES - rate * age) / rate.max(1.0)).clamp(0.0, LOOK_BACK.as_secs_f64());
        let room = u64::try_from(Duration::from_secs_f64(room).as_millis()).unwrap_or(0);
        let stream = |(name, key): (&String, &String)| self.jobs.get(key)?.streams.get(name);
        let base = members.iter().filter_map(stream).map(|stream| stream.base).min().unwrap_or(0);
        // What no member wants need not be read.
        since.saturating_sub(room).max(base.min(since))
    }

    fn open(
        &mut self,
        members: BTreeMap<String, String>,
        since: u64,
        reach: Reach,
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
            Query { members, since, token: None, reach, urgent, newest, due: now, in_flight: false, failures: 0 };
        self.queries.insert(id, query);
        id
    }

    fn step(&mut self, id: u64) -> Option<Call> {
        let query = self.queries.get_mut(&id)?;
        query.in_flight = true;
        let streams = query.members.keys().cloned().collect();
        Some(Call::Filter { query: id, streams, since: query.since, token: query.token.clone() })
    }

    /// Which of a page's events are new, and whose. Every delivery must be answered by [`Plan::delivered`] or
    /// [`Plan::undelivered`] before the page is [`Plan::answered`].
    pub(super) fn sort(&mut self, id: u64, events: Vec<LogEvent>) -> Vec<Delivery> {
        let Some(query) = self.queries.get(&id) else { return Vec::new() };
        let mut by_key: BTreeMap<String, Vec<LogEvent>> = BTreeMap::new();
        for event in events {
            let Some(key) = query.members.get(&event.stream) else { continue };
            let stream = self.jobs.get_mut(key).and_then(|job| job.streams.get_mut(&event.stream));
            let Some(stream) = stream.filter(|stream| stream.query == Some(id)) else { continue };
            let novelty = stream.seen.meet(event.timestamp, &event.id);
            let wanted = match query.reach {
                Reach::Again(since) => event.timestamp >= since,
                Reach::Floor | Reach::Deep => event.timestamp >= stream.base && novelty == Novelty::First,
            };
            if wanted {
                by_key.entry(key.clone()).or_default().push(event);
            }
        }
        by_key.into_iter().map(|(key, events)| Delivery { key, query: id, events }).collect()
    }

    /// The driver's feed has the events.
    pub(super) fn delivered(&mut self, delivery: &Delivery, now: Duration) {
        let Some(job) = self.jobs.get_mut(&delivery.key) else { return };
        for event in &delivery.events {
            if let Some(stream) = job.streams.get_mut(&event.stream) {
                stream.delivered(event.timestamp, event.message.len(), now);
            }
        }
        self.bound_ids(&delivery.key);
    }

    /// The driver's feed could not take the events: they count as unread, and nothing more is read until it can.
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

    /// A page was read, with these as its newest ingestion time and token.
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
                // Its token reads on for all members alike, so those that can go on begin anew where they are.
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
            if let Some(floor) = stream.read_through(query.reach, query.newest, pause, self.intervals.deep, now) {
                reached.entry(key).or_default().insert(name.clone(), floor);
            }
        }
        reached.into_iter().map(|(key, floors)| Reached { key: key.to_owned(), floors }).collect()
    }

    /// A page could not be read. `chance` (0 to 1) spreads what is tried again.
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
            // A token can expire; without one the same request would be refused again.
            CloudErrorKind::Invalid if query.token.is_some() => self.release(id, &query, now),
            _ => self.release(id, &query, now + self.intervals.refused),
        }
    }

    /// One of the query's streams does not exist: it is found by halves, and the others are read on.
    fn split(&mut self, id: u64, mut query: Query, now: Duration) {
        if query.members.len() > 1 {
            let middle = query.members.keys().nth(query.members.len() / 2).cloned().unwrap_or_default();
            let second = query.members.split_off(&middle);
            for members in [query.members, second] {
                self.open(members, query.since, query.reach, query.urgent, now);
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

    /// A job's streams are these.
    pub(super) fn listed(&mut self, key: &str, streams: &[String], now: Duration) {
        // The newest streams are looked at for all; most containers of a crowd are not even there yet.
        let stretch = if is_crowd(&self.jobs) { 8 } else { 1 };
        let Some(job) = self.jobs.get_mut(key) else { return };
        for stream in streams {
            job.add(stream, &BTreeMap::new(), self.intervals.deep, now);
        }
        job.listed(stretch, &self.intervals, now);
    }

    /// A job's streams could not be listed.
    pub(super) fn not_listed(&mut self, key: &str, kind: CloudErrorKind, chance: f64, now: Duration) {
        let pause = pause_after(kind, chance, &self.intervals);
        if let Some(job) = self.jobs.get_mut(key) {
            job.listing = false;
            job.list_due = now + pause;
        }
    }

    /// One page of the newest streams of the account.
    pub(super) fn discovered(&mut self, streams: &[String], token: Option<String>, now: Duration) {
        self.discovery.found(&mut self.jobs, streams, token, &self.intervals, now);
    }

    pub(super) fn not_discovered(&mut self, kind: CloudErrorKind, chance: f64, now: Duration) {
        self.discovery.failed(kind, chance, &self.intervals, now);
    }

    /// Keeps the memory for ids within its bound, at the cost of the streams that have most.
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
