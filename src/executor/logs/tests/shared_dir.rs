//! Tests of the shared directory: pieces, locks, damage, and the removal of dead drivers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use crate::cloud::LogEvent;
use crate::logs::shared_dir::{SharedDir, SubscriptionGuard, Subscriptions, Taken};
use crate::logs::subscription::{FeedMode, Subscription, VERSION};

fn shared() -> (tempfile::TempDir, SharedDir) {
    let dir = tempfile::tempdir().unwrap();
    let shared = SharedDir::open(dir.path(), "scope").unwrap();
    (dir, shared)
}

fn subscription() -> Subscription {
    Subscription {
        version: VERSION,
        job: "job".to_owned(),
        nodes: 1,
        floors: BTreeMap::new(),
        mode: FeedMode::Live,
        started: false,
        urgent: false,
        again: None,
    }
}

fn event(timestamp: u64, message: String) -> LogEvent {
    LogEvent { stream: "job/algo-1-1".to_owned(), timestamp, id: timestamp.to_string(), message }
}

fn take_all(guard: &mut SubscriptionGuard) -> Vec<LogEvent> {
    let mut events = Vec::new();
    loop {
        let taken = guard.take().unwrap();
        assert!(!taken.torn && !taken.lost);
        if taken.events.is_empty() {
            return events;
        }
        events.extend(taken.events);
    }
}

#[test]
fn a_feed_is_taken_in_pieces_and_emptied() {
    let (_dir, shared) = shared();
    let mut guard = shared.subscribe(&subscription()).unwrap();
    // One line is longer than a piece, others cross its end.
    let events: Vec<LogEvent> = (0..300)
        .map(|time| event(time, if time == 7 { "\u{1b}".repeat(400_000) } else { "x\n".repeat(1000) }))
        .collect();
    shared.append(guard.key(), &events[..150], &BTreeMap::new()).unwrap();
    shared.append(guard.key(), &events[150..], &BTreeMap::new()).unwrap();
    let first = guard.take().unwrap().events;
    assert!(!first.is_empty() && first.len() < 150, "{}", first.len());
    assert_eq!([first, take_all(&mut guard)].concat(), events);
    assert_eq!(shared.feed_bytes(guard.key()).unwrap(), 0);
    shared.append(guard.key(), &events[..1], &BTreeMap::new()).unwrap();
    assert_eq!(take_all(&mut guard), events[..1]);
}

#[test]
fn who_takes_and_who_writes_exclude_each_other() {
    let (_dir, shared) = shared();
    let mut guard = shared.subscribe(&subscription()).unwrap();
    shared.append(guard.key(), &[event(1, "x".to_owned())], &BTreeMap::new()).unwrap();
    let other = File::open(shared.file(guard.key(), "feed")).unwrap();
    other.lock().unwrap();
    assert_eq!(guard.take().unwrap(), Taken::default());
    let error = shared.append(guard.key(), &[], &BTreeMap::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    other.unlock().unwrap();
    assert_eq!(take_all(&mut guard).len(), 1);
}

#[test]
fn floors_that_are_damaged_count_as_none() {
    let (_dir, shared) = shared();
    let guard = shared.subscribe(&subscription()).unwrap();
    let floors = BTreeMap::from([("job/algo-1-1".to_owned(), 1_700_000_000_000)]);
    guard.publish(&floors).unwrap();
    assert_eq!(shared.reached(guard.key()), floors);
    let path = shared.file(guard.key(), "floors");
    let text = fs::read_to_string(&path).unwrap();
    for damaged in [text.replace("17", "18"), text[..text.len() - 3].to_owned(), String::new()] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(shared.reached(guard.key()), BTreeMap::new());
    }
}

#[test]
fn a_look_tells_what_changed_since_the_last() {
    let (_dir, shared) = shared();
    let mut subscriptions = Subscriptions::default();
    let mut look = || {
        let changes = subscriptions.look(&shared, None, SystemTime::now()).unwrap();
        let urgent: Vec<bool> = changes.subscribed.iter().map(|(_, subscription, _)| subscription.urgent).collect();
        (urgent, changes.gone.len())
    };
    let guard = shared.subscribe(&subscription()).unwrap();
    assert_eq!(look(), (vec![false], 0));
    assert_eq!(look(), (vec![], 0));
    guard.rewrite(&Subscription { urgent: true, ..subscription() }).unwrap();
    assert_eq!(look(), (vec![true], 0));
    drop(guard);
    assert_eq!(look(), (vec![], 1));
}

#[test]
fn a_subscription_of_a_newer_version_is_left_alone() {
    let (_dir, shared) = shared();
    let guard = shared.subscribe(&Subscription { version: VERSION + 1, ..subscription() }).unwrap();
    let changes = Subscriptions::default().look(&shared, None, SystemTime::now()).unwrap();
    assert!(changes.subscribed.is_empty());
    Subscriptions::remove_dead(&shared, SystemTime::now()).unwrap();
    assert!(shared.file(guard.key(), "json").exists());
}

#[test]
fn only_the_files_of_killed_drivers_are_removed() {
    let (_dir, shared) = shared();
    let (alive, killed) = (shared.subscribe(&subscription()).unwrap(), shared.subscribe(&subscription()).unwrap());
    let key = killed.key().to_owned();
    killed.kill();
    fs::write(shared.file("joining", "feed"), "").unwrap();
    Subscriptions::remove_dead(&shared, SystemTime::now()).unwrap();
    assert!(!shared.file(&key, "json").exists() && !shared.file(&key, "alive").exists());
    assert!(shared.file(alive.key(), "json").exists() && shared.file("joining", "feed").exists());
    Subscriptions::remove_dead(&shared, SystemTime::now() + Duration::from_hours(3)).unwrap();
    assert!(shared.file(alive.key(), "feed").exists() && !shared.file("joining", "feed").exists());
}
