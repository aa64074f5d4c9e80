//! A command that is killed at any of its calls, before the call or after it, and is then run again.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::cloud::testing::{FaultDecision, Watch, When};
use crate::cloud::{Approval, CloudErrorKind, ModelVersion};

/// Lets no call pass from the `at`th moment on; counts the moments.
#[derive(Debug)]
struct Kill {
    at: usize,
    seen: AtomicUsize,
}

impl Kill {
    fn at(at: usize) -> Arc<Self> {
        Arc::new(Self { at, seen: AtomicUsize::new(0) })
    }
}

impl Watch for Kill {
    fn look(&self, _: &'static str, _: &str, _: When) -> FaultDecision {
        if self.seen.fetch_add(1, Ordering::Relaxed) < self.at { FaultDecision::Passes } else { FaultDecision::Hangs }
    }
}

fn watch(desk: &Desk, watch: &Arc<Kill>) {
    desk.memory.registry.watch(watch.clone());
    desk.memory.objects.watch(watch.clone());
}

/// The objects and versions of the account.
fn state(desk: &Desk) -> (Vec<ModelVersion>, Vec<String>) {
    (desk.memory.registry.all(), desk.memory.objects.keys())
}

/// Runs the words until the `at`th moment; `true` when they ended before.
async fn run_until(desk: &Desk, at: usize, words: &[&str]) -> bool {
    watch(desk, &Kill::at(at));
    // No time passes: the clock goes on when nothing else can.
    tokio::time::timeout(Duration::from_mins(1), desk.run_as(Some("2"), words)).await.is_ok()
}

/// Kills the words at every moment, and at random ones in a row; then they end as undisturbed.
async fn survives(prepared: impl AsyncFn() -> Desk, words: &[&str]) {
    let undisturbed = prepared().await;
    let count = Kill::at(usize::MAX);
    watch(&undisturbed, &count);
    assert_eq!(undisturbed.run_as(Some("2"), words).await.kind, None);
    let moments = count.seen.load(Ordering::Relaxed);
    let seeds = Environment::of_process().get("KILLS").map_or(20, |kills| kills.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(1);
    let rows = (0..moments).map(|at| vec![at]).chain((0..seeds).map(|_| {
        let kills = random.usize(1..4);
        (0..kills).map(|_| random.usize(..moments)).collect()
    }));
    for kills in rows.collect::<Vec<Vec<usize>>>() {
        let desk = prepared().await;
        for at in &kills {
            run_until(&desk, *at, words).await;
        }
        watch(&desk, &Kill::at(usize::MAX));
        let ended = desk.run_as(Some("2"), words).await;
        assert_eq!(ended.kind, None, "{kills:?}: {}", ended.error);
        assert_eq!(state(&desk), state(&undisturbed), "{kills:?}");
        for key in state(&desk).1 {
            let version = desk.memory.registry.all().remove(0);
            let named = format!("{version:?}");
            assert!(named.contains(&key), "{kills:?}: no version names {key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_register_goes_on() {
    survives(async || Desk::new(), &["register"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_approval_goes_on() {
    let prepared = async || {
        let desk = Desk::new();
        desk.registers().await;
        desk
    };
    survives(prepared, &["approve", "--latest", "--reason", "fine"]).await;
}

/// Another user rejects at one moment of an approval, which is killed at a later one, or whose later calls are throttled.
#[derive(Debug)]
struct RejectsAndEnds {
    memory: Memory,
    at: usize,
    kill: usize,
    end: FaultDecision,
    seen: AtomicUsize,
}

impl Watch for RejectsAndEnds {
    fn look(&self, _: &'static str, _: &str, _: When) -> FaultDecision {
        let now = self.seen.fetch_add(1, Ordering::Relaxed);
        if now == self.at {
            let registry = &self.memory.registry;
            registry.change(&registry.all().remove(0).arn, |version| {
                version.metadata.insert("rejection-1".to_owned(), "id=4@bf08810b user=user4 reason=no".to_owned());
                version.approval = Approval::Rejected;
            });
        }
        if now < self.kill { FaultDecision::Passes } else { self.end }
    }
}

/// A rejection stands, wherever it lands in an approval and wherever this ends.
#[tokio::test(start_paused = true)]
async fn a_rejection_outlives_every_approval() {
    let words = ["approve", "--latest", "--reason", "fine"];
    let prepared = async || {
        let desk = Desk::new();
        desk.registers().await;
        desk
    };
    let undisturbed = prepared().await;
    let count = Kill::at(usize::MAX);
    watch(&undisturbed, &count);
    assert_eq!(undisturbed.run_as(Some("2"), &words).await.kind, None);
    let moments = count.seen.load(Ordering::Relaxed);
    for (at, end) in (0..moments)
        .flat_map(|at| [FaultDecision::Hangs, FaultDecision::Fails(CloudErrorKind::Throttled)].map(|end| (at, end)))
    {
        for kill in at + 1..=moments + 4 {
            let desk = prepared().await;
            let disturbed = RejectsAndEnds { memory: desk.memory.clone(), at, kill, end, seen: AtomicUsize::new(0) };
            desk.memory.registry.watch(Arc::new(disturbed));
            let _ = tokio::time::timeout(Duration::from_mins(1), desk.run_as(Some("2"), &words)).await;
            desk.memory.registry.watch(Kill::at(usize::MAX));
            let again = desk.run_as(Some("2"), &words).await;
            assert!(again.error.contains("the version is rejected: "), "{at} {kill}: {}{}", again.out, again.error);
            assert_eq!(desk.memory.registry.all().remove(0).approval, Approval::Rejected, "{at} {kill}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_rejection_goes_on() {
    let prepared = async || {
        let desk = Desk::new();
        desk.registers().await;
        desk
    };
    survives(prepared, &["reject", "--latest", "--reason", "no"]).await;
}
