//! Pipelines up to production, back by GitLab's Rollback button, and the removal of review endpoints, for projects that include a flow.

use serde_json::{Value, json};

use super::components::{example, project};
use super::demonstrations::both_scaffolds;
use super::event::Event;
use super::pipeline::Pipeline;
use super::play;
use super::schedule::JobState;
use super::site::{LIFECYCLE_ROLE, NAME, PRODUCTION_ROLE, STAGING_ROLE, Site};
use super::training::{NO_BARS, commit, of_scaffold, trained_with};

/// A pipeline for a project where GitLab protects the environment of production.
const PROTECTED: &str = "include:
  - component: $CI_SERVER_FQDN/ml/components/full-project@1.0.0
    inputs:
      stable_environment: stable
      production_plan: manual
";
const MAIN: Event = Event::Push { branch: "main" };
/// The user who merges.
pub(super) const AUTHOR: &str = "1";
pub(super) const APPROVER: &str = "2";

#[track_caller]
pub(super) fn nothing_failed(pipeline: &Pipeline<'_>) {
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
}

/// The shipped policies suffice for what the jobs do.
#[track_caller]
pub(super) fn nothing_was_denied(site: &Site) {
    for role in [LIFECYCLE_ROLE, STAGING_ROLE, PRODUCTION_ROLE] {
        let decided = site.emulator().decided(role);
        assert!(decided.is_null() || decided["denied"] == json!({}), "{role}: {decided}");
    }
}

/// The files without their unit tests, which other rows run.
pub(super) fn untested(mut files: Vec<(String, String)>) -> Vec<(String, String)> {
    for (_, text) in files.iter_mut().filter(|(path, _)| path.starts_with("tests/unit/")) {
        NO_BARS.clone_into(text);
    }
    files
}

/// The project of both scaffolds, whose environment of production may be protected.
fn full_project() -> Vec<(String, String)> {
    let mut files = untested(both_scaffolds());
    for (_, text) in files.iter_mut().filter(|(path, _)| path == ".gitlab-ci.yml") {
        PROTECTED.clone_into(text);
    }
    files
}

/// The package of a merge goes to staging, is tested and released there, and then to production, byte for byte, when a second person has
/// approved it and somebody starts the deployment. The Rollback button, which runs the deployment of an earlier pipeline again, brings the
/// old model back.
fn to_production_and_back(site: &Site) {
    let sha = commit(site, "main", &full_project());
    let mut first = site.pipeline(&MAIN, &sha);
    first.run();
    nothing_failed(&first);
    for job in ["staging-test", "stable-release"] {
        assert_eq!(first.schedule.state(job), JobState::Success, "{job}: {}", first.told());
    }
    // Nothing has used the environment of production, which may be protected from the user who merged.
    assert_eq!(site.environment("production"), None);
    assert!(site.environment("stable").is_some());
    // Not approved yet, which the plan says without a failure of the pipeline.
    first.play("production-plan", &[]);
    assert_eq!(first.schedule.state("production-plan"), JobState::Warning, "{}", first.told());
    let plan = first.job("production-plan");
    plan.outcome.failed("script_failure", Some(30));
    assert!(serde_json::from_slice::<Value>(&plan.file("plan.json")).is_ok(), "{}", plan.outcome);
    first.play("production-deploy", &[]);
    first.job("production-deploy").outcome.failed("script_failure", Some(30));
    first.by(APPROVER).play("stable-approve", &[("REASON", "good on the holdout")]);
    first.by(AUTHOR).retry("production-deploy");
    nothing_failed(&first);
    assert_eq!(first.schedule.state("production-test"), JobState::Success, "{}", first.told());
    let version = first.job("stable-register").variable("MODEL_PACKAGE_ARN").to_owned();
    assert_eq!(first.job("production-deploy").variable("MODEL_PACKAGE_ARN"), version);
    let package = first.job("stable-package").variable("PACKAGE_SHA256");
    for job in ["staging-deploy", "production-deploy"] {
        assert_eq!(first.job(job).variable("PACKAGE_SHA256"), package, "{job}");
    }

    let sha = commit(site, "main", &trained_with("0.5"));
    let mut second = site.pipeline(&MAIN, &sha);
    second.run().by(APPROVER).play("stable-approve", &[("REASON", "better")]);
    second.by(AUTHOR).play("production-plan", &[]).play("production-deploy", &[]);
    nothing_failed(&second);
    let better = second.job("production-deploy").variable("MODEL_PACKAGE_ARN").to_owned();
    assert_ne!(better, version);
    let configuration = first.job("production-deploy").variable("ENDPOINT_CONFIG_NAME").to_owned();
    first.retry("production-deploy");
    let back = first.job("production-deploy");
    let served = (back.variable("MODEL_PACKAGE_ARN"), back.variable("ENDPOINT_CONFIG_NAME"));
    assert_eq!(served, (version.as_str(), configuration.as_str()), "{}", back.outcome);
    let deployments = site.environment("production").unwrap().deployments;
    assert_eq!(deployments, [first.facts.id, second.facts.id, first.facts.id]);
    // The job brings back what served before that, and is no deployment in GitLab's list.
    second.play("production-rollback", &[]);
    nothing_failed(&second);
    assert_eq!(second.job("production-rollback").variable("MODEL_PACKAGE_ARN"), better);
    assert_eq!(site.environment("production").unwrap().deployments.len(), 3);
    nothing_was_denied(site);
}

/// The names of the classes in the wrong order: the metrics are as good as before, and the answers wrong.
fn answers_wrongly() -> Vec<(String, String)> {
    let mut files = trained_with("0.5");
    files[0].1 = files[0]
        .1
        .replace("write_model(arguments.model, model, names,", "write_model(arguments.model, model, names[::-1],");
    assert!(files[0].1.contains("names[::-1]"), "{files:?}");
    files.push(("tests/unit/test_training.py".to_owned(), NO_BARS.to_owned()));
    files
}

/// The endpoint of a merge request whose model answers wrongly is removed by the pipeline itself.
fn a_wrong_candidate(site: &Site) {
    site.api.merge_request(12);
    commit(site, "main", &full_project());
    let sha = commit(site, "better", &answers_wrongly());
    let request = Event::MergeRequest { number: 12, branch: "better", title: "Change the order of classes" };
    let mut pipeline = site.pipeline(&request, &sha);
    pipeline.run();
    assert_eq!(pipeline.in_state(JobState::Failed), ["review-deploy"], "{}", pipeline.told());
    assert_eq!(pipeline.schedule.state("review-clean"), JobState::Skipped, "{}", pipeline.told());
    assert_eq!(pipeline.schedule.state("review-clean-deploy"), JobState::Success, "{}", pipeline.told());
    assert_eq!(site.endpoints(), Vec::<String>::new());
    assert!(site.environment("review/better").unwrap().is_stopped);
    nothing_was_denied(site);
}

/// The version that a training project registers, and somebody approves.
pub(super) fn registered_model(site: &Site) -> String {
    let sha = commit(site, "main", &untested(project(&example("training-project"))));
    let mut trained = site.pipeline(&MAIN, &sha);
    trained.run().by(APPROVER).play("stable-approve", &[("REASON", "good on the holdout")]);
    nothing_failed(&trained);
    trained.job("stable-register").variable("MODEL_PACKAGE_ARN").to_owned()
}

/// The project that serves, with this pipeline.
pub(super) fn serving_project(pipeline: &str) -> Vec<(String, String)> {
    let mut serving = untested(of_scaffold("endpoint"));
    serving.retain(|(path, _)| path != ".gitlab-ci.yml");
    serving.push((".gitlab-ci.yml".to_owned(), pipeline.to_owned()));
    for (path, text) in &mut serving {
        if path == "manifest.json" {
            let mut manifest: Value = serde_json::from_str(text).unwrap();
            // Two instances and a canary take a while, and are tested elsewhere.
            manifest["environments"]["production"].as_object_mut().unwrap().remove("patch");
            manifest["endpoint"]["alarms"] = json!({"errors_5xx": 5});
            manifest["endpoint"]["test"]["max_p95_ms"] = json!(5000);
            *text = manifest.to_string();
        }
    }
    serving
}

/// A project that serves takes the version that another pipeline registered and somebody approved, and ships it with its own package.
fn the_registered_model(site: &Site) {
    let version = registered_model(site);
    let serving = serving_project(&example("inference-project"));
    let sha = commit(site, "main", &serving);
    let mut pipeline = site.pipeline(&MAIN, &sha);
    pipeline.run();
    nothing_failed(&pipeline);
    pipeline.play("production-deploy", &[]);
    nothing_failed(&pipeline);
    for job in ["stable-latest", "staging-deploy", "production-deploy"] {
        assert_eq!(pipeline.job(job).variable("MODEL_PACKAGE_ARN"), version, "{job}");
    }
    assert_eq!(pipeline.schedule.state("stable-release"), JobState::Success, "{}", pipeline.told());
    assert_eq!((site.api.releases().len(), site.versions(NAME).len()), (2, 1));
    nothing_was_denied(site);
}

#[test]
fn a_full_project_goes_to_production_and_back() {
    play("a_full_project_goes_to_production_and_back", to_production_and_back);
}

#[test]
fn the_endpoint_of_a_wrong_candidate_is_removed() {
    play("the_endpoint_of_a_wrong_candidate_is_removed", a_wrong_candidate);
}

#[test]
fn an_inference_project_deploys_the_registered_model() {
    play("an_inference_project_deploys_the_registered_model", the_registered_model);
}
