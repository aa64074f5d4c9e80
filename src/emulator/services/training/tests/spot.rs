//! Interruptions of spot jobs, checkpoints, and retries after errors of the platform.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::JobTrouble;

use super::{Training, call, faults, keys, put, request, run, told, training, training_with, until};

const INTERRUPTION: JobTrouble = JobTrouble::SpotInterruption { after_ms: 0, spread_ms: 0, grace_ms: None };

fn spot(name: &str, script: &str) -> Value {
    let mut request = request(name, script);
    request["EnableManagedSpotTraining"] = json!(true);
    request["StoppingCondition"]["MaxWaitTimeInSeconds"] = json!(60);
    request["CheckpointConfig"] = json!({"S3Uri": "s3://bucket/state/"});
    request
}

fn phases(job: &Value) -> Vec<&str> {
    job["SecondaryStatusTransitions"].as_array().unwrap().iter().map(|one| one["Status"].as_str().unwrap()).collect()
}

/// Waits until the container has written `ready` to its checkpoints, and reclaims its instance.
async fn interrupt(training: &Arc<Training>, job: &str) {
    until(training, job, |_| keys(training, "state/").contains(&"state/ready".to_owned())).await;
    assert!(training.strike(job, INTERRUPTION));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_container_starts_anew_with_nothing_but_its_checkpoints() {
    let Some((training, _folder)) = training() else { return };
    let script = "cd /opt/ml/checkpoints; if [ -e ready ]; then echo $(ls -d $PWD/* /tmp/left /opt/ml/left 2>/dev/null) \
                  >/opt/ml/output/failure; exit 1; fi; touch /tmp/left /opt/ml/left; trap 'echo >signal; exit' TERM; \
                  echo >ready; while :; do sleep 0.1; done";
    put(&training, "state/before", b"x");
    let request = spot("job", script);
    let (left, ()) = tokio::join!(told(&training, &request), async {
        tokio::task::yield_now().await;
        interrupt(&training, "job").await;
    });
    let kept = ["before", "ready", "signal"].map(|name| format!("/opt/ml/checkpoints/{name}"));
    assert_eq!(left.trim(), kept.join(" "));
    let job = super::describe(&training, "job");
    let round = ["Starting", "Downloading", "Training"];
    assert_eq!(phases(&job), [&round[..], &["Interrupted"], &round, &["Uploading", "Failed"]].concat());
    assert!(job["BillableTimeInSeconds"].as_u64() <= job["TrainingTimeInSeconds"].as_u64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_may_be_reclaimed_while_results_are_uploaded() {
    let slow = |config: &mut crate::EmulatorConfig| config.delays.uploading = Duration::from_mins(10);
    let Some((training, _folder)) = training_with(slow) else { return };
    let again = "cd /opt/ml/checkpoints; [ ! -e once ] || exec sleep 60; touch once";
    call(&training, "CreateTrainingJob", &spot("job", again)).unwrap();
    until(&training, "job", |job| job["SecondaryStatus"] == "Uploading" && training.strike("job", INTERRUPTION)).await;
    until(&training, "job", |job| phases(job).ends_with(&["Interrupted", "Starting", "Downloading", "Training"])).await;
    assert_eq!(keys(&training, "state/"), ["state/once"]);
    call(&training, "StopTrainingJob", &json!({"TrainingJobName": "job"})).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_start_has_a_log_stream_of_its_own() {
    let short = |config: &mut crate::EmulatorConfig| config.stop_grace = Duration::from_millis(100);
    let Some((training, _folder)) = training_with(short) else { return };
    let script = "trap '' TERM; echo started; echo x >/opt/ml/checkpoints/ready; while :; do sleep 0.1; done";
    call(&training, "CreateTrainingJob", &spot("job", script)).unwrap();
    interrupt(&training, "job").await;
    let streams = || -> BTreeSet<String> {
        let dump = training.logs.dump("job/");
        let events = dump.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.map(|event| event["stream"].as_str().unwrap().to_owned()).collect()
    };
    until(&training, "job", |_| streams().len() == 2).await;
    assert!(streams().iter().all(|stream| stream.starts_with("job/algo-1-")), "{:?}", streams());
    call(&training, "StopTrainingJob", &json!({"TrainingJobName": "job"})).unwrap();
    until(&training, "job", |job| job["TrainingJobStatus"] == "Stopped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_shortens_the_time_of_an_interrupted_container() {
    let Some((training, _folder)) = training() else { return };
    let fault = json!({"spot_interruption": {"after_ms": 0, "grace_ms": 100}});
    faults(&training, &json!({"jobs": [{"count": 1, "trouble": fault}]}));
    call(&training, "CreateTrainingJob", &spot("job", "trap '' TERM; while :; do sleep 0.1; done")).unwrap();
    // Long before the two minutes that containers have otherwise.
    until(&training, "job", |job| phases(job).ends_with(&["Interrupted", "Starting", "Downloading", "Training"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_uploaded_while_the_job_runs() {
    let Some((training, folder)) = training() else { return };
    let script = "cd /mnt/state; echo x >one; trap 'exit 0' TERM; while :; do sleep 0.1; [ ! -e /opt/ml/more ] || echo x >two; done";
    let mut request = request("job", script);
    request["CheckpointConfig"] = json!({"S3Uri": "s3://bucket/state", "LocalPath": "/mnt/state"});
    call(&training, "CreateTrainingJob", &request).unwrap();
    let uploaded = |expected: &'static [&str]| {
        let training = training.clone();
        move |job: &Value| keys(&training, "state/") == expected && job["SecondaryStatus"] == "Training"
    };
    until(&training, "job", uploaded(&["state/one"])).await;
    let hosts = std::fs::read_dir(folder.path().join("jobs")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(hosts.join("1/algo-1/opt-ml/more"), "").unwrap();
    until(&training, "job", uploaded(&["state/one", "state/two"])).await;
    call(&training, "StopTrainingJob", &json!({"TrainingJobName": "job"})).unwrap();
    until(&training, "job", |job| job["TrainingJobStatus"] == "Stopped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_platform_is_retried_as_often_as_the_request_says() {
    let Some((training, _folder)) = training() else { return };
    let waits = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let mut job = request("job", waits);
    job["RetryStrategy"] = json!({"MaximumRetryAttempts": 1});
    faults(&training, &json!({"jobs": [{"trouble": {"host_failure": {"after_ms": 100}}}]}));
    let failed = run(&training, &job).await;
    assert!(failed["FailureReason"].as_str().unwrap().starts_with("InternalServerError: "), "{failed}");
    let round = ["Starting", "Downloading", "Training"];
    assert_eq!(phases(&failed), [&round[..], &round, &["Uploading", "Failed"]].concat());
    faults(&training, &json!({"jobs": [{"count": 1, "trouble": "internal"}]}));
    let mut job = request("again", "exit 0");
    job["RetryStrategy"] = json!({"MaximumRetryAttempts": 1});
    assert_eq!(run(&training, &job).await["TrainingJobStatus"], "Completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spot_job_waits_for_capacity_no_longer_than_it_may() {
    let Some((training, _folder)) = training() else { return };
    faults(&training, &json!({"jobs": [{"trouble": {"pending": {"ms": 60_000}}}]}));
    let mut job = spot("job", "exit 0");
    job["StoppingCondition"] = json!({"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1});
    let ended = run(&training, &job).await;
    assert_eq!(phases(&ended), ["Starting", "Pending", "Stopping", "MaxWaitTimeExceeded"]);
    assert_eq!(ended["TrainingJobStatus"], "Stopped");
}
