//! Plan and budget against a simulated CloudWatch in virtual time: batches that become visible late and out of order,
//! pages that overlap, replies that take a while, a quota. Judges what drivers get: each event once, soon, and within
//! the budget.

mod account;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::cloud::{CloudErrorKind, FilterPage, LogEvent};
use crate::config::env::short_or_long;
use crate::logs::budget::{Grant, ReadBudget};
use crate::logs::plan::Plan;
use crate::logs::query::LogRequest;
use crate::logs::subscription::{FeedMode, Intervals, Subscription, VERSION};

/// The service's clock at the start, epoch milliseconds.
const EPOCH: u64 = 1_700_000_000_000;
const PAGE_EVENTS: usize = 5000;
const PAGE_BYTES: usize = 1 << 20;
const STEP_MS: u64 = 10;

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[derive(Clone)]
struct Event {
    /// Since the start, in milliseconds.
    written: u64,
    ingested: u64,
    visible: u64,
    id: u64,
}

struct Service {
    /// By stream, by time of writing.
    streams: BTreeMap<String, Vec<Event>>,
    message: String,
    dice: Dice,
    /// `FilterLogEvents` and `DescribeLogStreams` a second, each.
    quota: Option<f64>,
    /// Events a page at most.
    page: usize,
    /// One reply in so many is an error that passes, one delivery in so many fails.
    trouble: Option<u64>,
    tokens: f64,
    refilled: u64,
}

impl Service {
    /// `jobs` jobs that write `rate` lines a second from `from` to `to` seconds. The agent of the log sends a batch every
    /// 5 s, which takes 5 to 15 s to become visible; one batch in 50 takes 45 s.
    fn new(jobs: usize, rate: impl Fn(usize) -> u64, from: u64, to: u64) -> Self {
        let mut dice = Dice(7);
        let mut streams = BTreeMap::new();
        let mut id = 0;
        for job in 0..jobs {
            let phase = dice.below(5000);
            let mut events = Vec::new();
            let mut batch = (0, 0);
            let rate = rate(job);
            for line in 0..(to - from) * rate {
                let written = from * 1000 + line * 1000 / rate + dice.below(1000 / rate.min(1000) + 1);
                let sent = (written + phase) / 5000 * 5000 + 5000 - phase;
                if sent != batch.0 {
                    let late = if dice.below(50) == 0 { 45_000 } else { 5000 + dice.below(10_000) };
                    batch = (sent, sent + late);
                }
                id += 1;
                events.push(Event { written, ingested: sent, visible: batch.1, id });
            }
            events.sort_by_key(|event| (event.written, event.id));
            streams.insert(stream_of(job), events);
        }
        Self {
            streams,
            message: "x".repeat(80),
            dice,
            quota: None,
            page: PAGE_EVENTS,
            trouble: None,
            tokens: 0.0,
            refilled: 0,
        }
    }

    fn total(&self) -> usize {
        self.streams.values().map(Vec::len).sum()
    }

    fn is_throttled(&mut self, now: u64) -> bool {
        let Some(quota) = self.quota else { return false };
        let passed = Duration::from_millis(now - self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * quota).min(quota);
        self.refilled = now;
        if self.tokens < 1.0 {
            return true;
        }
        self.tokens -= 1.0;
        false
    }

    fn filter(&mut self, streams: &[String], since: u64, token: Option<&str>, now: u64) -> FilterPage {
        let since = since.saturating_sub(EPOCH);
        let after: (u64, u64) = token.map_or((0, 0), |token| {
            let (time, id) = token.split_once('/').unwrap();
            (time.parse().unwrap(), id.parse().unwrap())
        });
        let mut found: Vec<(&str, &Event)> = Vec::new();
        for stream in streams {
            let events = &self.streams[stream];
            let from = events.partition_point(|event| event.written < since || (event.written, event.id) <= after);
            found.extend(
                events[from..].iter().filter(|event| event.visible <= now).map(|event| (stream.as_str(), event)),
            );
        }
        found.sort_by_key(|(_, event)| (event.written, event.id));
        let fit = (PAGE_BYTES / (self.message.len() + 26)).min(self.page);
        let more = found.len() > fit;
        found.truncate(fit);
        let last = found.last().map(|(_, event)| (event.written, event.id));
        let mut events: Vec<LogEvent> = found
            .iter()
            .map(|(stream, event)| LogEvent {
                stream: (*stream).to_owned(),
                timestamp: EPOCH + event.written,
                id: format!("{:056}", event.id),
                message: self.message.clone(),
            })
            .collect();
        let ingested = found.iter().map(|(_, event)| EPOCH + event.ingested).max();
        if let Some(event) = events.last().cloned()
            && self.dice.below(4) == 0
        {
            events.push(event);
        }
        let token = last.filter(|_| more).map(|(time, id)| format!("{time}/{id}"));
        FilterPage { events, ingested, token }
    }

    /// Streams exist from the first batch on.
    fn exists(&self, stream: &str, now: u64) -> bool {
        self.streams.get(stream).and_then(|events| events.first()).is_some_and(|event| event.ingested <= now)
    }

    fn answer(&mut self, call: LogRequest, now: u64) -> Reply {
        let throttled = self.is_throttled(now) || self.trouble.is_some_and(|one_in| self.dice.below(one_in) == 0);
        match call {
            LogRequest::Filter { query, streams, since, token } => {
                assert!(!streams.is_empty() && streams.len() <= 100);
                Reply::Page(query, (!throttled).then(|| self.filter(&streams, since, token.as_deref(), now)))
            }
            LogRequest::List { key, job } => {
                let stream = format!("{job}/algo-1-17");
                let streams = if self.exists(&stream, now) { vec![stream] } else { Vec::new() };
                Reply::Streams(key, (!throttled).then_some(streams))
            }
            LogRequest::Newest { token } => {
                let from: usize = token.map_or(0, |token| token.parse().unwrap());
                let all: Vec<&String> = self.streams.keys().filter(|stream| self.exists(stream, now)).collect();
                let page: Vec<String> = all.iter().skip(from).take(50).map(|stream| (*stream).clone()).collect();
                let token = (from + page.len() < all.len()).then(|| (from + page.len()).to_string());
                Reply::Newest((!throttled).then_some((page, token)))
            }
        }
    }
}

fn job_of(job: usize) -> String {
    format!("job-{job:04}")
}

fn stream_of(job: usize) -> String {
    format!("{}/algo-1-17", job_of(job))
}

fn subscription(job: usize, mode: FeedMode) -> Subscription {
    Subscription {
        version: VERSION,
        job: job_of(job),
        nodes: 1,
        floors: BTreeMap::new(),
        mode,
        started: true,
        urgent: false,
        again: None,
    }
}

enum Reply {
    Page(u64, Option<FilterPage>),
    Streams(String, Option<Vec<String>>),
    Newest(Option<(Vec<String>, Option<String>)>),
}

struct Line {
    job: usize,
    /// When it could be read, in milliseconds.
    visible: u64,
}

/// The result of a run.
#[derive(Default)]
struct Outcome {
    /// How often each event was delivered.
    counts: BTreeMap<u64, u32>,
    /// From visible to delivered, in milliseconds, by line.
    delays: Vec<(Line, u64)>,
    /// When requests were sent, in milliseconds.
    reads: Vec<u64>,
    lists: Vec<u64>,
    throttled: usize,
}

impl Outcome {
    fn percentile(&self, share: usize, of: impl Fn(&Line) -> bool) -> u64 {
        let mut delays: Vec<u64> = self.delays.iter().filter(|(line, _)| of(line)).map(|(_, delay)| *delay).collect();
        delays.sort_unstable();
        delays[(delays.len() - 1) * share / 100]
    }

    fn requests(&self) -> Vec<u64> {
        let mut all = [self.reads.clone(), self.lists.clone()].concat();
        all.sort_unstable();
        all
    }

    /// The most requests in any `seconds`.
    fn most_in(&self, seconds: u64) -> usize {
        let all = self.requests();
        let count = |from: &u64| all.iter().filter(|at| (*from..*from + seconds * 1000).contains(*at)).count();
        all.iter().map(count).max().unwrap_or(0)
    }
}

/// Runs `jobs` drivers of this mode for `seconds`. `change` may intervene each second.
fn run(
    service: &mut Service,
    ceiling: f64,
    seconds: u64,
    subscriptions: &[Subscription],
    mut change: impl FnMut(u64, &mut Plan),
) -> Outcome {
    let mut plan = Plan::new(&Intervals::default(), false);
    let mut budget = ReadBudget::new(ceiling, Duration::ZERO);
    for subscription in subscriptions {
        plan.subscribe(&subscription.job, subscription.clone(), &BTreeMap::new(), Duration::ZERO);
    }
    let visible: BTreeMap<u64, u64> =
        service.streams.values().flatten().map(|event| (event.id, event.visible)).collect();
    let mut in_flight: VecDeque<(u64, Reply)> = VecDeque::new();
    let mut outcome = Outcome::default();
    let mut at = 0;
    while at < seconds * 1000 {
        let now = Duration::from_millis(at);
        if at % 1000 == 0 {
            change(at / 1000, &mut plan);
            for key in plan.blocked() {
                plan.block(&key, false);
            }
        }
        while let Some(index) = in_flight.iter().position(|(due, _)| *due <= at) {
            let (_, reply) = in_flight.remove(index).unwrap();
            let fine = match reply {
                Reply::Page(query, Some(page)) => {
                    for delivery in plan.sort(query, page.events) {
                        if service.trouble.is_some_and(|one_in| service.dice.below(one_in) == 0) {
                            plan.undelivered(&delivery, now);
                            continue;
                        }
                        for event in &delivery.events {
                            let id: u64 = event.id.parse().unwrap();
                            let job: usize = delivery.key[4..].parse().unwrap();
                            assert_eq!(event.stream, stream_of(job));
                            *outcome.counts.entry(id).or_default() += 1;
                            outcome.delays.push((Line { job, visible: visible[&id] }, at - visible[&id]));
                        }
                        plan.delivered(&delivery, now);
                    }
                    plan.answered(query, page.ingested, page.token, now);
                    true
                }
                Reply::Page(query, None) => {
                    plan.failed(query, CloudErrorKind::Throttled, 0.5, now);
                    false
                }
                Reply::Streams(key, Some(streams)) => {
                    plan.listed(&key, &streams, now);
                    true
                }
                Reply::Streams(key, None) => {
                    plan.not_listed(&key, CloudErrorKind::Throttled, 0.5, now);
                    false
                }
                Reply::Newest(Some((streams, token))) => {
                    plan.discovered(&streams, token, now);
                    true
                }
                Reply::Newest(None) => {
                    plan.not_discovered(CloudErrorKind::Throttled, 0.5, now);
                    false
                }
            };
            if fine {
                budget.succeeded(now);
            } else {
                outcome.throttled += 1;
                budget.throttled(now, 0.5);
            }
        }
        while in_flight.len() < 3 && plan.due().is_some_and(|due| due <= now) {
            let grant = budget.grant(now);
            if grant == Grant::Nothing {
                break;
            }
            let Some(call) = plan.next(grant, now) else { break };
            budget.spend();
            match call {
                LogRequest::Filter { .. } => outcome.reads.push(at),
                LogRequest::List { .. } | LogRequest::Newest { .. } => outcome.lists.push(at),
            }
            let reply = service.answer(call, at);
            in_flight.push_back((at + 120 + service.dice.below(200), reply));
        }
        // Nothing happens before the next reply, request or second.
        let due = plan
            .due()
            .filter(|_| in_flight.len() < 3)
            .map_or(u64::MAX, |due| u64::try_from(due.as_millis()).unwrap() + 1);
        let reply = in_flight.iter().map(|(due, _)| *due).min().unwrap_or(u64::MAX);
        at = due.max(at + STEP_MS).min(reply.max(at + 1)).min(at / 1000 * 1000 + 1000);
    }
    outcome
}

fn subscriptions(jobs: usize, mode: FeedMode) -> Vec<Subscription> {
    (0..jobs).map(|job| subscription(job, mode)).collect()
}

fn assert_each_once(service: &Service, outcome: &Outcome) {
    let twice = outcome.counts.values().filter(|count| **count > 1).count();
    let lost: BTreeMap<&str, usize> = service
        .streams
        .iter()
        .map(|(name, events)| {
            (name.as_str(), events.iter().filter(|event| !outcome.counts.contains_key(&event.id)).count())
        })
        .filter(|(_, lost)| *lost > 0)
        .collect();
    assert_eq!((lost, twice), (BTreeMap::new(), 0), "lost by stream, and events that came twice");
}

#[test]
fn hundreds_of_jobs_get_each_line_once_and_soon_within_the_budget() {
    let jobs = short_or_long(120, 500);
    let mut service = Service::new(jobs, |_| 1, 0, 45);
    let outcome = run(&mut service, 5.0, 125, &subscriptions(jobs, FeedMode::Live), |_, _| {});
    let p50 = outcome.percentile(50, |_| true);
    assert_each_once(&service, &outcome);
    assert!(p50 <= 2000, "{p50}");
    assert!(outcome.most_in(1) <= 8 && outcome.most_in(10) <= 53);
}

#[test]
fn a_throttling_account_slows_the_reader_and_loses_nothing() {
    let jobs = short_or_long(60, 300);
    let mut service = Service::new(jobs, |_| 1, 0, 60);
    service.quota = Some(2.0);
    let outcome = run(&mut service, 5.0, 240, &subscriptions(jobs, FeedMode::Live), |_, _| {});
    assert_each_once(&service, &outcome);
    let all = outcome.requests().len();
    assert!(outcome.throttled * 4 < all, "{} of {all}", outcome.throttled);
}

#[test]
fn a_heavy_stream_does_not_starve_the_others() {
    let seconds = short_or_long(12, 40);
    let mut service = Service::new(100, |job| if job == 0 { 1200 } else { 1 }, 0, seconds);
    let outcome = run(&mut service, 5.0, seconds + 70, &subscriptions(100, FeedMode::Live), |_, _| {});
    assert_each_once(&service, &outcome);
    let p50 = outcome.percentile(50, |line| line.job > 0);
    assert!(p50 <= 2500, "{p50}");
}

#[test]
fn jobs_that_end_are_read_first() {
    // The jobs with a stream need more than this budget allows, so that others wait; more jobs have no stream yet.
    let (jobs, ceiling, all) = short_or_long((110, 0.4, 120), (200, 0.6, 500));
    let mut service = Service::new(jobs, |_| 1, 0, 50);
    let outcome = run(&mut service, ceiling, 240, &subscriptions(all, FeedMode::Live), |second, plan| {
        if second == 30 {
            for job in 0..20 {
                let subscription = Subscription { urgent: true, ..subscription(job, FeedMode::Live) };
                plan.subscribe(&subscription.job.clone(), subscription, &BTreeMap::new(), Duration::from_secs(second));
            }
        }
    });
    assert_each_once(&service, &outcome);
    let since = |urgent: bool| move |line: &Line| line.visible > 40_000 && (line.job < 20) == urgent;
    let (urgent, others) = (outcome.percentile(50, since(true)), outcome.percentile(50, since(false)));
    assert!(urgent < others, "{urgent} and {others}");
}

#[test]
fn quiet_jobs_cost_little() {
    let mut service = Service::new(100, |_| 1, 0, 1);
    let outcome = run(&mut service, 5.0, 3600, &subscriptions(100, FeedMode::Record), |_, _| {});
    assert_each_once(&service, &outcome);
    let reads = outcome.reads.len();
    let lists = outcome.lists.len();
    assert!(reads <= 400 && lists <= 1000, "{reads} reads, {lists} lists");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: short_or_long(3, 12), rng_seed: RngSeed::Fixed(12), ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_or_doubled_whatever_fails(
        seed in any::<u64>(), jobs in 1usize..6, rate in 1u64..20, page in 5usize..40, trouble in 10u64..40,
    ) {
        let mut service = Service::new(jobs, |_| rate, 0, 8);
        service.dice = Dice(seed);
        (service.page, service.trouble) = (page, Some(trouble));
        let outcome = run(&mut service, 50.0, 1500, &subscriptions(jobs, FeedMode::Live), |_, _| {});
        let twice = outcome.counts.values().filter(|count| **count > 1).count();
        prop_assert_eq!((outcome.counts.len(), twice), (service.total(), 0));
    }
}
