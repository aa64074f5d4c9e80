//! The demonstration `kinds`: the kinds of pipelines that are no merge and no merge request of the project's own, on one project that trains on
//! schedules alone. What each deploys is seen by the endpoint's answer.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::demonstrations::both_scaffolds;
use super::event::{Event, ProjectName};
use super::pipeline::Pipeline;
use super::production::{APPROVER, AUTHOR, nothing_failed, nothing_was_denied, untested};
use super::schedule::JobState;
use super::site::{NAME, Project, ProjectVariable, Site};
use super::training::{commit, trained_with};
use super::{play, show};
use crate::support::job::Variable;

/// Trains on schedules and by `RETRAIN_MODEL`; looks at all endpoints, and cleans up, on schedules too.
const PIPELINE: &str = "include:
  - component: $CI_SERVER_FQDN/ml/components/full-project@1.0.0
    inputs:
      train: schedule
  - component: $CI_SERVER_FQDN/ml/components/monitor@1.0.0
    inputs:
      stage: report
      environment: production
  - component: $CI_SERVER_FQDN/ml/components/cleanup@1.0.0
    inputs:
      stage: report
      environment: staging
      manifest_environment: staging
";
const MAIN: Event = Event::Push { branch: "main" };
const RETRAINED: Event = Event::Web { branch: "main", variables: &[("RETRAIN_MODEL", "true")] };
const STAGING: &str = "wine-staging";
const PRODUCTION: &str = "wine-production";
const FORK: ProjectName = ProjectName { number: 77, path: "someone/wine" };
/// Jobs of the checks, in a pipeline that does nothing else.
const CHECKS: [&str; 3] = ["manifest", "lint", "unit-tests"];

/// The number and the answer of the version that an endpoint serves.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Served {
    version: String,
    answer: String,
}

/// The answer that a client of the endpoint gets.
#[track_caller]
fn answer(site: &Site, endpoint: &str) -> String {
    let wine = "14.23,1.71,2.43,15.6,127,2.8,3.06,0.28,2.29,5.64,1.04,3.92,1065";
    let (status, body) = site.emulator().invoke(endpoint, "text/csv", wine);
    assert!(status == 200 && body.contains("class_0"), "{endpoint}: {status} {body}");
    body
}

/// Names of the endpoints, in their order.
fn endpoints(site: &Site) -> Vec<String> {
    let mut names = site.endpoints();
    names.sort();
    names
}

fn number(arn: &str) -> String {
    arn.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The version that the deployment `job` of a pipeline brought into service.
#[track_caller]
fn served(site: &Site, pipeline: &Pipeline<'_>, job: &str, endpoint: &str) -> Served {
    nothing_failed(pipeline);
    let version = number(pipeline.job(job).variable("MODEL_PACKAGE_ARN"));
    Served { version, answer: answer(site, endpoint) }
}

#[track_caller]
fn ran<'p>(pipeline: &'p Pipeline<'_>) -> Vec<&'p str> {
    pipeline.in_state(JobState::Success)
}

fn has(pipeline: &Pipeline<'_>, job: &str) -> bool {
    pipeline.schedule.states().any(|(name, _)| name == job)
}

/// Lets a second person approve the version of a pipeline, and deploys it to production.
fn approved_and_deployed(site: &Site, pipeline: &mut Pipeline<'_>) -> Served {
    pipeline.by(APPROVER).play("stable-approve", &[("REASON", "good on the holdout")]);
    pipeline.by(AUTHOR).play("production-deploy", &[]);
    served(site, pipeline, "production-deploy", PRODUCTION)
}

fn whole(site: &Site) {
    let mut files = untested(both_scaffolds());
    files.retain(|(path, _)| path != ".gitlab-ci.yml");
    files.push((".gitlab-ci.yml".to_owned(), PIPELINE.to_owned()));
    let sha = commit(site, "main", &files);
    let mut first = site.pipeline(&RETRAINED, &sha);
    first.run();
    show::pipeline(&first);
    nothing_failed(&first);
    let old = approved_and_deployed(site, &mut first);
    let mut rows =
        vec![["RETRAIN_MODEL".to_owned(), format!("trained version {}, released and deployed", old.version)]];

    let sha = commit(site, "main", &trained_with("0.5"));
    rows.push(["push".to_owned(), pushed(site, &sha, &old)]);
    let (mut nightly, new) = scheduled(site, &sha, &old);
    rows.push(["schedule".to_owned(), format!("trained version {}, monitored, cleaned up", new.version)]);
    first.retry("production-deploy");
    assert_eq!(served(site, &first, "production-deploy", PRODUCTION), old);
    let deployments = site.environment("production").unwrap().deployments;
    assert_eq!(deployments, [first.facts.id, nightly.facts.id, first.facts.id]);
    rows.push(["Rollback".to_owned(), format!("production serves version {} again", old.version)]);
    rows.push(["DEPLOY_ONLY".to_owned(), chosen(site, &sha, &old)]);
    rows.push(["tag".to_owned(), tagged(site, &sha)]);
    rows.push(["deploy freeze".to_owned(), frozen(site, &mut nightly, &new)]);
    rows.push(["documentation".to_owned(), documented(site)]);
    rows.push(["fork".to_owned(), forked(site, &files)]);
    rows.push(["draft".to_owned(), interrupted(site)]);
    assert_eq!(endpoints(site), [PRODUCTION, STAGING]);
    nothing_was_denied(site);
    show::table("what exists", &rows);
}

/// A push trains nothing: it packages, deploys to staging and releases the newest approved version.
fn pushed(site: &Site, sha: &str, old: &Served) -> String {
    let mut pipeline = site.pipeline(&MAIN, sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert!(
        !has(&pipeline, "train") && !has(&pipeline, "monitor") && !has(&pipeline, "cleanup"),
        "{}",
        pipeline.told()
    );
    assert_eq!(&served(site, &pipeline, "staging-deploy", STAGING), old);
    assert_eq!((site.versions(NAME).len(), site.api.releases().len()), (1, 2));
    format!("released version {} again, with the new commit", old.version)
}

/// A schedule trains, looks at the endpoints of all environments, and cleans up.
fn scheduled<'a>(site: &'a Site, sha: &str, old: &Served) -> (Pipeline<'a>, Served) {
    let mut pipeline = site.pipeline(&Event::Schedule { branch: "main" }, sha);
    pipeline.run();
    show::pipeline(&pipeline);
    nothing_failed(&pipeline);
    for job in ["train", "gate", "stable-register", "staging-test", "stable-release", "monitor", "cleanup"] {
        assert_eq!(pipeline.schedule.state(job), JobState::Success, "{job}: {}", pipeline.told());
    }
    for endpoint in [STAGING, PRODUCTION] {
        pipeline.job("monitor").outcome.shows(&format!("{endpoint} of "));
    }
    let pruned: Value = serde_json::from_slice(&pipeline.job("cleanup").file("prune.json")).unwrap();
    assert_eq!((&pruned["dry_run"], &pruned["failed"]), (&json!(false), &json!(0)), "{pruned}");
    assert_eq!(answer(site, PRODUCTION), old.answer);
    let new = approved_and_deployed(site, &mut pipeline);
    assert!(new.version != old.version && new.answer != old.answer, "{new:?} {old:?}");
    (pipeline, new)
}

/// "Run pipeline" deploys a version by its number to one environment, and does nothing else. Without `DEPLOY_ONLY` it refuses a number.
fn chosen(site: &Site, sha: &str, old: &Served) -> String {
    let trains = site.versions(NAME).len();
    let variables = &[("DEPLOY_ONLY", "true"), ("DEPLOY_ENVIRONMENT", "staging"), ("DEPLOY_VERSION", "1")];
    let mut pipeline = site.pipeline(&Event::Web { branch: "main", variables }, sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(&served(site, &pipeline, "staging-deploy", STAGING), old);
    assert_eq!(ran(&pipeline), ["stable-latest", "stable-package", "staging-deploy", "staging-test"]);
    assert_eq!((site.versions(NAME).len(), site.api.releases().len()), (trains, 3));
    let mistaken = Event::Web { branch: "main", variables: &[("DEPLOY_VERSION", "1")] };
    let mut mistaken = site.pipeline(&mistaken, sha);
    mistaken.run();
    assert_eq!(mistaken.in_state(JobState::Failed), ["deploy-environment"], "{}", mistaken.told());
    mistaken.job("deploy-environment").outcome.shows("DEPLOY_ONLY");
    assert!(!mistaken.ended.contains_key("staging-deploy"), "{}", mistaken.told());
    format!("staging serves version {}", old.version)
}

/// A tag is checked; that of a release starts nothing.
fn tagged(site: &Site, sha: &str) -> String {
    site.repository.keep("refs/tags/1.0.0", sha);
    let mut pipeline = site.pipeline(&Event::Tag { name: "1.0.0" }, sha);
    pipeline.run().passed_but(&[]);
    show::pipeline(&pipeline);
    assert_eq!(ran(&pipeline), CHECKS);
    assert!(!site.starts_pipeline(&Event::Tag { name: "stable-20261129T045233Z" }, sha, &["training_script.py"]));
    "checked".to_owned()
}

/// In a freeze a push deploys and releases nothing; a deployment that was there before fails, and says how it goes on all the same.
fn frozen(site: &Site, nightly: &mut Pipeline<'_>, new: &Served) -> String {
    let releases = site.api.releases().len();
    let before = [STAGING, PRODUCTION].map(|endpoint| answer(site, endpoint));
    site.is_frozen.set(true);
    let sha = commit(site, "main", &[("notes.txt".to_owned(), "In a freeze\n".to_owned())]);
    let mut pipeline = site.pipeline(&MAIN, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    nothing_failed(&pipeline);
    for job in ["staging-deploy", "staging-test", "stable-release", "production-plan", "production-deploy"] {
        assert!(!has(&pipeline, job), "{job}: {}", pipeline.told());
    }
    assert_eq!(pipeline.schedule.state("stable-package"), JobState::Success, "{}", pipeline.told());
    assert_eq!(pipeline.schedule.state("production-rollback"), JobState::Manual);
    nightly.retry("production-deploy");
    nightly.job("production-deploy").outcome.failed("script_failure", Some(1)).shows("IN_FREEZE=true");
    assert_eq!([STAGING, PRODUCTION].map(|endpoint| answer(site, endpoint)), before);
    assert_eq!(site.api.releases().len(), releases);
    nightly.retry_with("production-deploy", &[("IN_FREEZE", "true")]);
    assert_eq!(&served(site, nightly, "production-deploy", PRODUCTION), new);
    site.is_frozen.set(false);
    format!("nothing deployed; with IN_FREEZE production serves version {}", new.version)
}

/// A change of documentation alone starts no pipeline, neither of a push nor of a merge request; with code it does.
fn documented(site: &Site) -> String {
    let page = ("docs/page.md".to_owned(), "A page\n".to_owned());
    let sha = commit(site, "main", &[("README.md".to_owned(), "Read me\n".to_owned()), page]);
    let request = Event::MergeRequest { number: 12, branch: "words", title: "Say it better" };
    for event in [MAIN, Event::Push { branch: "topic" }, request] {
        assert!(!site.starts_pipeline(&event, &sha, &["README.md", "docs/page.md"]), "{}", event.told());
        assert!(site.starts_pipeline(&event, &sha, &["README.md", "training_script.py"]), "{}", event.told());
    }
    assert!(site.starts_pipeline(&Event::Schedule { branch: "main" }, &sha, &["README.md"]));
    "starts no pipeline".to_owned()
}

/// The pipeline of a fork's merge request is one of the fork, which has no variables of the project: its code is checked, and AWS is not asked.
fn forked(site: &Site, files: &[(String, String)]) -> String {
    let repository = site.world.repository(FORK.path);
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let sha = repository.commit("theirs", &files);
    // The runner of this machine has no network.
    let variables = [ProjectVariable { variable: Variable::new("PIP_NO_INDEX", "1"), scope: "*" }];
    let environments = RefCell::default();
    let fork = Project { name: FORK, repository: &repository, variables: &variables, environments: &environments };
    let asked = site.emulator().all_requests();
    let request = Event::Fork { number: 14, branch: "theirs", title: "Change one number" };
    let mut pipeline = site.pipeline_of(fork, &request, &sha);
    pipeline.run().passed_but(&[]);
    show::pipeline(&pipeline);
    // Without variables a job looks whether the runner needs images.
    assert_eq!(ran(&pipeline), [&CHECKS[..], &["images"]].concat());
    assert_eq!(site.emulator().all_requests(), asked);
    assert!(environments.borrow().is_empty() && site.api.notes(14).is_empty());
    "checked, without variables of the project and without AWS".to_owned()
}

/// A draft waits for a click. Its deployment ends half way, as when somebody cancels the job: GitLab stops the environment when the merge request
/// is closed, and nothing is left.
fn interrupted(site: &Site) -> String {
    site.api.merge_request(12);
    let sha = commit(site, "better", &[("notes.py".to_owned(), "import os\n".to_owned())]);
    let request = Event::MergeRequest { number: 12, branch: "better", title: "Draft: add notes" };
    let mut pipeline = site.pipeline(&request, &sha);
    pipeline.run();
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    // An unused import.
    assert_eq!(pipeline.in_state(JobState::Warning), ["lint"], "{}", pipeline.told());
    assert_eq!(pipeline.schedule.state("review-deploy"), JobState::Manual, "{}", pipeline.told());
    assert_eq!(endpoints(site), [PRODUCTION, STAGING]);
    // The endpoint is made, and the job cannot send it the samples.
    let denied = json!({"operation": "InvokeEndpoint", "error": "AccessDeniedException", "message": "not now"});
    site.emulator().set_faults(&json!({"calls": [denied]}));
    pipeline.run_alone("review-deploy", &[]);
    site.emulator().set_faults(&json!({}));
    show::pipeline(&pipeline);
    let deploy = &pipeline.job("review-deploy").outcome;
    assert_eq!(deploy.state.as_deref(), Some("failed"), "{deploy}");
    assert_eq!(site.endpoints().len(), 3, "{deploy}");
    let environment = site.environment("review/better").unwrap();
    assert_eq!((environment.is_stopped, environment.on_stop.as_deref()), (false, Some("review-stop")));
    assert!(environment.deployments.is_empty());
    pipeline.run_alone("review-stop", &[]);
    assert_eq!(pipeline.schedule.state("review-stop"), JobState::Success, "{}", pipeline.told());
    assert!(site.environment("review/better").unwrap().is_stopped);
    assert_eq!(endpoints(site), [PRODUCTION, STAGING]);
    "its deployment ended half way, and review-stop left nothing of it".to_owned()
}

#[test]
#[ignore = "takes minutes of the machine: `.ci/demo kinds` runs it"]
fn kinds_demonstration() {
    play("kinds_demonstration", whole);
}
