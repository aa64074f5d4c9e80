//! The reader's thread: sends the requests of `plan` within `budget` and appends the events to the drivers' feeds.
//!
//! It has its own thread because the driver's main thread may block on a slow reader of the job's output. It ends when its handle is
//! dropped and then releases the lock. It does not decide what to read.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use backon::{ConstantBuilder, Retryable as _};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::budget::{Grant, ReadBudget};
use super::plan::{Delivery, Plan};
use super::query::LogRequest;
use super::shared_dir::{FEED_BYTES, ReaderState, SharedDir, Subscriptions};
use super::subscription::Intervals;
use crate::base::clock::Clock;
use crate::base::worker::Worker;
use crate::cloud::{CloudError, CloudErrorKind, FilterPage, JobLogs, LogClient, StreamPage};

/// Concurrent requests: a reply takes most of a second and 1 MB of memory.
const IN_FLIGHT: usize = 3;
/// Tries again to append to a feed that its driver has locked; the driver holds the lock for less than a millisecond.
const APPENDS: ConstantBuilder = ConstantBuilder::new().with_delay(Duration::from_millis(2)).with_max_times(9);
/// Interval of the search for killed drivers, in checks of the subscriptions.
const REMOVE_DEAD_EVERY: u32 = 20;
/// Failures are reported to the drivers after this many heartbeats.
const PASSING_BEATS: u32 = 3;
const SHORTEST_SLEEP: Duration = Duration::from_millis(5);

/// The configuration of a reader.
pub(super) struct ReaderConfig {
    pub(super) shared: SharedDir,
    /// The lock of the elected reader; `None` for a driver that reads for itself.
    pub(super) lead: Option<File>,
    /// Key of the only driver to read for; `None`: all.
    pub(super) only: Option<String>,
    pub(super) connect: LogClient,
    pub(super) requests_per_second: f64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) intervals: Intervals,
}

/// Starts the thread. The lock is released with `config`, before [`Worker::has_ended`] is true.
pub(super) fn start(config: ReaderConfig) -> anyhow::Result<Worker> {
    Worker::start("log-reader", |stopped| async move {
        tokio::select! {
            _ = stopped => Ok(()),
            result = read(&config) => result,
        }
    })
}

async fn read(config: &ReaderConfig) -> anyhow::Result<()> {
    let logs = connect(config).await?;
    LogReader::new(config, logs)?.run().await
}

/// Connects to CloudWatch Logs; retries until it succeeds.
async fn connect(config: &ReaderConfig) -> anyhow::Result<Arc<dyn JobLogs>> {
    if config.lead.is_some() {
        config.shared.write_state(&ReaderState::default())?;
    }
    let since = epoch_ms(&*config.clock);
    loop {
        let error = match (config.connect)().await {
            Ok(logs) => return Ok(logs),
            Err(error) => format!("{error:#}"),
        };
        tracing::warn!(error, "failed to connect to CloudWatch Logs");
        let again = Instant::now() + config.intervals.refused;
        if config.lead.is_some() {
            config.shared.write_state(&ReaderState { unserved_since: Some(since), trouble: Some(error) })?;
        }
        while Instant::now() < again {
            tokio::time::sleep(config.intervals.beat).await;
            if config.lead.is_some() {
                config.shared.beat(config.clock.now());
            }
        }
    }
}

/// The reply to a request.
enum Reply {
    Page { query: u64, page: Result<FilterPage, CloudError> },
    Streams { key: String, streams: Result<Vec<String>, CloudError> },
    Newest(Result<StreamPage, CloudError>),
}

/// Failures of one kind of request.
#[derive(Debug, Default)]
struct Health {
    failing_since: Option<u64>,
    trouble: Option<String>,
}

impl Health {
    fn note(&mut self, error: Option<&CloudError>, clock: &dyn Clock) {
        match error {
            Some(error) if error.kind != CloudErrorKind::NotFound => {
                self.failing_since.get_or_insert_with(|| epoch_ms(clock));
                self.trouble = (!error.kind.may_pass()).then(|| error.to_string());
            }
            _ => *self = Self::default(),
        }
    }
}

/// A running reader.
struct LogReader<'a> {
    config: &'a ReaderConfig,
    logs: Arc<dyn JobLogs>,
    plan: Plan,
    budget: ReadBudget,
    subscriptions: Subscriptions,
    started: Instant,
    next_look: Duration,
    looks: u32,
    next_beat: Duration,
    reads: Health,
    lists: Health,
    published: ReaderState,
}

impl<'a> LogReader<'a> {
    fn new(config: &'a ReaderConfig, logs: Arc<dyn JobLogs>) -> anyhow::Result<Self> {
        if config.lead.is_some() {
            config.shared.write_state(&ReaderState::default())?;
        }
        Ok(Self {
            config,
            logs,
            plan: Plan::new(&config.intervals, config.only.is_some()),
            budget: ReadBudget::new(config.requests_per_second, Duration::ZERO),
            subscriptions: Subscriptions::default(),
            started: Instant::now(),
            next_look: Duration::ZERO,
            looks: 0,
            next_beat: Duration::ZERO,
            reads: Health::default(),
            lists: Health::default(),
            published: ReaderState::default(),
        })
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Reply>> = FuturesUnordered::new();
        loop {
            self.look()?;
            let mut grant = self.budget.grant(self.now());
            while in_flight.len() < IN_FLIGHT {
                let Some(call) = self.plan.next(grant, self.now()) else { break };
                self.budget.spend();
                in_flight.push(send(Arc::clone(&self.logs), call));
                grant = self.budget.grant(self.now());
            }
            let wake = self.wake(grant, in_flight.len());
            tokio::select! {
                Some(reply) = in_flight.next() => self.take(reply).await,
                () = tokio::time::sleep_until(self.started + wake) => {}
            }
        }
    }

    /// The time of the next request or check, if no reply arrives before.
    fn wake(&self, grant: Grant, in_flight: usize) -> Duration {
        let now = self.now();
        let due = self.plan.due().filter(|_| in_flight < IN_FLIGHT);
        let next = due.map_or(self.next_look, |due| {
            let allowed = match grant {
                Grant::Nothing => now + self.budget.wait(Grant::Urgent),
                Grant::Urgent => now + self.budget.wait(Grant::Any),
                Grant::Any => now,
            };
            due.max(allowed)
        });
        next.min(self.next_look).max(now + SHORTEST_SLEEP)
    }

    /// Checks for new subscriptions and emptied feeds; sets the heartbeat.
    fn look(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        let leads = self.config.lead.is_some();
        if leads && now >= self.next_beat {
            self.next_beat = now + self.config.intervals.beat;
            self.publish_state();
            self.config.shared.beat(self.config.clock.now());
        }
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now + self.config.intervals.look;
        let shared = &self.config.shared;
        if leads
            && self.looks.is_multiple_of(REMOVE_DEAD_EVERY)
            && let Err(error) = Subscriptions::remove_dead(shared, self.config.clock.now())
        {
            tracing::warn!(%error, "failed to look for killed drivers");
        }
        self.looks = self.looks.wrapping_add(1);
        let changes = self
            .subscriptions
            .look(shared, self.config.only.as_deref(), self.config.clock.now())
            .context("failed to look for subscriptions")?;
        for key in &changes.gone {
            self.plan.unsubscribe(key);
        }
        for (key, subscription, reached) in changes.subscribed {
            self.plan.subscribe(&key, subscription, &reached, now);
        }
        for key in self.plan.blocked() {
            self.plan.block(&key, shared.feed_bytes(&key).is_ok_and(|bytes| bytes > FEED_BYTES));
        }
        Ok(())
    }

    /// Writes for all drivers whether the reader's requests fail.
    fn publish_state(&mut self) {
        let passing = u64::try_from((self.config.intervals.beat * PASSING_BEATS).as_millis()).unwrap_or(u64::MAX);
        let since = [self.reads.failing_since, self.lists.failing_since].into_iter().flatten().min();
        let state = ReaderState {
            unserved_since: since.filter(|since| epoch_ms(&*self.config.clock).saturating_sub(*since) >= passing),
            trouble: self.reads.trouble.clone().or_else(|| self.lists.trouble.clone()),
        };
        if state != self.published {
            match self.config.shared.write_state(&state) {
                Ok(()) => self.published = state,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to tell the drivers"),
            }
        }
    }

    async fn take(&mut self, reply: Reply) {
        let now = self.now();
        let chance = fastrand::f64();
        match reply {
            Reply::Page { query, page } => {
                self.reads.note(page.as_ref().err(), &*self.config.clock);
                self.pay(page.as_ref().err());
                match page {
                    Ok(page) => {
                        for delivery in self.plan.sort(query, page.events) {
                            self.deliver(&delivery).await;
                        }
                        for reached in self.plan.answered(query, page.ingested, page.token, self.now()) {
                            // Not fatal: the next reader begins earlier, which costs a request.
                            let _ = self.config.shared.append(&reached.key, &[], &reached.floors);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "failed to read logs");
                        self.plan.failed(query, error.kind, chance, now);
                    }
                }
            }
            Reply::Streams { key, streams } => {
                self.lists.note(streams.as_ref().err(), &*self.config.clock);
                self.pay(streams.as_ref().err());
                match streams {
                    Ok(streams) => self.plan.listed(&key, &streams, now),
                    Err(error) => {
                        tracing::debug!(%error, "failed to list log streams");
                        self.plan.not_listed(&key, error.kind, chance, now);
                    }
                }
            }
            Reply::Newest(page) => {
                self.lists.note(page.as_ref().err(), &*self.config.clock);
                self.pay(page.as_ref().err());
                match page {
                    Ok(page) => self.plan.discovered(&page.streams, page.token, now),
                    Err(error) => {
                        tracing::debug!(%error, "failed to list the newest log streams");
                        self.plan.not_discovered(error.kind, chance, now);
                    }
                }
            }
        }
    }

    fn pay(&mut self, error: Option<&CloudError>) {
        let (now, chance) = (self.now(), fastrand::f64());
        match error {
            None => self.budget.succeeded(now),
            Some(error) if error.kind == CloudErrorKind::Throttled => self.budget.throttled(now, chance),
            Some(_) => {}
        }
    }

    async fn deliver(&mut self, delivery: &Delivery) {
        let shared = &self.config.shared;
        let result = (|| async { shared.append(&delivery.key, &delivery.events, &std::collections::BTreeMap::new()) })
            .retry(APPENDS)
            .when(|error| error.kind() == ErrorKind::WouldBlock)
            .await;
        let now = self.now();
        match result {
            Ok(bytes) => {
                self.plan.delivered(delivery, now);
                if bytes > FEED_BYTES {
                    self.plan.block(&delivery.key, true);
                }
            }
            Err(error) => {
                // A driver that has just left has no feed. Its name must not appear in the log of the job whose driver reads.
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(%error, "failed to pass on the log of another job of this host");
                }
                self.plan.undelivered(delivery, now);
            }
        }
    }
}

fn send(logs: Arc<dyn JobLogs>, call: LogRequest) -> BoxFuture<'static, Reply> {
    Box::pin(async move {
        match call {
            LogRequest::Filter { query, streams, since, token } => {
                Reply::Page { query, page: logs.filter(&streams, since, token.as_deref()).await }
            }
            LogRequest::List { key, job } => Reply::Streams { streams: logs.streams(&job).await, key },
            LogRequest::Newest { token } => Reply::Newest(logs.newest_streams(token.as_deref()).await),
        }
    })
}

/// The host's time, which all drivers share.
fn epoch_ms(clock: &dyn Clock) -> u64 {
    let since = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
