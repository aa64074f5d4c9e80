//! Quotas of instances.

use serde_json::{Value, json};

use super::{call, faults, request, training_with, until};

const WAITS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn refused(answer: crate::protocol::Answer) -> String {
    let error = answer.unwrap_err();
    assert_eq!(error.code, "ResourceLimitExceeded");
    error.message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_counts_the_jobs_that_run() {
    let quota = |config: &mut crate::EmulatorConfig| {
        config.instance_quotas =
            [("ml.m5.large", 2), ("spot:ml.m5.large", 0)].map(|(name, n)| (name.to_owned(), n)).into();
    };
    let Some((training, _folder)) = training_with(quota) else { return };
    call(&training, "CreateTrainingJob", &request("one", WAITS)).unwrap();
    let mut two = request("two", "exit 0");
    two["ResourceConfig"]["InstanceCount"] = json!(2);
    assert!(refused(call(&training, "CreateTrainingJob", &two)).starts_with(
        "The account-level service limit 'ml.m5.large for training job usage' is 2 Instances, with current utilization of 1 \
         Instances and a request delta of 2 Instances."
    ));
    let mut spot = request("spot", "exit 0");
    spot["EnableManagedSpotTraining"] = json!(true);
    spot["StoppingCondition"]["MaxWaitTimeInSeconds"] = json!(60);
    assert!(refused(call(&training, "CreateTrainingJob", &spot)).starts_with(
        "The account-level service limit 'ml.m5.large for spot training job usage' is 0 Instances, with current utilization of \
         0 Instances and a request delta of 1 Instances."
    ));
    call(&training, "StopTrainingJob", &json!({"TrainingJobName": "one"})).unwrap();
    until(&training, "one", |job| job["TrainingJobStatus"] == "Stopped").await;
    call(&training, "CreateTrainingJob", &two).unwrap();
    until(&training, "two", |job| job["TrainingJobStatus"] == "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preference_over_its_quota_is_passed_over() {
    let Some((training, _folder)) = training_with(|_| ()) else { return };
    faults(&training, &json!({"instances": {"ml.p3.2xlarge": 0, "ml.m4.xlarge": 0}}));
    let preferring = |name: &str, types: &[&str]| {
        let mut request = request(name, "exit 0");
        let list: Vec<Value> = types.iter().map(|one| json!({"InstanceType": one})).collect();
        request["ResourceConfig"] = json!({"InstanceCount": 1, "VolumeSizeInGB": 5, "InstancePreferences": list});
        request
    };
    let none = preferring("none", &["ml.p3.2xlarge", "ml.m4.xlarge"]);
    assert!(
        refused(call(&training, "CreateTrainingJob", &none)).contains("'ml.p3.2xlarge for training job usage' is 0")
    );
    let job = super::run(&training, &preferring("some", &["ml.p3.2xlarge", "ml.m5.large"])).await;
    assert_eq!(
        (&job["TrainingJobStatus"], &job["ResourceConfig"]["SelectedInstanceType"]),
        (&json!("Completed"), &json!("ml.m5.large"))
    );
}
