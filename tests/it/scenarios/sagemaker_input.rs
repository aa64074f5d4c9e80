//! Bad input and refusals by AWS: each ends with one clear error with a hint, the right exit code, and nothing left.

use std::time::Duration;

use serde_json::json;

use super::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use crate::support::job::{Artifacts, Job, Variable};
use crate::support::waiting::poll;

fn job() -> Job {
    Job::new().script(["true"])
}

/// A desk whose operator's file was edited; every stage must say the same.
fn with_operator_file(edit: impl FnOnce(&Desk), words: &[&str]) {
    let mut desk = Desk::new(&job());
    edit(&desk);
    desk.session = Some("gitlab-231-4711-abcdef12".to_owned());
    for stage in [&["config"][..], &["prepare"], &["run", "script", "build_script"], &["cleanup"]] {
        let ended = desk.call(stage);
        ended.with_code(SYSTEM_FAILURE).one_error();
        for word in words {
            ended.says(word);
        }
        assert_eq!(ended.out(), "", "{stage:?}");
    }
    assert!(desk.emulator.jobs().is_empty());
}

#[test]
fn no_operator_file() {
    with_operator_file(|desk| std::fs::remove_file(desk.operator_file()).unwrap(), &["operator.toml", "`--config`"]);
}

#[test]
fn unknown_key_in_the_operator_file() {
    with_operator_file(
        |desk| desk.edit_operator_file("[job]\nrole_arn =", "[job]\nrole_anr ="),
        &["operator.toml", "`role_anr`", "`docs/CONFIG.md`"],
    );
}

#[test]
fn wrong_type_in_the_operator_file() {
    with_operator_file(
        |desk| desk.edit_operator_file("cancel_grace_seconds = 2", "cancel_grace_seconds = \"two\""),
        &["`limits.cancel_grace_seconds`"],
    );
}

#[test]
fn operator_file_that_is_not_toml() {
    with_operator_file(|desk| desk.edit_operator_file("[storage]", "[storage"), &["line 5"]);
}

/// Prepares a job that must be refused without a training job, and cleans up.
fn refused(desk: Desk, code: i32, words: &[&str]) {
    let mut desk = desk;
    desk.config().passed();
    let ended = desk.prepare();
    ended.with_code(code).one_error();
    for word in words {
        ended.says(word);
    }
    desk.emulator.set_faults(&json!({}));
    assert!(desk.emulator.jobs().is_empty(), "{ended}");
    desk.close();
}

#[test]
fn no_role() {
    let desk = Desk::new(&job());
    desk.edit_operator_file("role_arn = \"arn:aws:iam::000000000000:role/train\"\n", "");
    refused(desk, SYSTEM_FAILURE, &["`job.role_arn`", "`allow.roles`"]);
}

#[test]
fn job_variables_of_a_wrong_form() {
    for (name, value, words) in [
        ("SAGEMAKER_INSTANCE_COUNT", "abc", &["`SAGEMAKER_INSTANCE_COUNT`"][..]),
        ("SAGEMAKER_INSTANCE_COUNT", "0", &["`SAGEMAKER_INSTANCE_COUNT`", "from 1"]),
        ("SAGEMAKER_MAX_RUNTIME", "soon", &["`SAGEMAKER_MAX_RUNTIME`"]),
        ("SAGEMAKER_INSTANCE_TYPE", "p4d", &["`SAGEMAKER_INSTANCE_TYPE`"]),
        ("SAGEMAKER_ROLE_ARN", "train", &["`SAGEMAKER_ROLE_ARN`"]),
        ("SAGEMAKER_RESULTS", "first", &["write `SAGEMAKER_RESULTS` as in `all`", "`leader`, the first one, or `all`"]),
    ] {
        let mut desk = Desk::new(&job());
        desk.set(name, value);
        refused(desk, BUILD_FAILURE, words);
    }
}

/// SageMaker's own list of types is the judge; the job is told which variable to change.
#[test]
fn instance_type_that_does_not_exist() {
    let mut desk = Desk::new(&job());
    desk.set("SAGEMAKER_INSTANCE_TYPE", "ml.imaginary.xlarge");
    refused(desk, BUILD_FAILURE, &["`SAGEMAKER_INSTANCE_TYPE`"]);
}

/// What everybody who may describe the job can read is no place for a secret.
#[test]
fn masked_value_in_the_environment_of_the_container() {
    let secret = "s3cret-of-the-job";
    let mut desk = Desk::new(&job().variable(Variable::new("PASSWORD", secret).masked()));
    desk.set("PASSWORD", secret);
    desk.set("SAGEMAKER_ENV_DB", &format!("postgres://u:{secret}@db"));
    desk.config().passed();
    let ended = desk.prepare();
    ended.with_code(BUILD_FAILURE).one_error().says("SAGEMAKER_ENV_DB").hides(secret);
    desk.close();
}

#[test]
fn denied_calls_name_the_permission() {
    for (operation, code, words) in [
        ("CreateTrainingJob", "AccessDeniedException", &["`sagemaker:CreateTrainingJob`", "`iam:PassRole`"][..]),
        ("PutObject", "AccessDenied", &["s3:PutObject"]),
        ("HeadObject", "AccessDenied", &["s3:GetObject"]),
    ] {
        let desk = Desk::new(&job());
        let plan = json!({"calls": [{"operation": operation, "error": code, "status": 403,
            "message": format!("User: arn:aws:sts::000000000000:assumed-role/ci/i-0 is not authorized to perform: {operation}")}]});
        desk.emulator.set_faults(&plan);
        refused(desk, SYSTEM_FAILURE, words);
    }
}

/// Without the right to read logs the copy in the store carries the output all the same.
#[test]
fn denied_logs_do_not_lose_the_output() {
    for tail in ["", "[trace]\nlive_copy = false"] {
        let desk = Desk::with(&job(), &[], tail).prepared();
        let denied = |operation: &str| json!({"operation": operation, "error": "AccessDeniedException", "status": 400});
        desk.emulator.set_faults(&json!({"calls": [denied("FilterLogEvents"), denied("DescribeLogStreams")]}));
        let ended = desk.run("build_script", "echo all of it");
        ended.passed();
        assert_eq!(ended.out(), "all of it\n", "{ended}");
        desk.close();
    }
}

#[test]
fn throttled_calls_are_tried_again() {
    let mut desk = Desk::with(&job(), &[], "[trace]\nlive_copy = false");
    let throttled = |operation: &str, count: u64| json!({"operation": operation, "count": count, "error": "ThrottlingException", "message": "Rate exceeded"});
    desk.emulator.set_faults(&json!({"calls": [throttled("CreateTrainingJob", 2), throttled("DescribeTrainingJob", 2),
        throttled("FilterLogEvents", 3), throttled("DescribeLogStreams", 1), throttled("StopTrainingJob", 1)]}));
    desk.config().passed();
    desk.prepare().passed();
    std::fs::create_dir_all(desk.project()).unwrap();
    let ended = desk.run("build_script", "echo one; sleep 4; echo two");
    ended.passed();
    assert_eq!(ended.out(), "one\ntwo\n");
    assert!(desk.emulator.requests("CreateTrainingJob") >= 3);
    desk.cleanup().passed();
    desk.is_left_clean();
}

#[test]
fn endpoint_that_nobody_listens_on() {
    let mut desk = Desk::new(&job());
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = desk.emulator.endpoint.clone();
    desk.edit_operator_file(&endpoint, &format!("http://127.0.0.1:{port}"));
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).one_error().says("`aws.endpoint_url`").says("refused");
    desk.cleanup().passed();
    desk.is_left_clean();
}

#[test]
fn credentials_that_are_refused_or_missing() {
    let mut desk = Desk::new(&job());
    desk.env.push(("AWS_ACCESS_KEY_ID".to_owned(), "AKIA1234567890ABCDEF".to_owned()));
    refused(desk, SYSTEM_FAILURE, &["credentials"]);
    let mut desk = Desk::new(&job());
    desk.env.retain(|(name, _)| !name.starts_with("AWS_"));
    desk.env.push(("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()));
    refused(desk, SYSTEM_FAILURE, &["credentials"]);
}

#[test]
fn directories_that_cannot_be_written() {
    for (folder, key) in
        [("builds", "`runner.builds_dir`"), ("cache", "`runner.cache_dir`"), ("state", "`runner.state_dir`")]
    {
        let mut desk = Desk::new(&job());
        std::fs::write(desk.root().join(folder), "a file in the place of a directory").unwrap();
        let config = desk.config();
        if folder == "state" {
            // It reserves the job's directory there.
            config.with_code(SYSTEM_FAILURE).one_error().says(key);
        }
        desk.prepare().with_code(SYSTEM_FAILURE).one_error().says(key);
        assert!(desk.emulator.jobs().is_empty());
        let cleanup = desk.cleanup();
        if folder == "state" {
            cleanup.with_code(SYSTEM_FAILURE).one_error().says(key);
        } else {
            cleanup.passed();
            desk.is_left_clean();
        }
    }
}

fn denied(operations: &[&str]) -> serde_json::Value {
    let rule = |operation: &&str| json!({"operation": operation, "error": "AccessDeniedException", "status": 403, "message": "not authorized"});
    json!({"calls": operations.iter().map(rule).collect::<Vec<_>>()})
}

/// A cleanup that may not do all of its work does what it can, says what it lacks, and is made up for later.
#[test]
fn cleanup_without_its_permissions() {
    for (operation, permission) in
        [("DescribeTrainingJob", "`sagemaker:DescribeTrainingJob`"), ("DeleteObjects", "`s3:DeleteObject`")]
    {
        let desk = Desk::new(&job().after_script(["true"])).prepared();
        desk.run("build_script", "echo done").passed();
        assert_eq!(desk.emulator.live_jobs().len(), 1, "`after_script` is still to come");
        desk.emulator.set_faults(&denied(&[operation]));
        desk.cleanup().with_code(SYSTEM_FAILURE).one_error().says(permission);
        desk.emulator.set_faults(&json!({}));
        let ended = poll(Duration::from_secs(30), || desk.emulator.live_jobs().is_empty().then_some(()));
        assert!(ended.is_some(), "{operation}: the training job goes on");
        desk.close();
    }
}

/// The agent leaves when it is told to, also where the host may not stop the training job.
#[test]
fn cleanup_that_may_not_stop_the_training_job() {
    let desk = Desk::new(&Job::new().script(["true"]).after_script(["true"])).prepared();
    desk.run("build_script", "echo done").passed();
    desk.emulator.set_faults(&denied(&["StopTrainingJob"]));
    desk.cleanup().passed();
    desk.is_left_clean();
}

/// Replies that get lost: what was stored and what was not looks the same to the caller.
#[test]
fn lost_replies() {
    for (point, first) in [("after", 1), ("after", 2), ("before", 1)] {
        let mut desk =
            Desk::new(&Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["*.txt"])));
        let every_third = |operation: &'static str| {
            (0..30).map(
                move |number| json!({"operation": operation, "from": first + 3 * number, "count": 1, "drop": point}),
            )
        };
        let calls: Vec<_> = every_third("PutObject")
            .chain(every_third("CreateTrainingJob"))
            .chain(every_third("ListObjectsV2"))
            .collect();
        desk.emulator.set_faults(&json!({"calls": calls}));
        desk.config().passed();
        desk.prepare().passed();
        desk.training_job();
        std::fs::create_dir_all(desk.project()).unwrap();
        let script = desk.run("build_script", "echo one; echo x >> model.txt; exit 3");
        script.with_code(BUILD_FAILURE);
        assert_eq!((script.out().as_str(), script.exit_code.as_deref()), ("one\n", Some("3")), "{script}");
        let after = desk.run("after_script", "echo two; cat model.txt");
        after.passed();
        assert_eq!(after.out(), "two\nx\n", "a script ran twice or not at all\n{after}");
        desk.run("upload_artifacts_on_failure", "true").passed();
        assert_eq!(std::fs::read_to_string(desk.project().join("model.txt")).unwrap(), "x\n");
        desk.close();
    }
}
