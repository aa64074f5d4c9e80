//! Cancels, signals and second drivers at every difficult moment: the training job ends, and nothing is left.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::sagemaker::rows;
use super::sagemaker_desk::{Desk, Ended, SYSTEM_FAILURE};
use crate::support::driver::sagemaker_with;
use crate::support::job::{Artifacts, Job, Trigger};
use crate::support::scenario::one;
use crate::support::waiting::poll;

fn script() -> Job {
    Job::new().script(["echo reached-the-script", "sleep 3600"])
}

rows! {
    /// Nobody waits for an instance that nobody needs.
    cancel_while_waiting {
        driver: sagemaker_with(&["--starting-delay", "60s"], ""),
        play: |world| one(world, &script().when_trace_contains("\nStarting (", Trigger::Cancel)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_canceled", None).hides("\nreached-the-script").called("cleanup", 1);
        },
    }
    /// No script ran, so there is nothing for `after_script` to follow: no instance is waited for, by no stage.
    cancel_while_waiting_with_after_script {
        driver: sagemaker_with(&["--starting-delay", "1h"], ""),
        play: |world| one(world, &script().after_script(["echo status-$CI_JOB_STATUS"])
            .artifacts(Artifacts::paths(["model.txt"]).when("always"))
            .when_trace_contains("\nStarting (", Trigger::Cancel)),
        expect: |world, outcomes| {
            outcomes[0].failed("job_canceled", None).hides("\nreached-the-script").hides("\nstatus-")
                .called("run after_script", 1).called("run upload_artifacts_on_failure", 1);
            assert_eq!(outcomes[0].count("`after_script` is skipped"), 1, "{}", outcomes[0]);
            let jobs = world.emulator.as_ref().unwrap().jobs();
            assert!(jobs[0]["TrainingStartTime"].is_null(), "{jobs:?}");
        },
    }
    /// The script's own limit passes while the instance is provisioned.
    script_timeout_while_waiting {
        driver: sagemaker_with(&["--starting-delay", "1h"], ""),
        play: |world| one(world, &script().after_script(["echo status-$CI_JOB_STATUS"]).set("RUNNER_SCRIPT_TIMEOUT", "3s")),
        expect: |_, outcomes| {
            outcomes[0].failed("job_execution_timeout", None).hides("\nreached-the-script").hides("\nstatus-")
                .shows("`after_script` is skipped");
        },
    }
    abort_while_waiting {
        driver: sagemaker_with(&["--starting-delay", "60s"], ""),
        play: |world| one(world, &script().after_script(["echo status-$CI_JOB_STATUS"])
            .when_trace_contains("\nStarting (", Trigger::Abort)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_canceled", None).hides("status-").called("run after_script", 0).called("cleanup", 1);
        },
    }
    runner_interrupted_while_waiting {
        driver: sagemaker_with(&["--starting-delay", "60s"], ""),
        play: |world| one(world, &script().when_trace_contains("\nStarting (", Trigger::InterruptRunner)),
        expect: |_, outcomes| {
            outcomes[0].failed("runner_interrupted", None).hides("\nreached-the-script").called("cleanup", 1);
        },
    }
}

/// Waits until the emulator has got more than `before` calls of an operation.
pub(super) fn until_called(desk: &Desk, operation: &str, before: u64) {
    let called = poll(Duration::from_secs(30), || (desk.emulator.requests(operation) > before).then_some(()));
    assert!(called.is_some(), "{operation} was not called");
}

fn plain() -> Job {
    Job::new().script(["true"]).artifacts(Artifacts::paths(["model.txt"]).when("always"))
}

/// The answer is waited for, so that the training job it tells of is stopped; a second signal ends that.
#[test]
fn signals_while_create_training_job_hangs() {
    let mut desk = Desk::new(&plain());
    desk.emulator.set_faults(&json!({"calls": [{"operation": "CreateTrainingJob", "delay_ms": 60_000}]}));
    desk.config().passed();
    let mut prepare = desk.start(&["prepare"]);
    until_called(&desk, "CreateTrainingJob", 0);
    prepare.signal(Signal::TERM);
    // Two signals at once are one to the process.
    let ended = poll(Duration::from_secs(30), || {
        prepare.signal(Signal::TERM);
        prepare.has_ended().then_some(())
    });
    assert!(ended.is_some(), "a further signal ends the waiting");
    prepare.end().with_code(SYSTEM_FAILURE).one_error().says("canceled");
    desk.close();
}

#[test]
fn a_signal_while_the_agent_is_uploaded() {
    let mut desk = Desk::new(&plain());
    desk.emulator.set_faults(&json!({"calls": [{"operation": "PutObject", "delay_ms": 60_000}]}));
    desk.config().passed();
    let prepare = desk.start(&["prepare"]);
    until_called(&desk, "PutObject", 0);
    prepare.signal(Signal::TERM);
    prepare.end().with_code(SYSTEM_FAILURE).one_error().says("canceled");
    assert!(desk.emulator.jobs().is_empty());
    desk.close();
}

/// The reply is lost and the caller killed: the job exists, and only its name and the record tell whose it is.
#[test]
fn a_training_job_that_nobody_was_told_of() {
    let mut desk = Desk::new(&plain());
    desk.emulator.set_faults(&json!({"calls": [{"operation": "CreateTrainingJob", "count": 1, "drop": "after"},
        {"operation": "CreateTrainingJob", "delay_ms": 60_000}]}));
    desk.config().passed();
    let prepare = desk.start(&["prepare"]);
    until_called(&desk, "CreateTrainingJob", 1);
    prepare.signal(Signal::KILL);
    assert_eq!(prepare.end().code, None);
    assert_eq!(desk.emulator.live_jobs().len(), 1);
    desk.close();
}

/// Begins to send the project, ends that by a signal, and runs `after_script`.
fn canceled_while_the_project_is_sent(desk: &Desk) -> Ended {
    std::fs::write(desk.project().join("data.bin"), vec![7; 1 << 20]).unwrap();
    desk.emulator.set_faults(&json!({"calls": [{"operation": "PutObject", "from": 3, "delay_ms": 60_000}]}));
    let before = desk.emulator.requests("PutObject");
    let run = desk.start_run("build_script", "echo never");
    until_called(desk, "PutObject", before + 2);
    run.signal(Signal::TERM);
    let ended = run.end();
    ended.with_code(SYSTEM_FAILURE).one_error();
    assert_eq!(ended.out(), "");
    desk.emulator.set_faults(&json!({}));
    desk.run("after_script", "wc -c < data.bin")
}

#[test]
fn a_signal_while_the_project_is_sent() {
    let desk = Desk::new(&Job::new().script(["true"]).after_script(["true"])).prepared();
    let is_up = || desk.emulator.session_objects().iter().any(|key| key.contains("/reports/")).then_some(());
    assert!(poll(Duration::from_mins(1), is_up).is_some(), "the agent came up");
    // The instance is there: `after_script` of the canceled job has the project all the same.
    let after = canceled_while_the_project_is_sent(&desk);
    after.passed();
    assert_eq!(after.out().trim(), "1048576");
    desk.close();
}

#[test]
fn a_signal_while_the_project_is_sent_to_nobody() {
    let desk =
        Desk::with(&Job::new().script(["true"]).after_script(["true"]), &["--starting-delay", "1h"], "").prepared();
    let after = canceled_while_the_project_is_sent(&desk);
    after.passed().says("`after_script` is skipped");
    assert_eq!(after.out(), "");
    desk.run("upload_artifacts_on_failure", "echo on the host").passed();
    desk.close();
}

/// The script is done and its results are on their way: they arrive with the next stage.
#[test]
fn a_signal_while_the_results_come_back() {
    let desk = Desk::new(&plain()).prepared();
    let mut run = desk.start_run("build_script", "echo half > model.txt; echo reached");
    run.until("reached");
    desk.emulator.set_faults(&json!({"calls": [{"operation": "PutObject", "delay_ms": 2000}]}));
    run.signal(Signal::TERM);
    run.end().with_code(SYSTEM_FAILURE);
    desk.run("upload_artifacts_on_failure", "true").passed();
    assert_eq!(std::fs::read_to_string(desk.project().join("model.txt")).unwrap(), "half\n");
    desk.close();
}

/// The second signal leaves at once, whatever the script does; cleanup ends the rest.
#[test]
fn a_second_signal() {
    let desk = Desk::with(&plain(), &[], "lease_seconds = 600").prepared();
    desk.edit_operator_file("cancel_grace_seconds = 2", "cancel_grace_seconds = 600");
    let mut run = desk.start_run("build_script", "trap 'echo deaf' TERM; echo reached; while :; do sleep 0.1; done");
    run.until("reached");
    run.signal(Signal::TERM);
    run.until("deaf");
    run.signal(Signal::TERM);
    run.end().with_code(SYSTEM_FAILURE);
    desk.close();
}

#[test]
fn a_killed_driver() {
    let desk = Desk::new(&plain()).prepared();
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    run.signal(Signal::KILL);
    run.end();
    // What was there is gone as well: scratch belongs to the system's own cleaning.
    desk.close();
}

#[test]
fn cleanup_beside_a_living_stage_and_once_more() {
    let desk = Desk::new(&plain()).prepared();
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    desk.cleanup().passed();
    run.end().with_code(SYSTEM_FAILURE).one_error();
    desk.is_left_clean();
    desk.cleanup().passed();
    desk.close();
}

#[test]
fn cleanup_without_a_session() {
    let desk = Desk::new(&plain());
    desk.cleanup().passed();
    desk.close();
}

#[test]
fn two_cleanups_at_the_same_time() {
    let desk = Desk::new(&plain()).prepared();
    desk.run("build_script", "echo done").passed();
    let first = desk.start(&["cleanup"]);
    let second = desk.start(&["cleanup"]);
    first.end().passed();
    second.end().passed();
    desk.close();
}

#[test]
fn two_drivers_for_one_job() {
    let desk = Desk::new(&plain()).prepared();
    desk.prepare().passed();
    desk.training_job();
    let mut run = desk.start_run("build_script", "echo reached; sleep 4; echo first");
    run.until("reached");
    let second = desk.run("build_script", "echo second");
    second.with_code(SYSTEM_FAILURE).one_error().says("another container stage");
    assert_eq!(second.out(), "");
    let first = run.end();
    first.passed();
    assert_eq!(first.out(), "reached\nfirst\n");
    desk.close();
}

/// The look after each scenario sees what lives while it lives.
#[test]
fn what_lives_is_seen() {
    let desk = Desk::new(&plain()).prepared();
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    assert_eq!(desk.emulator.live_jobs().len(), 1);
    assert!(!desk.emulator.session_objects().is_empty());
    let processes = desk.emulator.container_processes();
    assert!(processes.iter().any(|process| process.contains("sleep 3600")), "{processes:?}");
    run.signal(Signal::TERM);
    run.end().with_code(SYSTEM_FAILURE);
    desk.close();
}
