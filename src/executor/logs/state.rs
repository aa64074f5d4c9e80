//! What the reader knows of one job and of each of its streams. No I/O, no clock: `now` is the time since a start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::seen::Seen;
use super::subscription::{Intervals, Pace, Pause, Subscription};
use crate::base::node::NodeId;
use crate::base::stream::StreamName;

/// Events become visible at most this long after they were written, in milliseconds: the log agent's batches of 5 s, 5
/// to 15 s of the service, and a wide margin. What is later still is found by deep reads, and by a driver that misses it.
pub(super) const LATEST: u64 = 60_000;
/// A deep read of a heavy stream goes back less far.
const DEEP_BYTES: f64 = 16e6;
/// Ids are kept a little longer than a deep read goes back.
pub(super) const KEPT: u64 = LATEST + 15_000;
/// A driver is told of a silent stream's floor when it moved by so much, in milliseconds.
const WORTH_TELLING: u64 = 30_000;
/// What an event costs in a reply beside its message: stream, id and times.
const EVENT_BYTES: u32 = 300;
/// The newest measurement's share in the estimated rate.
const NEWEST_SHARE: f64 = 0.3;

/// Bytes a second.
const SILENT: f64 = 1.0;
/// Seconds.
const SHORTEST_MEASURE: f64 = 0.2;

/// Reads from before the floor, at a driver's subscription or for late events, are told apart from ordinary ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Floor,
    Deep,
    /// Everything is passed on from here, known or not.
    Again(u64),
}

/// One stream of one driver's job.
#[derive(Debug)]
pub(super) struct Stream {
    /// Nothing before this is wanted.
    pub(super) base: u64,
    /// Everything before this was passed on, late events apart; 0 while nothing is known.
    pub(super) floor: u64,
    pub(super) seen: Seen,
    pub(super) due: Duration,
    pub(super) pause: Duration,
    pub(super) deep_due: Duration,
    pub(super) again: Option<u64>,
    /// The query that reads it now.
    pub(super) query: Option<u64>,
    pub(super) last_event: Duration,
    /// Estimated bytes a second in replies.
    pub(super) rate: f64,
    fresh_bytes: f64,
    read: Option<Duration>,
    /// The driver knows this floor.
    told: u64,
}

impl Stream {
    pub(super) fn new(base: u64, reached: u64, deep: Duration, now: Duration) -> Self {
        let floor = base.max(reached);
        Self {
            base,
            floor,
            seen: Seen::default(),
            due: now,
            pause: Duration::ZERO,
            // A new reader knows no ids and would pass on again what its predecessor did.
            deep_due: now + deep,
            again: None,
            query: None,
            last_event: now,
            rate: 0.0,
            fresh_bytes: 0.0,
            read: None,
            told: floor,
        }
    }

    /// Nothing came for so long that reading from earlier costs nothing.
    pub(super) fn is_silent(&self) -> bool {
        self.rate < SILENT
    }

    /// How far back the next read goes.
    pub(super) fn reach(&self, now: Duration) -> Reach {
        match self.again {
            Some(since) => Reach::Again(since),
            None if self.floor > self.base && self.deep_due <= now => Reach::Deep,
            None => Reach::Floor,
        }
    }

    /// Where a read of this reach begins.
    pub(super) fn since(&self, reach: Reach) -> u64 {
        match reach {
            Reach::Floor => self.floor,
            Reach::Deep => {
                let affordable = Duration::try_from_secs_f64(DEEP_BYTES / self.rate.max(1.0)).unwrap_or_default();
                let back = u64::try_from(affordable.as_millis()).unwrap_or(LATEST).min(LATEST);
                self.floor.saturating_sub(back).max(self.base)
            }
            Reach::Again(since) => since,
        }
    }

    /// An event was passed on.
    pub(super) fn delivered(&mut self, timestamp: u64, message_bytes: usize, now: Duration) {
        self.floor = self.floor.max(timestamp);
        self.told = self.told.max(timestamp);
        self.last_event = now;
        self.fresh_bytes += f64::from(u32::try_from(message_bytes).unwrap_or(u32::MAX).saturating_add(EVENT_BYTES));
    }

    /// A read came to its end. `newest` is the newest ingestion that was known before it began: whatever was not visible
    /// then is not older than `newest` less [`LATEST`]. Returns the floor when the driver should be told.
    pub(super) fn read_through(
        &mut self,
        reach: Reach,
        newest: Option<u64>,
        pause: Pause,
        deep: Duration,
        now: Duration,
    ) -> Option<u64> {
        if let Some(newest) = newest {
            self.floor = self.floor.max(newest.saturating_sub(LATEST));
        }
        self.seen.forget_before(self.floor.saturating_sub(KEPT));
        self.pause = if self.fresh_bytes > 0.0 { pause.shortest } else { pause.longer(self.pause) };
        self.due = now + self.pause;
        // A first read, and one that goes back, brings the past too and tells nothing about the rate.
        if let (Some(read), Reach::Floor) = (self.read, reach) {
            let passed = now.saturating_sub(read).as_secs_f64().max(SHORTEST_MEASURE);
            self.rate += (self.fresh_bytes / passed - self.rate) * NEWEST_SHARE;
        }
        self.fresh_bytes = 0.0;
        self.read = Some(now);
        match reach {
            Reach::Deep => self.deep_due = now + deep,
            Reach::Again(since) if self.again == Some(since) => self.again = None,
            // A newer subscription stays.
            Reach::Again(_) | Reach::Floor => {}
        }
        if self.again.is_some() {
            self.due = now;
        }
        (self.floor >= self.told.saturating_add(WORTH_TELLING)).then(|| {
            self.told = self.floor;
            self.floor
        })
    }
}

/// One driver's job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) subscription: Subscription,
    pub(super) streams: BTreeMap<String, Stream>,
    /// That have a stream.
    nodes: usize,
    /// Its feed is full or out of reach: nothing is read for it.
    pub(super) blocked: bool,
    pub(super) listing: bool,
    pub(super) list_due: Duration,
    list_pause: Duration,
    /// List although all is known.
    list_once: bool,
}

impl Job {
    pub(super) fn new(subscription: Subscription, list_due: Duration) -> Self {
        Self {
            subscription,
            streams: BTreeMap::new(),
            nodes: 0,
            blocked: false,
            listing: false,
            list_due,
            list_pause: Duration::ZERO,
            list_once: false,
        }
    }

    /// Takes a newer subscription of the same driver.
    pub(super) fn update(&mut self, subscription: Subscription, intervals: &Intervals, now: Duration) {
        if subscription.again != self.subscription.again
            && let Some(again) = subscription.again
        {
            for stream in self.streams.values_mut() {
                stream.again = Some(again.since);
                stream.due = now;
            }
        }
        if subscription.urgent && !self.subscription.urgent {
            for stream in self.streams.values_mut() {
                stream.due = stream.due.min(now);
            }
            self.list_due = self.list_due.min(now + intervals.list_urgent);
            self.list_once = true;
        }
        if subscription.started && !self.subscription.started {
            self.list_due = self.list_due.min(now);
            self.list_pause = Duration::ZERO;
        }
        self.subscription = subscription;
    }

    pub(super) fn add(&mut self, name: &str, reached: &BTreeMap<String, u64>, deep: Duration, now: Duration) -> bool {
        if self.streams.contains_key(name) {
            return false;
        }
        let known = |floors: &BTreeMap<String, u64>| floors.get(name).copied().unwrap_or(0);
        self.streams.insert(name.to_owned(), Stream::new(known(&self.subscription.floors), known(reached), deep, now));
        self.count_nodes();
        true
    }

    /// The stream does not exist any more. Should it come back, it is read on.
    pub(super) fn remove(&mut self, name: &str, intervals: &Intervals, now: Duration) {
        if let Some(stream) = self.streams.remove(name) {
            self.subscription.floors.insert(name.to_owned(), stream.floor);
        }
        self.count_nodes();
        self.list_pause = intervals.list.longer(self.list_pause);
        self.list_due = now + self.list_pause;
    }

    /// Every node has a stream.
    pub(super) fn is_complete(&self) -> bool {
        self.nodes >= self.subscription.nodes
    }

    fn count_nodes(&mut self) {
        let nodes: BTreeSet<NodeId> = self.streams.keys().filter_map(|stream| node_of(stream)).collect();
        self.nodes = nodes.len();
    }

    /// A node's newest output is this old.
    fn silence(&self, now: Duration) -> Duration {
        let mut newest: BTreeMap<Option<NodeId>, Duration> = BTreeMap::new();
        for (name, stream) in &self.streams {
            let last = newest.entry(node_of(name)).or_default();
            *last = (*last).max(stream.last_event);
        }
        now.saturating_sub(newest.into_values().min().unwrap_or_default())
    }

    /// Whether the streams have to be listed now; puts it off when there is no reason to.
    pub(super) fn wants_list(&mut self, intervals: &Intervals, now: Duration) -> bool {
        if self.listing || self.list_due > now {
            return false;
        }
        if self.list_once || !self.is_complete() || self.silence(now) >= intervals.list_silent.shortest {
            return true;
        }
        self.list_pause = Duration::ZERO;
        self.list_due = now + intervals.list_silent.shortest;
        false
    }

    /// The streams were listed. `stretch` spreads the listings of many jobs that wait for their first stream.
    pub(super) fn listed(&mut self, stretch: u32, intervals: &Intervals, now: Duration) {
        self.listing = false;
        self.list_once = false;
        let (pause, stretch) = if self.is_complete() { (intervals.list_silent, 1) } else { (intervals.list, stretch) };
        self.list_pause = pause.longer(self.list_pause);
        self.list_due = now + self.list_pause * stretch;
    }

    /// How often its streams are read.
    pub(super) fn pause(&self, intervals: &Intervals, alone: bool) -> Pause {
        let usual = match self.subscription.pace {
            _ if alone => intervals.alone,
            Pace::Live => intervals.live,
            Pace::Record => intervals.record,
        };
        if self.subscription.urgent {
            let pause = if alone { usual.shortest / 3 } else { intervals.urgent };
            return Pause { shortest: pause, longest: pause };
        }
        usual
    }
}

fn node_of(stream: &str) -> Option<NodeId> {
    StreamName::parse(stream).map(|stream| stream.node)
}
