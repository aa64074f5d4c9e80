//! The operator's rules as jobs meet them: the payload alone selects a rule, jobs wait for their turn, and each decision is written down.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::sagemaker::rows;
use super::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use crate::support::driver::{Driver, sagemaker};
use crate::support::job::{Job, Variable};
use crate::support::scenario::one;

const TYPE: &str = "SAGEMAKER_INSTANCE_TYPE";
/// A rule for merge requests from forks, before the one for all jobs.
const FORKS: &str = "[{ name = \"forks\", match.fork = true }, { name = \"all\"";

fn job() -> Job {
    Job::new().script(["true"])
}

/// Changes the job as GitLab sends it.
fn edit_payload(desk: &Desk, edit: impl FnOnce(&mut Value)) {
    let path = desk.root().join("response.json");
    let mut payload = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut payload);
    std::fs::write(path, payload.to_string()).unwrap();
}

fn audit_lines(desk: &Desk) -> Vec<Value> {
    let text = std::fs::read_to_string(desk.root().join("state/audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// [`sagemaker`] whose only rule allows one instance type.
fn narrow() -> Driver {
    let driver = sagemaker();
    Driver { operator_config: driver.operator_config.replace("[\"*\"]", "[\"ml.m5.*\"]"), ..driver }
}

rows! {
    /// A retry would be refused again: one attempt.
    outside_its_rule {
        driver: narrow(),
        play: |world| one(world, &job().set(TYPE, "ml.p5.48xlarge")),
        expect: |_, outcomes| {
            outcomes[0]
                .failed("script_failure", Some(1))
                .called("prepare", 1)
                .shows("`SAGEMAKER_INSTANCE_TYPE` asks for `ml.p5.48xlarge`; the rule `all` allows `ml.m5.*`");
        },
    }
    within_its_rule {
        driver: narrow(),
        play: |world| one(world, &Job::new().set(TYPE, "ml.m5.xlarge").script(["echo ran"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("ran");
        },
    }
}

#[test]
fn a_gitlab_that_does_not_tell_of_protection() {
    let desk = Desk::new(&job());
    desk.edit_operator_file("allow = {", "match.protected = false, allow = {");
    edit_payload(&desk, |payload| drop(payload["git_info"].as_object_mut().unwrap().remove("protected")));
    let mut desk = desk;
    desk.config().passed();
    desk.prepare().passed().says("this GitLab does not tell whether the ref is protected");
    assert_eq!(audit_lines(&desk)[0]["protected"], Value::Null);
    desk.close();
}

/// An author adds a variable that names the target project; GitLab's own entry stays in the list.
#[test]
fn a_fork_cannot_hide_behind_a_variable() {
    let mut desk = Desk::new(&job());
    desk.edit_operator_file("[{ name = \"all\"", FORKS);
    desk.set(TYPE, "ml.g5.xlarge");
    desk.set("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "231");
    edit_payload(&desk, |payload| {
        payload["git_info"]["ref"] = json!("refs/merge-requests/7/head");
        let source =
            |project: &str| json!({"key": "CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "value": project, "public": true});
        payload["variables"].as_array_mut().unwrap().extend([source("999"), source("231")]);
    });
    desk.config().passed();
    desk.prepare().with_code(BUILD_FAILURE).one_error().says("the rule `forks` allows `ml.m5.large`");
    assert!(desk.emulator.jobs().is_empty());
    desk.close();
}

/// The second job waits until the first one's `cleanup`; a job that is canceled meanwhile takes no turn.
#[test]
fn jobs_at_once_wait_for_their_turn() {
    let mut desk = Desk::new(&job());
    desk.edit_operator_file("allow = {", "allow = { max_jobs = 1,");
    let mut desk = {
        desk.config().passed();
        desk.prepare().passed();
        desk
    };
    let first = (desk.session.clone(), std::fs::read(desk.root().join("response.json")).unwrap());
    edit_payload(&desk, |payload| payload["id"] = json!(4712));
    desk.config().passed();
    let second = (desk.session.clone(), std::fs::read(desk.root().join("response.json")).unwrap());
    assert_ne!(first.0, second.0);
    let mut waiting = desk.start(&["prepare"]);
    waiting.until("Waiting: the rule `all` allows 1 jobs at once");
    waiting.signal(Signal::TERM);
    waiting.end().with_code(SYSTEM_FAILURE).says("canceled while the job waited for its turn");
    let mut waiting = desk.start(&["prepare"]);
    waiting.until("Waiting: the rule `all` allows 1 jobs at once");
    let put = |desk: &mut Desk, (session, payload): &(Option<String>, Vec<u8>)| {
        desk.session.clone_from(session);
        std::fs::write(desk.root().join("response.json"), payload).unwrap();
    };
    put(&mut desk, &first);
    desk.cleanup().passed();
    waiting.end().passed().says("SageMaker training job: ");
    assert_eq!(desk.emulator.jobs().len(), 2);
    put(&mut desk, &second);
    desk.close();
}

#[test]
fn each_decision_is_a_line_without_secrets() {
    let secret = "hunter22-and-more";
    let mut desk = Desk::new(&job().variable(Variable::new("PASSWORD", secret).masked()));
    desk.set("SAGEMAKER_ENV_EPOCHS", "of-the-job");
    let mut desk = desk.prepared();
    desk.set("SAGEMAKER_ENV_DB", secret);
    desk.prepare().with_code(BUILD_FAILURE);
    desk.env.retain(|(name, _)| name != "CUSTOM_ENV_SAGEMAKER_ENV_DB");
    desk.set("SAGEMAKER_ROLE_ARN", "arn:aws:iam::000000000000:role/other");
    desk.prepare().with_code(BUILD_FAILURE);
    let path = desk.root().join("state/audit.log");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(path).unwrap();
    assert!(!text.contains(secret) && !text.contains("of-the-job"), "{text}");
    let lines = audit_lines(&desk);
    assert_eq!(lines.len(), 3, "{text}");
    for line in &lines {
        let who = json!([
            line["project"],
            line["project_id"],
            line["job_id"],
            line["user_id"],
            line["ref"],
            line["protected"],
            line["rule"]
        ]);
        assert_eq!(who, json!(["ml/churn", 231, 4711, 96, "main", true, "all"]));
        assert_eq!(line["session"].as_str(), desk.session.as_deref());
        assert!(humantime::parse_rfc3339(line["time"].as_str().unwrap()).is_ok());
    }
    let granted = &lines[0];
    assert_eq!(granted["decision"], "allowed");
    assert_eq!(granted["instance_types"], json!(["ml.m5.large"]));
    assert_eq!(granted["role_arn"], "arn:aws:iam::000000000000:role/train");
    assert_eq!(granted["environment"], json!(["EPOCHS"]));
    let reasons: Vec<_> = lines[1..].iter().map(|line| (&line["decision"], line["reason"].as_str().unwrap())).collect();
    assert!(reasons.iter().all(|(decision, _)| **decision == "refused"), "{reasons:?}");
    assert!(
        reasons[0].1.contains("`SAGEMAKER_ENV_DB`") && reasons[1].1.contains("the rule `all` allows"),
        "{reasons:?}"
    );
    desk.close();
}
