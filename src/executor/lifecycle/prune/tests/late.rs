//! Users that come after the lists were read, and sources that could not be read: those are not asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use futures::FutureExt as _;

use super::{PACKAGE, PROJECT, PruneDesk, a_project, digest, image, version_arn};
use crate::base::failure::Kind;
use crate::cloud::testing::{Fault, FaultDecision, Memory, Watch, When, example_model};
use crate::cloud::{
    Approval, CloudErrorKind, ModelEndpoints as _, ModelRegistry as _, ModelSource, ServedModel, VersionSpec,
};

/// Makes users once, when a call begins or has ended.
struct Comer {
    method: &'static str,
    thing: &'static str,
    when: When,
    has_come: AtomicBool,
    comes: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Comer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.method)
    }
}

impl Watch for Comer {
    fn look(&self, method: &'static str, thing: &str, when: When) -> FaultDecision {
        let is_meant = method == self.method && thing.contains(self.thing) && when == self.when;
        if is_meant && !self.has_come.swap(true, Ordering::Relaxed) {
            (self.comes)();
        }
        FaultDecision::Passes
    }
}

fn comer(
    method: &'static str,
    thing: &'static str,
    when: When,
    comes: impl Fn() + Send + Sync + 'static,
) -> Arc<Comer> {
    Arc::new(Comer { method, thing, when, has_come: AtomicBool::new(false), comes: Box::new(comes) })
}

/// A version that was made and approved, with this image.
fn register(memory: &Memory, number: u32, now: SystemTime) {
    let wanted = VersionSpec {
        client_token: "late".to_owned(),
        image: image(number),
        ..memory.registry.requests().last().unwrap().clone()
    };
    let arn = memory.registry.create_version(&wanted).now_or_never().unwrap().unwrap();
    memory.registry.change(&arn, |version| {
        (version.approval, version.created) = (Approval::Approved, Some(now));
    });
}

#[tokio::test(start_paused = true)]
async fn a_version_a_model_and_a_tag_that_come_after_the_list_keep_their_images() {
    let desk = a_project().await;
    let (memory, now) = (desk.memory.clone(), desk.clock_now());
    let comes = move || {
        register(&memory, 3, now);
        let source = ModelSource::Container { image: image(4), model_data_url: None };
        let model = ServedModel { source, ..example_model("late") };
        memory.serving.create_model(&model).now_or_never().unwrap().unwrap();
        memory.account.tag_image("train", &digest(5), "latest");
    };
    // The account's versions are listed when the images were, and the models.
    desk.memory.registry.watch(comer("all_versions", "", When::After, comes));
    let ended = desk.prune(&["--keep", "3"]).await;
    let images = desk.memory.account.digests("train");
    for number in 3..=5 {
        assert!(images.contains(&digest(number)), "{number}: {}", ended.data);
    }
    assert_eq!((ended.kind, ended.rule(&digest(5))), (None, "tagged".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_stored_again_stays() {
    let desk = a_project().await;
    let memory = desk.memory.clone();
    desk.memory.objects.watch(comer("page", "packages/", When::After, move || memory.objects.insert(PACKAGE, "y")));
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!((ended.kind, ended.rule(PACKAGE)), (None, "young".to_owned()), "{}", ended.data);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_could_not_be_read_is_not_asked_again() {
    let desk = PruneDesk::new();
    for number in 1..=100 {
        desk.add_version(number, PROJECT).await;
    }
    tokio::time::advance(30 * super::DAY).await;
    desk.gitlab.plan([Fault::new("releases", 2, When::Before, CloudErrorKind::Transient).forever()]);
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!((ended.kind, desk.gitlab.count("releases")), (Some(Kind::System), 2), "{}", ended.error);
    assert_eq!(ended.rule(&version_arn(7)), "references_unknown");
    let desk = a_project().await;
    // The first is that of the endpoints that do not serve.
    desk.memory.serving.plan([Fault::new("endpoint", 1, When::Before, CloudErrorKind::Denied).forever()]);
    desk.prune(&["--keep", "3"]).await;
    let endpoints = desk.memory.serving.calls().iter().filter(|call| **call == "listing Endpoint").count();
    assert_eq!((desk.memory.serving.count("endpoint"), endpoints), (1, 2));
}
