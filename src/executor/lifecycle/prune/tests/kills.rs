//! A clean-up that is killed within any of its calls, and the run after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{PruneDesk, a_project};
use crate::cloud::testing::{FaultDecision, Watch, When};

/// Lets calls get no answer, before or after their effect, when so many have got theirs: the process is dead.
#[derive(Debug)]
struct Killer {
    left: AtomicUsize,
    when: When,
    strikes: AtomicUsize,
}

impl Killer {
    fn new(left: usize, when: When) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(left), when, strikes: AtomicUsize::new(0) })
    }

    fn watch(self: &Arc<Self>, desk: &PruneDesk) {
        desk.memory.serving.watch(self.clone());
        desk.memory.registry.watch(self.clone());
        desk.memory.objects.watch(self.clone());
        desk.memory.account.watch(self.clone());
        desk.memory.jobs.watch(self.clone());
        desk.gitlab.watch(self.clone());
    }
}

impl Watch for Killer {
    fn look(&self, _: &'static str, _: &str, when: When) -> FaultDecision {
        if when != self.when {
            return FaultDecision::Passes;
        }
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
            return FaultDecision::Passes;
        }
        self.strikes.fetch_add(1, Ordering::Relaxed);
        FaultDecision::Hangs
    }
}

/// Everything that is left, in one text.
fn left(desk: &PruneDesk) -> String {
    let configs: Vec<_> = desk.memory.serving.all_configs().into_iter().map(|config| config.name).collect();
    let models: Vec<_> = desk.memory.serving.models().into_iter().map(|model| model.name).collect();
    let versions: Vec<_> = desk.memory.registry.all().iter().map(|version| version.number).collect();
    let (alarms, images) = (desk.memory.serving.alarm_names(), desk.memory.account.digests("train"));
    let (packages, keys, jobs) = (desk.gitlab.all_packages(), desk.memory.objects.keys(), desk.memory.jobs.names());
    format!("{configs:?} {models:?} {versions:?} {alarms:?} {images:?} {packages:?} {keys:?} {jobs:?}")
}

/// A run that was killed in any of its calls is finished by the next one, with the end of a run that nobody killed.
#[tokio::test(start_paused = true)]
async fn a_killed_run_leaves_nothing_that_the_next_one_does_not_finish() {
    let whole = a_project().await;
    whole.prune(&["--keep", "3"]).await;
    let expected = left(&whole);
    let (mut kills, mut call, mut goes_on) = (0, 0, true);
    while goes_on {
        goes_on = false;
        for when in [When::Before, When::After] {
            let desk = a_project().await;
            let killer = Killer::new(call, when);
            killer.watch(&desk);
            tokio::select! {
                biased;
                ended = desk.prune(&["--keep", "3"]) => assert_eq!(ended.kind, None, "{}", ended.error),
                () = tokio::time::sleep(Duration::from_hours(1)) => {}
            }
            if killer.strikes.load(Ordering::Relaxed) > 0 {
                (goes_on, kills) = (true, kills + 1);
            }
            Killer::new(usize::MAX, when).watch(&desk);
            let ended = desk.prune(&["--keep", "3"]).await;
            assert_eq!((ended.kind, left(&desk)), (None, expected.clone()), "call {call} {when:?}: {}", ended.error);
        }
        call += 1;
    }
    assert!(kills >= 100, "{kills}");
}
