//! AWS takes 50 tags: those of a manifest with the most of them, and those of the commands.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use crate::cloud::Access;
use crate::cloud::testing::example_version;
use crate::lifecycle::endpoint::deployed_package::DeployedPackage;
use crate::lifecycle::endpoint::specification::DeploymentSpecification;
use crate::lifecycle::manifest::{EnvironmentEntry, MOST_TAGS, Manifest};
use crate::lifecycle::model::approvals::ApprovalRule;
use crate::lifecycle::pipeline::Pipeline;
use crate::lifecycle::target::ProjectTarget;

#[test]
fn a_deployment_of_a_package_with_approvals_has_50_tags_at_most() {
    let tags: BTreeMap<_, _> = (0..MOST_TAGS).map(|number| (format!("tag-{number}"), "value")).collect();
    let mut manifest: Manifest = serde_json::from_value(json!({"tags": tags})).unwrap();
    manifest.target = EnvironmentEntry { role: Some("role".to_owned()), ..EnvironmentEntry::default() };
    let some = |text: &str| Some(text.to_owned());
    let target = ProjectTarget {
        manifest,
        folder: PathBuf::new(),
        environment: some("prod"),
        pipeline: Pipeline {
            project: some("group/project"),
            commit: some("c0ffee"),
            id: some("7"),
            environment: some("production"),
            ..Pipeline::default()
        },
        access: Access { bucket: "models".to_owned(), prefix: "wine".to_owned(), ..Access::default() },
    };
    let package = DeployedPackage {
        name: "wine-7.zip".to_owned(),
        sha256: "1".repeat(64),
        commit: "c0ffee".to_owned(),
        model_sha256: "2".repeat(64),
        uri: "s3://models/wine-7.zip".to_owned(),
    };
    let endpoint =
        serde_json::from_value(json!({"name": "wine", "instances": {"type": "ml.m5.large", "count": 1}})).unwrap();
    let made = DeploymentSpecification::new(
        &target,
        &endpoint,
        &example_version(),
        Some(&package),
        Some(ApprovalRule::default()),
    );
    let made = made.unwrap();
    for tags in [&made.tags, &made.model.tags, &made.config.tags] {
        assert_eq!(tags.len(), 50, "{tags:?}");
    }
}
