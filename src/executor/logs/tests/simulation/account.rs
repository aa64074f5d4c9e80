//! Several hosts that read the logs of one account, in virtual time: each with its own plan and budget, all under the account's quotas.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::{Dice, Reply, STEP_MS, Service, subscription};
use crate::cloud::CloudErrorKind;
use crate::config::env::Environment;
use crate::logs::budget::{Grant, ReadBudget};
use crate::logs::plan::Plan;
use crate::logs::query::LogRequest;
use crate::logs::subscription::{FeedMode, Intervals};

/// The default of `trace.log_requests_per_second`: the rate that each host may reach by itself.
const CEILING: f64 = 5.0;
/// `FilterLogEvents` a second in most regions, and `DescribeLogStreams` (CloudWatch Logs quotas, defaults of an account and region).
const FILTERS: f64 = 10.0;
const LISTS: f64 = 25.0;
const IN_FLIGHT: usize = 3;

/// A token bucket of the account.
struct Quota {
    rate: f64,
    tokens: f64,
    refilled: u64,
}

impl Quota {
    fn new(rate: f64) -> Self {
        Self { rate, tokens: rate, refilled: 0 }
    }

    fn admits(&mut self, now: u64) -> bool {
        let passed = Duration::from_millis(now - self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate);
        self.refilled = now;
        let admits = self.tokens >= 1.0;
        self.tokens -= if admits { 1.0 } else { 0.0 };
        admits
    }
}

struct Host {
    plan: Plan,
    budget: ReadBudget,
    in_flight: Vec<(u64, Reply)>,
}

/// The lines that the jobs of all hosts got, and the requests for them.
#[derive(Default)]
struct Seen {
    counts: BTreeMap<u64, u32>,
    /// From visible to delivered, in milliseconds, and the longest of each job.
    delays: Vec<u64>,
    longest: BTreeMap<usize, u64>,
    requests: usize,
    throttled: usize,
}

impl Seen {
    fn percentile(&mut self, share: usize) -> f64 {
        self.delays.sort_unstable();
        let index = (self.delays.len() - 1) * share / 100;
        Duration::from_millis(self.delays[index]).as_secs_f64()
    }
}

struct Account {
    service: Service,
    visible: BTreeMap<u64, u64>,
    filters: Quota,
    lists: Quota,
    dice: Dice,
    seen: Seen,
}

impl Account {
    fn answer(&mut self, call: LogRequest, now: u64) -> Reply {
        self.seen.requests += 1;
        let admits = match call {
            LogRequest::Filter { .. } => self.filters.admits(now),
            LogRequest::List { .. } | LogRequest::Newest { .. } => self.lists.admits(now),
        };
        if admits {
            return self.service.answer(call, now);
        }
        self.seen.throttled += 1;
        match call {
            LogRequest::Filter { query, .. } => Reply::Page(query, None),
            LogRequest::List { key, .. } => Reply::Streams(key, None),
            LogRequest::Newest { .. } => Reply::Newest(None),
        }
    }

    /// Takes the replies that are due, sends what may be sent, and returns when the host acts next.
    fn turn(&mut self, host: &mut Host, at: u64) -> u64 {
        let now = Duration::from_millis(at);
        for key in host.plan.blocked() {
            host.plan.block(&key, false);
        }
        while let Some(index) = host.in_flight.iter().position(|(due, _)| *due <= at) {
            let (_, reply) = host.in_flight.swap_remove(index);
            self.take(host, reply, at);
        }
        while host.in_flight.len() < IN_FLIGHT && host.plan.due().is_some_and(|due| due <= now) {
            let grant = host.budget.grant(now);
            let Some(call) = host.plan.next(grant, now).filter(|_| grant != Grant::Nothing) else { break };
            host.budget.spend();
            let reply = self.answer(call, at);
            host.in_flight.push((at + 120 + self.dice.below(200), reply));
        }
        let due = host.plan.due().filter(|_| host.in_flight.len() < IN_FLIGHT);
        let due = due.map_or(u64::MAX, |due| u64::try_from(due.as_millis()).unwrap() + 1);
        let reply = host.in_flight.iter().map(|(due, _)| *due).min().unwrap_or(u64::MAX);
        due.max(at + STEP_MS * 5).min(reply.max(at + 1)).min(at + 1000)
    }

    fn take(&mut self, host: &mut Host, reply: Reply, at: u64) {
        let (now, chance) = (Duration::from_millis(at), Duration::from_millis(self.dice.below(1000)).as_secs_f64());
        let throttled = CloudErrorKind::Throttled;
        let fine = match reply {
            Reply::Page(query, Some(page)) => {
                for delivery in host.plan.sort(query, page.events) {
                    let job: usize = delivery.key[4..].parse().unwrap();
                    for event in &delivery.events {
                        let id: u64 = event.id.parse().unwrap();
                        let delay = at - self.visible[&id];
                        *self.seen.counts.entry(id).or_default() += 1;
                        self.seen.delays.push(delay);
                        let longest = self.seen.longest.entry(job).or_default();
                        *longest = delay.max(*longest);
                    }
                    host.plan.delivered(&delivery, now);
                }
                host.plan.answered(query, page.ingested, page.token, now);
                true
            }
            Reply::Streams(key, Some(streams)) => {
                host.plan.listed(&key, &streams, now);
                true
            }
            Reply::Newest(Some((streams, token))) => {
                host.plan.discovered(&streams, token, now);
                true
            }
            Reply::Page(query, None) => {
                host.plan.failed(query, throttled, chance, now);
                false
            }
            Reply::Streams(key, None) => {
                host.plan.not_listed(&key, throttled, chance, now);
                false
            }
            Reply::Newest(None) => {
                host.plan.not_discovered(throttled, chance, now);
                false
            }
        };
        if fine { host.budget.succeeded(now) } else { host.budget.throttled(now, chance) }
    }
}

/// `hosts` hosts with `jobs` jobs each, which write a line a second for `writes` seconds. Ends when every line has come, or after
/// `limit` seconds.
fn play(hosts: usize, jobs: usize, mode: FeedMode, writes: u64, limit: u64) -> (Seen, usize) {
    let service = Service::new(hosts * jobs, |_| 1, 0, writes);
    let visible = service.streams.values().flatten().map(|event| (event.id, event.visible)).collect();
    let total = service.total();
    let (filters, lists) = (Quota::new(FILTERS), Quota::new(LISTS));
    let mut account = Account { service, visible, filters, lists, dice: Dice(11), seen: Seen::default() };
    let mut all: Vec<Host> = (0..hosts)
        .map(|host| {
            let mut plan = Plan::new(&Intervals::default(), false);
            for job in host * jobs..(host + 1) * jobs {
                let subscription = subscription(job, mode);
                plan.subscribe(&subscription.job.clone(), subscription, &BTreeMap::new(), Duration::ZERO);
            }
            Host { plan, budget: ReadBudget::new(CEILING, Duration::ZERO), in_flight: Vec::new() }
        })
        .collect();
    let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
        (0..hosts).map(|host| Reverse((host as u64 * 37, host))).collect();
    while let Some(Reverse((at, index))) = turns.pop() {
        if at > limit * 1000 || account.seen.counts.len() == total {
            break;
        }
        let next = account.turn(&mut all[index], at);
        turns.push(Reverse((next, index)));
    }
    (account.seen, total)
}

/// The size of the account: `ACCOUNT=20x500` for 20 hosts with 500 jobs each.
fn size() -> (usize, usize) {
    let wanted = Environment::of_process().get("ACCOUNT").map(str::to_owned);
    let wanted = wanted.as_deref().and_then(|text| text.split_once('x'));
    wanted.map_or((2, 50), |(hosts, jobs)| (hosts.parse().unwrap(), jobs.parse().unwrap()))
}

/// No job is starved: each gets each of its lines once, and none waits for long when the quota suffices on average.
#[test]
fn hosts_of_one_account_share_its_quotas() {
    let (hosts, jobs) = size();
    println!(
        "| Hosts | Jobs | Mode | p50 | p99 | Longest | Requests | Throttled |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for mode in [FeedMode::Record, FeedMode::Live] {
        let (mut seen, total) = play(hosts, jobs, mode, 40, 3600);
        let twice = seen.counts.values().filter(|count| **count > 1).count();
        let (p50, p99, longest) = (seen.percentile(50), seen.percentile(99), seen.percentile(100));
        let (requests, throttled) = (seen.requests, seen.throttled);
        println!(
            "| {hosts} | {} | {mode:?} | {p50:.0} s | {p99:.0} s | {longest:.0} s | {requests} | {throttled} |",
            hosts * jobs
        );
        assert_eq!((seen.counts.len(), twice), (total, 0), "lines that came, and lines that came twice");
        assert_eq!(seen.longest.len(), hosts * jobs, "jobs that got something");
        // One pass over all streams takes this long at the account's rate. Before the first, the streams of all jobs are found, which begin
        // at once here; a list of a job that has written nothing yet is asked for again.
        let jobs = f64::from(u32::try_from(hosts * jobs).unwrap());
        let (pass, found) = (jobs / 100.0 / FILTERS, jobs / LISTS);
        let most = 60.0 + 40.0 * pass + 3.0 * found;
        assert!(longest <= most, "{longest} s with passes of {pass} s, and {found} s to find all streams");
    }
}
