//! Training jobs that the creator's role creates (`aws.creator_role_arn`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use super::sagemaker_power::allowing;
use crate::support::driver::{Driver, sagemaker, sagemaker_with_creator};
use crate::support::emulator::BUCKET;
use crate::support::iam::TRAINING_ROLE;
use crate::support::job::{Artifacts, Job};
use crate::support::waiting::poll;

const PREFIX: &str = "sagemaker-executor";
/// What another job's role session has as tags under a creator.
const OTHER: [(&str, &str); 3] =
    [("sme-session", "gitlab-66-1-abcdef12"), ("sme-project", "66-0123456789abcdef"), ("sme-protected", "false")];

/// A desk whose job has begun and sent its project.
fn begun(driver: &Driver) -> Desk {
    let job = Job::new().script(["true"]).artifacts(Artifacts::paths(["made"]));
    let desk = Desk::of(driver, &std::env::temp_dir(), &job).prepared();
    std::fs::write(desk.project().join("data"), "a file of the project\n".repeat(1000)).unwrap();
    let ended = desk.run("build_script", "echo whole; echo made > made");
    ended.passed();
    assert_eq!(ended.out(), "whole\n");
    let is_logged = || desk.emulator.log_text().contains("whole").then_some(());
    poll(Duration::from_mins(1), is_logged).expect("the container's output reaches its log");
    desk
}

/// Place and scope of the job, which its attacker knows.
fn record(desk: &Desk) -> Value {
    let path = desk.root().join(format!("state/sessions/{}.json", desk.session.as_deref().unwrap()));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The calls of each attack on a session whose place and key are known: name, method, path, service, target, body.
fn attacks(desk: &Desk) -> Vec<(&'static str, &'static str, String, &'static str, &'static str, String)> {
    let (id, record) = (desk.session.as_deref().unwrap(), record(desk));
    let (token, scope) = (record["place"]["token"].as_str().unwrap(), record["scope"].as_str().unwrap());
    let root = format!("/{BUCKET}/{PREFIX}/sessions/{id}/{token}");
    let projects = format!("/{BUCKET}/{PREFIX}/projects/{scope}");
    let pack = desk.emulator.project_packs().into_iter().next().expect("the project was sent");
    let s3 = |name, method, path: String| (name, method, path, "s3", "", "forged".to_owned());
    let logs = |name, target, more: Value| {
        let mut body =
            json!({"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamName": format!("{id}/algo-1-77")});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (name, "POST", "/".to_owned(), "logs", target, body.to_string())
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let job = |name, operation, body: Value| (name, "POST", "/".to_owned(), "sagemaker", operation, body.to_string());
    vec![
        s3("read the key", "GET", format!("{root}/open")),
        s3("replace the key", "PUT", format!("{root}/open")),
        s3("order", "PUT", format!("{root}/orders/000009")),
        s3("replace a script", "PUT", format!("{root}/scripts/000001")),
        s3("report", "PUT", format!("{root}/reports/algo-1/000009")),
        s3("read a report", "GET", format!("{root}/reports/algo-1/000009")),
        s3("lease", "PUT", format!("{root}/lease")),
        s3("results", "PUT", format!("{root}/results/manifest/000000")),
        s3("frames of the copy", "PUT", format!("{root}/trace/algo-1/1/000009")),
        s3("output of SageMaker", "PUT", format!("{root}/output/model.tar.gz")),
        s3("list the session", "GET", format!("/{BUCKET}?list-type=2&prefix={PREFIX}%2Fsessions%2F{id}%2F{token}%2F")),
        s3("list all sessions", "GET", format!("/{BUCKET}?list-type=2&prefix={PREFIX}%2Fsessions%2F")),
        s3("list the bucket", "GET", format!("/{BUCKET}?list-type=2")),
        s3("delete", "DELETE", format!("{root}/open")),
        s3("read a pack", "GET", format!("/{BUCKET}/{pack}")),
        s3("write a pack", "PUT", format!("{projects}/packs/x")),
        s3("replace the agent", "PUT", format!("/{BUCKET}/{PREFIX}/agents/x")),
        s3("read the hosts' key", "GET", format!("/{BUCKET}/{PREFIX}/hosts/scope-key")),
        s3("replace the hosts' key", "PUT", format!("/{BUCKET}/{PREFIX}/hosts/scope-key")),
        logs("stream", "Logs_20140328.CreateLogStream", json!({})),
        logs(
            "line",
            "Logs_20140328.PutLogEvents",
            json!({"logEvents": [{"timestamp": u64::try_from(now).unwrap(), "message": "forged"}]}),
        ),
        logs("read the log", "Logs_20140328.GetLogEvents", json!({})),
        job("stop", "SageMaker.StopTrainingJob", json!({"TrainingJobName": id})),
        job("describe", "SageMaker.DescribeTrainingJob", json!({"TrainingJobName": id})),
    ]
}

/// Each attack's name and the status of its answer, with the key of a session of the jobs' role; no status when access was denied.
///
/// The administrator begins that session, as SageMaker does for a job's container.
fn answers(desk: &Desk, tags: &[(&str, &str)]) -> Vec<(&'static str, Option<u16>)> {
    let key = desk.emulator.role_session(TRAINING_ROLE, tags);
    let mut answers = Vec::new();
    for (name, method, path, service, target, body) in attacks(desk) {
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
        let headers = if target.is_empty() { &[][..] } else { &headers };
        let body = if method == "PUT" || !target.is_empty() { body.as_str() } else { "" };
        let (status, reply) = desk.emulator.request_as(&key, method, &path, service, headers, body);
        answers.push((name, (!reply.contains("AccessDenied")).then_some(status)));
    }
    answers
}

/// What a job does with its own session, whoever holds its role's key.
const OF_THE_SESSION: [&str; 12] = [
    "read the key",
    "replace the key",
    "order",
    "replace a script",
    "read a report",
    "report",
    "lease",
    "results",
    "list the session",
    "read a pack",
    "stream",
    "line",
];
/// What no job's role may do.
const NEVER: [&str; 10] = [
    "list all sessions",
    "list the bucket",
    "delete",
    "write a pack",
    "replace the agent",
    "read the hosts' key",
    "replace the hosts' key",
    "stop",
    "describe",
    "read the log",
];

fn has_its_session_alone(answers: &[(&'static str, Option<u16>)]) {
    for name in OF_THE_SESSION {
        let (_, status) = answers.iter().find(|(of, _)| *of == name).expect("the attack is in the table");
        assert_eq!(*status, Some(200), "{name}: {answers:?}");
    }
    for name in NEVER {
        assert!(answers.contains(&(name, None)), "{name}: {answers:?}");
    }
}

/// Jobs may read and write data of all buckets.
fn with_wide_patterns(driver: Driver) -> Driver {
    let data =
        "max_volume_size_gb = 16384, inputs = [\"s3://*/**\", \"s3://elsewhere/**\"], model_outputs = [\"s3://*/**\"]";
    let operator_config = driver.operator_config.replace("max_volume_size_gb = 16384", data);
    assert_ne!(operator_config, driver.operator_config);
    Driver { operator_config, ..driver }
}

#[test]
fn with_a_creator_each_attack_is_refused_with_place_and_key_known() {
    refuses_each_attack(&sagemaker_with_creator());
}

#[test]
fn with_a_creator_wide_patterns_of_data_open_no_session() {
    refuses_each_attack(&with_wide_patterns(sagemaker_with_creator()));
}

fn refuses_each_attack(driver: &Driver) {
    let desk = begun(driver);
    assert_eq!(desk.emulator.requests("AssumeRole"), 1);
    for tags in [&OTHER[..], &[]] {
        let answers = answers(&desk, tags);
        assert!(answers.iter().all(|(_, status)| status.is_none()), "{tags:?}: {answers:?}");
    }
    // The same calls with the tags of the session itself: the table is not refused for another reason. They replace its objects.
    let record = record(&desk);
    let own = [("sme-session", desk.session.as_deref().unwrap()), ("sme-project", record["scope"].as_str().unwrap())];
    has_its_session_alone(&answers(&desk, &[&own[..], &[("sme-protected", "false")]].concat()));
}

/// What the tags add: without them the place protects a session, and its attacker knows it.
#[test]
fn without_a_creator_who_knows_the_place_reaches_the_session() {
    let desk = begun(&sagemaker());
    has_its_session_alone(&answers(&desk, &[]));
}

/// Data of the executor's bucket and of another one open neither other sessions nor the names of their objects.
#[test]
fn without_a_creator_patterns_of_data_open_no_session() {
    for driver in [allowing(sagemaker()), with_wide_patterns(sagemaker())] {
        let desk = begun(&driver);
        has_its_session_alone(&answers(&desk, &[]));
    }
}

/// The creator's role alone creates training jobs.
#[test]
fn the_host_creates_no_training_job_beside_the_creator() {
    let mut desk = Desk::of(&sagemaker_with_creator(), &std::env::temp_dir(), &Job::new().script(["true"]));
    // The policies stay, the driver no longer knows the creator.
    desk.edit_operator_file("creator_role_arn = \"arn:aws:iam::000000000000:role/creator\"\n", "");
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).one_error().says("sagemaker:CreateTrainingJob");
    assert!(desk.emulator.jobs().is_empty());
    desk.close();
}

/// The host may create training jobs itself, and still does not.
#[test]
fn a_creator_that_cannot_be_assumed() {
    let mut desk = Desk::new(&Job::new().script(["true"]));
    let role = "arn:aws:iam::999999999999:role/creator";
    desk.edit_operator_file("[storage]", &format!("creator_role_arn = \"{role}\"\n[storage]"));
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).one_error().says(&format!("failed to assume the role {role}"));
    assert_eq!((desk.emulator.requests("CreateTrainingJob"), desk.emulator.jobs().len()), (0, 0));
    desk.close();
}

/// The request is the creator's: its policy keeps to the instance types that the operator's file had when the policy was made.
#[test]
fn a_creator_that_may_not_create() {
    let mut driver = allowing(sagemaker_with_creator());
    driver.operator_config = driver.operator_config.replace("[\"*\"]", "[\"ml.m5.large\"]");
    let mut desk = Desk::of(&driver, &std::env::temp_dir(), &Job::new().script(["true"]));
    desk.edit_operator_file("[\"ml.m5.large\"]", "[\"*\"]");
    desk.set("SAGEMAKER_INSTANCE_TYPE", "ml.m5.xlarge");
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).one_error().says("allow the role `aws.creator_role_arn`");
    let requests = ["AssumeRole", "CreateTrainingJob"].map(|operation| desk.emulator.requests(operation));
    assert_eq!((requests, desk.emulator.jobs().len()), ([1, 1], 0));
    desk.close();
}
