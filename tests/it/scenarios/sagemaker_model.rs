//! The model of a training job: uploaded by SageMaker, and named in `sagemaker.env`.

use serde_json::json;

use crate::support::driver::{Driver, sagemaker_with};
use crate::support::emulator::BUCKET;
use crate::support::job::{Artifacts, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::world::{Settings, World};

const MAKE: &str = "echo weights > /opt/ml/model/w; echo MINE=1 > sagemaker.env";

fn driver(emulator: &[&str]) -> Driver {
    let driver = sagemaker_with(emulator, "");
    let more = format!("max_volume_size_gb = 16384, model_outputs = [\"s3://{BUCKET}/models/**\"]");
    let operator_config = driver.operator_config.replace("max_volume_size_gb = 16384", &more);
    assert_ne!(operator_config, driver.operator_config);
    Driver { operator_config, ..driver }
}

fn output() -> String {
    format!("s3://{BUCKET}/models/churn")
}

fn job() -> Job {
    job_with(MAKE)
}

fn job_with(script: &str) -> Job {
    Job::new().set("SAGEMAKER_MODEL_OUTPUT", &output()).script([script]).artifacts(Artifacts::dotenv("sagemaker.env"))
}

fn play_row(name: &'static str, run: fn(&World) -> Vec<Outcome>, expect: fn(&World, &[Outcome])) {
    play_with(&[], name, run, expect);
}

fn play_with(emulator: &[&str], name: &'static str, run: fn(&World) -> Vec<Outcome>, expect: fn(&World, &[Outcome])) {
    let scenario = Scenario { name, needs: &["gzip", "tar"], settings: Settings::default, play: run, expect };
    play(&scenario, With::RealRunner, driver(emulator));
    play(&scenario, With::RunnerDouble, driver(emulator));
}

#[test]
fn the_stage_ends_when_the_model_is_uploaded_and_a_report_names_it() {
    let run = |world: &World| vec![world.run(&job().after_script(["true"]))];
    let expect = |world: &World, outcomes: &[Outcome]| {
        let emulator = world.emulator.as_ref().unwrap();
        let (report, job) = (outcomes[0].succeeded().artifact("dotenv").files(), &emulator.jobs()[0]);
        let report = String::from_utf8(report.into_values().next().unwrap()).unwrap();
        let (name, arn) = (job["TrainingJobName"].as_str().unwrap(), job["TrainingJobArn"].as_str().unwrap());
        let key = format!("models/churn/{name}/output/model.tar.gz");
        assert!(emulator.objects().contains(&key), "{key}: {:?}", emulator.objects());
        let lines: Vec<_> = report.lines().collect();
        let model = format!("SAGEMAKER_MODEL_URI=s3://{BUCKET}/{key}");
        let expected = [
            "MINE=1",
            &format!("SAGEMAKER_TRAINING_JOB_NAME={name}"),
            &format!("SAGEMAKER_TRAINING_JOB_ARN={arn}"),
            &model,
        ];
        assert_eq!(lines[..4], expected, "{report}");
        assert!(
            lines[4].starts_with("SAGEMAKER_TRAINING_SECONDS=") && lines[5].starts_with("SAGEMAKER_BILLABLE_SECONDS=")
        );
        outcomes[0].shows(&format!("Model: s3://{BUCKET}/{key}"));
    };
    play_row("a model", run, expect);
}

/// The runner ignores a failed `after_script`, so the stage that uploads artifacts fails too.
#[test]
fn a_model_that_cannot_be_uploaded_fails_the_job() {
    let run = |world: &World| {
        let fault = json!({"trouble": {"upload": {"reason": "AccessDenied when calling PutObject"}}, "count": 2});
        world.emulator.as_ref().unwrap().set_faults(&json!({"jobs": [fault]}));
        vec![world.run(&job()), world.run(&job().after_script(["true"]))]
    };
    let expect = |_: &World, outcomes: &[Outcome]| {
        for outcome in outcomes {
            assert_eq!(outcome.state.as_deref(), Some("failed"), "{outcome}");
            outcome
                .shows("SageMaker did not upload the model: ")
                .shows("AccessDenied when calling PutObject")
                .hides("Model: ");
        }
    };
    play_row("a model that is lost", run, expect);
}

/// The runner ends `after_script` while SageMaker uploads, and ignores that: the stage that uploads artifacts goes on with the wait.
#[test]
fn a_model_outlives_the_limit_of_after_script() {
    let run = |world: &World| {
        let job = || job().set("RUNNER_AFTER_SCRIPT_TIMEOUT", "10s").after_script(["true"]);
        let uploaded = world.run(&job());
        let fault = json!({"trouble": {"upload": {"reason": "AccessDenied when calling PutObject"}}, "count": 1});
        world.emulator.as_ref().unwrap().set_faults(&json!({"jobs": [fault]}));
        vec![uploaded, world.run(&job())]
    };
    let expect = |world: &World, outcomes: &[Outcome]| {
        let emulator = world.emulator.as_ref().unwrap();
        let report = outcomes[0].succeeded().shows("\nModel: s3://").artifact("dotenv").files();
        let report = String::from_utf8(report.into_values().next().unwrap()).unwrap();
        let uri = report.lines().find_map(|line| line.strip_prefix("SAGEMAKER_MODEL_URI=")).unwrap();
        let key = uri.strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
        assert!(emulator.objects().iter().any(|object| object == key), "{uri}: {:?}", emulator.objects());
        assert_eq!(outcomes[1].state.as_deref(), Some("failed"), "{}", outcomes[1]);
        outcomes[1].shows("SageMaker did not upload the model: ").hides("Model: ");
    };
    play_with(&["--uploading-delay", "12s"], "a model that is uploaded for long", run, expect);
}

#[test]
fn a_model_that_nothing_keeps_is_told_and_an_empty_one_too() {
    let run = |world: &World| {
        vec![
            world.run(&Job::new().script([MAKE])),
            world.run(&job_with("true")),
            world.run(&Job::new().script(["true"])),
            world.run(&Job::new().set("SAGEMAKER_MODEL_OUTPUT", "s3://elsewhere/x").script([MAKE])),
            world.run(&Job::new().set("SAGEMAKER_MODEL_OUTPUT", &output()).script([MAKE]).after_script(["true"])),
        ]
    };
    let expect = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows("the files in /opt/ml/model go nowhere; set `SAGEMAKER_MODEL_OUTPUT`");
        let report =
            outcomes[1].succeeded().shows("There is no model: /opt/ml/model is empty").artifact("dotenv").files();
        assert!(!String::from_utf8_lossy(&report.into_values().next().unwrap()).contains("MODEL_URI"));
        outcomes[2].succeeded().hides("/opt/ml/model");
        outcomes[3].failed("script_failure", Some(1)).shows("SAGEMAKER_MODEL_OUTPUT").called("run build_script", 0);
        outcomes[4].succeeded().shows("this job succeeds even if its model is not uploaded").shows("\nModel: s3://");
        outcomes[1].hides("this job succeeds even if");
    };
    play_row("models that go nowhere", run, expect);
}
