//! Training jobs that are not created as requested: no capacity, throttled, late, not visible; and their end.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::sagemaker::rows;
use super::sagemaker_cancel::until_called;
use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use crate::support::driver::sagemaker;
use crate::support::emulator::quota_text;
use crate::support::job::{Artifacts, Job, Trigger};
use crate::support::waiting::poll;

/// More than SageMaker selects from, so the driver asks for one after another.
pub(super) const TYPES: &str =
    "ml.p4d.24xlarge, ml.m5.large, ml.m5.xlarge, ml.m5.2xlarge, ml.m5.4xlarge, ml.m5.12xlarge";
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_mins(1);

fn no_p4d() -> Value {
    json!({"jobs": [{"instance_type": "ml.p4d.24xlarge", "trouble": "capacity"}]})
}

fn job() -> Job {
    Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["model.txt"]).when("always"))
}

/// Names of all training jobs, oldest first.
fn names(desk: &Desk) -> Vec<String> {
    let mut jobs = desk.emulator.jobs();
    jobs.reverse();
    jobs.iter().map(|job| job["TrainingJobName"].as_str().unwrap().to_owned()).collect()
}

fn until_a_job_lives(desk: &Desk) {
    let lives = poll(PATIENCE, || (!desk.emulator.live_jobs().is_empty()).then_some(()));
    assert!(lives.is_some(), "no training job came to be");
}

fn until_no_job_lives(desk: &Desk) {
    let ended = poll(PATIENCE, || desk.emulator.live_jobs().is_empty().then_some(()));
    assert!(ended.is_some(), "{:?}", desk.emulator.live_jobs());
}

rows! {
    /// The first type has no capacity, which shows after the job was created: the whole GitLab job runs on the second.
    no_capacity_for_the_first_type {
        driver: sagemaker(),
        needs: ["unzip"],
        play: |world| {
            world.emulator.as_ref().unwrap().set_faults(&no_p4d());
            vec![world.run(&Job::new().set("SAGEMAKER_INSTANCE_TYPE", TYPES)
                .script(["echo made > model.txt", "echo the-script-ran"]).after_script(["echo after-$CI_JOB_STATUS"])
                .artifacts(Artifacts::paths(["model.txt"])))]
        },
        expect: |world, outcomes| {
            outcomes[0].succeeded().shows("\nthe-script-ran").shows("\nafter-success")
                .shows("There is no capacity for ml.p4d.24xlarge: requesting ml.m5.large");
            assert_eq!(outcomes[0].count("\nthe-script-ran"), 1);
            assert_eq!(outcomes[0].artifact("archive").files()["model.txt"], b"made\n");
            assert_eq!(world.emulator.as_ref().unwrap().jobs().len(), 2);
        },
    }
    /// SageMaker selects from a list of two, in one training job.
    sagemaker_selects_a_type_with_capacity {
        driver: sagemaker(),
        play: |world| {
            world.emulator.as_ref().unwrap().set_faults(&no_p4d());
            vec![world.run(&Job::new().set("SAGEMAKER_INSTANCE_TYPE", "ml.p4d.24xlarge, ml.m5.large").script(["echo ran"]))]
        },
        expect: |world, outcomes| {
            outcomes[0].succeeded().shows("Instance: ml.p4d.24xlarge or ml.m5.large x 1").shows("SageMaker selected ml.m5.large: no quota or no capacity for ml.p4d.24xlarge\n")
                .shows("\nran");
            let jobs = world.emulator.as_ref().unwrap().jobs();
            assert_eq!(jobs.len(), 1);
            assert_eq!(jobs[0]["ResourceConfig"]["SelectedInstanceType"], "ml.m5.large");
        },
    }
    /// The job is canceled while SageMaker still works on the request, and the runner kills `prepare` before the answer comes.
    cancel_while_the_training_job_is_created {
        driver: driver_with_little_grace(),
        play: |world| {
            world.emulator.as_ref().unwrap().set_faults(&json!({"calls": [
                {"operation": "CreateTrainingJob", "count": 1, "delay_ms": 10_000, "accepted": true}]}));
            let canceled = Job::new().script(["echo never"])
                .when_trace_contains("Using Custom executor with driver", Trigger::Cancel);
            vec![world.run(&canceled), world.run(&Job::new().script(["echo the-next-job"]))]
        },
        expect: |_, outcomes| {
            assert_eq!(outcomes[0].state.as_deref(), Some("failed"), "{}", outcomes[0]);
            outcomes[0].hides("\nnever").called("cleanup", 1);
            outcomes[1].succeeded().shows("\nthe-next-job");
        },
    }
    /// `cleanup` cannot look at the training job; the next job of the host ends what it left.
    a_failed_look_in_cleanup {
        driver: sagemaker(),
        play: |world| {
            let emulator = world.emulator.as_ref().unwrap();
            let canceled = Job::new().script(["echo reached-the-script", "sleep 3600"])
                .when_trace_contains("\nreached-the-script", Trigger::Abort);
            emulator.set_faults(&json!({"calls": [{"operation": "DescribeTrainingJob", "error": "AccessDeniedException",
                "message": "not authorized", "status": 400}, {"operation": "StopTrainingJob",
                "error": "AccessDeniedException", "message": "not authorized", "status": 400}]}));
            let first = world.run(&canceled);
            emulator.set_faults(&json!({}));
            // The second job stops what the first one left; that it has ended may show to the third one only.
            let next = || world.run(&Job::new().script(["echo the-next-job"]));
            vec![first, next(), next()]
        },
        expect: |world, outcomes| {
            outcomes[0].failed("job_canceled", None).called("cleanup", 1);
            for next in &outcomes[1..] {
                next.succeeded().shows("\nthe-next-job");
            }
            let left = std::fs::read_dir(world.dirs.root().join("state/sessions")).unwrap().count();
            assert_eq!(left, 0, "the next jobs ended the rest");
        },
    }
}

fn driver_with_little_grace() -> crate::support::driver::Driver {
    let mut driver = sagemaker();
    driver.adjust = |settings| {
        settings.prepare_exec_timeout = 60;
        settings.graceful_kill_timeout = 1;
    };
    driver
}

#[test]
fn the_next_type_is_taken_when_there_is_no_capacity() {
    // Of two types SageMaker would select one; here it takes no list.
    let no_list = json!([{"operation": "CreateTrainingJob", "count": 1, "error": "ResourceLimitExceeded",
        "message": quota_text("ml.p4d.24xlarge", 0)}]);
    for (tail, types, calls) in
        [("", TYPES, json!([])), ("[trace]\nlive_copy = false", "ml.p4d.24xlarge, ml.m5.large", no_list)]
    {
        let mut desk = Desk::with(&job(), &[], tail);
        desk.set("SAGEMAKER_INSTANCE_TYPE", types);
        desk.set("SAGEMAKER_INSTANCE_COUNT", "2");
        let mut faults = no_p4d();
        faults["calls"] = calls;
        desk.emulator.set_faults(&faults);
        let desk = desk.prepared();
        let session = desk.session.clone().unwrap();
        let ended = desk.run("build_script", "echo there; echo made > model.txt");
        ended.passed().says("There is no capacity for ml.p4d.24xlarge: requesting ml.m5.large");
        assert_eq!(ended.out().matches("there").count(), 2, "{ended}");
        desk.run("after_script", "cat model.txt").passed();
        desk.run("upload_artifacts_on_success", "true").passed();
        assert_eq!(std::fs::read_to_string(desk.project().join("model.txt")).unwrap(), "made\n");
        assert_eq!(names(&desk), [session.clone(), format!("{session}-2")]);
        desk.close();
    }
}

#[test]
fn the_last_type_has_no_capacity_either() {
    let mut desk = Desk::new(&job());
    desk.set("SAGEMAKER_INSTANCE_TYPE", TYPES);
    desk.emulator.set_faults(&json!({"jobs": [{"trouble": "capacity"}]}));
    let desk = desk.prepared();
    let ended = desk.run("build_script", "echo never");
    ended
        .with_code(SYSTEM_FAILURE)
        .one_error()
        .says("ml.p4d.24xlarge: CapacityError")
        .says("ml.m5.large: CapacityError");
    assert_eq!(ended.out(), "");
    desk.run("after_script", "echo never").passed().hides("error: ").says("`after_script` is skipped");
    desk.close();
}

/// The first type has no capacity, and every other one is refused: no later stage waits for a training job that never was.
#[test]
fn the_other_types_are_refused() {
    let mut desk = Desk::new(&job());
    desk.set("SAGEMAKER_INSTANCE_TYPE", TYPES);
    desk.emulator.set_faults(&json!({"jobs": [{"trouble": "capacity"}], "calls": [{"operation": "CreateTrainingJob",
        "from": 2, "error": "ResourceLimitExceeded", "message": quota_text("ml.m5.large", 0)}]}));
    let desk = desk.prepared();
    let ended = desk.run("build_script", "echo never");
    ended
        .with_code(SYSTEM_FAILURE)
        .one_error()
        .says("ml.p4d.24xlarge: CapacityError")
        .says("ml.m5.large: ResourceLimit");
    let after = desk.run("after_script", "echo never");
    after.passed().says("`after_script` is skipped");
    assert_eq!(after.out(), "");
    desk.cleanup().passed();
    desk.is_left_clean();
}

#[test]
fn an_internal_error_is_met_once_more() {
    let desk = Desk::new(&job().artifacts(Artifacts::paths(["sagemaker-report.json"]).when("always")));
    desk.emulator.set_faults(&json!({"jobs": [{"count": 1, "trouble": "internal"}]}));
    let desk = desk.prepared();
    let ended = desk.run("build_script", "echo there");
    ended.passed().says("SageMaker met an internal error");
    assert_eq!(ended.out(), "there\n");
    desk.run("upload_artifacts_on_success", "true").passed();
    let report = std::fs::read(desk.project().join("sagemaker-report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let jobs = desk.emulator.jobs();
    let first = jobs.iter().find(|job| job["TrainingJobStatus"] == "Failed").unwrap();
    let told = &report["earlier_training_jobs"][0];
    assert_eq!((&told["name"], &told["status"]), (&first["TrainingJobName"], &"Failed".into()), "{report}");
    assert_eq!(told["billable_seconds"], first["BillableTimeInSeconds"], "{report}");
    assert!(report["total_amount"].as_f64() > report["cost"]["amount"].as_f64(), "{report}");
    let name = first["TrainingJobName"].as_str().unwrap();
    let billed = desk.run("cleanup_file_variables", "true");
    billed
        .passed()
        .says(&format!("Training job {name} before it (Failed): Billed "))
        .says("All 2 training jobs of this job cost ");
    desk.close();
}

#[test]
fn a_cancel_while_the_second_training_job_starts() {
    let mut desk = Desk::with(&Job::new().script(["true"]), &["--starting-delay", "2s"], "");
    desk.set("SAGEMAKER_INSTANCE_TYPE", TYPES);
    desk.emulator.set_faults(&no_p4d());
    let desk = desk.prepared();
    let mut run = desk.start_run("build_script", "echo never");
    run.until("requesting ml.m5.large");
    run.signal(Signal::TERM);
    let ended = run.end();
    ended.with_code(SYSTEM_FAILURE).one_error();
    assert_eq!(ended.out(), "");
    desk.close();
}

/// The process is killed between the request for the second job and its answer; called again, the stage goes on.
#[test]
fn a_kill_while_the_second_training_job_is_created() {
    let mut desk = Desk::new(&Job::new().script(["true"]));
    desk.set("SAGEMAKER_INSTANCE_TYPE", TYPES);
    desk.emulator.set_faults(&no_p4d());
    let desk = desk.prepared();
    let before = desk.emulator.requests("CreateTrainingJob");
    let mut faults = no_p4d();
    faults["calls"] = json!([{"operation": "CreateTrainingJob", "delay_ms": 2000, "accepted": true}]);
    desk.emulator.set_faults(&faults);
    let run = desk.start_run("build_script", "echo there");
    until_called(&desk, "CreateTrainingJob", before);
    run.signal(Signal::KILL);
    run.end();
    let again = desk.run("build_script", "echo there");
    again.passed();
    assert_eq!(again.out(), "there\n");
    assert_eq!(names(&desk).len(), 2);
    desk.close();
}

/// The runner waits for `prepare` after its signal: the answer comes, and the job it tells of is stopped at once.
#[test]
fn a_signal_while_the_training_job_is_created() {
    let mut desk = Desk::with(&job(), &["--starting-delay", "60s"], "");
    desk.emulator.set_faults(&json!({"calls": [
        {"operation": "CreateTrainingJob", "count": 1, "delay_ms": 3000, "accepted": true}]}));
    desk.config().passed();
    let prepare = desk.start(&["prepare"]);
    until_called(&desk, "CreateTrainingJob", 0);
    prepare.signal(Signal::TERM);
    prepare.end().with_code(SYSTEM_FAILURE).one_error().says("canceled while the training job was created");
    assert_eq!(names(&desk).len(), 1);
    until_no_job_lives(&desk);
    desk.close();
}

/// A job that comes to be after `cleanup` is ended by the next job's `prepare`, or by `sweep`.
#[test]
fn a_training_job_that_comes_after_its_cleanup() {
    for by_sweep in [false, true] {
        let mut desk = Desk::with(&job(), &["--starting-delay", "60s"], "");
        desk.emulator.set_faults(&json!({"calls": [
            {"operation": "CreateTrainingJob", "count": 1, "delay_ms": 12_000, "accepted": true}]}));
        desk.config().passed();
        let prepare = desk.start(&["prepare"]);
        until_called(&desk, "CreateTrainingJob", 0);
        prepare.signal(Signal::KILL);
        prepare.end();
        desk.cleanup().passed().says("may still create");
        assert!(desk.emulator.jobs().is_empty(), "cleanup does not wait for it");
        until_a_job_lives(&desk);
        if by_sweep {
            desk.call(&["sweep"]).with_code(0).says("Ended gitlab-");
        } else {
            desk.next_job(&job(), 4712);
            let late = desk.emulator.jobs().into_iter().next_back().unwrap();
            let is_stopped = |status: &str| status == "Stopping" || status == "Stopped";
            assert!(is_stopped(late["TrainingJobStatus"].as_str().unwrap()), "{late}");
            desk.cleanup().passed();
            until_no_job_lives(&desk);
        }
        desk.is_left_clean();
    }
}

/// For some seconds SageMaker knows nothing of a job that it has just created.
#[test]
fn a_training_job_that_is_not_visible_while_it_is_cleaned_up() {
    let desk = Desk::with(&job(), &["--starting-delay", "60s"], "");
    desk.emulator.set_faults(&json!({"hidden_ms": 9_000}));
    let desk = desk.prepared();
    desk.cleanup().passed().says("may still create");
    until_a_job_lives(&desk);
    desk.call(&["sweep"]).with_code(0).says("Ended gitlab-");
    desk.is_left_clean();
}

/// A cleanup that was killed leaves its session to the next job.
#[test]
fn a_killed_cleanup_is_completed_by_the_next_job() {
    let mut desk = Desk::with(&job(), &["--starting-delay", "60s"], "").prepared();
    let first = names(&desk);
    desk.emulator.set_faults(&json!({"calls": [{"operation": "StopTrainingJob", "delay_ms": 60_000}]}));
    let cleanup = desk.start(&["cleanup"]);
    until_called(&desk, "StopTrainingJob", 0);
    cleanup.signal(Signal::KILL);
    cleanup.end();
    desk.emulator.set_faults(&json!({}));
    desk.next_job(&job(), 4712);
    let ended = poll(PATIENCE, || (desk.emulator.live_jobs().len() == 1).then_some(()));
    assert!(ended.is_some(), "{first:?} lives on: {:?}", desk.emulator.live_jobs());
    // The look is brief; what it stopped is forgotten by the next one.
    desk.cleanup().passed();
    desk.next_job(&job(), 4713);
    desk.close();
}

/// What runs is no rest, whatever its age.
#[test]
fn a_sweep_beside_a_host_stage() {
    let desk = Desk::new(&job()).prepared();
    let mut run = desk.start_run("get_sources", "echo reached; sleep 3600");
    run.until("reached");
    for age in ["0s", "2s"] {
        desk.call(&["sweep", "--older-than", age]).with_code(0).says("Nothing is left over");
    }
    // The runner signals the whole group.
    run.signal(Signal::TERM);
    run.signal(Signal::KILL);
    run.end();
    desk.call(&["sweep"]).with_code(0).says("Nothing is left over");
    desk.run("get_sources", "true").passed();
    desk.call(&["sweep", "--older-than", "0s"]).with_code(0).says("Nothing is left over");
    assert_eq!(desk.emulator.live_jobs().len(), 1, "the pause between two stages is no end either");
    desk.run("build_script", "echo there").passed();
    desk.close();
}

/// Jobs that begin together while SageMaker throttles: `PREPARES_AT_ONCE=60` sends as many at one request in two seconds.
#[test]
fn prepares_at_once_under_throttling() {
    #[expect(clippy::disallowed_methods, reason = "the size of the test")]
    let wanted = std::env::var("PREPARES_AT_ONCE").ok().and_then(|number| number.parse().ok());
    let mut desk = Desk::with(&job(), &["--starting-delay", "600s"], "");
    desk.emulator.set_faults(&match wanted {
        Some(_) => json!({"quotas": {"CreateTrainingJob": 0.5}}),
        None => json!({"calls": [{"operation": "CreateTrainingJob", "count": 4, "error": "ThrottlingException",
            "message": "Rate exceeded"}, {"operation": "ListObjectsV2", "count": 6, "error": "SlowDown", "status": 503}]}),
    });
    let sessions: Vec<_> = (1..=wanted.unwrap_or(2)).map(|number| format!("gitlab-231-{number}-abcdef12")).collect();
    let mut running = Vec::new();
    for session in &sessions {
        desk.session = Some(session.clone());
        running.push(desk.start(&["prepare"]));
    }
    for prepare in running {
        prepare.end_within(Duration::from_mins(5)).passed();
    }
    assert_eq!(desk.emulator.live_jobs().len(), sessions.len());
    desk.emulator.set_faults(&json!({}));
    for session in &sessions {
        desk.session = Some(session.clone());
        desk.cleanup().passed();
    }
    desk.is_left_clean();
}

/// The first reply is lost and later tries are refused: the job of the first one exists.
#[test]
fn a_refusal_after_a_lost_reply() {
    let mut desk = Desk::with(&job(), &["--starting-delay", "60s"], "");
    desk.set("SAGEMAKER_INSTANCE_TYPE", TYPES);
    desk.emulator.set_faults(&json!({"calls": [
        {"operation": "CreateTrainingJob", "count": 1, "drop": "after"},
        {"operation": "CreateTrainingJob", "from": 2, "error": "AccessDeniedException", "message": "not authorized"}]}));
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).one_error();
    desk.cleanup().passed();
    until_no_job_lives(&desk);
    desk.is_left_clean();
}
