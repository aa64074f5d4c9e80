//! Projects that `init` makes, whose manifests name image and group by variables: what is old goes, and what any environment uses stays.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use test_case::test_case;

use super::{DAY, PACKAGE, PROJECT, PruneDesk, a_project, digest, image, version_arn};
use crate::cloud::testing::{example_config, example_endpoint, example_model};
use crate::cloud::{
    Approval, GroupSpec, ModelEndpoints as _, ModelRegistry as _, ModelSource, ServedModel, VersionSpec,
};

const TRAINING: &str = include_str!("../../init/training/manifest.json");
const ENDPOINT: &str = include_str!("../../init/endpoint/manifest.json");

/// Makes and approves the first version of another group, with this image and the SHA-256 of a package.
async fn register(desk: &PruneDesk, group: &str, number: u32, sha256: &str) {
    let made = GroupSpec { name: group.to_owned(), description: None, tags: BTreeMap::new() };
    desk.memory.registry.create_group(&made).await.unwrap();
    let metadata = [("project", PROJECT), ("package-sha256", sha256)];
    let wanted = VersionSpec {
        group: group.to_owned(),
        client_token: group.to_owned(),
        image: image(number),
        model_data_url: "s3://memory/other/gitlab-42-3-00000003/model.tar.gz".to_owned(),
        metadata: metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..desk.memory.registry.requests().last().unwrap().clone()
    };
    let arn = desk.memory.registry.create_version(&wanted).await.unwrap();
    desk.memory.registry.change(&arn, |version| version.approval = Approval::Approved);
}

/// A project of the scaffold with the variables of the entry `dev`. `production` has others: its group is `wine-prod`.
async fn of_scaffold(scaffold: &str) -> PruneDesk {
    let mut desk = a_project().await;
    let text = scaffold.replace("project-name", "wine").replace("\"staging\"", "\"dev\"");
    let mut made: Value = serde_json::from_str(&text).unwrap();
    made["image"] = json!({"repository": "train"});
    desk.manifest(|manifest| *manifest = made);
    let variables = [
        ("SERVING_IMAGE", image(9)),
        ("MODEL_GROUP", "wine".to_owned()),
        ("MODEL_BUCKET", "memory".to_owned()),
        ("AWS_ACCOUNT_ID", "123456789012".to_owned()),
    ];
    desk.env.extend(variables.map(|(name, value)| (name.to_owned(), value)));
    desk
}

#[test_case(TRAINING; "training")]
#[test_case(ENDPOINT; "endpoint")]
#[tokio::test(start_paused = true)]
async fn old_things_of_a_scaffold_go_and_what_any_entry_uses_stays(scaffold: &str) {
    let desk = of_scaffold(scaffold).await;
    let old = "packages/2/candidate-PR-2-01234567-20261102T000000Z.zip";
    desk.memory.objects.insert(old, "x");
    register(&desk, "wine-prod", 3, "1").await;
    // An endpoint of production with another image.
    let source = ModelSource::Container { image: image(4), model_data_url: None };
    desk.memory.serving.create_model(&ServedModel { source, ..example_model("prod") }).await.unwrap();
    desk.memory.serving.create_config(&example_config("prod", "prod")).await.unwrap();
    desk.memory.serving.create_endpoint(&example_endpoint("wine-production", "prod")).await.unwrap();
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, &ended.data["unread"]), (None, &json!([])), "{}{}", ended.error, ended.told);
    assert_eq!(ended.rule(&digest(3)), "referred_to", "{}", ended.data);
    assert_eq!(ended.rule(&digest(4)), "used_by_endpoint", "{}", ended.data);
    assert_eq!((ended.rule(PACKAGE), ended.rule(old)), ("referred_to".to_owned(), "candidate".to_owned()));
    // 1 is approved, 2 released, 7 what a rollback brings back, 8 deployed and 9 the newest.
    assert_eq!(ended.of("image", "deleted"), [5, 6].map(digest), "{}", ended.data);
    assert!(ended.of("generic_package", "deleted").contains(&"candidate-PR-1-01234567-20261101T000000Z".to_owned()));
    // A version of production has the model of the other job.
    assert_eq!(ended.of("training_job", "deleted").len(), 1, "{}", ended.data);
    assert_eq!(ended.rule("gitlab-42-3-00000003"), "referred_to");
    assert!(!ended.of("version", "deleted").contains(&version_arn(1)) && ended.told.contains("for the retention"));
}

/// An approved version of before `model.group` was changed.
#[tokio::test(start_paused = true)]
async fn versions_of_a_group_that_no_entry_names_keep_image_and_package() {
    let desk = a_project().await;
    register(&desk, "wine-of-before", 3, "1").await;
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.rule(&digest(3)), ended.rule(PACKAGE)), {
        let referred = "referred_to".to_owned();
        (None, referred.clone(), referred)
    });
}

/// A mistake in the model of another entry is no variable.
#[tokio::test(start_paused = true)]
async fn a_wrong_image_in_an_entry_keeps_all_images() {
    let desk = a_project().await;
    desk.manifest(|manifest| {
        let mut entry = manifest["environments"]["dev"].clone();
        entry["patch"] = json!({"model": {"image": 7}});
        manifest["environments"]["production"] = entry;
    });
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.of("image", "deleted")), (None, Vec::new()), "{}", ended.data);
    assert!(ended.told.contains("has a mistake in the entry `production`"), "{}", ended.told);
    assert!(!ended.of("training_job", "deleted").is_empty());
}

/// A variable without a value does not hide what the entry says without one.
#[tokio::test(start_paused = true)]
async fn an_entry_whose_group_is_not_known_keeps_its_image() {
    let desk = a_project().await;
    desk.manifest(|manifest| {
        let mut entry = manifest["environments"]["dev"].clone();
        entry["patch"] = json!({"model": {"image": image(3), "group": "${PRODUCTION_GROUP}"}});
        manifest["environments"]["production"] = entry;
    });
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.rule(&digest(3))), (None, "referred_to".to_owned()), "{}", ended.data);
    assert!(!ended.of("image", "deleted").is_empty());
}
