//! The host's one reader of CloudWatch Logs: all drivers of a host that read the same account and region share it.
//!
//! There is no daemon. A driver *joins* with a [`Feed`]: it writes a subscription into a shared directory and takes its events
//! from a file there. One of the joined drivers is elected by a lock and reads for all, up to 100 streams a request,
//! within one budget of requests. When it ends or is killed, the lock is free and the next one reads on: what it needs
//! to know stands in the drivers' files. A reader that hangs is noticed, and each driver reads slowly for itself then.
//!
//! Every event is handed out once while a feed lives, as far as its id is remembered (the newest 20,000 of a stream, and
//! three minutes); events with exactly the floor's timestamp may come again after the next join. Nothing here knows what
//! a message means.

pub(crate) mod budget;
mod discovery;
mod plan;
mod query;
mod seen;
mod spool;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use self::budget::chance;
use self::seen::{Novelty, Seen};
pub use self::spool::forget;
use self::spool::{Spool, State, SubscriptionGuard, Taken};
use self::state::LATEST;
pub use self::subscription::Pace;
use self::subscription::{Again, Intervals, Subscription, VERSION};
use self::worker::WorkerConfig;
use crate::base::clock::Clock;
use crate::base::worker::Worker;
use crate::cloud::{LogClient, LogEvent};

/// Ids of a stream that a driver remembers, and for how long before the newest event (milliseconds).
const IDS: usize = 20_000;
const KEPT: u64 = 3 * LATEST;
/// Election after a reader of this process has ended by itself, counted in ordinary pauses.
const AFTER_A_FAILURE: u32 = 20;

/// Why and how a driver joins.
#[derive(Debug, Clone)]
pub struct Terms {
    /// `runner.state_dir`; the shared directory is made below it.
    pub dir: PathBuf,
    /// Region, endpoint and credentials in one text: drivers with the same scope share a reader.
    pub scope: String,
    /// The training job's name.
    pub job: String,
    /// Streams that are expected at least: one a node.
    pub nodes: usize,
    /// Epoch milliseconds by stream: everything before is known. A stream that is absent is read from its head.
    pub floors: BTreeMap<String, u64>,
    pub pace: Pace,
    /// The host's budget, if this driver is elected: `trace.log_requests_per_second`.
    pub requests_per_second: f64,
    pub clock: Arc<dyn Clock>,
}

/// One driver's share in the host's reader. Dropping it leaves, and ends the reader if it runs in this process.
pub struct Feed {
    // Ends before the guard's files go.
    worker: Option<(Role, Worker)>,
    guard: SubscriptionGuard,
    spool: Spool,
    subscription: Subscription,
    floors: BTreeMap<String, u64>,
    seen: BTreeMap<String, Seen>,
    connect: LogClient,
    requests_per_second: f64,
    clock: Arc<dyn Clock>,
    intervals: Intervals,
    joined: SystemTime,
    next_election: Instant,
    next_watch: Instant,
    next_publish: Instant,
    unpublished: bool,
    /// A driver that reads for itself begins here.
    alone_from: Option<Instant>,
    state: Option<(State, SystemTime)>,
    told: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Elected,
    /// Beside an elected reader that hangs.
    Alone,
}

impl Feed {
    /// Joins; the first [`Feed::take`] stands for election.
    pub fn join(terms: Terms, connect: LogClient) -> anyhow::Result<Self> {
        Self::join_at(terms, connect, &Intervals::default())
    }

    fn join_at(terms: Terms, connect: LogClient, intervals: &Intervals) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !terms.job.is_empty() && terms.job.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "failed to subscribe to a log: `{}` is not the name of a training job",
            terms.job
        );
        let spool = Spool::open(&terms.dir, &terms.scope)?;
        let subscription = Subscription {
            version: VERSION,
            job: terms.job,
            nodes: terms.nodes,
            floors: terms.floors.clone(),
            pace: terms.pace,
            started: false,
            urgent: false,
            again: None,
        };
        let now = Instant::now();
        Ok(Self {
            worker: None,
            guard: spool.subscribe(&subscription)?,
            spool,
            subscription,
            floors: terms.floors,
            seen: BTreeMap::new(),
            connect,
            requests_per_second: terms.requests_per_second,
            joined: terms.clock.now(),
            clock: terms.clock,
            intervals: *intervals,
            next_election: now,
            next_watch: now,
            next_publish: now,
            unpublished: false,
            alone_from: None,
            state: None,
            told: None,
        })
    }

    /// What came since the last call, in the order of arrival; at most about 256 KB, so a busy caller asks again at
    /// once. Also the moment to stand for election. Touches local files alone.
    pub fn take(&mut self) -> anyhow::Result<Vec<LogEvent>> {
        let now = Instant::now();
        if let Err(error) = self.stand(now) {
            tracing::warn!(error = format!("{error:#}"), "failed to stand for election as the log reader");
        }
        if now >= self.next_watch {
            self.next_watch = now + self.intervals.beat;
            self.watch(now);
        }
        let taken = self.guard.take()?;
        if taken.lost {
            // Somebody cleaned the directory; the floors are what is known.
            self.subscription.floors.clone_from(&self.floors);
            self.guard = self.spool.subscribe(&self.subscription)?;
            return Ok(Vec::new());
        }
        if taken.torn {
            let oldest = self.floors.values().min().copied().unwrap_or(0);
            self.read_again(oldest.saturating_sub(LATEST));
        }
        let events = self.admit(taken);
        if self.unpublished && now >= self.next_publish {
            self.next_publish = now + self.intervals.publish;
            self.unpublished = false;
            // Without it a reader that is elected later begins earlier.
            if let Err(error) = self.guard.publish(&self.floors) {
                tracing::warn!(error = format!("{error:#}"), "failed to tell the log reader");
            }
        }
        Ok(events)
    }

    /// Epoch milliseconds by stream, of what was taken: everything before is known. For the next [`Terms::floors`].
    pub fn floors(&self) -> &BTreeMap<String, u64> {
        &self.floors
    }

    /// The container runs: its streams must appear soon, and are looked for more often.
    pub fn started(&mut self) {
        if !self.subscription.started {
            self.subscription.started = true;
            self.rewrite();
        }
    }

    /// The stage has ended and waits for what the log alone has: it is read for first.
    pub fn hurry(&mut self) {
        if !self.subscription.urgent {
            self.subscription.urgent = true;
            self.rewrite();
        }
    }

    /// A gap was seen: the job's streams are read once more from `since` (epoch milliseconds). What was handed out
    /// already comes again only where its id is forgotten.
    pub fn read_again(&mut self, since: u64) {
        let number = self.subscription.again.map_or(1, |again| again.number.wrapping_add(1));
        self.subscription.again = Some(Again { number, since });
        self.rewrite();
    }

    /// For how long nothing could be read: throttled, denied, out of reach. `None` when all is well.
    pub fn unserved(&self) -> Option<Duration> {
        let now = self.clock.now();
        match &self.state {
            Some((State { unserved_since: Some(since), .. }, _)) => {
                now.duration_since(UNIX_EPOCH + Duration::from_millis(*since)).ok()
            }
            _ if self.alone_from.is_some() && self.worker.is_none() => {
                let beat = self.state.as_ref().map_or(self.joined, |(_, beat)| *beat);
                now.duration_since(beat).ok()
            }
            _ => None,
        }
    }

    /// What people have to change before logs can be read, each text once.
    pub fn trouble(&mut self) -> Option<String> {
        let trouble = self.state.as_ref()?.0.trouble.clone()?;
        (self.told.as_ref() != Some(&trouble)).then(|| {
            self.told = Some(trouble.clone());
            trouble
        })
    }

    /// A subscription that cannot be written is no reason to end a job: the old one holds.
    fn rewrite(&self) {
        if let Err(error) = self.guard.rewrite(&self.subscription) {
            tracing::warn!(error = format!("{error:#}"), "failed to tell the log reader");
        }
    }

    /// Becomes the reader for all when there is none.
    fn stand(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.worker.as_ref().is_some_and(|(_, worker)| worker.has_ended()) {
            self.worker = None;
            self.next_election = now + self.intervals.elect * AFTER_A_FAILURE;
        }
        let elected = matches!(self.worker, Some((Role::Elected, _)));
        if elected || now < self.next_election {
            return Ok(());
        }
        self.next_election = now + self.intervals.elect;
        if let Some(lock) = self.spool.try_lead()? {
            self.worker = None;
            self.alone_from = None;
            let worker = worker::start(self.worker_config(Some(lock)))?;
            self.worker = Some((Role::Elected, worker));
        }
        Ok(())
    }

    /// Looks after the elected reader: when it hangs, this driver reads for itself until it works again.
    fn watch(&mut self, now: Instant) {
        self.state = self.spool.state();
        if matches!(self.worker, Some((Role::Elected, _))) {
            return;
        }
        let beat = self.state.as_ref().map_or(self.joined, |(_, beat)| (*beat).max(self.joined));
        if self.clock.now().duration_since(beat).is_ok_and(|age| age > self.intervals.hung) {
            let from = *self.alone_from.get_or_insert_with(|| now + self.intervals.alone.longest.mul_f64(chance()));
            if self.worker.is_none() && now >= from {
                match worker::start(self.worker_config(None)) {
                    Ok(worker) => self.worker = Some((Role::Alone, worker)),
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to read the log alone"),
                }
            }
        } else {
            self.alone_from = None;
            self.worker = None;
        }
    }

    fn worker_config(&self, lead: Option<std::fs::File>) -> WorkerConfig {
        WorkerConfig {
            spool: self.spool.clone(),
            only: lead.is_none().then(|| self.guard.key().to_owned()),
            lead,
            connect: Arc::clone(&self.connect),
            requests_per_second: self.requests_per_second,
            clock: Arc::clone(&self.clock),
            intervals: self.intervals,
        }
    }

    /// What is new of it; floors follow.
    fn admit(&mut self, taken: Taken) -> Vec<LogEvent> {
        let again = self.subscription.again.map(|again| again.since);
        let mut events = taken.events;
        events.retain(|event| {
            let seen = self.seen.entry(event.stream.clone()).or_default();
            match seen.meet(event.timestamp, &event.id) {
                Novelty::First => true,
                Novelty::Again => false,
                Novelty::Unknown => again.is_some_and(|since| event.timestamp >= since),
            }
        });
        let reached = events.iter().map(|event| (&event.stream, event.timestamp));
        for (stream, time) in reached.chain(taken.floors.iter().map(|(stream, floor)| (stream, *floor))) {
            if self.floors.get(stream).is_none_or(|floor| *floor < time) {
                self.floors.insert(stream.clone(), time);
                self.unpublished = true;
            }
        }
        for (stream, seen) in &mut self.seen {
            let floor = self.floors.get(stream).copied().unwrap_or(0);
            seen.forget_before(floor.saturating_sub(KEPT));
            seen.shrink_to(IDS);
        }
        events
    }

    #[cfg(test)]
    fn spool_file(&self, extension: &str) -> PathBuf {
        self.spool.file(self.guard.key(), extension)
    }

    /// As `kill -9` of this driver: its reader stops, its files stay.
    #[cfg(test)]
    fn kill(self) {
        drop(self.worker);
        self.guard.kill();
    }
}
