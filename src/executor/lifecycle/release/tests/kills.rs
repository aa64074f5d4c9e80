//! A command that is killed at any of its calls, before the call or after it, and is then run again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::cloud::testing::{FaultDecision, Watch, When};

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

/// State of the project before: nothing, a tag, or a release without the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Tag,
    Release,
}

impl Before {
    async fn desk(self) -> Desk {
        let desk = Desk::stable();
        match self {
            Self::Nothing => {}
            Self::Tag => desk.gitlab.tag(STABLE, COMMIT),
            Self::Release => desk.release(STABLE, COMMIT, Vec::new()).await,
        }
        desk
    }
}

/// Runs the command until the `at`th moment.
async fn run_until(desk: &Desk, at: usize) {
    desk.gitlab.watch(Kill::at(at));
    // No time passes: the clock goes on when nothing else can.
    let _ = tokio::time::timeout(Duration::from_hours(1), desk.run(&[])).await;
}

/// `KILLS` says how many there are; one at each moment comes in addition.
#[tokio::test(start_paused = true)]
async fn a_killed_release_goes_on() {
    let wanted = Environment::of_process().get("KILLS").map_or(100, |kills| kills.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(3);
    let mut left = Vec::new();
    for before in [Before::Nothing, Before::Tag, Before::Release] {
        let desk = before.desk().await;
        let count = Kill::at(usize::MAX);
        desk.gitlab.watch(count.clone());
        desk.run(&[]).await.good();
        left.push((before, count.seen.load(Ordering::Relaxed), desk.only()));
    }
    let each = left.iter().flat_map(|(before, moments, _)| (0..*moments).map(|at| (*before, vec![at])));
    let mut rows: Vec<_> = each.collect();
    for _ in 0..wanted {
        let (before, moments, _) = &left[random.usize(..left.len())];
        rows.push((*before, (0..random.usize(1..4)).map(|_| random.usize(..*moments)).collect()));
    }
    for (before, kills) in rows {
        let desk = before.desk().await;
        for at in &kills {
            run_until(&desk, *at).await;
        }
        desk.gitlab.watch(Kill::at(usize::MAX));
        desk.run(&[]).await.good();
        let (.., release) = left.iter().find(|(known, ..)| *known == before).unwrap();
        assert_eq!(&desk.only(), release, "{before:?} {kills:?}");
        assert_eq!(desk.run(&[]).await.good()["status"], "already_published");
    }
}
