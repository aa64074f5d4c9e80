//! Users in places that are not the command's own: groups of other environments, records below other prefixes, endpoints whose
//! configuration or model somebody deleted; and names that do not tell one owner from another.

use std::collections::BTreeMap;

use serde_json::json;

use super::{DAY, PACKAGE, PROJECT, PruneDesk, a_project, config_name, digest, image, model_name, tags, version_arn};
use crate::base::failure::Kind;
use crate::cloud::testing::{example_config, example_endpoint, example_model};
use crate::cloud::{
    ComponentParts, EndpointConfiguration, GroupSpec, ModelEndpoints as _, ModelRegistry as _, ModelSource,
    ServedModel, VersionSpec,
};
use crate::gitlab::api::Release;

/// Gives the manifest an entry `production` with this patch of `model`.
fn production(desk: &PruneDesk, model: &serde_json::Value) {
    desk.manifest(|manifest| {
        let mut entry = manifest["environments"]["dev"].clone();
        entry["patch"] = json!({ "model": model });
        manifest["environments"]["production"] = entry;
    });
}

#[tokio::test(start_paused = true)]
async fn versions_in_the_group_of_another_entry_keep_image_and_package() {
    let desk = a_project().await;
    let group = GroupSpec { name: "wine-prod".to_owned(), description: None, tags: BTreeMap::new() };
    desk.memory.registry.create_group(&group).await.unwrap();
    let metadata = [("project", PROJECT), ("package-sha256", "1")];
    let wanted = VersionSpec {
        group: "wine-prod".to_owned(),
        client_token: "prod".to_owned(),
        image: image(4),
        metadata: metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..desk.memory.registry.requests().last().unwrap().clone()
    };
    desk.memory.registry.create_version(&wanted).await.unwrap();
    production(&desk, &json!({"group": "wine-prod"}));
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.rule(&digest(4))), (None, "referred_to".to_owned()), "{}", ended.data);
    assert_eq!(ended.rule(PACKAGE), "referred_to", "{}", ended.data);
    assert!(!ended.of("image", "deleted").is_empty());
}

/// The value may be another one in jobs of that environment: what it names there is kept by its use, as every image.
#[tokio::test(start_paused = true)]
async fn variables_in_the_model_of_another_entry_keep_what_they_name_here() {
    let mut desk = a_project().await;
    desk.env.insert("OTHER_IMAGE".to_owned(), image(3));
    production(&desk, &json!({"image": format!("${{OTHER_IMAGE:{}}}", image(4))}));
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.rule(&digest(3))), (None, "referred_to".to_owned()), "{}", ended.data);
    // The default is that of an environment without a value.
    assert_eq!(ended.rule(&digest(4)), "referred_to", "{}", ended.data);
    assert!(!ended.of("image", "deleted").is_empty() && ended.told.contains("`production`"), "{}", ended.told);
    desk.env.remove("OTHER_IMAGE");
    production(&desk, &json!({"image": "${OTHER_IMAGE}"}));
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, ended.of("image", "deleted")), (None, [3, 4].map(digest).to_vec()), "{}", ended.data);
}

/// A live endpoint of somebody else.
async fn theirs(desk: &PruneDesk, model: &ServedModel) {
    desk.memory.serving.create_model(model).await.unwrap();
    desk.memory.serving.create_config(&example_config("theirs", &model.name)).await.unwrap();
    desk.memory.serving.create_endpoint(&example_endpoint("theirs", "theirs")).await.unwrap();
    tokio::time::advance(DAY).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_model_was_deleted_keeps_its_image() {
    for tells in [true, false] {
        let desk = a_project().await;
        let source = ModelSource::Container { image: image(4), model_data_url: None };
        theirs(&desk, &ServedModel { source, ..example_model("theirs") }).await;
        desk.memory.serving.delete_model("theirs").await.unwrap();
        if tells {
            desk.memory.serving.set_deployed_images("theirs", &[image(4)]);
        }
        let ended = desk.prune(&["--keep", "1"]).await;
        // Without it the versions stay, and have it.
        let rule = if tells { "used_by_endpoint" } else { "referred_to" };
        assert_eq!((ended.kind, ended.rule(&digest(4)).as_str()), (None, rule), "{}", ended.data);
        assert_eq!(ended.of("image", "deleted").is_empty(), !tells);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_foreign_configuration_was_deleted_keeps_models() {
    let desk = a_project().await;
    desk.memory.serving.create_config(&example_config("canary", &model_name("wine", 1))).await.unwrap();
    desk.memory.serving.create_endpoint(&example_endpoint("canary", "canary")).await.unwrap();
    tokio::time::advance(DAY).await;
    desk.memory.serving.delete_config("canary").await.unwrap();
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(ended.rule(&model_name("wine", 1)), "references_unknown", "{}", ended.data);
    assert_eq!(ended.data["unread"], json!(["endpoint_models"]));
    assert!(ended.told.contains("somebody deleted the configuration"), "{}", ended.told);
}

#[tokio::test(start_paused = true)]
async fn components_of_an_endpoint_without_its_configuration_keep_models_and_images() {
    let desk = a_project().await;
    theirs(&desk, &example_model("theirs")).await;
    let components = ComponentParts { models: vec![model_name("wine", 1)], images: vec![image(4)] };
    desk.memory.serving.set_components("theirs", components);
    desk.memory.serving.delete_config("theirs").await.unwrap();
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(ended.rule(&model_name("wine", 1)), "used_by_endpoint", "{}", ended.data);
    assert_eq!(ended.rule(&digest(4)), "used_by_endpoint");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_recorded_below_another_prefix_keeps_its_deployments() {
    let desk = a_project().await;
    for number in 1..=2 {
        desk.add_config("wine-feat", number, PROJECT).await;
    }
    desk.add_endpoint("wine-feat", 2, PROJECT).await;
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(ended.rule(&config_name("wine-feat", 1)), "references_unknown", "{}", ended.data);
    assert_eq!(ended.rule(&model_name("wine-feat", 1)), "referred_to", "{}", ended.data);
    assert!(!ended.of("configuration", "deleted").is_empty());
}

/// The endpoint has a record below this prefix, and another one below that of before.
#[tokio::test(start_paused = true)]
async fn things_that_are_recorded_below_another_prefix_stay_while_their_endpoint_exists() {
    let desk = a_project().await;
    for (number, place) in [(20, "memory/before"), (21, "memory/wine")] {
        let mut tags = tags("wine", PROJECT);
        tags.insert("sagemaker-executor:records".to_owned(), place.to_owned());
        let model = ServedModel { tags: tags.clone(), ..example_model(&model_name("wine", number)) };
        desk.memory.serving.create_model(&model).await.unwrap();
        let config = example_config(&config_name("wine", number), &model.name);
        desk.memory.serving.create_config(&EndpointConfiguration { tags, ..config }).await.unwrap();
    }
    tokio::time::advance(30 * DAY).await;
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!(ended.rule(&config_name("wine", 20)), "references_unknown", "{}", ended.data);
    assert_eq!(ended.rule(&model_name("wine", 20)), "referred_to", "{}", ended.data);
    assert!(ended.of("configuration", "deleted").contains(&config_name("wine", 21)), "{}", ended.data);
    // Without the endpoint nobody brings it back.
    desk.memory.serving.delete_endpoint("wine").await.unwrap();
    tokio::time::advance(DAY).await;
    let ended = desk.prune(&["--keep", "1"]).await;
    assert!(ended.of("configuration", "deleted").contains(&config_name("wine", 20)), "{}", ended.data);
}

#[tokio::test(start_paused = true)]
async fn the_tag_or_the_title_of_a_release_keeps_a_candidate() {
    let candidate = "candidate-PR-1-01234567-20261101T000000Z";
    for (tag, name) in [(candidate, ""), ("v9", candidate)] {
        let desk = a_project().await;
        let [tag, name] = [tag, name].map(str::to_owned);
        let (commit, description) = (String::new(), String::new());
        desk.gitlab.make_release(Release { tag, name, commit, description, links: Vec::new(), url: None });
        assert_eq!(desk.prune(&[]).await.rule(candidate), "released");
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_another_project_ends_the_command_before_anything_goes() {
    let desk = a_project().await;
    desk.gitlab.set_path(Some("group/other"));
    let ended = desk.prune(&[]).await;
    assert!(ended.kind == Some(Kind::User) && ended.error.contains("`CI_PROJECT_ID`"), "{}", ended.error);
    assert_eq!((desk.gitlab.all_packages().len(), desk.memory.serving.models().len()), (4, 9));
    // A token that may not ask.
    desk.gitlab.set_path(None);
    let ended = desk.prune(&["--keep", "1"]).await;
    assert_eq!((ended.kind, desk.gitlab.count("packages")), (Some(Kind::System), 0), "{}", ended.error);
    assert_eq!((ended.rule(&version_arn(3)).as_str(), desk.gitlab.count("releases")), ("references_unknown", 0));
    assert!(!ended.of("model", "deleted").is_empty(), "{}", ended.data);
}

#[tokio::test(start_paused = true)]
async fn environments_of_one_tag_value_have_no_prune() {
    let mut desk = PruneDesk::new();
    desk.manifest(|manifest| {
        let entry = manifest["environments"]["dev"].clone();
        manifest["environments"] = json!({"dev,b": entry, "dev_b": entry});
    });
    desk.env.insert("CI_ENVIRONMENT_NAME".to_owned(), "dev_b".to_owned());
    let ended = desk.prune(&[]).await;
    assert!(ended.kind == Some(Kind::User) && ended.error.contains("one value in tags"), "{}", ended.error);
    desk.env.insert("CI_PROJECT_PATH".to_owned(), "g/".repeat(130));
    desk.env.insert("CI_ENVIRONMENT_NAME".to_owned(), "dev".to_owned());
    desk.manifest(|_| {});
    let ended = desk.prune(&[]).await;
    assert!(ended.kind == Some(Kind::User) && ended.error.contains("no value of a tag"), "{}", ended.error);
}
