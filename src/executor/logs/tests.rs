//! Tests of feeds, reader threads and files over fakes, with several drivers of one host in this process. Intervals are a twentieth of
//! the real ones; every wait is for a condition, with a deadline.

mod shared_dir;
mod simulation;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;

use super::*;
use crate::base::clock::HostClock;
use crate::cloud::testing::{Fault, Memory, MemoryLogs, When};
use crate::cloud::{CloudError, CloudErrorKind, FilterPage, JobLogs, StreamPage};

const DEADLINE: Duration = Duration::from_mins(1);

struct Host {
    dir: tempfile::TempDir,
    logs: Arc<MemoryLogs>,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), logs: Memory::new().logs }
    }

    fn config(&self, job: &str) -> FeedConfig {
        FeedConfig {
            dir: self.dir.path().to_owned(),
            scope: "eu-west-1".to_owned(),
            job: job.to_owned(),
            nodes: 1,
            floors: BTreeMap::new(),
            mode: FeedMode::Live,
            requests_per_second: 100.0,
            clock: Arc::new(HostClock),
        }
    }

    fn join(&self, job: &str) -> Feed {
        self.join_over(job, self.logs.clone())
    }

    fn join_over(&self, job: &str, logs: Arc<dyn JobLogs>) -> Feed {
        Feed::join_at(self.config(job), connect(logs), &Intervals::fast()).unwrap()
    }

    /// Files of the shared directory.
    fn files(&self) -> Vec<String> {
        let shared = fs::read_dir(self.dir.path().join("logs")).unwrap().next().unwrap().unwrap().path();
        fs::read_dir(shared).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn connect(logs: Arc<dyn JobLogs>) -> LogClient {
    Arc::new(move || {
        let logs = Arc::clone(&logs);
        Box::pin(async move { Ok(logs) })
    })
}

fn feed_file(feed: &Feed) -> PathBuf {
    feed.shared_file("feed")
}

/// Calls `done` until it returns true.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Takes events until there are `number` messages, and once more.
async fn take(feed: &mut Feed, number: usize) -> Vec<String> {
    let mut messages = Vec::new();
    until("messages are missing", || {
        messages.extend(feed.take().unwrap().into_iter().map(|event| event.message));
        messages.len() >= number
    })
    .await;
    messages.extend(feed.take().unwrap().into_iter().map(|event| event.message));
    messages
}

#[tokio::test]
async fn each_driver_gets_the_lines_of_its_job() {
    let host = Host::new();
    let (mut a, mut b) = (host.join("a"), host.join("b"));
    host.logs.push("a/algo-1-1", "a1");
    host.logs.push("b/algo-1-1", "b1");
    assert_eq!(take(&mut a, 1).await, ["a1"]);
    assert_eq!(take(&mut b, 1).await, ["b1"]);
    host.logs.push("b/algo-1-1", "b2");
    host.logs.push("a/algo-1-1", "a2");
    assert_eq!(take(&mut b, 1).await, ["b2"]);
    assert_eq!(take(&mut a, 1).await, ["a2"]);
    assert!(b.worker.is_none(), "two readers");
    assert_eq!(a.floors(), &BTreeMap::from([("a/algo-1-1".to_owned(), 4)]));
    assert_eq!((a.unserved(), a.trouble()), (None, None));
    // Both streams are read with one request.
    assert!(host.logs.calls().iter().any(|call| call.starts_with("filter a/algo-1-1,b/algo-1-1 ")));
}

#[tokio::test]
async fn another_driver_reads_on_when_the_reader_leaves() {
    let host = Host::new();
    let (mut a, mut b) = (host.join("a"), host.join("b"));
    host.logs.push("b/algo-1-1", "before");
    take(&mut a, 0).await;
    assert_eq!(take(&mut b, 1).await, ["before"]);
    drop(a);
    host.logs.push("b/algo-1-1", "after");
    assert_eq!(take(&mut b, 1).await, ["after"]);
    assert!(matches!(b.worker, Some((Role::Elected, _))));
    assert!(!host.files().iter().any(|name| name.starts_with("a@")), "{:?}", host.files());
    drop(b);
    let mut left = host.files();
    left.sort();
    assert_eq!(left, ["reader.lock", "reader.state"]);
}

#[tokio::test]
async fn another_driver_reads_on_when_the_reader_is_killed() {
    let host = Host::new();
    let (mut a, mut b) = (host.join("a"), host.join("b"));
    host.logs.push("b/algo-1-1", "before");
    take(&mut a, 0).await;
    assert_eq!(take(&mut b, 1).await, ["before"]);
    a.kill();
    host.logs.push("b/algo-1-1", "after");
    assert_eq!(take(&mut b, 1).await, ["after"]);
    let dead = || host.files().iter().any(|name| name.starts_with("a@"));
    until("the killed driver's files stay", || {
        b.take().unwrap();
        !dead()
    })
    .await;
    // The second reader does not deliver again what was taken.
    host.logs.push("b/algo-1-1", "last");
    assert_eq!(take(&mut b, 1).await, ["last"]);
}

/// The reader was killed while it wrote: half a line stays, and its events are read again.
#[tokio::test]
async fn half_a_line_is_noticed_and_read_again() {
    let host = Host::new();
    let (mut a, mut b) = (host.join("a"), host.join("b"));
    take(&mut a, 0).await;
    host.logs.push("b/algo-1-1", "first");
    assert_eq!(take(&mut b, 1).await, ["first"]);
    host.logs.push("b/algo-1-1", "second");
    let file = feed_file(&b);
    until("nothing is written", || fs::metadata(&file).unwrap().len() > 0).await;
    a.kill();
    let length = fs::metadata(&file).unwrap().len();
    OpenOptions::new().write(true).open(&file).unwrap().set_len(length - 5).unwrap();
    host.logs.push("b/algo-1-1", "third");
    let mut messages = take(&mut b, 2).await;
    messages.sort();
    assert_eq!(messages, ["second", "third"]);
}

/// The next reader appends after the half line, before the driver has read it.
#[tokio::test]
async fn a_line_behind_half_a_line_is_whole() {
    let host = Host::new();
    let mut a = host.join("a");
    let file = feed_file(&a);
    OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"event\":{\"stream\":\"a/al").unwrap();
    host.logs.push("a/algo-1-1", "whole");
    a.elect(Instant::now()).unwrap();
    until("nothing is written", || fs::metadata(&file).unwrap().len() > 60).await;
    let taken = a.guard.take().unwrap();
    assert!(taken.torn);
    assert_eq!(a.admit(taken).len(), 1);
}

#[tokio::test]
async fn a_stream_that_vanished_does_not_starve_the_others() {
    let host = Host::new();
    let mut feeds: Vec<Feed> = (0..5).map(|job| host.join(&format!("j{job}"))).collect();
    let mut config = host.config("old");
    config.floors.insert("old/algo-1-1".to_owned(), 1);
    let mut old = Feed::join_at(config, connect(host.logs.clone()), &Intervals::fast()).unwrap();
    for job in 0..5 {
        host.logs.push(&format!("j{job}/algo-1-1"), format!("m{job}"));
    }
    take(&mut old, 0).await;
    for (job, feed) in feeds.iter_mut().enumerate() {
        assert_eq!(take(feed, 1).await, [format!("m{job}")]);
    }
    host.logs.push("old/algo-1-1", "back");
    assert_eq!(take(&mut old, 1).await, ["back"]);
    assert_eq!(old.trouble(), None);
}

#[tokio::test]
async fn throttled_requests_are_made_again() {
    let host = Host::new();
    let fault = |method, kind| Fault::new(method, 1, When::Before, kind).times(2);
    let plan = [
        fault("streams", CloudErrorKind::Throttled),
        fault("filter", CloudErrorKind::Throttled),
        Fault::new("filter", 3, When::After, CloudErrorKind::Transient),
    ];
    host.logs.plan(plan);
    let mut a = host.join("a");
    host.logs.push("a/algo-1-1", "x");
    assert_eq!(take(&mut a, 1).await, ["x"]);
    assert!(host.logs.count("filter") >= 4);
    assert_eq!(a.trouble(), None);
}

#[tokio::test]
async fn a_refusal_reaches_people_once_and_passes() {
    let host = Host::new();
    let plan = [Fault::new("filter", 1, When::Before, CloudErrorKind::Denied).times(2)];
    host.logs.plan(plan);
    let (mut a, mut b) = (host.join("a"), host.join("b"));
    host.logs.push("a/algo-1-1", "x");
    let (mut told_a, mut told_b) = (Vec::new(), Vec::new());
    let mut unserved = false;
    until("nobody is told", || {
        assert!(a.take().unwrap().is_empty() && b.take().unwrap().is_empty());
        told_a.extend(a.trouble());
        told_b.extend(b.trouble());
        unserved |= b.unserved().is_some();
        unserved && !told_a.is_empty() && !told_b.is_empty()
    })
    .await;
    assert_eq!(told_a, ["failed to filter a/algo-1-1: planned fault in call 1"]);
    assert_eq!(told_b, told_a);
    assert_eq!(take(&mut a, 1).await, ["x"]);
    until("the trouble stays", || {
        b.take().unwrap();
        b.unserved().is_none()
    })
    .await;
}

#[tokio::test]
async fn a_client_that_cannot_be_made_is_tried_again() {
    let host = Host::new();
    host.logs.push("a/algo-1-1", "x");
    let tries = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let logs = host.logs.clone();
    let connect: LogClient = Arc::new(move || {
        let first = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        let logs: Arc<dyn JobLogs> = logs.clone();
        Box::pin(async move { if first { Err(anyhow::anyhow!("no AWS region is known")) } else { Ok(logs) } })
    });
    let mut a = Feed::join_at(host.config("a"), connect, &Intervals::fast()).unwrap();
    let mut told = None;
    until("nobody is told", || {
        assert!(told.is_some() || a.take().unwrap().is_empty());
        told = told.take().or_else(|| a.trouble());
        told.is_some()
    })
    .await;
    assert_eq!(told.as_deref(), Some("no AWS region is known"));
    assert_eq!(take(&mut a, 1).await, ["x"]);
}

#[tokio::test]
async fn scopes_do_not_mix() {
    let (here, there) = (Host::new(), Host::new());
    let config = FeedConfig { scope: "us-east-1".to_owned(), ..here.config("a") };
    let mut elsewhere = Feed::join_at(config, connect(there.logs.clone()), &Intervals::fast()).unwrap();
    let mut a = here.join("a");
    here.logs.push("a/algo-1-1", "here");
    there.logs.push("a/algo-1-1", "there");
    assert_eq!(take(&mut a, 1).await, ["here"]);
    assert_eq!(take(&mut elsewhere, 1).await, ["there"]);
    assert!(a.worker.is_some() && elsewhere.worker.is_some());
}

#[tokio::test]
async fn a_driver_that_does_not_take_is_not_read_for() {
    let host = Host::new();
    let (mut a, mut b) = (host.join("a"), host.join("b"));
    host.logs.set_page(1);
    let message = "x".repeat(1 << 20);
    for _ in 0..24 {
        host.logs.push("b/algo-1-1", message.clone());
    }
    host.logs.push("a/algo-1-1", "a1");
    let file = feed_file(&b);
    assert_eq!(take(&mut a, 1).await, ["a1"]);
    until("the feed is not filled", || {
        a.take().unwrap();
        fs::metadata(&file).unwrap().len() > crate::logs::shared_dir::FEED_BYTES
    })
    .await;
    // The other driver is still served, while more pages of the first one could be read.
    for number in 0..10 {
        host.logs.push("a/algo-1-1", number.to_string());
        assert_eq!(take(&mut a, 1).await, [number.to_string()]);
    }
    assert!(fs::metadata(&file).unwrap().len() < crate::logs::shared_dir::FEED_BYTES + (4 << 20));
    let taken = take(&mut b, 24).await;
    assert_eq!((taken.len(), taken.iter().all(|taken| *taken == message)), (24, true));
    until("the feed is not emptied", || {
        assert!(b.take().unwrap().is_empty());
        fs::metadata(&file).unwrap().len() == 0
    })
    .await;
}

#[tokio::test]
async fn beside_a_reader_that_hangs_a_driver_reads_for_itself() {
    let host = Host::new();
    let intervals = Intervals { hung: Duration::from_millis(50), ..Intervals::fast() };
    let mut a = Feed::join_at(host.config("a"), connect(host.logs.clone()), &intervals).unwrap();
    let lock = a.shared.try_lead().unwrap().unwrap();
    host.logs.push("a/algo-1-1", "x");
    assert_eq!(take(&mut a, 1).await, ["x"]);
    assert!(matches!(a.worker, Some((Role::Alone, _))));
    drop(lock);
    until("nobody is elected", || {
        a.take().unwrap();
        matches!(a.worker, Some((Role::Elected, _)))
    })
    .await;
    host.logs.push("a/algo-1-1", "y");
    assert_eq!(take(&mut a, 1).await, ["y"]);
}

#[tokio::test]
async fn a_gap_is_read_again_and_nothing_comes_twice() {
    let host = Host::new();
    let mut a = host.join("a");
    host.logs.push_at("a/algo-1-1", 1_000_000, "early");
    host.logs.push_at("a/algo-1-1", 2_000_000, "now");
    assert_eq!(take(&mut a, 2).await, ["early", "now"]);
    // So late that no deep read finds it.
    host.logs.push_at("a/algo-1-1", 1_500_000, "late");
    host.logs.push_at("a/algo-1-1", 2_000_001, "next");
    assert_eq!(take(&mut a, 1).await, ["next"]);
    a.read_again(1_200_000);
    assert_eq!(take(&mut a, 1).await, ["late"]);
    let asked = || host.logs.calls().iter().filter(|call| *call == "filter a/algo-1-1 1200000").count();
    host.logs.push_at("a/algo-1-1", 2_000_002, "last");
    assert_eq!(take(&mut a, 1).await, ["last"]);
    assert_eq!(asked(), 1);
}

#[tokio::test]
async fn the_next_process_begins_where_the_last_one_was() {
    let host = Host::new();
    let mut a = host.join("a");
    for time in [100_000, 200_000, 300_000] {
        host.logs.push_at("a/algo-1-1", time, time.to_string());
    }
    take(&mut a, 3).await;
    let floors = a.floors().clone();
    assert_eq!(floors["a/algo-1-1"], 300_000);
    a.kill();
    host.logs.push_at("a/algo-1-1", 400_000, "400000");
    let config = FeedConfig { floors, ..host.config("a") };
    let mut again = Feed::join_at(config, connect(host.logs.clone()), &Intervals::fast()).unwrap();
    // An event with exactly the floor's time may be known or not.
    assert_eq!(take(&mut again, 2).await, ["300000", "400000"]);
}

#[tokio::test]
async fn a_stage_that_has_ended_is_read_for_at_once() {
    let host = Host::new();
    let mut config = host.config("a");
    config.mode = FeedMode::Record;
    let hour = Duration::from_hours(1);
    let record = super::subscription::Pause { shortest: hour, longest: hour };
    let intervals = Intervals { record, ..Intervals::fast() };
    let mut a = Feed::join_at(config, connect(host.logs.clone()), &intervals).unwrap();
    host.logs.push("a/algo-1-1", "x");
    assert_eq!(take(&mut a, 1).await, ["x"]);
    // The next ordinary read is an hour away.
    host.logs.push("a/algo-1-1", "last");
    a.hurry();
    assert_eq!(take(&mut a, 1).await, ["last"]);
}

/// Requests that are never answered.
struct Silence;

#[async_trait]
impl JobLogs for Silence {
    async fn streams(&self, _: &str) -> Result<Vec<String>, CloudError> {
        std::future::pending().await
    }

    async fn filter(&self, _: &[String], _: u64, _: Option<&str>) -> Result<FilterPage, CloudError> {
        std::future::pending().await
    }

    async fn newest_streams(&self, _: Option<&str>) -> Result<StreamPage, CloudError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_reader_that_waits_for_a_reply_still_leaves() {
    let host = Host::new();
    let mut a = host.join_over("a", Arc::new(Silence));
    let mut b = host.join("b");
    take(&mut a, 0).await;
    host.logs.push("b/algo-1-1", "x");
    drop(a);
    assert_eq!(take(&mut b, 1).await, ["x"]);
}

#[tokio::test]
async fn a_directory_that_was_cleaned_is_made_again() {
    let host = Host::new();
    let mut a = host.join("a");
    host.logs.push("a/algo-1-1", "x");
    assert_eq!(take(&mut a, 1).await, ["x"]);
    for extension in ["json", "alive", "feed", "floors"] {
        let _ = fs::remove_file(a.shared_file(extension));
    }
    host.logs.push("a/algo-1-1", "y");
    assert_eq!(take(&mut a, 1).await, ["y"]);
}

#[test]
fn a_job_cannot_leave_the_directory() {
    let host = Host::new();
    for job in ["", "../a", "a/b", "a.json"] {
        assert!(Feed::join(host.config(job), connect(host.logs.clone())).is_err(), "{job}");
    }
}
