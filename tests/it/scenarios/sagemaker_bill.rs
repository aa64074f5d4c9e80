//! The bill of a job: its last lines, and the report that its artifacts name, against the emulator's own billed seconds.

use std::time::Duration;

use serde_json::Value;

use super::sagemaker_desk::Desk;
use super::sagemaker_power::allowing;
use crate::support::driver::sagemaker;
use crate::support::job::{Artifacts, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::waiting::poll;
use crate::support::world::{Settings, World};

/// AWS's list price for an hour of one `ml.m5.large`, the only type of these jobs.
const HOURLY: f64 = 0.115;

fn job() -> Job {
    Job::new().artifacts(Artifacts::paths(["sagemaker-report.json"]).when("always"))
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.artifact("archive").files()["sagemaker-report.json"]).unwrap()
}

fn run(world: &World) -> Vec<Outcome> {
    vec![
        world.run(&job().script(["echo mine > sagemaker-report.json"])),
        world.run(&job().set("SAGEMAKER_SPOT", "true").script(["sleep 4; exit 3"])),
        world.run(&job().set("SAGEMAKER_INSTANCE_COUNT", "2").script(["sleep 2"])),
    ]
}

fn expect(world: &World, outcomes: &[Outcome]) {
    // The newest comes first.
    let jobs: Vec<_> = world.emulator.as_ref().unwrap().jobs().into_iter().rev().collect();
    for (outcome, job) in outcomes.iter().zip(&jobs) {
        let report = report(outcome);
        assert_eq!(report["final"], true, "{report}");
        assert_eq!(report["training_job"]["name"], job["TrainingJobName"]);
        assert_eq!(report["billable_seconds"], job["BillableTimeInSeconds"], "{report}");
        let count = job["ResourceConfig"]["InstanceCount"].as_f64().unwrap();
        let cost = job["BillableTimeInSeconds"].as_f64().unwrap() / 3600.0 * HOURLY * count;
        let told = report["cost"]["amount"].as_f64().unwrap();
        assert!((told / cost - 1.0).abs() < 0.01, "{told} is not {cost}");
        assert_eq!(report["phases"][0]["status"], "Starting", "{report}");
        outcome.shows("\nSageMaker: ").shows(", less than $0.01 (");
    }
    let seconds = |index: usize| jobs[index]["BillableTimeInSeconds"].as_u64().unwrap();
    outcomes[0]
        .succeeded()
        .shows("`sagemaker-report.json` of the job is replaced by the executor's report")
        .shows(&format!("\nBilled {} s of ml.m5.large, ", seconds(0)));
    assert_eq!(report(&outcomes[0])["exit_code"], 0);
    outcomes[0].shows(&format!("Results: {} files, ", report(&outcomes[0])["results"]["files"]));
    outcomes[1].failed("script_failure", Some(3)).shows(" in 1 start, waited ").shows(" % saved, list price");
    let spot = report(&outcomes[1]);
    let training = jobs[1]["TrainingTimeInSeconds"].as_u64().unwrap();
    assert_eq!(spot["spot_saving_percent"], 100 - (seconds(1) * 100).div_ceil(training), "{spot}");
    assert_eq!((&spot["exit_code"], &spot["spot"]), (&3.into(), &true.into()));
    // One sample after a second.
    assert_eq!((&spot["idle"]["below_percent"], &spot["idle"]["measured_seconds"]), (&10.into(), &1.into()), "{spot}");
    outcomes[2].succeeded().shows(&format!("\nBilled {} s of 2 x ml.m5.large, ", seconds(2)));
}

/// No script begins, but SageMaker bills the instance.
#[test]
fn a_job_whose_sources_fail_is_billed() {
    let desk = Desk::new(&job().script(["true"])).prepared();
    let is_up = || desk.emulator.session_objects().iter().any(|key| key.contains("/reports/")).then_some(());
    assert!(poll(Duration::from_mins(1), is_up).is_some(), "the agent came up");
    desk.run("get_sources", "exit 1");
    desk.run("upload_artifacts_on_failure", "true").passed();
    let report = std::fs::read(desk.project().join("sagemaker-report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((&report["final"], &report["exit_code"]), (&false.into(), &Value::Null), "{report}");
    assert!(report["billable_seconds"].is_u64(), "{report}");
    let ended = desk.run("cleanup_file_variables", "true");
    ended.passed().says("SageMaker: ").says("illed ");
    desk.close();
}

#[test]
fn plain_spot_and_two_nodes_are_billed_as_sagemaker_does() {
    let scenario = Scenario { name: "bills", needs: &["unzip"], settings: Settings::default, play: run, expect };
    play(&scenario, With::RealRunner, allowing(sagemaker()));
}
