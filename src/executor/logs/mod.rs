//! Reads CloudWatch Logs for all drivers of a host that use the same account and region, through one elected reader.
//!
//! There is no daemon. A driver *joins* with a [`Feed`]: it writes a subscription into a shared directory and takes its events
//! from a file there. A file lock elects one of the joined drivers, which reads for all, up to 100 streams a request, within one
//! budget of requests. When it ends or is killed, the lock is free and the next driver takes over; the drivers' files hold all it
//! needs. When a reader hangs, each driver reads slowly for itself.
//!
//! A feed returns every event once, as long as its id is remembered (the newest 20,000 of a stream, and three minutes). Events with
//! exactly the floor's timestamp may be repeated after the next join. This module does not interpret messages.

pub(crate) mod budget;
mod discovery;
mod plan;
mod query;
mod seen;
mod shared_dir;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::seen::{Novelty, SeenIds};
pub use self::shared_dir::forget;
use self::shared_dir::{ReaderState, SharedDir, SubscriptionGuard, Taken};
use self::state::LATEST;
pub use self::subscription::FeedMode;
use self::subscription::{Again, Intervals, Subscription, VERSION};
use self::worker::ReaderConfig;
use crate::base::clock::Clock;
use crate::base::worker::Worker;
use crate::cloud::{LogClient, LogEvent};

/// Remembered event ids of a stream: their number, and their age before the newest event in milliseconds.
const IDS: usize = 20_000;
const KEPT: u64 = 3 * LATEST;
/// Wait before the next election after this process's reader failed, in election intervals.
const AFTER_A_FAILURE: u32 = 20;

/// The configuration of a [`Feed`].
#[derive(Debug, Clone)]
pub struct FeedConfig {
    /// `runner.state_dir`; the shared directory is made below it.
    pub dir: PathBuf,
    /// Region, endpoint and credentials as one text: drivers with the same scope share a reader.
    pub scope: String,
    /// The training job's name.
    pub job: String,
    /// Expected number of nodes; each has at least one stream.
    pub nodes: usize,
    /// Epoch milliseconds by stream: earlier events are not returned. A stream that is absent is read from its start.
    pub floors: BTreeMap<String, u64>,
    pub mode: FeedMode,
    /// Request budget of the host, used when this driver is elected: `trace.log_requests_per_second`.
    pub requests_per_second: f64,
    pub clock: Arc<dyn Clock>,
}

/// One driver's log events, from the host's reader. Dropped, it unsubscribes, and ends the reader if it runs in this process.
pub struct Feed {
    // Declared before `guard`, so that the reader ends before its files are removed.
    worker: Option<(Role, Worker)>,
    guard: SubscriptionGuard,
    shared: SharedDir,
    subscription: Subscription,
    floors: BTreeMap<String, u64>,
    seen: BTreeMap<String, SeenIds>,
    connect: LogClient,
    requests_per_second: f64,
    clock: Arc<dyn Clock>,
    intervals: Intervals,
    joined: SystemTime,
    next_election: Instant,
    next_watch: Instant,
    next_publish: Instant,
    unpublished: bool,
    /// When this driver begins to read for itself.
    alone_from: Option<Instant>,
    state: Option<(ReaderState, SystemTime)>,
    told: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Elected,
    /// Reads for this driver alone, while the elected reader hangs.
    Alone,
}

impl Feed {
    /// Writes the subscription; the first [`Feed::take`] takes part in the election.
    pub fn join(config: FeedConfig, connect: LogClient) -> anyhow::Result<Self> {
        Self::join_at(config, connect, &Intervals::default())
    }

    fn join_at(config: FeedConfig, connect: LogClient, intervals: &Intervals) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !config.job.is_empty() && config.job.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "failed to subscribe to a log: `{}` is not the name of a training job",
            config.job
        );
        let shared = SharedDir::open(&config.dir, &config.scope)?;
        let subscription = Subscription {
            version: VERSION,
            job: config.job,
            nodes: config.nodes,
            floors: config.floors.clone(),
            mode: config.mode,
            started: false,
            urgent: false,
            again: None,
        };
        let now = Instant::now();
        Ok(Self {
            worker: None,
            guard: shared.subscribe(&subscription)?,
            shared,
            subscription,
            floors: config.floors,
            seen: BTreeMap::new(),
            connect,
            requests_per_second: config.requests_per_second,
            joined: config.clock.now(),
            clock: config.clock,
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

    /// Returns the events that arrived since the last call, in order of arrival, about 256 KB at most; call again at once after a full
    /// result. Also takes part in the election. Touches local files only.
    pub fn take(&mut self) -> anyhow::Result<Vec<LogEvent>> {
        let now = Instant::now();
        if let Err(error) = self.elect(now) {
            tracing::warn!(error = format!("{error:#}"), "failed to take part in the election of the log reader");
        }
        if now >= self.next_watch {
            self.next_watch = now + self.intervals.beat;
            self.watch(now);
        }
        let taken = self.guard.take()?;
        if taken.lost {
            // The directory was cleaned from outside: subscribe again from the floors.
            self.subscription.floors.clone_from(&self.floors);
            self.guard = self.shared.subscribe(&self.subscription)?;
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
            // Not fatal: a later reader then begins earlier.
            if let Err(error) = self.guard.publish(&self.floors) {
                tracing::warn!(error = format!("{error:#}"), "failed to tell the log reader");
            }
        }
        Ok(events)
    }

    /// Epoch milliseconds by stream: all earlier events were taken. For the next [`FeedConfig::floors`].
    pub fn floors(&self) -> &BTreeMap<String, u64> {
        &self.floors
    }

    /// The container runs: its streams will appear soon, so they are listed more often.
    pub fn started(&mut self) {
        if !self.subscription.started {
            self.subscription.started = true;
            self.rewrite();
        }
    }

    /// The stage has ended and waits for events that only the log has: its streams are read first.
    pub fn hurry(&mut self) {
        if !self.subscription.urgent {
            self.subscription.urgent = true;
            self.rewrite();
        }
    }

    /// Reads the job's streams once more from `since` (epoch milliseconds), after a gap. An event is returned again only when its id was
    /// forgotten.
    pub fn read_again(&mut self, since: u64) {
        let number = self.subscription.again.map_or(1, |again| again.number.wrapping_add(1));
        self.subscription.again = Some(Again { number, since });
        self.rewrite();
    }

    /// Time since the last successful request: throttled, denied or unreachable. `None` when requests succeed.
    pub fn unserved(&self) -> Option<Duration> {
        let now = self.clock.now();
        match &self.state {
            Some((ReaderState { unserved_since: Some(since), .. }, _)) => {
                now.duration_since(UNIX_EPOCH + Duration::from_millis(*since)).ok()
            }
            _ if self.alone_from.is_some() && self.worker.is_none() => {
                let beat = self.state.as_ref().map_or(self.joined, |(_, beat)| *beat);
                now.duration_since(beat).ok()
            }
            _ => None,
        }
    }

    /// Error that the operator has to fix before logs can be read; each text is returned once.
    pub fn trouble(&mut self) -> Option<String> {
        let trouble = self.state.as_ref()?.0.trouble.clone()?;
        (self.told.as_ref() != Some(&trouble)).then(|| {
            self.told = Some(trouble.clone());
            trouble
        })
    }

    /// Writes the subscription. A failure is logged only: the old subscription stays valid.
    fn rewrite(&self) {
        if let Err(error) = self.guard.rewrite(&self.subscription) {
            tracing::warn!(error = format!("{error:#}"), "failed to tell the log reader");
        }
    }

    /// Becomes the host's reader when there is none.
    fn elect(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.worker.as_ref().is_some_and(|(_, worker)| worker.has_ended()) {
            self.worker = None;
            self.next_election = now + self.intervals.elect * AFTER_A_FAILURE;
        }
        let elected = matches!(self.worker, Some((Role::Elected, _)));
        if elected || now < self.next_election {
            return Ok(());
        }
        self.next_election = now + self.intervals.elect;
        if let Some(lock) = self.shared.try_lead()? {
            self.worker = None;
            self.alone_from = None;
            let worker = worker::start(self.reader_config(Some(lock)))?;
            self.worker = Some((Role::Elected, worker));
        }
        Ok(())
    }

    /// Checks the elected reader: while it hangs, this driver reads for itself.
    fn watch(&mut self, now: Instant) {
        self.state = self.shared.state();
        if matches!(self.worker, Some((Role::Elected, _))) {
            return;
        }
        let beat = self.state.as_ref().map_or(self.joined, |(_, beat)| (*beat).max(self.joined));
        if self.clock.now().duration_since(beat).is_ok_and(|age| age > self.intervals.hung) {
            let from =
                *self.alone_from.get_or_insert_with(|| now + self.intervals.alone.longest.mul_f64(fastrand::f64()));
            if self.worker.is_none() && now >= from {
                match worker::start(self.reader_config(None)) {
                    Ok(worker) => self.worker = Some((Role::Alone, worker)),
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to read the log alone"),
                }
            }
        } else {
            self.alone_from = None;
            self.worker = None;
        }
    }

    fn reader_config(&self, lead: Option<std::fs::File>) -> ReaderConfig {
        ReaderConfig {
            shared: self.shared.clone(),
            only: lead.is_none().then(|| self.guard.key().to_owned()),
            lead,
            connect: Arc::clone(&self.connect),
            requests_per_second: self.requests_per_second,
            clock: Arc::clone(&self.clock),
            intervals: self.intervals,
        }
    }

    /// Returns the new events and raises the floors.
    fn admit(&mut self, taken: Taken) -> Vec<LogEvent> {
        let again = self.subscription.again.map(|again| again.since);
        let mut events = taken.events;
        events.retain(|event| {
            let seen = self.seen.entry(event.stream.clone()).or_default();
            match seen.note(event.timestamp, &event.id) {
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
    fn shared_file(&self, extension: &str) -> PathBuf {
        self.shared.file(self.guard.key(), extension)
    }

    /// Simulates `kill -9` of this driver: its reader stops, its files stay.
    #[cfg(test)]
    fn kill(self) {
        drop(self.worker);
        self.guard.kill();
    }
}
