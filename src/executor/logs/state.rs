//! The reader's state of one job and each of its streams. No I/O, no clock: `now` is the time since the reader's start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::seen::SeenIds;
use super::subscription::{FeedMode, Intervals, Pause, Subscription};
use crate::base::node::NodeId;
use crate::base::stream::StreamName;

/// Milliseconds from writing an event until it is visible at the latest: the log agent's batches of 5 s, 5 to 15 s of the service,
/// and a wide margin. Deep reads find later events, and so does a driver that asks for a gap.
pub(super) const LATEST: u64 = 60_000;
/// Expected size of a deep read in bytes: of a heavy stream it goes back less far.
const DEEP_BYTES: f64 = 16e6;
/// Milliseconds that ids are kept: a little longer than a deep read goes back.
pub(super) const KEPT: u64 = LATEST + 15_000;
/// Step in milliseconds in which a driver is told the floor of a silent stream.
const WORTH_TELLING: u64 = 30_000;
/// Size of an event in a reply without its message: stream, id and times.
const EVENT_BYTES: u32 = 300;
/// Weight of the newest measurement in the estimated rate.
const NEWEST_SHARE: f64 = 0.3;

/// Below this rate, in bytes a second, a stream counts as silent.
const SILENT: f64 = 1.0;
/// Shortest time, in seconds, over which a rate is measured.
const SHORTEST_MEASURE: f64 = 0.2;

/// Where a read of a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadStart {
    /// At the floor: an ordinary read.
    Floor,
    /// Before the floor, for late events.
    Deep,
    /// At this time, as a driver asked; delivers all events again, known or not.
    Again(u64),
}

/// A stream of one driver's job.
#[derive(Debug)]
pub(super) struct TrackedStream {
    /// The driver wants no events before this time.
    pub(super) base: u64,
    /// All events before this time were delivered, except late ones; 0 while nothing is known.
    pub(super) floor: u64,
    pub(super) seen: SeenIds,
    pub(super) due: Duration,
    pub(super) pause: Duration,
    pub(super) deep_due: Duration,
    pub(super) again: Option<u64>,
    /// The query that reads it now.
    pub(super) query: Option<u64>,
    pub(super) last_event: Duration,
    /// Estimated rate in replies, bytes a second.
    pub(super) rate: f64,
    fresh_bytes: f64,
    read: Option<Duration>,
    /// The floor that the driver was told.
    told: u64,
}

impl TrackedStream {
    pub(super) fn new(base: u64, reached: u64, deep: Duration, now: Duration) -> Self {
        let floor = base.max(reached);
        Self {
            base,
            floor,
            seen: SeenIds::default(),
            due: now,
            pause: Duration::ZERO,
            // Not at once: a new reader knows no ids and would deliver again the events of the reader before.
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

    /// True when the rate is so low that a deep read costs nothing.
    pub(super) fn is_silent(&self) -> bool {
        self.rate < SILENT
    }

    /// Where the next read begins.
    pub(super) fn next_start(&self, now: Duration) -> ReadStart {
        match self.again {
            Some(since) => ReadStart::Again(since),
            None if self.floor > self.base && self.deep_due <= now => ReadStart::Deep,
            None => ReadStart::Floor,
        }
    }

    /// The time at which a read with this start begins, in epoch milliseconds.
    pub(super) fn since(&self, start: ReadStart) -> u64 {
        match start {
            ReadStart::Floor => self.floor,
            ReadStart::Deep => {
                let affordable = Duration::try_from_secs_f64(DEEP_BYTES / self.rate.max(1.0)).unwrap_or_default();
                let back = u64::try_from(affordable.as_millis()).unwrap_or(LATEST).min(LATEST);
                self.floor.saturating_sub(back).max(self.base)
            }
            ReadStart::Again(since) => since,
        }
    }

    /// Records that an event was delivered.
    pub(super) fn delivered(&mut self, timestamp: u64, message_bytes: usize, now: Duration) {
        self.floor = self.floor.max(timestamp);
        self.told = self.told.max(timestamp);
        self.last_event = now;
        self.fresh_bytes += f64::from(u32::try_from(message_bytes).unwrap_or(u32::MAX).saturating_add(EVENT_BYTES));
    }

    /// Records the end of a read. `newest` is the newest ingestion time known before it began: an event that was not visible then is
    /// not older than `newest` - [`LATEST`]. Returns the floor when the driver should be told.
    pub(super) fn read_through(
        &mut self,
        start: ReadStart,
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
        // A first or deep read also returns older events, so it says nothing about the rate.
        if let (Some(read), ReadStart::Floor) = (self.read, start) {
            let passed = now.saturating_sub(read).as_secs_f64().max(SHORTEST_MEASURE);
            self.rate += (self.fresh_bytes / passed - self.rate) * NEWEST_SHARE;
        }
        self.fresh_bytes = 0.0;
        self.read = Some(now);
        match start {
            ReadStart::Deep => self.deep_due = now + deep,
            ReadStart::Again(since) if self.again == Some(since) => self.again = None,
            // Another `again` was asked meanwhile: it stays.
            ReadStart::Again(_) | ReadStart::Floor => {}
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

/// The job of one driver.
#[derive(Debug)]
pub(super) struct TrackedJob {
    pub(super) subscription: Subscription,
    pub(super) streams: BTreeMap<String, TrackedStream>,
    /// Number of nodes that have a stream.
    nodes: usize,
    /// The feed is full or cannot be written: nothing is read for the job.
    pub(super) blocked: bool,
    pub(super) listing: bool,
    pub(super) list_due: Duration,
    list_pause: Duration,
    /// List once although every node has a stream.
    list_once: bool,
}

impl TrackedJob {
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
        self.streams
            .insert(name.to_owned(), TrackedStream::new(known(&self.subscription.floors), known(reached), deep, now));
        self.count_nodes();
        true
    }

    /// Removes a stream that no longer exists. If it reappears, it is read from its last floor.
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

    /// Time since the newest output of the most silent node.
    fn silence(&self, now: Duration) -> Duration {
        let mut newest: BTreeMap<Option<NodeId>, Duration> = BTreeMap::new();
        for (name, stream) in &self.streams {
            let last = newest.entry(node_of(name)).or_default();
            *last = (*last).max(stream.last_event);
        }
        now.saturating_sub(newest.into_values().min().unwrap_or_default())
    }

    /// True when the streams must be listed now; else moves the next check if there is no reason to list.
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

    /// Records a listing. `stretch` lengthens the pause, to spread the listings of many jobs that wait for their first stream.
    pub(super) fn listed(&mut self, stretch: u32, intervals: &Intervals, now: Duration) {
        self.listing = false;
        self.list_once = false;
        let (pause, stretch) = if self.is_complete() { (intervals.list_silent, 1) } else { (intervals.list, stretch) };
        self.list_pause = pause.longer(self.list_pause);
        self.list_due = now + self.list_pause * stretch;
    }

    /// The interval between reads of its streams.
    pub(super) fn pause(&self, intervals: &Intervals, alone: bool) -> Pause {
        let usual = match self.subscription.mode {
            _ if alone => intervals.alone,
            FeedMode::Live => intervals.live,
            FeedMode::Record => intervals.record,
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
