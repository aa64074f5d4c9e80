//! Where there is doubt the thing stays.

use std::sync::Arc;

use test_case::test_case;

use super::{DAY, PROJECT, PruneDesk, a_project, config_name, context, digest, image, model_name, version_arn};
use crate::base::clock::Clock as _;
use crate::base::failure::Kind;
use crate::cloud::testing::{
    EndpointFate, Fault, FaultDecision, Watch, When, example_config, example_endpoint, example_model,
};
use crate::cloud::{CloudErrorKind, ComponentParts, ModelEndpoints as _, ModelSource, RepositoryImage, ServedModel};
use crate::gitlab::api::testing::MemoryGitLab;
use crate::gitlab::api::{Release, ReleaseLink};

const CANDIDATE: &str = "candidate-PR-1-01234567-20261101T000000Z";

fn release(text: &str, links: Vec<ReleaseLink>) -> Release {
    let (tag, name) = ("v9".to_owned(), String::new());
    Release { tag, name, commit: String::new(), description: text.to_owned(), links, url: None }
}

fn link(name: &str, url: &str) -> ReleaseLink {
    ReleaseLink { name: name.to_owned(), url: url.to_owned() }
}

#[test_case(&["v1"] => 1; "a tag of a person")]
#[test_case(&["latest"] => 1; "latest")]
#[test_case(&["20261129"] => 1; "a date")]
#[test_case(&["build-7"] => 1; "a build without its commit")]
#[test_case(&["0123abcd", "build-7-0123abcd"] => 0; "build and commit")]
fn an_image_with_a_tag_that_somebody_may_use_stays(tags: &[&str]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let desk = PruneDesk::new();
        let tags = tags.iter().map(|tag| (*tag).to_owned()).chain([context(7)]).collect();
        let used = Some(std::time::SystemTime::UNIX_EPOCH);
        desk.memory.account.store_image("train", RepositoryImage { digest: digest(7), tags, is_index: false, used });
        tokio::time::advance(30 * DAY).await;
        desk.add_image(8, &context(8));
        desk.prune(&["--keep", "1"]).await;
        desk.memory.account.digests("train").iter().filter(|one| **one == digest(7)).count()
    })
}

#[tokio::test(start_paused = true)]
async fn tags_of_another_form_and_other_repositories_are_of_others() {
    let desk = PruneDesk::new();
    desk.add_image(7, "context-window-8k");
    desk.add_image(8, &context(8).to_uppercase().replace("CONTEXT", "context").replace('0', "A"));
    let used = Some(std::time::SystemTime::UNIX_EPOCH);
    let served = RepositoryImage { digest: digest(9), tags: vec![context(9)], is_index: false, used };
    desk.memory.account.store_image("serve", served);
    desk.manifest(|manifest| {
        manifest["model"]["image"] = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve:1".into();
    });
    tokio::time::advance(30 * DAY).await;
    desk.add_image(1, &context(1));
    desk.prune(&["--keep", "1"]).await;
    assert_eq!(desk.memory.account.digests("train").len(), 3);
    assert_eq!(desk.memory.account.digests("serve").len(), 1);
}

/// Of another project, with a name of another form.
#[tokio::test(start_paused = true)]
async fn models_of_anybody_keep_their_images_and_versions() {
    let desk = a_project().await;
    let by_tag = image(4).split('@').next().unwrap().to_owned() + ":" + &context(4);
    for (name, source) in [
        ("other", ModelSource::Container { image: image(3), model_data_url: None }),
        ("tagged", ModelSource::Container { image: by_tag, model_data_url: None }),
        ("packaged", ModelSource::Package(version_arn(5))),
    ] {
        desk.memory.serving.create_model(&ServedModel { source, ..example_model(name) }).await.unwrap();
    }
    let ended = desk.prune(&["--keep", "1"]).await;
    let images = desk.memory.account.digests("train");
    assert!(images.contains(&digest(3)) && images.contains(&digest(4)), "{}", ended.data);
    assert!(desk.memory.registry.all().iter().any(|version| version.number == 5), "{}", ended.data);
    let blind = a_project().await;
    blind.memory.serving.create_model(&example_model("other")).await.unwrap();
    let denied = Fault::new("model_parts", 2, When::Before, CloudErrorKind::Denied).forever();
    blind.memory.serving.plan([denied]);
    let ended = blind.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, blind.memory.account.digests("train").len()), (Some(Kind::System), 9), "{}", ended.data);
}

#[test_case("CI_PIPELINE_SOURCE", "external_pull_request_event"; "of another host")]
#[test_case("CI_MERGE_REQUEST_IID", "7"; "a child of one")]
#[tokio::test(start_paused = true)]
async fn every_pipeline_of_a_merge_request_shows_alone(name: &str, value: &str) {
    let mut desk = a_project().await;
    desk.env.insert("CI_PIPELINE_SOURCE".to_owned(), "parent_pipeline".to_owned());
    desk.env.insert(name.to_owned(), value.to_owned());
    let shown = desk.prune(&[]).await;
    assert_eq!((&shown.data["dry_run"], &shown.data["deleted"]), (&true.into(), &0.into()));
}

/// Makes a release when the versions are listed, which is after the first look at the releases.
#[derive(Debug)]
struct Releaser {
    gitlab: Arc<MemoryGitLab>,
    release: Release,
}

impl Watch for Releaser {
    fn look(&self, method: &'static str, _: &str, when: When) -> FaultDecision {
        if method == "versions" && matches!(when, When::Before) {
            self.gitlab.make_release(self.release.clone());
        }
        FaultDecision::Passes
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_made_meanwhile_keeps_what_it_names() {
    let desk = a_project().await;
    let sha256 = "A".repeat(64);
    let key = format!("packages/{}/candidate-PR-4-01234567-20261101T000000Z.zip", sha256.to_lowercase());
    desk.memory.objects.insert(&key, "x");
    tokio::time::advance(30 * DAY).await;
    let text = format!("{} {} {sha256}", version_arn(3), digest(4));
    let releaser = Releaser { gitlab: Arc::clone(&desk.gitlab), release: release(&text, Vec::new()) };
    desk.memory.registry.watch(Arc::new(releaser));
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(ended.rule(&version_arn(3)), "released", "{}", ended.data);
    assert_eq!((ended.rule(&digest(4)), ended.rule(&key)), ("released".to_owned(), "released".to_owned()));
}

#[test_case("", &[("The model", "https://g/api/v4/projects/42/packages/generic/wine/candidate%2DPR-1-01234567-20261101T000000Z/x.zip")] => "released"; "its address")]
#[test_case("`candidate-PR-1-01234567-20261101T000000Z` won", &[] => "released"; "its text")]
#[test_case("", &[("The model", "https://g/group/project/-/package_files/3/download")] => "references_unknown"; "a number")]
#[test_case("", &[("stable-20261129T045233Z.zip", "https://g/-/package_files/3/download")] => "candidate"; "the number of another")]
#[test_case("", &[("wine.zip", "https://g/group/project/-/package_files/3/download")] => "references_unknown"; "a number under another name")]
#[test_case("see https://g/group/project/-/package_files/3/download", &[] => "references_unknown"; "a number in its text")]
#[test_case("see https://g/group/project/-/packages/1.", &[] => "released"; "the number of the package in its text")]
#[test_case("", &[("The model", "https://g/group/project/-/packages/1")] => "released"; "the number of the package in a link")]
#[test_case("", &[("The model", "https://g/group/project/-/packages/9")] => "candidate"; "the number of another package")]
fn a_release_may_name_a_candidate_in_any_way(text: &str, links: &[(&str, &str)]) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let desk = a_project().await;
        desk.gitlab.make_release(release(text, links.iter().map(|(name, url)| link(name, url)).collect()));
        desk.prune(&[]).await.rule(CANDIDATE)
    })
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_no_whole_candidate_is_of_others() {
    let desk = PruneDesk::new();
    let names = ["candidate-PR-important", "candidate-PR-1-0123456-20261101T000000Z", "candidate-PR-1-01234567-2026"];
    for name in names {
        desk.gitlab.package("wine", name, desk.clock.now());
        desk.memory.objects.insert(&format!("packages/1/{name}.zip"), "x");
    }
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&[]).await;
    assert_eq!((ended.data["deleted"].as_u64(), desk.gitlab.all_packages().len()), (Some(0), 3), "{}", ended.data);
}

/// The package of a deployment, when the endpoint itself cannot be seen.
#[tokio::test(start_paused = true)]
async fn endpoints_that_cannot_be_read_keep_packages() {
    let desk = a_project().await;
    desk.memory.serving.plan([Fault::new("endpoint", 1, When::Before, CloudErrorKind::Denied).forever()]);
    let ended = desk.prune(&[]).await;
    assert_eq!(ended.rule(super::PACKAGE), "references_unknown", "{}", ended.data);
}

#[tokio::test(start_paused = true)]
async fn a_folder_of_the_environments_kind_below_candidate_stays() {
    let desk = PruneDesk::new();
    let keys = ["candidate/models/1/model.tar.gz", "candidate/other/deployments/wine/00000001.begin.json"];
    for key in keys {
        desk.memory.objects.insert(key, "x");
    }
    desk.memory.objects.insert("candidate/a", "x");
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&[]).await;
    assert_eq!(ended.of("object", "deleted"), ["candidate/a"]);
    assert_eq!(ended.of("object", "stays"), keys);
}

/// The configuration in service before the newest deployment that is no rollback.
#[tokio::test(start_paused = true)]
async fn rollbacks_do_not_hide_what_the_next_one_brings_back() {
    let desk = PruneDesk::new();
    for number in 1..=2 {
        desk.add_version(number, PROJECT).await;
        desk.add_config("wine", number, PROJECT).await;
        desk.add_deployment("wine", number);
    }
    // Back to 1, and to 2 again.
    for (number, to, from) in [(3, 1, 2), (4, 2, 1)] {
        desk.add_deployment("wine", number);
        let key = format!("deployments/wine/{number:08}.begin.json");
        let text = String::from_utf8(desk.memory.objects.contents(&key).unwrap()).unwrap();
        let mut begin: serde_json::Value = serde_json::from_str(&text).unwrap();
        begin["kind"] = "rollback".into();
        begin["to_config"] = config_name("wine", to).into();
        begin["to_model"] = model_name("wine", to).into();
        begin["from_config"] = config_name("wine", from).into();
        begin["from_model"] = model_name("wine", from).into();
        desk.memory.objects.insert(&key, begin.to_string());
    }
    desk.add_endpoint("wine", 2, PROJECT).await;
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(ended.of("configuration", "deleted"), Vec::<String>::new(), "{}", ended.data);
    assert_eq!(ended.rule(&model_name("wine", 1)), "kept_deployment");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_its_configuration_keeps_its_models() {
    let desk = PruneDesk::new();
    desk.add_config("wine", 1, PROJECT).await;
    desk.add_config("wine", 2, PROJECT).await;
    desk.add_endpoint("wine", 2, PROJECT).await;
    desk.memory.serving.delete_config(&config_name("wine", 2)).await.unwrap();
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(ended.of("model", "deleted"), Vec::<String>::new(), "{}", ended.data);
}

/// It may be in service in another account, whose entry of the manifest has the same bucket and prefix.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_went_without_a_record_keeps_its_deployments() {
    let desk = PruneDesk::new();
    for number in 1..=3 {
        desk.add_version(number, PROJECT).await;
        desk.add_config("wine", number, PROJECT).await;
        desk.add_deployment("wine", number);
    }
    desk.memory.serving.fates(Vec::<EndpointFate>::new());
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&["--keep", "1"]).await;
    // That before the newest is what a rollback takes.
    assert_eq!(ended.of("model", "deleted"), [model_name("wine", 1)], "{}", ended.data);
}

/// For an A/B test, which has no endpoint now.
#[tokio::test(start_paused = true)]
async fn a_configuration_of_anybody_keeps_its_model() {
    let desk = PruneDesk::new();
    desk.add_config("wine", 1, PROJECT).await;
    desk.memory.serving.create_config(&example_config("experiment", &model_name("wine", 1))).await.unwrap();
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&[]).await;
    assert_eq!(
        (ended.of("model", "deleted"), ended.rule(&model_name("wine", 1))),
        (Vec::new(), "referred_to".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn versions_of_others_do_not_push_out_the_newest_of_the_project() {
    let desk = PruneDesk::new();
    for (number, project) in [(1, PROJECT), (2, PROJECT), (3, "group/other"), (4, "group/other")] {
        desk.add_version(number, project).await;
    }
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(ended.of("version", "deleted"), [version_arn(1)], "{}", ended.data);
    assert_eq!(ended.rule(&version_arn(2)), "newest");
}

#[tokio::test(start_paused = true)]
async fn both_packages_of_one_version_go() {
    let desk = PruneDesk::new();
    for _ in 0..2 {
        desk.gitlab.package("wine", CANDIDATE, desk.clock.now());
    }
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&[]).await;
    assert_eq!((ended.of("generic_package", "deleted").len(), desk.gitlab.all_packages()), (1, Vec::new()));
}

/// In one of the containers that are not the first.
#[tokio::test(start_paused = true)]
async fn a_version_with_several_containers_keeps_all_their_images() {
    let desk = a_project().await;
    desk.memory.registry.change(&version_arn(9), |version| version.images.extend([image(3), digest(4)]));
    let ended = desk.prune(&["--keep", "1"]).await;
    let images = desk.memory.account.digests("train");
    assert!(images.contains(&digest(3)) && images.contains(&digest(4)), "{}", ended.data);
}

#[tokio::test(start_paused = true)]
async fn images_of_a_repository_that_other_accounts_may_read_stay() {
    let desk = a_project().await;
    desk.memory.account.share("train");
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.rule(&digest(4))), (None, "shared_repository".to_owned()), "{}", ended.data);
    assert_eq!(ended.of("image", "deleted"), Vec::<String>::new());
}

#[test_case("is_shared"; "the policy of the repository")]
#[test_case("images_of_running"; "the jobs that run")]
#[tokio::test(start_paused = true)]
async fn images_stay_when_their_users_cannot_be_read(method: &'static str) {
    let desk = a_project().await;
    let denied = || [Fault::new(method, 1, When::Before, CloudErrorKind::Denied)];
    desk.memory.account.plan(denied());
    desk.memory.jobs.plan(denied());
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.rule(&digest(4))), (Some(Kind::System), "references_unknown".to_owned()));
    assert_eq!(ended.of("image", "deleted"), Vec::<String>::new());
}

/// Its variables have values in jobs of that environment alone.
#[tokio::test(start_paused = true)]
async fn an_entry_with_variables_keeps_what_it_names_without_one() {
    let desk = a_project().await;
    let with = |patch: serde_json::Value| {
        move |manifest: &mut serde_json::Value| {
            let mut entry = manifest["environments"]["dev"].clone();
            entry["patch"] = patch;
            entry["account"] = "${PRODUCTION_ACCOUNT}".into();
            manifest["environments"]["production"] = entry;
        }
    };
    desk.manifest(with(serde_json::json!({"model": {"image": image(4)}})));
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.rule(&digest(4))), (None, "referred_to".to_owned()), "{}", ended.told);
    assert!(!ended.of("image", "deleted").is_empty(), "{}", ended.data);
    desk.manifest(with(serde_json::json!({"model": {"image": "${PRODUCTION_IMAGE}"}})));
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.of("image", "deleted")), (None, vec![digest(4)]), "{}", ended.data);
    assert!(ended.told.contains("`production`"), "{}", ended.told);
}

/// A review endpoint that `endpoint delete` ended costs three calls, whatever its past.
#[tokio::test(start_paused = true)]
async fn the_record_of_a_deleted_endpoint_costs_few_calls() {
    let calls = async |deployments: u32| {
        let desk = PruneDesk::new();
        for number in 1..=deployments {
            desk.add_deployment("review", number);
        }
        let key = format!("deployments/review/{deployments:08}.begin.json");
        let text = String::from_utf8(desk.memory.objects.contents(&key).unwrap()).unwrap();
        let mut begin: serde_json::Value = serde_json::from_str(&text).unwrap();
        begin["kind"] = "delete".into();
        (begin["to_config"], begin["to_model"]) = (serde_json::Value::Null, serde_json::Value::Null);
        desk.memory.objects.insert(&key, begin.to_string());
        let ended = desk.prune(&[]).await;
        assert_eq!(ended.kind, None, "{}", ended.error);
        desk.memory.objects.calls().len()
    };
    assert_eq!(calls(1).await, calls(40).await);
}

/// They come and go while the endpoint stays as it is.
#[tokio::test(start_paused = true)]
async fn inference_components_keep_their_models_and_images() {
    let desk = a_project().await;
    desk.memory.serving.create_config(&example_config("shared", &model_name("beer", 1))).await.unwrap();
    desk.memory.serving.create_endpoint(&example_endpoint("shared", "shared")).await.unwrap();
    let components = ComponentParts { models: vec![model_name("wine", 1)], images: vec![image(3)] };
    desk.memory.serving.set_components("shared", components);
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(
        (ended.kind, ended.rule(&model_name("wine", 1))),
        (None, "used_by_endpoint".to_owned()),
        "{}",
        ended.data
    );
    assert_eq!(ended.rule(&digest(3)), "used_by_endpoint", "{}", ended.data);
    let looks = desk.memory.serving.count("components");
    assert!(looks > 2, "{looks}");
}
