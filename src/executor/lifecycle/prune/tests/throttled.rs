//! Deletions that AWS throttles: each comes again, after new looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use test_case::test_case;

use super::{DAY, PACKAGE, PROJECT, PruneDesk, a_project, config_name, context, digest, model_name, tags, version_arn};
use crate::base::exit_codes;
use crate::base::failure::Kind;
use crate::cloud::testing::{Fault, FaultDecision, Memory, Watch, When, example_endpoint};
use crate::cloud::{Approval, CloudErrorKind, ModelEndpoints as _, NewEndpoint};

#[test_case("delete_config", "configuration"; "configurations")]
#[test_case("delete_alarms", "alarm"; "alarms")]
#[test_case("delete_version", "version"; "versions")]
#[test_case("delete_job", "training_job"; "training jobs")]
#[test_case("delete_images", "image"; "images")]
#[test_case("delete", "object"; "objects")]
#[tokio::test(start_paused = true)]
async fn what_aws_throttles_for_a_while_goes_in_the_same_run(method: &'static str, kind: &str) {
    let whole = a_project().await.prune(&["--keep", "3"]).await;
    for error in [CloudErrorKind::Throttled, CloudErrorKind::Transient] {
        let desk = a_project().await;
        let throttled = || [Fault::new(method, 1, When::Before, error).times(3)];
        let Memory { serving, registry, jobs, account, objects, .. } = &desk.memory;
        serving.plan(throttled());
        registry.plan(throttled());
        jobs.plan(throttled());
        account.plan(throttled());
        objects.plan(throttled());
        let ended = desk.prune(&["--keep", "3"]).await;
        assert_eq!((ended.kind, &ended.data["failed"]), (None, &0.into()), "{}{}", ended.error, ended.told);
        assert_eq!(ended.of(kind, "deleted"), whole.of(kind, "deleted"));
        assert!(!ended.told.contains("not deleted"), "{}", ended.told);
    }
}

#[test_case("delete_config", "configuration"; "configurations")]
#[test_case("delete_version", "version"; "versions")]
#[tokio::test(start_paused = true)]
async fn what_aws_throttles_for_ever_is_told_and_may_be_tried_later(method: &'static str, kind: &str) {
    let desk = a_project().await;
    let throttled = || [Fault::new(method, 1, When::Before, CloudErrorKind::Throttled).forever()];
    desk.memory.serving.plan(throttled());
    desk.memory.registry.plan(throttled());
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!(ended.kind, Some(Kind::Verdict { code: exit_codes::TRY_LATER }), "{}", ended.error);
    let going = a_project().await.prune(&["--keep", "3"]).await.of(kind, "deleted");
    assert_eq!(ended.of(kind, "failed"), going, "{}", ended.data);
}

/// A deletion whose answer was lost is one of this run.
#[tokio::test(start_paused = true)]
async fn a_deletion_without_an_answer_is_told_once() {
    let desk = a_project().await;
    let lost = |method| [Fault::new(method, 1, When::After, CloudErrorKind::Transient)];
    desk.memory.serving.plan(lost("delete_model"));
    desk.memory.registry.plan(lost("delete_version"));
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!((ended.kind, ended.of("model", "deleted").len()), (None, 5), "{}", ended.told);
    assert_eq!(ended.of("version", "deleted"), [3, 4, 5].map(version_arn));
    // All images of a batch are gone.
    let desk = a_project().await;
    desk.memory.account.plan(lost("delete_images"));
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!((ended.kind, ended.of("image", "deleted")), (None, [3, 4, 5].map(digest).to_vec()), "{}", ended.data);
    // Some objects of a batch may be gone.
    let desk = a_project().await;
    desk.memory.objects.plan(lost("delete"));
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!(
        (ended.kind, ended.of("object", "deleted")),
        (None, ["candidate/a", PACKAGE].map(str::to_owned).to_vec()),
        "{}",
        ended.data
    );
}

/// Throttles the first deletion of a thing; meanwhile somebody begins to use it.
#[derive(Debug)]
struct Rival {
    memory: Memory,
    method: &'static str,
    thing: String,
    strikes: AtomicUsize,
}

impl Rival {
    fn watch(desk: &PruneDesk, method: &'static str, thing: String) -> Arc<Self> {
        let rival = Arc::new(Self { memory: desk.memory.clone(), method, thing, strikes: AtomicUsize::new(0) });
        desk.memory.serving.watch(rival.clone());
        desk.memory.registry.watch(rival.clone());
        rival
    }
}

impl Watch for Rival {
    fn look(&self, method: &'static str, thing: &str, when: When) -> FaultDecision {
        let is_meant = method == self.method && thing == self.thing && when == When::Before;
        if !is_meant || self.strikes.fetch_add(1, Ordering::Relaxed) > 0 {
            return FaultDecision::Passes;
        }
        if method == "delete_version" {
            self.memory.registry.change(thing, |version| version.approval = Approval::Approved);
        } else {
            let new = NewEndpoint { tags: tags("beer", "group/other"), ..example_endpoint("rival", thing) };
            self.memory.serving.create_endpoint(&new).now_or_never().unwrap().unwrap();
        }
        FaultDecision::Fails(CloudErrorKind::Throttled)
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_approved_while_aws_throttles_stays() {
    let desk = a_project().await;
    let rival = Rival::watch(&desk, "delete_version", version_arn(3));
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!((ended.kind, ended.rule(&version_arn(3))), (None, "approved".to_owned()), "{}", ended.data);
    assert_eq!(rival.strikes.load(Ordering::Relaxed), 1);
    assert!(desk.memory.account.digests("train").contains(&digest(3)), "{}", ended.data);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_used_while_aws_throttles_stays_with_its_model() {
    let desk = PruneDesk::new();
    for number in 1..=2 {
        desk.add_config("wine", number, PROJECT).await;
    }
    desk.add_image(1, &context(1));
    tokio::time::advance(30 * DAY).await;
    let rival = Rival::watch(&desk, "delete_config", config_name("wine", 1));
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!(
        (ended.kind, ended.rule(&config_name("wine", 1))),
        (None, "used_by_endpoint".to_owned()),
        "{}",
        ended.data
    );
    assert_eq!(rival.strikes.load(Ordering::Relaxed), 1);
    let models: Vec<_> = desk.memory.serving.models().into_iter().map(|model| model.name).collect();
    assert_eq!(models, [model_name("wine", 1)]);
}
