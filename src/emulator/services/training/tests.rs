//! Whole training jobs through the operations, in containers of this machine.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

mod capacity;
mod data;
mod pools;
mod spot;

use super::Training;
use crate::caller::Caller;
use crate::config::EmulatorConfig;
use crate::protocol::Answer;
use crate::service::answer;
use crate::services::ecr::ImageStore;
use crate::services::logs::Logs;
use crate::shared::Shared;
use crate::store::Store;

/// A job ends within this time.
const PATIENCE: Duration = Duration::from_mins(1);

/// The service on a directory of its own; `None`, and a line that says so, where containers cannot be made.
fn training() -> Option<(Arc<Training>, TempDir)> {
    training_with(|_| ())
}

fn training_with(change: impl FnOnce(&mut EmulatorConfig)) -> Option<(Arc<Training>, TempDir)> {
    let tried = Command::new("bwrap").args(["--dev-bind", "/", "/", "true"]).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: bubblewrap cannot create a container here");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = EmulatorConfig::new(folder.path()).without_delays();
    change(&mut config);
    let logs = Arc::new(Logs::new(config.seed, &config.quirks));
    let store = Arc::new(Store::open(folder.path().join("s3")).unwrap());
    store.create_bucket("bucket").unwrap();
    let shared = Arc::new(Shared::new(config, String::new()).unwrap());
    let images = Arc::new(ImageStore::new(&shared));
    Some((Arc::new(Training::new(&shared, &store, &logs, &images)), folder))
}

fn call(training: &Arc<Training>, operation: &str, request: &Value) -> Answer {
    answer(training, operation, request, &Caller::administrator())
}

fn describe(training: &Arc<Training>, name: &str) -> Value {
    call(training, "DescribeTrainingJob", &json!({"TrainingJobName": name})).unwrap().unwrap()
}

/// A request whose container runs a shell script.
fn request(name: &str, script: &str) -> Value {
    json!({
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", "-c"],
            "ContainerArguments": [script],
        },
        "RoleArn": "arn:aws:iam::000000000000:role/test",
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    })
}

/// Waits until a job's description has what is asked for.
async fn until(training: &Arc<Training>, name: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let reached = async {
        loop {
            let job = describe(training, name);
            if reached(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{:#}", describe(training, name)))
}

/// Runs a job to its end and returns its description.
async fn run(training: &Arc<Training>, request: &Value) -> Value {
    call(training, "CreateTrainingJob", request).unwrap();
    let name = request["TrainingJobName"].as_str().unwrap();
    until(training, name, |job| job["TrainingJobStatus"] != "InProgress" && job["TrainingJobStatus"] != "Stopping")
        .await
}

/// The text that the container of a job wrote to `/opt/ml/output/failure` before it failed with code 1.
async fn told(training: &Arc<Training>, request: &Value) -> String {
    let job = run(training, request).await;
    let reason = job["FailureReason"].as_str().unwrap_or_else(|| panic!("{job:#}"));
    let told = reason.strip_prefix("AlgorithmError: ").and_then(|rest| rest.strip_suffix(", exit code: 1"));
    told.unwrap_or_else(|| panic!("{reason}")).to_owned()
}

fn put(training: &Arc<Training>, key: &str, content: &[u8]) {
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), content).unwrap();
    training.store.put_file("bucket", key, source.path()).unwrap();
}

fn keys(training: &Arc<Training>, prefix: &str) -> Vec<String> {
    let page = training.store.list("bucket", prefix, None, None, 100).unwrap();
    page.objects.into_iter().map(|(key, _)| key).collect()
}

fn faults(training: &Arc<Training>, plan: &Value) {
    training.shared.faults.set(serde_json::from_value(plan.clone()).unwrap());
}

/// A request with these members of the algorithm's specification and no script.
fn plain(algorithm: &Value) -> Value {
    let mut request = request("job", "");
    request["AlgorithmSpecification"] = json!({"TrainingImage": "image", "TrainingInputMode": "File"});
    for (name, value) in algorithm.as_object().unwrap() {
        request["AlgorithmSpecification"][name] = value.clone();
    }
    request
}

/// `SageMaker` runs `docker run <image> train` when the request names no entrypoint.
#[test_case::test_case(&json!({}); "an image without entrypoint and train")]
#[test_case::test_case(&json!({"ContainerArguments": ["no-such-program", "x"]}); "arguments alone")]
#[test_case::test_case(&json!({"ContainerEntrypoint": ["/no/such/program"]}); "an entrypoint that is missing")]
#[test_case::test_case(&json!({"ContainerEntrypoint": ["/etc/passwd"]}); "an entrypoint that cannot be executed")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_cannot_be_started_fails_the_job(algorithm: &Value) {
    let Some((training, _folder)) = training() else { return };
    let job = run(&training, &plain(algorithm)).await;
    assert_eq!(job["TrainingJobStatus"], "Failed");
    let reason = job["FailureReason"].as_str().unwrap();
    assert!(reason.starts_with("AlgorithmError: CannotStartContainerError. "), "{reason}");
    assert!(reason.contains("'docker run <image> train'"), "{reason}");
}

#[test_case::test_case(&json!({"ContainerArguments": ["/bin/true"]}), "Completed", Value::Null; "the first argument is the program")]
#[test_case::test_case(&json!({"ContainerEntrypoint": ["/bin/sh", "-c", "exit 127"]}), "Failed", json!("AlgorithmError: , exit code: 127"); "a script's own 127")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_started_tells_its_exit_code(algorithm: &Value, status: &str, reason: Value) {
    let Some((training, _folder)) = training() else { return };
    let job = run(&training, &plain(algorithm)).await;
    assert_eq!((&job["TrainingJobStatus"], &job["FailureReason"]), (&json!(status), &reason));
}

/// As in the answer of the service, whose numbers have 32 bits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_final_metrics_come_from_the_log() {
    let Some((training, _folder)) = training() else { return };
    let mut request = request("job", "echo loss=0.5; echo loss=0.25; echo acc=0.75");
    request["AlgorithmSpecification"]["MetricDefinitions"] =
        json!([{"Name": "loss", "Regex": "loss=([0-9.]+)"}, {"Name": "acc", "Regex": "acc=([0-9.]+)"}]);
    run(&training, &request).await;
    let job =
        until(&training, "job", |job| job["FinalMetricDataList"].as_array().is_some_and(|all| all.len() == 2)).await;
    let values: Vec<_> = job["FinalMetricDataList"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| (&metric["MetricName"], &metric["Value"]))
        .collect();
    assert_eq!(values, [(&json!("loss"), &json!(0.25)), (&json!("acc"), &json!(0.75))]);
    assert!(job["FinalMetricDataList"][0]["Timestamp"].is_number());
}
