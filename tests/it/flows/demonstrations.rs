//! The demonstration `candidate-to-stable`: a project of both scaffolds with the flow that has all jobs.

use serde_json::json;

use super::event::Event;
use super::example::{changed, project};
use super::schedule::JobState;
use super::site::{NAME, Site};
use super::training::{commit, sha256};
use super::{play, show};
use crate::support::gitlab_api::PROJECT_PATH;

/// Jobs that wait for somebody in the pipeline of the main branch.
const BY_HAND: [&str; 7] = [
    "stable-approve",
    "stable-reject",
    "staging-rollback",
    "staging-stop",
    "production-deploy",
    "production-rollback",
    "production-stop",
];

/// An evaluation apart from the training, which the gate judges, and an integration test, which has the endpoint and credentials of AWS.
const OWN_CHECKS: [(&str, &str); 2] = [
    (
        "evaluate.py",
        "import json\nimport pathlib\n\nassert any(pathlib.Path('model').iterdir())\nmetrics = pathlib.Path('metrics.json')\nvalues = json.loads(metrics.read_text())\nmetrics.write_text(json.dumps({**values, 'evaluated': 1.0}))\n",
    ),
    (
        "tests/integration/test_endpoint.py",
        "import os\n\n\ndef test_the_endpoint_is_named():\n    assert os.environ['ENDPOINT_NAME'].startswith('wine-')\n    assert os.environ['AWS_ROLE_ARN']\n    assert os.path.getsize(os.environ['AWS_WEB_IDENTITY_TOKEN_FILE']) > 100\n",
    ),
];

/// The files of the example: both scaffolds in one project.
pub(super) fn both_scaffolds() -> Vec<(String, String)> {
    project("candidate-to-stable", NAME)
}

/// A merge request with a candidate on a review endpoint; its merge, the stable package on staging and released; and the review endpoint is
/// gone.
fn candidate_to_stable(site: &Site) {
    site.api.merge_request(12);
    let mut files = both_scaffolds();
    files.extend(OWN_CHECKS.map(|(path, text)| (path.to_owned(), text.to_owned())));
    commit(site, "main", &files);
    let better = changed(&files, "training_script.py", "REGULARIZATION = 1.0", "REGULARIZATION = 0.5");
    let sha = commit(site, "better", &better);
    let request = Event::MergeRequest { number: 12, branch: "better", title: "Change one number" };
    let mut candidate = site.pipeline(&request, &sha);
    candidate.run();
    show::pipeline(&candidate);
    assert_eq!(candidate.in_state(JobState::Failed), Vec::<&str>::new(), "{}", candidate.told());
    let package = candidate.job("candidate-package");
    let (name, hash) = (package.variable("PACKAGE_NAME"), package.variable("PACKAGE_SHA256"));
    assert_eq!(sha256(&package.package()), hash);
    let deployed = candidate.job("review-deploy");
    assert_eq!(deployed.variable("PACKAGE_SHA256"), hash);
    let review = deployed.variable("ENDPOINT_NAME").to_owned();
    assert_eq!(site.endpoints(), [review.as_str()]);
    for job in ["evaluate", "gate", "review-test", "review-integration"] {
        assert_eq!(candidate.schedule.state(job), JobState::Success, "{job}: {}", candidate.told());
    }
    let evaluated = String::from_utf8(candidate.job("evaluate").file("metrics.json")).unwrap();
    assert!(evaluated.contains("evaluated"), "{evaluated}");
    let environment = site.environment("review/better").unwrap();
    assert_eq!((environment.is_stopped, environment.on_stop.as_deref()), (false, Some("review-stop")));
    assert_eq!(site.api.notes(12).len(), 1);
    let candidate_name = name.to_owned();

    let sha = site.repository.merge("better", "main");
    // GitLab stops the environment of the branch that the merge deletes.
    candidate.play("review-stop", &[]);
    assert!(site.environment("review/better").unwrap().is_stopped, "{}", candidate.told());
    assert_eq!(site.endpoints(), Vec::<String>::new());

    let mut stable = site.pipeline(&Event::Push { branch: "main" }, &sha);
    stable.run();
    show::pipeline(&stable);
    assert_eq!(stable.in_state(JobState::Failed), Vec::<&str>::new(), "{}", stable.told());
    assert_eq!(stable.in_state(JobState::Manual), BY_HAND, "{}", stable.told());
    assert_eq!(stable.schedule.state("staging-integration"), JobState::Success, "{}", stable.told());
    let package = stable.job("stable-package");
    let (name, hash) = (package.variable("PACKAGE_NAME"), package.variable("PACKAGE_SHA256"));
    assert_eq!(stable.job("staging-deploy").variable("PACKAGE_SHA256"), hash);
    let files = site.api.files();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!((file.name.as_str(), file.sha256.as_str()), (name, hash));
    let releases = site.api.releases();
    let [release] = releases.as_slice() else { panic!("{releases:?}") };
    assert_eq!(release.commit, sha);
    assert_eq!(site.environment("staging").unwrap().deployments.len(), 1);
    let staging = stable.job("staging-deploy").variable("ENDPOINT_NAME").to_owned();
    assert_eq!(site.endpoints(), [staging.as_str()]);
    let version = stable.job("stable-register").variable("MODEL_PACKAGE_ARN");
    // That of the review endpoint is the first one.
    assert_eq!(site.versions(NAME).len(), 2);
    assert!(version.ends_with(":model-package/wine/2"), "{version}");
    // Review's version is neither deployed nor the newest.
    let version = version.to_owned();
    let mut nightly = site.pipeline(&Event::Schedule { branch: "main" }, &sha);
    nightly.run_alone("cleanup", &[("LIFECYCLE_RETENTION_DAYS", "0"), ("LIFECYCLE_KEEP", "1")]);
    assert_eq!(nightly.schedule.state("cleanup"), JobState::Success, "{}", nightly.told());
    let pruned: serde_json::Value = serde_json::from_slice(&nightly.job("cleanup").file("prune.json")).unwrap();
    assert_eq!((&pruned["dry_run"], &pruned["failed"]), (&false.into(), &0.into()), "{pruned}");
    let versions = site.versions(NAME);
    assert!(versions.len() == 1 && versions[0]["ModelPackageArn"] == version, "{versions:?}: {pruned}");
    assert_eq!(site.endpoints(), [staging.as_str()]);
    // The release still has its package, and the endpoint its model.
    assert_eq!((site.api.files().len(), site.api.releases().len()), (1, 1));
    let described = json!({"EndpointName": staging});
    let endpoint = site.emulator().call("SageMaker.DescribeEndpoint", &described);
    assert_eq!(endpoint["EndpointStatus"], "InService", "{endpoint}");
    show::table(
        "what exists",
        &[
            ["candidate".to_owned(), format!("{candidate_name}, an artifact of merge request !12")],
            ["review endpoint".to_owned(), format!("{review}, removed")],
            ["stable package".to_owned(), format!("{} sha256:{hash}", file.place)],
            ["release".to_owned(), format!("{} of {PROJECT_PATH} at {sha}", release.tag)],
            ["model registry".to_owned(), version],
            ["staging endpoint".to_owned(), staging],
            ["clean-up".to_owned(), format!("{} things deleted, {} stay", pruned["deleted"], pruned["stays"])],
        ],
    );
}

#[test]
fn candidate_to_stable_demonstration() {
    play("candidate_to_stable_demonstration", candidate_to_stable);
}
