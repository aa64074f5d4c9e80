//! Training jobs: the request, the states, and what a refusal means.

use std::time::{Duration, UNIX_EPOCH};

use aws_config::retry::RetryConfig;
use executor::cloud::testing::example_spec;
use executor::cloud::{
    Access, Channel, ChannelMode, ChannelSource, CloudErrorKind, FileSystemKind, JobStatus, Network, Parameter,
    PoolProperties, SecondaryStatus, TrainingJobs as _, VpcRegistry,
};

use super::AwsJobs;
use crate::stub::{Stub, clients, refusal, reply};

#[tokio::test]
async fn create_sends_every_field() {
    let stub = Stub::start().await;
    stub.push(reply(200, r#"{"TrainingJobArn":"arn:aws:sagemaker:eu-west-1:1:training-job/a"}"#));
    let mut spec = example_spec("a");
    spec.network = Some(Network { subnets: vec!["subnet-1".to_owned()], security_group_ids: vec!["sg-1".to_owned()] });
    spec.volume_kms_key_id = Some("volume-key".to_owned());
    spec.output_kms_key_id = Some("output-key".to_owned());
    let arn = stub.jobs.create(&spec).await.unwrap();
    assert_eq!(arn, "arn:aws:sagemaker:eu-west-1:1:training-job/a");
    let seen = stub.seen();
    assert_eq!(seen[0].target.as_deref(), Some("SageMaker.CreateTrainingJob"));
    let sent: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
    let expected = serde_json::json!({
        "TrainingJobName": "a",
        "RoleArn": "arn:aws:iam::123456789012:role/train",
        "AlgorithmSpecification": {
            "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:2.4",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", "/opt/ml/input/data/agent/start"],
        },
        "Environment": { "AGENT_SESSION": "a" },
        "InputDataConfig": [{
            "ChannelName": "agent",
            "InputMode": "File",
            "CompressionType": "None",
            "DataSource": { "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": "s3://memory/agent/1/",
                "S3DataDistributionType": "FullyReplicated",
            } },
        }],
        "OutputDataConfig": {
            "S3OutputPath": "s3://memory/output", "KmsKeyId": "output-key", "CompressionType": "NONE",
        },
        "ResourceConfig": {
            "InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30, "VolumeKmsKeyId": "volume-key",
        },
        "StoppingCondition": { "MaxRuntimeInSeconds": 3600 },
        "VpcConfig": { "Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"] },
        "EnableInterContainerTrafficEncryption": false,
        "Tags": [{ "Key": "sagemaker-executor:session", "Value": "a" }],
    });
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn preferred_types_stand_in_place_of_the_type_until_one_is_selected() {
    let stub = Stub::start().await;
    stub.push(reply(200, r#"{"TrainingJobArn":"arn:aws:sagemaker:eu-west-1:1:training-job/a"}"#));
    let mut spec = example_spec("a");
    (spec.preferred_types, spec.max_pending) = (vec!["ml.g5.xlarge".to_owned(), "ml.m5.large".to_owned()], Some(7200));
    stub.jobs.create(&spec).await.unwrap();
    let sent: serde_json::Value = serde_json::from_slice(&stub.seen()[0].body).unwrap();
    let preferences = serde_json::json!([{ "InstanceType": "ml.g5.xlarge" }, { "InstanceType": "ml.m5.large" }]);
    let resources = serde_json::json!({ "InstancePreferences": preferences, "InstanceCount": 1, "VolumeSizeInGB": 30 });
    assert_eq!(sent["ResourceConfig"], resources);
    let stopping = serde_json::json!({ "MaxRuntimeInSeconds": 3600, "MaxPendingTimeInSeconds": 7200 });
    assert_eq!(sent["StoppingCondition"], stopping);

    for (selected, known) in [("", ""), (r#","SelectedInstanceType":"ml.m5.large""#, "ml.m5.large")] {
        let text = format!(
            r#"{{"TrainingJobName":"a","ResourceConfig":{{"InstancePreferences":[{{"InstanceType":"ml.g5.xlarge"}}],"InstanceCount":1{selected}}}}}"#
        );
        stub.push(reply(200, text));
        let job = stub.jobs.describe("a").await.unwrap().unwrap();
        assert_eq!(job.pool.instance_type, known);
        let instances = if known.is_empty() { Vec::new() } else { vec![(known.to_owned(), 1)] };
        assert_eq!(job.instances, instances);
    }
    let group = |name: &str, count: u32| serde_json::json!({"InstanceType": name, "InstanceCount": count, "InstanceGroupName": "g"});
    let groups = [group("ml.c5.2xlarge", 2), group("ml.g5.xlarge", 1)];
    let job =
        serde_json::json!({"TrainingJobName": "a", "ResourceConfig": {"InstanceGroups": groups, "VolumeSizeInGB": 1}});
    stub.push(reply(200, job.to_string()));
    let instances = stub.jobs.describe("a").await.unwrap().unwrap().instances;
    assert_eq!(instances, [("ml.c5.2xlarge".to_owned(), 2), ("ml.g5.xlarge".to_owned(), 1)]);
}

#[tokio::test]
async fn groups_stand_in_place_of_type_and_count() {
    let stub = Stub::start().await;
    stub.push(reply(200, r#"{"TrainingJobArn":"arn:aws:sagemaker:eu-west-1:1:training-job/a"}"#));
    let mut spec = example_spec("a");
    let group = |name: &str, instance_type: &str, count| executor::cloud::InstanceGroup {
        name: name.to_owned(),
        instance_type: instance_type.to_owned(),
        count,
    };
    spec.instance_groups = vec![group("data", "ml.c5.xlarge", 2), group("train", "ml.g5.xlarge", 1)];
    stub.jobs.create(&spec).await.unwrap();
    let sent: serde_json::Value = serde_json::from_slice(&stub.seen()[0].body).unwrap();
    let expected = serde_json::json!({ "VolumeSizeInGB": 30, "InstanceGroups": [
        { "InstanceGroupName": "data", "InstanceType": "ml.c5.xlarge", "InstanceCount": 2 },
        { "InstanceGroupName": "train", "InstanceType": "ml.g5.xlarge", "InstanceCount": 1 },
    ] });
    assert_eq!(sent["ResourceConfig"], expected);
}

#[tokio::test]
async fn create_sends_each_wish() {
    let stub = Stub::start().await;
    stub.push(reply(200, r#"{"TrainingJobArn":"arn:aws:sagemaker:eu-west-1:1:training-job/a"}"#));
    let mut spec = example_spec("a");
    (spec.spot_max_wait, spec.retries, spec.keep_alive) = (Some(7200), 2, 600);
    spec.checkpoints_uri = Some("s3://memory/checkpoints/".to_owned());
    spec.training_plan_arn = Some("plan".to_owned());
    spec.vpc_registry = Some(VpcRegistry { credentials_lambda_arn: Some("lambda".to_owned()) });
    let s3 = ChannelSource::S3 { uri: "s3://data/".to_owned(), is_sharded: true };
    let (kind, id) = (FileSystemKind::FsxLustre, "fs-01234567".to_owned());
    let shared = ChannelSource::FileSystem { kind, id, path: "/fsx".to_owned(), is_writable: true };
    let channel = |name: &str, source, mode, content_type: Option<&str>| Channel {
        name: name.to_owned(),
        source,
        mode,
        content_type: content_type.map(str::to_owned),
    };
    spec.channels = vec![
        channel("train", s3, ChannelMode::FastFile, Some("text/csv")),
        channel("shared", shared, ChannelMode::File, None),
    ];
    stub.jobs.create(&spec).await.unwrap();
    let sent: serde_json::Value = serde_json::from_slice(&stub.seen()[0].body).unwrap();
    let fields = [
        ("/EnableManagedSpotTraining", serde_json::json!(true)),
        ("/StoppingCondition", serde_json::json!({ "MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200 })),
        ("/RetryStrategy", serde_json::json!({ "MaximumRetryAttempts": 2 })),
        ("/ResourceConfig/KeepAlivePeriodInSeconds", serde_json::json!(600)),
        ("/ResourceConfig/TrainingPlanArn", serde_json::json!("plan")),
        (
            "/CheckpointConfig",
            serde_json::json!({ "S3Uri": "s3://memory/checkpoints/", "LocalPath": "/opt/ml/checkpoints" }),
        ),
        (
            "/AlgorithmSpecification/TrainingImageConfig",
            serde_json::json!({
                "TrainingRepositoryAccessMode": "Vpc",
                "TrainingRepositoryAuthConfig": { "TrainingRepositoryCredentialsProviderArn": "lambda" },
            }),
        ),
        (
            "/InputDataConfig",
            serde_json::json!([
                {
                    "ChannelName": "train", "InputMode": "FastFile", "CompressionType": "None", "ContentType": "text/csv",
                    "DataSource": { "S3DataSource": {
                        "S3DataType": "S3Prefix", "S3Uri": "s3://data/", "S3DataDistributionType": "ShardedByS3Key",
                    } },
                },
                {
                    "ChannelName": "shared", "InputMode": "File", "CompressionType": "None",
                    "DataSource": { "FileSystemDataSource": {
                        "FileSystemId": "fs-01234567", "FileSystemType": "FSxLustre", "FileSystemAccessMode": "rw",
                        "DirectoryPath": "/fsx",
                    } },
                },
            ]),
        ),
    ];
    for (pointer, expected) in fields {
        assert_eq!(sent.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[tokio::test]
async fn create_tells_a_taken_name_from_a_quota_and_a_throttle() {
    let stub = Stub::start().await;
    let cases = [
        ("ResourceInUse", "Training job names must be unique", CloudErrorKind::Exists),
        ("ResourceLimitExceeded", "The account-level service limit 'x' is 0 Instances", CloudErrorKind::Quota),
        ("ThrottlingException", "Rate exceeded", CloudErrorKind::Throttled),
        ("com.amazonaws#ValidationException", "1 validation error detected", CloudErrorKind::Invalid),
        (
            "ValidationException",
            "1 validation error detected: Value 'ml.q1.large' at 'resourceConfig.instanceType' failed",
            CloudErrorKind::Refused(Parameter::InstanceType),
        ),
        (
            "ValidationException",
            "Could not assume role arn:aws:iam::1:role/x.",
            CloudErrorKind::Refused(Parameter::Role),
        ),
    ];
    for (code, message, kind) in cases {
        stub.push(refusal(400, code, message));
        let error = stub.jobs.create(&example_spec("a")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().starts_with("failed to create training job a: "), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn describe_reads_the_newest_transition_and_unknown_values() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        serde_json::json!({
            "TrainingJobName": "a", "TrainingJobArn": "arn", "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Levitating", "CreationTime": 1_700_000_000.5, "BillableTimeInSeconds": 12,
            "EnableManagedSpotTraining": true, "TrainingStartTime": 1_700_000_050,
            "WarmPoolStatus": {"Status": "Reused", "ResourceRetainedBillableTimeInSeconds": 7, "ReusedByJob": "b"},
            "SecondaryStatusTransitions": [
                { "Status": "Starting", "StartTime": 1_700_000_001, "StatusMessage": "Launching" },
                { "Status": "Training", "StartTime": 1_700_000_100, "StatusMessage": "Downloading the image" },
            ],
        })
        .to_string(),
    ));
    let job = stub.jobs.describe("a").await.unwrap().unwrap();
    assert_eq!((job.status, job.secondary), (JobStatus::InProgress, SecondaryStatus::Other("Levitating".to_owned())));
    assert_eq!(job.message.as_deref(), Some("Downloading the image"));
    assert_eq!((job.billable_seconds, job.training_seconds), (Some(12), None));
    assert_eq!((job.is_spot, job.pool_seconds, job.pool_taken_by.as_deref()), (true, Some(7), Some("b")));
    assert_eq!(job.training_started, Some(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_050)));
    let created = job.created.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(created, Duration::from_millis(1_700_000_000_500));
}

#[tokio::test]
async fn an_unknown_job_is_none_and_a_stop_of_what_ended_is_success() {
    let stub = Stub::start().await;
    stub.push(refusal(400, "ValidationException", "Requested resource not found."));
    assert_eq!(stub.jobs.describe("a").await.unwrap(), None);
    stub.push(refusal(400, "ValidationException", "Requested resource not found."));
    stub.jobs.stop("a").await.unwrap();
    stub.push(refusal(400, "ValidationException", "The training job is in status Stopped. Cannot stop it."));
    stub.jobs.stop("a").await.unwrap();
    stub.push(refusal(400, "AccessDeniedException", "User: x is not authorized to perform: sagemaker:StopTrainingJob"));
    let error = stub.jobs.stop("a").await.unwrap_err();
    assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, "sagemaker:StopTrainingJob"));
}

/// The status is a filter behind the page, so an empty page is not the last.
#[tokio::test]
async fn jobs_in_progress_are_those_of_every_page() {
    let stub = Stub::start().await;
    let summary = |name: &str| serde_json::json!({"TrainingJobName": name, "TrainingJobArn": "arn", "CreationTime": 2, "TrainingJobStatus": "InProgress"});
    stub.push(reply(200, serde_json::json!({"TrainingJobSummaries": [summary("b")], "NextToken": "1"}).to_string()));
    stub.push(refusal(400, "ThrottlingException", "Rate exceeded"));
    stub.push(reply(200, serde_json::json!({"TrainingJobSummaries": [], "NextToken": "2"}).to_string()));
    stub.push(reply(200, serde_json::json!({"TrainingJobSummaries": [summary("a")]}).to_string()));
    let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let jobs = AwsJobs::new(stub.clients.clone());
    let list = || jobs.list_running("gitlab-", time(1)..time(9), Duration::ZERO, Duration::ZERO);
    let found = list().await.unwrap();
    assert_eq!(
        found.jobs.iter().map(|job| (job.name.as_str(), job.created)).collect::<Vec<_>>(),
        [("b", time(2)), ("a", time(2))]
    );
    assert!(!found.is_cut);
    let request: serde_json::Value = serde_json::from_slice(&stub.seen()[3].body).unwrap();
    let expected = serde_json::json!({"NextToken": "2", "MaxResults": 100, "CreationTimeAfter": 1, "CreationTimeBefore": 9,
        "NameContains": "gitlab-", "StatusEquals": "InProgress", "SortBy": "CreationTime", "SortOrder": "Descending"});
    assert_eq!(request, expected);
    let endless = serde_json::json!({"TrainingJobSummaries": [summary("b")], "NextToken": "1"}).to_string();
    stub.answer(move |_| Some(reply(200, endless.clone())));
    let found = list().await.unwrap();
    assert!(found.is_cut && found.jobs.len() == 100);
}

#[tokio::test]
async fn one_request_finds_the_warm_pools() {
    let stub = Stub::start().await;
    let summary = |name: &str| serde_json::json!({"TrainingJobName": name, "TrainingJobArn": "arn", "CreationTime": 2, "TrainingJobStatus": "Failed"});
    let page = serde_json::json!({"TrainingJobSummaries": [summary("b"), summary("a")], "NextToken": "n"});
    stub.push(reply(200, page.to_string()));
    assert_eq!(stub.jobs.warm_pools("gitlab-1-").await.unwrap(), ["b", "a"]);
    let request: serde_json::Value = serde_json::from_slice(&stub.seen()[0].body).unwrap();
    assert_eq!(
        (&request["WarmPoolStatusEquals"], &request["NameContains"]),
        (&"Available".into(), &"gitlab-1-".into())
    );
}

#[tokio::test]
async fn the_properties_that_a_warm_pool_is_matched_by_are_read() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        serde_json::json!({
            "TrainingJobName": "a", "TrainingJobArn": "arn", "TrainingJobStatus": "Completed", "SecondaryStatus": "Completed",
            "CreationTime": 1, "RoleArn": "role", "EnableNetworkIsolation": true,
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 50, "VolumeKmsKeyId": "key"},
            "VpcConfig": {"Subnets": ["subnet-b", "subnet-a"], "SecurityGroupIds": ["sg-a"]},
            "CheckpointConfig": {"S3Uri": "s3://b/c"},
            "WarmPoolStatus": {"Status": "Reused", "ReusedByJob": "b"},
        })
        .to_string(),
    ));
    let job = stub.jobs.describe("a").await.unwrap().unwrap();
    let expected = PoolProperties {
        role_arn: "role".to_owned(),
        instance_type: "ml.m5.large".to_owned(),
        instance_count: 2,
        volume_size_gb: 50,
        volume_kms_key_id: Some("key".to_owned()),
        subnets: vec!["subnet-a".to_owned(), "subnet-b".to_owned()],
        security_group_ids: vec!["sg-a".to_owned()],
        encrypts_traffic: false,
        is_isolated: true,
        has_checkpoints: true,
    };
    assert_eq!((job.pool, job.pool_taken_by.as_deref()), (expected, Some("b")));
}

#[tokio::test]
async fn a_refused_connection_is_transient_and_keeps_no_credentials() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let access = Access {
        region: Some("eu-west-1".to_owned()),
        endpoint_url: Some(endpoint),
        bucket: "bucket".to_owned(),
        ..Access::default()
    };
    let error = AwsJobs::new(clients(&access, RetryConfig::disabled()).await).describe("a").await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Transient);
    let text = error.to_string();
    assert!(text.starts_with("failed to describe training job a: "), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert!(!text.contains("test-secret") && !text.contains("AKIDTEST"), "{text}");
}

#[tokio::test]
async fn a_page_of_a_proxy_is_not_taken_for_an_answer() {
    let stub = Stub::start().await;
    stub.push(reply(502, "<html>password=hunter2</html>"));
    let error = stub.jobs.describe("a").await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Transient);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
