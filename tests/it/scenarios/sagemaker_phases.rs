//! The phases of the training job as sections of the job log, with SageMaker's own times.

use serde_json::{Value, json};

use super::sagemaker::rows;
use super::sagemaker_desk::Desk;
use crate::support::driver::sagemaker_with;
use crate::support::job::{Artifacts, Job};
use crate::support::scenario::one;
use crate::support::snapshot::{assert_snapshot, redacted};

/// The time that the log says a section took.
#[track_caller]
fn seconds(log: &str, section: &str) -> i64 {
    let at = |mark: &str| -> i64 {
        let end = format!(":{section}");
        let times = log.match_indices(mark).filter_map(|(from, _)| {
            let (at, rest) = log[from + mark.len()..].split_at(10);
            rest.starts_with(&end).then(|| at.parse().unwrap())
        });
        let times: Vec<i64> = times.collect();
        assert_eq!(times.len(), 1, "{mark} of {section}\n{log}");
        times[0]
    };
    at("section_end:") - at("section_start:")
}

/// When the job came into a phase, in seconds.
#[track_caller]
fn entered(job: &Value, status: &str) -> f64 {
    let transitions = job["SecondaryStatusTransitions"].as_array().unwrap();
    let found = transitions.iter().find(|transition| transition["Status"] == status);
    found.unwrap_or_else(|| panic!("no {status} in {job}"))["StartTime"].as_f64().unwrap()
}

/// Both ends of a section are told in whole seconds.
#[track_caller]
fn lasted(log: &str, section: &str, seconds_of_service: f64) {
    #[expect(clippy::cast_precision_loss, reason = "a section of a test takes seconds")]
    let off = seconds(log, section) as f64 - seconds_of_service;
    assert!(off.abs() <= 1.0, "{section} is off by {off} s\n{log}");
}

rows! {
    /// The agent is ready before the training job was looked at for the first time.
    phases_that_pass_between_two_looks {
        driver: sagemaker_with(&["--starting-delay", "7s", "--downloading-delay", "4s"], ""),
        play: |world| one(world, &Job::new().script(["echo the-script-ran"])),
        expect: |world, outcomes| {
            let log = outcomes[0].succeeded().shows("\nthe-script-ran").text();
            let jobs = world.emulator.as_ref().unwrap().jobs();
            let at = |status: &str| entered(&jobs[0], status);
            lasted(&log, "sagemaker_provisioning", at("Downloading") - at("Starting"));
            let download = seconds(&log, "sagemaker_download");
            assert!(download >= 3, "{download} s of download\n{log}");
        },
    }
}

/// SageMaker answers no look: the stage goes on, and says what it does not know.
fn goes_on_without_a_look(error: &Value) {
    let desk = Desk::new(&Job::new().script(["true"])).prepared();
    desk.emulator.set_faults(&json!({"calls": [error]}));
    let ended = desk.run("build_script", "echo there");
    ended.passed().says("When the download began is not known");
    assert_eq!(ended.out(), "there\n");
    seconds(&ended.stderr, "sagemaker_provisioning");
    desk.emulator.set_faults(&json!({}));
    desk.close();
}

#[test]
fn looks_that_are_throttled() {
    goes_on_without_a_look(&json!({"operation": "DescribeTrainingJob", "error": "ThrottlingException"}));
}

#[test]
fn looks_that_are_denied() {
    goes_on_without_a_look(&json!({"operation": "DescribeTrainingJob", "error": "AccessDeniedException"}));
}

/// The agent was ready long before the stage that waits for it began, as behind a slow clone.
#[test]
fn a_stage_that_comes_late() {
    let desk = Desk::new(&Job::new().script(["true"])).prepared();
    let is_up = || desk.emulator.session_objects().iter().any(|key| key.contains("/reports/")).then_some(());
    assert!(crate::support::waiting::poll(std::time::Duration::from_mins(1), is_up).is_some(), "the agent came up");
    desk.run("get_sources", "sleep 6").passed();
    let ended = desk.run("build_script", "echo there");
    ended.passed();
    let download = seconds(&ended.stderr, "sagemaker_download");
    let training = desk.training_job();
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as f64;
    #[expect(clippy::cast_possible_truncation, reason = "seconds of a test")]
    let all = (now - entered(&training, "Downloading")) as i64;
    assert!(download <= all - 5, "{download} of {all} s\n{ended}");
    desk.close();
}

/// All that the driver writes into the log of a job.
#[test]
fn the_log_of_a_whole_job() {
    let mut desk =
        Desk::new(&Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["model.txt"])));
    desk.config().passed();
    let mut log = format!("--- prepare\n{}", desk.prepare().stderr);
    desk.put("data.csv", b"rows\n");
    for (stage, script) in
        [("build_script", "echo made > model.txt; exit 3"), ("after_script", "echo after; rm data.csv")]
    {
        let ended = desk.run(stage, script);
        log.extend([format!("--- {stage}\n"), ended.stderr]);
    }
    log.extend(["--- cleanup\n".to_owned(), desk.cleanup().stderr]);
    assert_snapshot("log_of_a_job", &redacted(&log));
    desk.close();
}
