//! `endpoint rollback` after a clean-up, as without one: two projects with the same random past.

use clap::Parser;
use proptest::prelude::*;
use serde_json::json;

use super::{Ended, PROJECT, PruneDesk, digest};
use crate::base::failure;
use crate::base::signals::Cancellation;
use crate::cloud::{Approval, GroupSpec, ModelEndpoints as _, ModelRegistry as _, VersionSpec};
use crate::config::env::short_or_long;
use crate::lifecycle::endpoint::{self, EndpointArgs};

#[derive(Parser)]
struct EndpointLine {
    #[command(flatten)]
    endpoint: EndpointArgs,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Deploy,
    Rollback,
    RollbackTo(u8),
    /// Deletes the endpoint.
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Deploy),
        2 => Just(Step::Rollback),
        2 => (1..5_u8).prop_map(Step::RollbackTo),
        1 => Just(Step::Delete),
    ]
}

async fn endpoint(desk: &PruneDesk, words: &[&str]) -> Ended {
    let manifest = desk.folder.path().join("manifest.json");
    let end = ["--manifest", manifest.to_str().unwrap(), "--output", "json"];
    let line = EndpointLine::try_parse_from([&["endpoint"], words, &end].concat()).unwrap();
    let (inputs, captured) = desk.inputs();
    let ended = endpoint::run(&inputs, line.endpoint, Cancellation::default()).await;
    Ended {
        kind: ended.as_ref().err().map(failure::kind_of),
        error: ended.as_ref().err().map(failure::render).unwrap_or_default(),
        data: serde_json::from_slice(&captured.data()).unwrap_or_default(),
        told: captured.text(),
    }
}

/// Registers the next version, and approves it.
async fn version(desk: &PruneDesk, number: u32) {
    let group = GroupSpec { name: "wine".to_owned(), description: None, tags: std::collections::BTreeMap::new() };
    let _ = desk.memory.registry.create_group(&group).await;
    let image = format!("train@{}", digest(number));
    desk.memory.account.set_image(&image, &["linux/amd64"]);
    let key = format!("models/{number}/model.tar.gz");
    desk.memory.objects.insert(&key, "");
    let spec = VersionSpec {
        group: "wine".to_owned(),
        client_token: format!("{number:036}"),
        description: format!("[content {number:036}]"),
        image: format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/{image}"),
        model_data_url: format!("s3://memory/{key}"),
        environment: std::collections::BTreeMap::new(),
        content_types: Vec::new(),
        response_types: Vec::new(),
        instance_types: Vec::new(),
        metrics: None,
        commit: None,
        repository: None,
        generated_by: None,
        project: Some(PROJECT.to_owned()),
        metadata: [("project".to_owned(), PROJECT.to_owned())].into(),
    };
    let arn = desk.memory.registry.create_version(&spec).await.unwrap();
    let now = desk.clock_now();
    desk.memory.registry.change(&arn, |version| {
        version.created = Some(now);
        version.approval = Approval::Approved;
    });
}

/// A project whose endpoint went through these steps. Steps that are refused change nothing.
async fn after(steps: &[Step]) -> PruneDesk {
    let desk = PruneDesk::new();
    desk.memory.account.set_quota("ml.m5.large", 8.0);
    desk.manifest(|manifest| {
        manifest["environments"]["dev"].as_object_mut().unwrap().remove("prefix");
        manifest["model"]["image"] = json!(format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/train@{}", digest(0)));
    });
    let mut versions = 0;
    for step in [&[Step::Deploy], steps].concat() {
        match step {
            Step::Deploy => {
                versions += 1;
                version(&desk, versions).await;
                let ended = endpoint(&desk, &["deploy"]).await;
                assert_eq!(ended.kind, None, "{}{}", ended.error, ended.told);
            }
            Step::Rollback => drop(endpoint(&desk, &["rollback", "--reason", "x"]).await),
            Step::RollbackTo(number) => {
                drop(endpoint(&desk, &["rollback", "--reason", "x", "--to", &number.to_string()]).await);
            }
            Step::Delete => drop(endpoint(&desk, &["delete"]).await),
        }
        // A version that AWS took back is not the newest approved one any more.
        tokio::time::advance(std::time::Duration::from_hours(1)).await;
    }
    desk
}

async fn in_service(desk: &PruneDesk) -> Option<String> {
    desk.memory.serving.endpoint("wine").await.unwrap().map(|sight| sight.config)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(short_or_long(12, 200)))]

    #[test]
    fn a_rollback_finds_what_it_needs_after_every_clean_up(steps in prop::collection::vec(step(), 1..8), keep in 1..4_u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (pruned, whole) = (after(&steps).await, after(&steps).await);
            let (before, expected) = (in_service(&pruned).await, in_service(&whole).await);
            prop_assert_eq!(&before, &expected);
            let ended = pruned.prune(&["--retention-days", "0", "--keep", &keep.to_string()]).await;
            prop_assert_eq!(ended.kind, None, "{}", ended.error);
            prop_assert_eq!(in_service(&pruned).await, before);
            let (after_prune, without) = (
                endpoint(&pruned, &["rollback", "--reason", "y"]).await,
                endpoint(&whole, &["rollback", "--reason", "y"]).await,
            );
            prop_assert_eq!(&after_prune.error, &without.error, "{}", ended.data);
            prop_assert_eq!(after_prune.kind, without.kind, "{}", after_prune.told);
            prop_assert_eq!(in_service(&pruned).await, in_service(&whole).await);
            Ok(())
        })?;
    }
}
