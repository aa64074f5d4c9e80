//! A clean-up that a signal ends: it tells what it deleted until then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use test_case::test_case;
use tokio::sync::Notify;

use super::{PruneDesk, a_project};
use crate::base::failure::Kind;
use crate::base::signals::Cancellation;
use crate::cloud::CloudErrorKind;
use crate::cloud::testing::{FaultDecision, Watch, When};

/// Sends a signal after the effect of a deletion, whose answer does not come.
#[derive(Debug)]
struct Interrupter {
    method: &'static str,
    left: AtomicUsize,
    cancellation: Cancellation,
}

impl Watch for Interrupter {
    fn look(&self, method: &'static str, _: &str, when: When) -> FaultDecision {
        if method != self.method || when != When::After || self.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return FaultDecision::Passes;
        }
        self.cancellation.raise();
        FaultDecision::Hangs
    }
}

/// Names of models, digests of images and keys of objects that are there.
fn there(desk: &PruneDesk) -> BTreeSet<String> {
    let models = desk.memory.serving.models().into_iter().map(|model| model.name);
    models.chain(desk.memory.account.digests("train")).chain(desk.memory.objects.keys()).collect()
}

#[test_case("delete_model", 3, "model"; "one of some that are under way")]
#[test_case("delete_images", 1, "image"; "images")]
#[test_case("delete", 1, "object"; "objects")]
#[tokio::test(start_paused = true)]
async fn the_result_tells_what_was_deleted_before_a_signal(method: &'static str, at: usize, kind: &str) {
    let desk = a_project().await;
    let before = there(&desk);
    let cancellation = Cancellation::default();
    let left = AtomicUsize::new(at);
    let interrupter = Arc::new(Interrupter { method, left, cancellation: cancellation.clone() });
    desk.memory.serving.watch(interrupter.clone());
    desk.memory.account.watch(interrupter.clone());
    desk.memory.objects.watch(interrupter);
    let report = desk.folder.path().join("prune.json");
    let words = ["--keep", "3", "--report", report.to_str().unwrap()];
    let ended = desk.prune_until(&words, cancellation).await;
    assert_eq!((ended.kind, &ended.data["interrupted"]), (Some(Kind::Canceled), &true.into()), "{}", ended.error);
    let written: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(written, ended.data);
    // Those without an answer are told as well, as such.
    let unanswered = ended.of(kind, "failed");
    assert!(!unanswered.is_empty() && ended.told.contains("may be deleted"), "{}", ended.data);
    let told = ["model", "image", "object"].into_iter().flat_map(|kind| ended.of(kind, "deleted"));
    let told: BTreeSet<_> = told.chain(unanswered).collect();
    let gone: BTreeSet<_> = before.difference(&there(&desk)).cloned().collect();
    assert_eq!(told, gone, "{}", ended.data);
    // The signal keeps prune from the kinds that follow.
    assert_eq!(ended.of("training_job", "deleted"), Vec::<String>::new());
    // The interrupter lets all calls pass from now on, so that the next run ends by itself.
    let next = desk.prune(&["--keep", "3"]).await;
    assert_eq!((next.kind, &next.data["interrupted"]), (None, &false.into()), "{}", next.error);
}

/// Fails the first deletion, before or after its effect.
#[derive(Debug)]
struct Loser {
    method: &'static str,
    when: When,
    error: CloudErrorKind,
    has_struck: AtomicBool,
    strike: Notify,
}

impl Watch for Loser {
    fn look(&self, method: &'static str, _: &str, when: When) -> FaultDecision {
        if method != self.method || when != self.when || self.has_struck.swap(true, Ordering::Relaxed) {
            return FaultDecision::Passes;
        }
        self.strike.notify_one();
        FaultDecision::Fails(self.error)
    }
}

#[test_case("delete_model", "model"; "one of some")]
#[test_case("delete_images", "image"; "images")]
#[test_case("delete", "object"; "objects")]
#[tokio::test(start_paused = true)]
async fn a_deletion_that_waits_for_its_next_turn_is_told_at_a_signal(method: &'static str, kind: &str) {
    for (when, error) in [(When::After, CloudErrorKind::Transient), (When::Before, CloudErrorKind::Throttled)] {
        let desk = a_project().await;
        let before = there(&desk);
        let loser = Loser { method, when, error, has_struck: AtomicBool::new(false), strike: Notify::new() };
        let loser = Arc::new(loser);
        desk.memory.serving.watch(loser.clone());
        desk.memory.account.watch(loser.clone());
        desk.memory.objects.watch(loser.clone());
        let cancellation = Cancellation::default();
        // The first pause is one second of virtual time, and no call takes any.
        let signal = async {
            loser.strike.notified().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            cancellation.raise();
        };
        let (ended, ()) = tokio::join!(desk.prune_until(&["--keep", "3"], cancellation.clone()), signal);
        let unsure = ended.of(kind, "failed");
        assert_eq!(ended.kind, Some(Kind::Canceled), "{}", ended.error);
        assert!(!unsure.is_empty() && ended.told.contains("may be deleted"), "{when:?}: {}", ended.data);
        let told = ["model", "image", "object"].into_iter().flat_map(|kind| ended.of(kind, "deleted"));
        let told: BTreeSet<_> = told.chain(unsure).collect();
        let gone: BTreeSet<_> = before.difference(&there(&desk)).cloned().collect();
        assert!(gone.is_subset(&told), "{when:?}: {gone:?}: {}", ended.data);
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_before_the_first_call_deletes_nothing() {
    let desk = a_project().await;
    let before = there(&desk);
    let cancellation = Cancellation::default();
    cancellation.raise();
    let ended = desk.prune_until(&["--keep", "3"], cancellation).await;
    assert_eq!((ended.kind, there(&desk)), (Some(Kind::Canceled), before), "{}", ended.data);
}
