//! Warm pools.

use serde_json::{Value, json};

use super::{call, describe, faults, request, run, told, training, training_with, until};

fn kept(name: &str, script: &str, seconds: u64) -> Value {
    let mut request = request(name, script);
    request["ResourceConfig"]["KeepAlivePeriodInSeconds"] = json!(seconds);
    request
}

/// Tells what a job before has left, in each place.
const TELLS: &str = "for at in /opt/ml/sagemaker/warmpoolcache /opt/ml/mine /opt/ml/model /opt/ml/output/data /tmp /srv; do \
                     [ -e $at/left ] && printf '%s ' $at; done >/opt/ml/output/failure; exit 1";
const LEAVES: &str = "mkdir /opt/ml/mine; for at in $SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY /opt/ml/mine /opt/ml/model \
                      /opt/ml/output/data /tmp /srv; do echo x >$at/left; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_matching_job_gets_the_instances_with_what_was_left_on_them() {
    let Some((training, _folder)) = training() else { return };
    let one = run(&training, &kept("one", LEAVES, 600)).await;
    assert_eq!(
        (&one["TrainingJobStatus"], &one["WarmPoolStatus"]),
        (&json!("Completed"), &json!({"Status": "Available"}))
    );
    let listed = |status: &str| {
        let reply = call(&training, "ListTrainingJobs", &json!({"WarmPoolStatusEquals": status})).unwrap().unwrap();
        reply["TrainingJobSummaries"].as_array().unwrap().len()
    };
    assert_eq!((listed("Available"), listed("Reused")), (1, 0));
    assert_eq!(
        call(&training, "DeleteTrainingJob", &json!({"TrainingJobName": "one"})).unwrap_err().code,
        "ResourceInUse"
    );
    // From now on there are no new instances.
    faults(&training, &json!({"jobs": [{"trouble": "capacity"}]}));
    let mut other = kept("other", "exit 0", 600);
    other["ResourceConfig"]["VolumeSizeInGB"] = json!(6);
    assert!(run(&training, &other).await["FailureReason"].as_str().unwrap().starts_with("CapacityError"));
    assert_eq!(
        told(&training, &kept("two", TELLS, 600)).await,
        "/opt/ml/sagemaker/warmpoolcache /opt/ml/mine /tmp /srv "
    );
    let one = describe(&training, "one");
    let status = &one["WarmPoolStatus"];
    assert_eq!((&status["Status"], &status["ReusedByJob"]), (&json!("Reused"), &json!("two")));
    assert!(status["ResourceRetainedBillableTimeInSeconds"].is_u64(), "{status}");
    call(&training, "DeleteTrainingJob", &json!({"TrainingJobName": "one"})).unwrap();
    // The pool of a failed job; a job with another image finds only what is on the volume, and ends the pool.
    let mut three = request("three", TELLS);
    three["AlgorithmSpecification"]["TrainingImage"] = json!("another");
    assert_eq!(told(&training, &three).await, "/opt/ml/sagemaker/warmpoolcache /opt/ml/mine /tmp ");
    assert_eq!(describe(&training, "three")["WarmPoolStatus"]["Status"], "Terminated");
    assert!(
        run(&training, &request("four", "exit 0")).await["FailureReason"]
            .as_str()
            .unwrap()
            .starts_with("CapacityError")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_ends_by_its_time_or_an_update() {
    let Some((training, folder)) = training() else { return };
    let status = |status: &'static str| move |job: &Value| job["WarmPoolStatus"]["Status"] == status;
    run(&training, &kept("timed", "exit 0", 1)).await;
    until(&training, "timed", status("Terminated")).await;
    run(&training, &kept("updated", "exit 0", 3600)).await;
    let update = |seconds: u64| {
        let request = json!({"TrainingJobName": "updated", "ResourceConfig": {"KeepAlivePeriodInSeconds": seconds}});
        call(&training, "UpdateTrainingJob", &request)
    };
    assert_eq!(update(3601).unwrap_err().code, "ValidationException");
    update(1800).unwrap();
    assert_eq!(describe(&training, "updated")["WarmPoolStatus"]["Status"], "Available");
    update(0).unwrap();
    assert_eq!(describe(&training, "updated")["WarmPoolStatus"]["Status"], "Terminated");
    assert_eq!(update(60).unwrap_err().code, "ValidationException");
    let no_files = |_: &Value| std::fs::read_dir(folder.path().join("jobs")).unwrap().next().is_none();
    until(&training, "updated", no_files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_counts_against_the_quota_but_not_for_the_job_that_takes_it() {
    let quota = |config: &mut crate::EmulatorConfig| {
        config.instance_quotas =
            [("ml.m5.large", 1), ("warm-pool:ml.m5.large", 1)].map(|(name, n)| (name.to_owned(), n)).into();
    };
    let Some((training, _folder)) = training_with(quota) else { return };
    run(&training, &kept("one", "exit 0", 600)).await;
    let mut other = request("other", "exit 0");
    other["EnableNetworkIsolation"] = json!(true);
    assert_eq!(call(&training, "CreateTrainingJob", &other).unwrap_err().code, "ResourceLimitExceeded");
    assert_eq!(describe(&training, "one")["WarmPoolStatus"]["Status"], "Available");
    assert_eq!(run(&training, &kept("two", "exit 0", 600)).await["TrainingJobStatus"], "Completed");
    let mut large = kept("large", "exit 0", 600);
    large["ResourceConfig"]["InstanceCount"] = json!(2);
    let refused = call(&training, "CreateTrainingJob", &large).unwrap_err().message;
    assert!(refused.contains("'ml.m5.large for training warm pool usage' is 1 Instances"), "{refused}");
}
