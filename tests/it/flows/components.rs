//! Projects that include a flow of the components, by tag, as their README says.

use std::path::Path;

use super::event::Event;
use super::schedule::JobState;
use super::site::{NAME, Site, USUAL};
use super::training::{commit, scaffold, sha256, trained_with, worsened};
use super::{play, play_with, show};
use crate::support::world::Runner;

/// Jobs of a person.
const DECISIONS: [&str; 2] = ["stable-approve", "stable-reject"];

/// The pipeline of a project with this flow, which is the example of the components' README.
pub(super) fn example(flow: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci-templates/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let mut blocks = readme.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    let found = blocks.find(|block| block.contains(&format!("/ml/components/{flow}@")));
    found.unwrap_or_else(|| panic!("the README has no example of {flow}")).to_owned()
}

/// The scaffold's files, with this pipeline.
pub(super) fn project(pipeline: &str) -> Vec<(String, String)> {
    let mut files = scaffold();
    files.retain(|(path, _)| path != ".gitlab-ci.yml");
    files.push((".gitlab-ci.yml".to_owned(), pipeline.to_owned()));
    files
}

/// A merge request makes a candidate; its merge a stable package, whose version somebody approves.
fn training_project(site: &Site) {
    site.api.merge_request(12);
    commit(site, "main", &project(&example("training-project")));
    let sha = commit(site, "better", &trained_with("0.5"));
    let request = Event::MergeRequest { number: 12, branch: "better", title: "Change one number" };
    let mut candidate = site.pipeline(&request, &sha);
    candidate.run().passed_but(&[]);
    show::pipeline(&candidate);
    let package = candidate.job("candidate-package");
    let name = package.variable("PACKAGE_NAME");
    assert!(name.starts_with("candidate-PR-12-"), "{name}");
    assert_eq!(sha256(&package.package()), package.variable("PACKAGE_SHA256"));
    assert_eq!(site.api.notes(12).len(), 1, "{}", candidate.job("report").outcome);
    let page = String::from_utf8(candidate.job("report").file("report.html")).unwrap();
    assert!(page.contains("Training job"), "the bill of the training job is in the report: {page}");
    assert_eq!((site.api.files().len(), site.api.releases().len(), site.versions(NAME).len()), (0, 0, 0));

    let sha = site.repository.merge("better", "main");
    let mut stable = site.pipeline(&Event::Push { branch: "main" }, &sha);
    stable.run().passed_but(&DECISIONS);
    let package = stable.job("stable-package");
    let (name, hash) = (package.variable("PACKAGE_NAME"), package.variable("PACKAGE_SHA256"));
    assert_eq!(sha256(&package.package()), hash);
    let files = site.api.files();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!((file.name.as_str(), file.sha256.as_str()), (name, hash));
    assert_eq!(site.api.releases().len(), 1);
    assert_eq!(site.api.releases()[0].commit, sha);
    // The same jobs again find what is there, and make the same package.
    let (name, hash) = (name.to_owned(), hash.to_owned());
    let registered = stable.job("stable-register").variable("MODEL_PACKAGE_ARN").to_owned();
    for job in ["stable-register", "stable-package", "stable-release"] {
        stable.retry(job).passed_but(&DECISIONS);
    }
    assert_eq!(stable.job("stable-register").variable("MODEL_PACKAGE_ARN"), registered);
    let package = stable.job("stable-package");
    assert_eq!((package.variable("PACKAGE_NAME"), package.variable("PACKAGE_SHA256")), (name.as_str(), hash.as_str()));
    assert_eq!((site.api.files().len(), site.api.releases().len()), (1, 1));
    let version = |site: &Site| site.versions(NAME).into_iter().map(|mut found| found["ModelApprovalStatus"].take());
    assert_eq!(version(site).collect::<Vec<_>>(), ["PendingManualApproval"]);
    stable.by("2").play("stable-approve", &[("REASON", "good on the holdout")]).passed_but(&["stable-reject"]);
    show::pipeline(&stable);
    assert_eq!(version(site).collect::<Vec<_>>(), ["Approved"]);
}

/// A draft waits for a click before it trains.
fn a_draft(site: &Site) {
    site.api.merge_request(12);
    commit(site, "main", &project(&example("training-project")));
    site.repository.commit("better", &[("notes.py", "import os\n")]);
    let sha = commit(site, "better", &trained_with("0.5"));
    let request = Event::MergeRequest { number: 12, branch: "better", title: "Draft: change one number" };
    let mut draft = site.pipeline(&request, &sha);
    draft.run();
    show::pipeline(&draft);
    // An unused import.
    assert_eq!(draft.in_state(JobState::Warning), ["lint"], "{:?}", draft.schedule);
    assert_eq!(draft.in_state(JobState::Success), ["manifest", "unit-tests"]);
    assert_eq!(draft.in_state(JobState::Manual), ["train"]);
    draft.play("train", &[]);
    assert_eq!(draft.in_state(JobState::Created), Vec::<&str>::new(), "{:?}", draft.schedule);
    assert_eq!(draft.in_state(JobState::Failed), Vec::<&str>::new(), "{:?}", draft.schedule);
}

/// A worse model stops at the gate, and the report, which runs all the same, says why.
fn a_worse_model(site: &Site) {
    let pipeline = worsened(site, &project(&example("training-project")));
    assert_eq!(
        pipeline.in_state(JobState::Skipped),
        ["stable-register", "stable-approve", "stable-reject", "stable-package", "stable-release"]
    );
    let page = String::from_utf8(pipeline.job("report").file("report.html")).unwrap();
    assert!(page.contains("does not pass the gate"), "{page}");
}

#[test]
fn a_project_with_the_training_flow_goes_from_a_candidate_to_an_approved_release() {
    play("a_project_with_the_training_flow_goes_from_a_candidate_to_an_approved_release", training_project);
}

#[test]
fn a_draft_may_fail_its_lints_and_waits_for_a_click() {
    play("a_draft_may_fail_its_lints_and_waits_for_a_click", a_draft);
}

/// The double runs pipelines also where GitLab Runner is on `PATH`.
#[test]
fn a_worse_model_stops_at_the_gate_of_the_runner_double() {
    play_with("a_worse_model_stops_at_the_gate_of_the_runner_double", Runner::Double, NAME, &USUAL, a_worse_model);
}
