//! The thread that reads: asks what `plan` says within `budget`, and passes the answers to the drivers' feeds.
//!
//! It is a thread of its own because the driver's main thread may wait for a slow reader of the job's output. It ends
//! when its handle is dropped, and gives the lock back then; it decides nothing about what to read.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::budget::{Grant, ReadBudget, chance};
use super::plan::{Delivery, Plan};
use super::query::Call;
use super::spool::{FEED_BYTES, Spool, State, Subscriptions};
use super::subscription::Intervals;
use crate::base::clock::Clock;
use crate::base::worker::Worker;
use crate::cloud::{CloudError, CloudErrorKind, FilterPage, JobLogs, LogClient, StreamPage};

/// Requests at the same time: a reply takes a good part of a second, and 1 MB of memory.
const IN_FLIGHT: usize = 3;
/// Tries to append to a feed that its driver is just taking from; it does that in less than a millisecond.
const APPEND_TRIES: u32 = 10;
const APPEND_PAUSE: Duration = Duration::from_millis(2);
/// Looks for killed drivers, counted in looks for subscriptions.
const BURY_EVERY: u32 = 20;
/// Failures shorter than this many beats are nobody's business.
const PASSING_BEATS: u32 = 3;
const SHORTEST_SLEEP: Duration = Duration::from_millis(5);

/// What a thread is sent to do.
pub(super) struct WorkerConfig {
    pub(super) spool: Spool,
    /// The lock of the elected reader; `None` for a driver that reads for itself.
    pub(super) lead: Option<File>,
    /// The one driver that is read for; all when `None`.
    pub(super) only: Option<String>,
    pub(super) connect: LogClient,
    pub(super) requests_per_second: f64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) intervals: Intervals,
}

/// Starts the thread. The lock goes with the config, before the end is told.
pub(super) fn start(config: WorkerConfig) -> anyhow::Result<Worker> {
    Worker::start("log-reader", |stopped| async move {
        tokio::select! {
            _ = stopped => Ok(()),
            result = read(&config) => result,
        }
    })
}

async fn read(config: &WorkerConfig) -> anyhow::Result<()> {
    let logs = connect(config).await?;
    Reading::new(config, logs)?.run().await
}

/// The client, however long it takes to get one.
async fn connect(config: &WorkerConfig) -> anyhow::Result<Arc<dyn JobLogs>> {
    if config.lead.is_some() {
        config.spool.tell(&State::default())?;
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
            config.spool.tell(&State { unserved_since: Some(since), trouble: Some(error) })?;
        }
        while Instant::now() < again {
            tokio::time::sleep(config.intervals.beat).await;
            if config.lead.is_some() {
                config.spool.beat(config.clock.now());
            }
        }
    }
}

/// A request's reply.
enum Reply {
    Page { query: u64, page: Result<FilterPage, CloudError> },
    Streams { key: String, streams: Result<Vec<String>, CloudError> },
    Newest(Result<StreamPage, CloudError>),
}

/// How one kind of request fares.
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

/// One reader at work.
struct Reading<'a> {
    config: &'a WorkerConfig,
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
    told: State,
}

impl<'a> Reading<'a> {
    fn new(config: &'a WorkerConfig, logs: Arc<dyn JobLogs>) -> anyhow::Result<Self> {
        if config.lead.is_some() {
            config.spool.tell(&State::default())?;
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
            told: State::default(),
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

    /// When there is something to do, replies apart.
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

    /// New subscriptions, feeds that were emptied, the sign of life.
    fn look(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        let leads = self.config.lead.is_some();
        if leads && now >= self.next_beat {
            self.next_beat = now + self.config.intervals.beat;
            self.tell();
            self.config.spool.beat(self.config.clock.now());
        }
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now + self.config.intervals.look;
        let spool = &self.config.spool;
        if leads
            && self.looks.is_multiple_of(BURY_EVERY)
            && let Err(error) = Subscriptions::bury(spool, self.config.clock.now())
        {
            tracing::warn!(%error, "failed to look for killed drivers");
        }
        self.looks = self.looks.wrapping_add(1);
        let changes = self
            .subscriptions
            .look(spool, self.config.only.as_deref(), self.config.clock.now())
            .context("failed to look for subscriptions")?;
        for key in &changes.gone {
            self.plan.unsubscribe(key);
        }
        for (key, subscription, reached) in changes.subscribed {
            self.plan.subscribe(&key, subscription, &reached, now);
        }
        for key in self.plan.blocked() {
            self.plan.block(&key, spool.feed_bytes(&key).is_ok_and(|bytes| bytes > FEED_BYTES));
        }
        Ok(())
    }

    /// Tells all drivers when the reader cannot read.
    fn tell(&mut self) {
        let passing = u64::try_from((self.config.intervals.beat * PASSING_BEATS).as_millis()).unwrap_or(u64::MAX);
        let since = [self.reads.failing_since, self.lists.failing_since].into_iter().flatten().min();
        let state = State {
            unserved_since: since.filter(|since| epoch_ms(&*self.config.clock).saturating_sub(*since) >= passing),
            trouble: self.reads.trouble.clone().or_else(|| self.lists.trouble.clone()),
        };
        if state != self.told {
            match self.config.spool.tell(&state) {
                Ok(()) => self.told = state,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to tell the drivers"),
            }
        }
    }

    async fn take(&mut self, reply: Reply) {
        let now = self.now();
        let chance = chance();
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
                            // Without it the next reader begins earlier, which costs a request.
                            let _ = self.config.spool.append(&reached.key, &[], &reached.floors);
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
        let (now, chance) = (self.now(), chance());
        match error {
            None => self.budget.succeeded(now),
            Some(error) if error.kind == CloudErrorKind::Throttled => self.budget.throttled(now, chance),
            Some(_) => {}
        }
    }

    async fn deliver(&mut self, delivery: &Delivery) {
        let mut tries = 0;
        let result = loop {
            tries += 1;
            let result = self.config.spool.append(&delivery.key, &delivery.events, &std::collections::BTreeMap::new());
            match result {
                Err(error) if error.kind() == ErrorKind::WouldBlock && tries < APPEND_TRIES => {
                    tokio::time::sleep(APPEND_PAUSE).await;
                }
                result => break result,
            }
        };
        let now = self.now();
        match result {
            Ok(bytes) => {
                self.plan.delivered(delivery, now);
                if bytes > FEED_BYTES {
                    self.plan.block(&delivery.key, true);
                }
            }
            Err(error) => {
                // A driver that has just left has no feed any more. Whose it was is not for the log of the job that reads.
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(%error, "failed to pass on the log of another job of this host");
                }
                self.plan.undelivered(delivery, now);
            }
        }
    }
}

fn send(logs: Arc<dyn JobLogs>, call: Call) -> BoxFuture<'static, Reply> {
    Box::pin(async move {
        match call {
            Call::Filter { query, streams, since, token } => {
                Reply::Page { query, page: logs.filter(&streams, since, token.as_deref()).await }
            }
            Call::List { key, job } => Reply::Streams { streams: logs.streams(&job).await, key },
            Call::Newest { token } => Reply::Newest(logs.newest_streams(token.as_deref()).await),
        }
    })
}

/// Now, by the host's clock, which all drivers share.
fn epoch_ms(clock: &dyn Clock) -> u64 {
    let since = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
