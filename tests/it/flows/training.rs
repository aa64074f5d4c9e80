//! The pipeline of a project that `init training` makes: a merge request, its merge, and a change that makes the model worse.

use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::event::{Event, MAIN_PROJECT};
use super::pipeline::Pipeline;
use super::schedule::JobState;
use super::site::{NAME, Project, ProjectVariable, Site, files_below};
use super::{play, show};
use crate::support::gitlab_api::{ACCESS_TOKEN, PROJECT_PATH};
use crate::support::job::Variable;
use crate::support::program::executor;

/// The title of the merge request.
const TITLE: &str = "Change one number";

/// Unit tests that do not train.
pub(super) const NO_BARS: &str =
    "import unittest\nclass Nothing(unittest.TestCase):\n    def test_nothing(self):\n        pass\n";

/// The files of a new project that trains.
pub(super) fn scaffold() -> Vec<(String, String)> {
    of_scaffold("training")
}

/// The files of a new project of this kind.
pub(super) fn of_scaffold(kind: &str) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Command::new(executor());
    program.args(["init", kind, NAME, "--output-dir"]).arg(folder.path()).env_clear();
    let ended = program.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    files_below(&folder.path().join(NAME), "")
}

pub(super) fn commit(site: &Site, branch: &str, files: &[(String, String)]) -> String {
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    site.repository.commit(branch, &files)
}

/// `training_script.py` with another regularization.
pub(super) fn trained_with(number: &str) -> Vec<(String, String)> {
    let mut files = scaffold();
    files.retain(|(path, _)| path == "training_script.py");
    files[0].1 = files[0].1.replace("REGULARIZATION = 1.0", &format!("REGULARIZATION = {number}"));
    assert!(files[0].1.contains(number), "{files:?}");
    files
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// A merge request makes a candidate and a note; its merge a version in the registry and a release of the same bytes.
fn from_candidate_to_release(site: &Site) {
    site.api.merge_request(12);
    commit(site, "main", &scaffold());
    let sha = commit(site, "better", &trained_with("0.5"));
    // Its jobs have no environment.
    let mut variables = site.variables.clone();
    let token = Variable::new("GITLAB_TOKEN", ACCESS_TOKEN).masked();
    variables.push(ProjectVariable { variable: token, scope: "*" });
    let (repository, environments) = (&site.repository, &site.environments);
    let project = Project { name: MAIN_PROJECT, repository, variables: &variables, environments };
    let merge_request = Event::MergeRequest { number: 12, branch: "better", title: TITLE };
    let mut candidate = site.pipeline_of(project, &merge_request, &sha);
    candidate.run().passed_but(&[]);
    show::pipeline(&candidate);
    assert_eq!(
        candidate.in_state(JobState::Success),
        ["validate", "unit-tests", "train", "gate", "candidate-package", "report"]
    );
    let package = candidate.job("candidate-package");
    let name = package.variable("PACKAGE_NAME");
    assert!(Path::new(name).extension().is_some_and(|kind| kind == "zip") && name.starts_with("candidate-"), "{name}");
    assert_eq!(sha256(&package.package()), package.variable("PACKAGE_SHA256"));
    let notes = site.api.notes(12);
    assert_eq!(notes.len(), 1, "{}", candidate.job("report").outcome);
    assert!(notes[0].body.contains("accuracy"), "{}", notes[0].body);
    assert_eq!((site.api.files().len(), site.api.releases().len(), site.versions(NAME).len()), (0, 0, 0));

    let sha = site.repository.merge("better", "main");
    let mut stable = site.pipeline(&Event::Push { branch: "main" }, &sha);
    stable.run().passed_but(&[]);
    show::pipeline(&stable);
    let package = stable.job("stable-package");
    let (name, hash) = (package.variable("PACKAGE_NAME"), package.variable("PACKAGE_SHA256"));
    assert!(name.starts_with("stable-"), "{name}");
    assert_eq!(sha256(&package.package()), hash);
    let files = site.api.files();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!((file.name.as_str(), file.sha256.as_str()), (name, hash));
    let releases = site.api.releases();
    let [release] = releases.as_slice() else { panic!("{releases:?}") };
    assert_eq!((release.commit.as_str(), format!("{}.zip", release.tag).as_str()), (sha.as_str(), name));
    assert!(release.links.iter().any(|link| link.url.ends_with(name)), "{release:?}");
    assert_eq!(site.versions(NAME).len(), 1);
    let version = stable.job("register").variable("MODEL_PACKAGE_ARN");
    assert!(version.ends_with(":model-package/wine/1"), "{version}");
    assert_eq!(site.environment("staging").unwrap().deployments.len(), 1);
    show::table(
        "what exists",
        &[
            ["package registry".to_owned(), format!("{} sha256:{hash}", file.place)],
            ["release".to_owned(), format!("{} of {PROJECT_PATH} at {sha}", release.tag)],
            ["model registry".to_owned(), version.to_owned()],
        ],
    );
}

/// A worse model stops at the gate: nothing is registered, packaged or released.
fn a_worse_model(site: &Site) {
    let pipeline = worsened(site, &scaffold());
    assert_eq!(pipeline.in_state(JobState::Skipped), ["register", "stable-package", "release", "report"]);
}

/// The pipeline of a worse model in a project with these files, which failed at the gate.
pub(super) fn worsened<'a>(site: &'a Site, files: &[(String, String)]) -> Pipeline<'a> {
    commit(site, "main", files);
    // The tests of the scaffold hold the model against the bars, too.
    let mut files = trained_with("0.0001");
    files.push(("tests/unit/test_training.py".to_owned(), NO_BARS.to_owned()));
    let sha = commit(site, "main", &files);
    let mut pipeline = site.pipeline(&Event::Push { branch: "main" }, &sha);
    pipeline.run();
    assert_eq!(pipeline.in_state(JobState::Failed), ["gate"], "{:?}", pipeline.schedule);
    pipeline.job("gate").outcome.failed("script_failure", Some(10));
    assert_eq!((site.api.files().len(), site.api.releases().len(), site.versions(NAME).len()), (0, 0, 0));
    pipeline
}

#[test]
fn a_training_project_goes_from_a_candidate_to_a_release() {
    play("a_training_project_goes_from_a_candidate_to_a_release", from_candidate_to_release);
}

#[test]
fn a_worse_model_stops_at_the_gate() {
    play("a_worse_model_stops_at_the_gate", a_worse_model);
}
