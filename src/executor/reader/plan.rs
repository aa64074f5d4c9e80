//! What the elected reader asks next, and what follows from the answer. No I/O and no clock: `now` is the time since a
//! start, and whether a request may be sent at all is decided by `budget`.
//!
//! A *walk* reads up to 100 streams from one point in time to the end, page by page. Streams are put together when their
//! floors are close and the page is not expected to overflow, so a heavy stream ends up alone. The stream that waits
//! longest is served first, which is round robin; urgent ones come before all others, which get every other request at
//! least once they have waited for a few seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::budget::Grant;
use super::seen::Meeting;
use super::state::{Job, Reach};
use super::subscription::{Subscription, Tempo};
use crate::base::stream::StreamName;
use crate::cloud::{CloudErrorKind, FILTER_STREAMS, LogEvent};

/// Bytes of a reply that are planned for. AWS cuts a page at 1 MB of messages; three replies at a time must stay small.
const PAGE_BYTES: f64 = 700_000.0;
/// Streams of one walk have floors so close, in milliseconds: old ground is not read again for those that are far ahead.
const SPREAD: u64 = 90_000;
/// Ordinary disorder among the batches of a stream, which the service shows after 5 to 15 s.
const LOOK_BACK: Duration = Duration::from_secs(15);
/// What waits longer than this gets every other request, whatever is urgent.
const PATIENCE: Duration = Duration::from_secs(5);
/// Jobs that look for a stream before a listing of the newest streams pays.
const CROWD: usize = 8;
/// Listings of the newest streams in a row.
const SURVEY_PAGES: u32 = 20;
/// Ids remembered for all streams together: about 5 MB.
const IDS: usize = 120_000;
/// The longest pause after a walk failed in a row.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Filter { walk: u64, streams: Vec<String>, since: u64, token: Option<String> },
    List { key: String, job: String },
    Newest { token: Option<String> },
}

/// New events of one driver's job.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) key: String,
    walk: u64,
    pub(super) events: Vec<LogEvent>,
}

/// Floors that silent streams have reached, for one driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) key: String,
    pub(super) floors: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Walk {
    /// Driver by stream.
    members: BTreeMap<String, String>,
    since: u64,
    token: Option<String>,
    reach: Reach,
    urgent: bool,
    /// The newest ingestion known before it began.
    newest: Option<u64>,
    due: Duration,
    in_flight: bool,
    failures: u32,
}

/// Listing the newest streams of all jobs.
#[derive(Debug, Clone, Default)]
struct Survey {
    due: Duration,
    token: Option<String>,
    pages: u32,
    /// Streams that were looked for, on the pages of this listing.
    found: u32,
    pause: Duration,
    in_flight: bool,
}

impl Survey {
    /// There is more to find.
    fn hasten(&mut self, tempo: &Tempo, now: Duration) {
        self.pause = Duration::ZERO;
        self.due = self.due.min(now + tempo.survey.shortest);
    }
}

/// What can be read next, and since when.
struct Turn {
    due: Duration,
    what: What,
}

enum What {
    Walk(u64),
    Stream { key: String, name: String },
}

/// All drivers' jobs, and what is being read.
#[derive(Debug)]
pub(super) struct Plan {
    tempo: Tempo,
    /// One driver reads for itself, slowly.
    alone: bool,
    /// By the drivers' keys.
    jobs: BTreeMap<String, Job>,
    walks: BTreeMap<u64, Walk>,
    walks_made: u64,
    survey: Survey,
    /// The newest ingestion time that the service has told, epoch milliseconds.
    newest: Option<u64>,
    listed_last: bool,
    urgent_last: bool,
}

impl Plan {
    pub(super) fn new(tempo: &Tempo, alone: bool) -> Self {
        Self {
            tempo: *tempo,
            alone,
            jobs: BTreeMap::new(),
            walks: BTreeMap::new(),
            walks_made: 0,
            survey: Survey::default(),
            newest: None,
            listed_last: false,
            urgent_last: false,
        }
    }

    /// Takes a new driver or its newer wish. `reached` are the floors that the driver wrote down since it joined.
    pub(super) fn subscribe(&mut self, key: &str, wish: Subscription, reached: &BTreeMap<String, u64>, now: Duration) {
        if let Some(job) = self.jobs.get_mut(key) {
            if wish.started && !job.wish.started {
                self.survey.hasten(&self.tempo, now);
            }
            job.update(wish, &self.tempo, now);
            return;
        }
        self.survey.hasten(&self.tempo, now);
        let crowd = self.seekers() >= CROWD;
        let list_due = if crowd { now + self.tempo.survey.shortest * 2 } else { now };
        let known: Vec<String> = wish.floors.keys().chain(reached.keys()).cloned().collect();
        let again = wish.again;
        let mut job = Job::new(wish, list_due);
        for stream in known {
            job.add(&stream, reached, self.tempo.deep, now);
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
            && let Some(call) = self.list(grant == Grant::Urgent, now)
        {
            self.listed_last = true;
            return Some(call);
        }
        let turn = match (urgent, ordinary) {
            (Some(_), Some(ordinary)) if self.urgent_last && waits_long(&ordinary) => ordinary,
            (Some(turn), _) | (None, Some(turn)) => turn,
            (None, None) => return None,
        };
        let (walk, urgent) = match turn.what {
            What::Walk(walk) => (walk, self.walks.get(&walk)?.urgent),
            What::Stream { key, name } => {
                let walk = self.begin(&key, &name, now)?;
                (walk, self.walks.get(&walk)?.urgent)
            }
        };
        (self.listed_last, self.urgent_last) = (false, urgent);
        self.step(walk)
    }

    /// When something is due next, in-flight requests apart.
    pub(super) fn due(&self) -> Option<Duration> {
        let walks = self.walks.values().filter(|walk| !walk.in_flight).map(|walk| walk.due);
        let open = self.jobs.values().filter(|job| !job.blocked);
        let streams = open.flat_map(|job| job.streams.values()).filter(|stream| stream.walk.is_none());
        let lists = self.jobs.values().filter(|job| !job.listing).map(|job| job.list_due);
        let survey = (self.seekers() >= CROWD && !self.survey.in_flight).then_some(self.survey.due);
        walks.chain(streams.map(|stream| stream.due)).chain(lists).chain(survey).min()
    }

    /// What waits longest to be read, among what is urgent or among the rest.
    fn turn(&self, urgent: bool, now: Duration) -> Option<Turn> {
        let open = self.walks.iter().filter(|(_, walk)| walk.urgent == urgent && !walk.in_flight && walk.due <= now);
        let walk = open.map(|(id, walk)| (walk.due, *id)).min();
        let jobs = self.jobs.iter().filter(|(_, job)| job.wish.urgent == urgent && !job.blocked);
        let stream = jobs
            .flat_map(|(key, job)| {
                let free = job.streams.iter().filter(|(_, stream)| stream.walk.is_none() && stream.due <= now);
                free.map(move |(name, stream)| (stream.due, key, name))
            })
            .min();
        match (walk, stream) {
            (Some((due, walk)), stream) if stream.is_none_or(|(other, ..)| due <= other) => {
                Some(Turn { due, what: What::Walk(walk) })
            }
            (_, Some((due, key, name))) => {
                Some(Turn { due, what: What::Stream { key: key.clone(), name: name.clone() } })
            }
            (_, None) => None,
        }
    }

    /// Opens a walk for the stream and others that are due and fit.
    fn begin(&mut self, key: &str, name: &str, now: Duration) -> Option<u64> {
        let job = self.jobs.get(key)?;
        let (urgent, seed) = (job.wish.urgent, job.streams.get(name)?);
        let (reach, floor) = (seed.reach(now), seed.since(Reach::Floor));
        let mut candidates = Vec::new();
        for (other_key, job) in &self.jobs {
            if job.blocked || job.wish.urgent != urgent {
                continue;
            }
            for (other, stream) in &job.streams {
                let soon = now + stream.pause / 2;
                // Those whose turn to go back comes soon join a walk that does, and those that it costs nothing; an ordinary
                // walk leaves them to their own.
                let fits = match reach {
                    Reach::Floor => stream.reach(now) == Reach::Floor,
                    Reach::Deep => stream.is_silent() || stream.reach(now + self.tempo.deep / 4) == Reach::Deep,
                    Reach::Again(_) => other_key == key && stream.again == seed.again,
                };
                let distance = stream.floor.abs_diff(floor);
                if fits && stream.walk.is_none() && stream.due <= soon && (distance <= SPREAD || reach_is_wish(reach)) {
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
            // One driver a stream: a second one of the same job gets its own walk.
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
        self.walks_made += 1;
        let id = self.walks_made;
        for (name, key) in &members {
            if let Some(stream) = self.jobs.get_mut(key).and_then(|job| job.streams.get_mut(name)) {
                stream.walk = Some(id);
            }
        }
        let newest = self.newest;
        let walk = Walk { members, since, token: None, reach, urgent, newest, due: now, in_flight: false, failures: 0 };
        self.walks.insert(id, walk);
        id
    }

    fn step(&mut self, id: u64) -> Option<Call> {
        let walk = self.walks.get_mut(&id)?;
        walk.in_flight = true;
        let streams = walk.members.keys().cloned().collect();
        Some(Call::Filter { walk: id, streams, since: walk.since, token: walk.token.clone() })
    }

    /// Which of a page's events are new, and whose. Every delivery must be answered by [`Plan::delivered`] or
    /// [`Plan::undelivered`] before the page is [`Plan::answered`].
    pub(super) fn sort(&mut self, id: u64, events: Vec<LogEvent>) -> Vec<Delivery> {
        let Some(walk) = self.walks.get(&id) else { return Vec::new() };
        let mut by_key: BTreeMap<String, Vec<LogEvent>> = BTreeMap::new();
        for event in events {
            let Some(key) = walk.members.get(&event.stream) else { continue };
            let stream = self.jobs.get_mut(key).and_then(|job| job.streams.get_mut(&event.stream));
            let Some(stream) = stream.filter(|stream| stream.walk == Some(id)) else { continue };
            let meeting = stream.seen.meet(event.timestamp, &event.id);
            let wanted = match walk.reach {
                Reach::Again(since) => event.timestamp >= since,
                Reach::Floor | Reach::Deep => event.timestamp >= stream.base && meeting == Meeting::First,
            };
            if wanted {
                by_key.entry(key.clone()).or_default().push(event);
            }
        }
        by_key.into_iter().map(|(key, events)| Delivery { key, walk: id, events }).collect()
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
                if stream.walk == Some(delivery.walk) {
                    stream.walk = None;
                    stream.due = now + self.tempo.urgent;
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
        let Some(mut walk) = self.walks.remove(&id) else { return Vec::new() };
        walk.in_flight = false;
        walk.failures = 0;
        if token.is_some() {
            let stuck = |key: &String| self.jobs.get(key).is_none_or(|job| job.blocked);
            if walk.members.values().any(stuck) {
                // Its token reads on for all members alike, so those that can go on begin anew where they are.
                self.release(id, &walk, now);
            } else {
                walk.token = token;
                walk.due = now;
                self.walks.insert(id, walk);
            }
            return Vec::new();
        }
        let mut reached: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for (name, key) in &walk.members {
            let Some(job) = self.jobs.get_mut(key) else { continue };
            let pause = job.pause(&self.tempo, self.alone);
            let Some(stream) = job.streams.get_mut(name).filter(|stream| stream.walk == Some(id)) else { continue };
            stream.walk = None;
            if let Some(floor) = stream.read_through(walk.reach, walk.newest, pause, self.tempo.deep, now) {
                reached.entry(key).or_default().insert(name.clone(), floor);
            }
        }
        reached.into_iter().map(|(key, floors)| Reached { key: key.to_owned(), floors }).collect()
    }

    /// A page could not be read. `chance` (0 to 1) spreads what is tried again.
    pub(super) fn failed(&mut self, id: u64, kind: CloudErrorKind, chance: f64, now: Duration) {
        let Some(mut walk) = self.walks.remove(&id) else { return };
        walk.in_flight = false;
        match kind {
            CloudErrorKind::Throttled | CloudErrorKind::Transient => {
                walk.failures += 1;
                walk.due = now + backoff(walk.failures, chance);
                self.walks.insert(id, walk);
            }
            CloudErrorKind::NotFound => self.split(id, walk, now),
            // A token can expire; without one the same request would be refused again.
            CloudErrorKind::Invalid if walk.token.is_some() => self.release(id, &walk, now),
            _ => self.release(id, &walk, now + self.tempo.refused),
        }
    }

    /// One of the walk's streams does not exist: it is found by halves, and the others are read on.
    fn split(&mut self, id: u64, mut walk: Walk, now: Duration) {
        if walk.members.len() > 1 {
            let middle = walk.members.keys().nth(walk.members.len() / 2).cloned().unwrap_or_default();
            let second = walk.members.split_off(&middle);
            for members in [walk.members, second] {
                self.open(members, walk.since, walk.reach, walk.urgent, now);
            }
            return;
        }
        self.release(id, &walk, now);
        for (name, key) in &walk.members {
            if let Some(job) = self.jobs.get_mut(key) {
                job.remove(name, &self.tempo, now);
            }
        }
    }

    fn release(&mut self, id: u64, walk: &Walk, due: Duration) {
        for (name, key) in &walk.members {
            let stream = self.jobs.get_mut(key).and_then(|job| job.streams.get_mut(name));
            if let Some(stream) = stream.filter(|stream| stream.walk == Some(id)) {
                stream.walk = None;
                stream.due = due;
            }
        }
    }

    /// Jobs without a stream of every node.
    fn seekers(&self) -> usize {
        self.jobs.values().filter(|job| !job.is_complete()).count()
    }

    /// A listing that is due; without an ordinary grant only what is urgent or has waited for long.
    fn list(&mut self, only_urgent: bool, now: Duration) -> Option<Call> {
        let waits_long = |due: Duration| due + PATIENCE <= now;
        if (!only_urgent || waits_long(self.survey.due))
            && !self.survey.in_flight
            && self.survey.due <= now
            && self.seekers() >= CROWD
        {
            self.survey.in_flight = true;
            return Some(Call::Newest { token: self.survey.token.clone() });
        }
        let (tempo, jobs) = (&self.tempo, self.jobs.iter_mut());
        let (_, key, job) = jobs
            .filter(|(_, job)| !only_urgent || job.wish.urgent || waits_long(job.list_due))
            .filter_map(|(key, job)| {
                let rank = (!job.wish.urgent, !job.wish.started, job.list_due);
                job.wants_list(tempo, now).then_some((rank, key, job))
            })
            .min_by_key(|(rank, ..)| *rank)?;
        job.listing = true;
        Some(Call::List { key: key.clone(), job: job.wish.job.clone() })
    }

    /// A job's streams are these.
    pub(super) fn listed(&mut self, key: &str, streams: &[String], now: Duration) {
        // The newest streams are looked at for all; most containers of a crowd are not even there yet.
        let stretch = if self.seekers() >= CROWD { 8 } else { 1 };
        let Some(job) = self.jobs.get_mut(key) else { return };
        for stream in streams {
            job.add(stream, &BTreeMap::new(), self.tempo.deep, now);
        }
        job.listed(stretch, &self.tempo, now);
    }

    /// A job's streams could not be listed; what does not pass is asked again after a longer time.
    pub(super) fn not_listed(&mut self, key: &str, kind: CloudErrorKind, chance: f64, now: Duration) {
        let pause = if kind.may_pass() { backoff(2, chance) } else { self.tempo.refused };
        if let Some(job) = self.jobs.get_mut(key) {
            job.listing = false;
            job.list_due = now + pause;
        }
    }

    /// One page of the newest streams of the account; goes on while it is of use.
    pub(super) fn surveyed(&mut self, streams: &[String], token: Option<String>, now: Duration) {
        // Streams that are read already are newer than those that were silent since they began.
        let (mut ours, mut found) = (false, self.survey.found);
        for stream in streams {
            let Some(StreamName { job: name, .. }) = StreamName::parse(stream) else { continue };
            for job in self.jobs.values_mut().filter(|job| job.wish.job == name) {
                ours = true;
                if !job.is_complete() && job.add(stream, &BTreeMap::new(), self.tempo.deep, now) {
                    found += 1;
                    if job.is_complete() {
                        job.list_due = now + self.tempo.list_silent.shortest;
                    }
                }
            }
        }
        let pages = self.survey.pages + 1;
        if ours && token.is_some() && pages < SURVEY_PAGES && self.seekers() > 0 {
            self.survey = Survey { due: now, token, pages, found, in_flight: false, ..self.survey };
            return;
        }
        // A page that finds less than one stream is of no more use than a listing of one job.
        let tempo = self.tempo.survey;
        let pause = match found {
            _ if found > pages * 4 => Duration::ZERO,
            _ if found > pages => tempo.shortest,
            _ => tempo.longer(self.survey.pause),
        };
        self.survey = Survey { due: now + pause, pause, ..Survey::default() };
    }

    pub(super) fn not_surveyed(&mut self, kind: CloudErrorKind, chance: f64, now: Duration) {
        let pause = if kind.may_pass() { backoff(2, chance) } else { self.tempo.refused };
        self.survey = Survey { due: now + pause, pause, ..Survey::default() };
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

fn reach_is_wish(reach: Reach) -> bool {
    matches!(reach, Reach::Again(_))
}

/// 0.5 s, doubled with each failure, give or take a quarter.
fn backoff(failures: u32, chance: f64) -> Duration {
    let pause = Duration::from_millis(250) * 2u32.saturating_pow(failures.min(10));
    pause.min(LONGEST_BACKOFF).mul_f64(0.75 + chance / 2.0)
}
