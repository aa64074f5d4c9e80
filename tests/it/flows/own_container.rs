//! The demonstration `own-container`: a project that serves the model of another one, in an image that its pipeline builds. The package is a
//! version of its own, and waits for its own approval.

use serde_json::json;

use super::event::{Event, MAIN_PROJECT};
use super::pipeline::Pipeline;
use super::production::{APPROVER, AUTHOR, nothing_failed, nothing_was_denied, registered_model, serving_project};
use super::retail::variables_for_builds;
use super::schedule::JobState;
use super::site::{NAME, Project, ProjectVariable, Site};
use super::training::commit;
use super::{play, show};
use crate::conformance::skipped;
use crate::support::images::missing_builder;

const PIPELINE: &str = "include:
  - component: $CI_SERVER_FQDN/ml/components/inference-project@1.0.0
    inputs:
      build_images: always
      serving_repository: wine-serving
      image_accepted: accepted.json
";
/// The finding that the emulator's scan has.
const ACCEPTED: &str = r#"{"accepted": [{"id": "CVE-2026-0001", "package": "libexample", "reason": "never called", "until": "2999-12-31"}]}"#;
const MAIN: Event = Event::Push { branch: "main" };
const PRODUCTION: &str = "wine-production";

/// The image of the model that an endpoint serves.
#[track_caller]
fn image(site: &Site, endpoint: &str) -> String {
    let call = |operation: &str, key: &str, name: &str| {
        site.emulator().call(&format!("SageMaker.{operation}"), &json!({key: name}))
    };
    let found = call("DescribeEndpoint", "EndpointName", endpoint);
    let found = call("DescribeEndpointConfig", "EndpointConfigName", found["EndpointConfigName"].as_str().unwrap());
    let found = call("DescribeModel", "ModelName", found["ProductionVariants"][0]["ModelName"].as_str().unwrap());
    let of_package = found["PrimaryContainer"]["ModelPackageName"].as_str();
    let container = of_package.map(|arn| call("DescribeModelPackage", "ModelPackageName", arn));
    let container = container.map(|package| package["InferenceSpecification"]["Containers"][0].clone());
    let container = container.unwrap_or_else(|| found["PrimaryContainer"].clone());
    container["Image"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned()
}

fn whole(site: &Site) {
    let registered = registered_model(site);
    let variables = variables_for_builds(site, NAME, &["serving"]);
    let mut files = serving_project(PIPELINE);
    files.push(("accepted.json".to_owned(), ACCEPTED.to_owned()));
    let sha = commit(site, "main", &files);
    let mut pipeline = started(site, &variables, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    nothing_failed(&pipeline);
    let built = pipeline.job("serving-image-build").variable("IMAGE_URI").to_owned();
    assert_eq!(pipeline.job("stable-latest").variable("MODEL_PACKAGE_ARN"), registered);
    assert_eq!(pipeline.job("stable-package").variable("SERVING_IMAGE"), built);
    assert_eq!(image(site, "wine-staging"), built);
    let own = pipeline.job("staging-deploy").variable("MODEL_PACKAGE_ARN").to_owned();
    assert_ne!(own, registered);
    // The approval of the model was for another image.
    assert_eq!(pipeline.schedule.state("production-plan"), JobState::Warning, "{}", pipeline.told());
    pipeline.play("production-deploy", &[]);
    pipeline.job("production-deploy").outcome.failed("script_failure", Some(30));
    pipeline.by(APPROVER).play("production-approve", &[("REASON", "serves as before")]);
    pipeline.by(AUTHOR).retry("production-deploy");
    nothing_failed(&pipeline);
    assert_eq!(pipeline.job("production-deploy").variable("MODEL_PACKAGE_ARN"), own);
    assert_eq!(image(site, PRODUCTION), built);
    let (status, body) = site.emulator().invoke(
        PRODUCTION,
        "text/csv",
        "14.23,1.71,2.43,15.6,127,2.8,3.06,0.28,2.29,5.64,1.04,3.92,1065",
    );
    assert!(status == 200 && body.contains("class_0"), "{status} {body}");
    nothing_was_denied(site);
    show::table(
        "what exists",
        &[
            ["registered model".to_owned(), registered],
            ["own image".to_owned(), built],
            ["version of the package".to_owned(), own],
            ["endpoints".to_owned(), site.endpoints().join(", ")],
        ],
    );
}

#[track_caller]
fn started<'a>(site: &'a Site, variables: &'a [ProjectVariable], sha: &str) -> Pipeline<'a> {
    let Site { repository, environments, .. } = site;
    site.pipeline_of(Project { name: MAIN_PROJECT, repository, variables, environments }, &MAIN, sha)
}

#[test]
#[ignore = "takes a minute of the machine: `.ci/demo own-container` runs it"]
fn own_container_demonstration() {
    if let Some(missing) = missing_builder() {
        return skipped("own_container_demonstration", missing);
    }
    play("own_container_demonstration", whole);
}
