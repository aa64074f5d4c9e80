//! A clean-up that a signal ends: it tells what it deleted until then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use test_case::test_case;

use super::{PruneDesk, a_project};
use crate::base::failure::Kind;
use crate::base::signals::Cancellation;
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
    // Nothing asks the watches any more.
    let next = desk.prune(&["--keep", "3"]).await;
    assert_eq!((next.kind, &next.data["interrupted"]), (None, &false.into()), "{}", next.error);
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
