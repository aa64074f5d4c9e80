//! The requests of the port, and what becomes of the answers.

use executor::cloud::testing::{example_config, example_endpoint, example_model};
use executor::cloud::{
    AsynchronousOutput, EndpointState, ModelSource, RolloutSpec, TrafficShift, VariantCapacity, VariantSight,
};
use serde_json::{Value, json};

use super::*;
use crate::stub::{Stub, refusal, reply};

async fn start() -> (Stub, AwsEndpoints) {
    let stub = Stub::start().await;
    let port = AwsEndpoints::new(Arc::clone(&stub.clients));
    (stub, port)
}

fn bodies(stub: &Stub) -> Vec<Value> {
    stub.seen().iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect()
}

#[tokio::test]
async fn a_model_has_one_container_or_a_package() {
    let (stub, port) = start().await;
    stub.answer(|_| Some(reply(200, r#"{"ModelArn":"arn"}"#)));
    let tags = BTreeMap::from([("Project".to_owned(), "churn".to_owned())]);
    let plain = ServedModel { tags, ..example_model("m-1") };
    port.create_model(&plain).await.unwrap();
    let source = ModelSource::Package("arn:package/churn/1".to_owned());
    let environment = BTreeMap::from([("WORKERS".to_owned(), "2".to_owned())]);
    let package = ServedModel {
        environment,
        source: source.clone(),
        subnets: vec!["subnet-1".to_owned()],
        security_groups: vec!["sg-1".to_owned()],
        network_isolation: true,
        ..example_model("m-2")
    };
    port.create_model(&package).await.unwrap();
    let other = ServedModel { source: ModelSource::Other, ..example_model("m-3") };
    assert_eq!(port.create_model(&other).await.unwrap_err().kind, CloudErrorKind::Invalid);
    let image = format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:{}", "0".repeat(64));
    let role = "arn:aws:iam::123456789012:role/serve";
    let expected = [
        json!({"ModelName": "m-1", "ExecutionRoleArn": role,
            "PrimaryContainer": {"Image": image, "ModelDataUrl": "s3://memory/models/1/model.tar.gz"},
            "Tags": [{"Key": "Project", "Value": "churn"}]}),
        json!({"ModelName": "m-2", "ExecutionRoleArn": role, "EnableNetworkIsolation": true,
            "PrimaryContainer": {"ModelPackageName": "arn:package/churn/1", "Environment": {"WORKERS": "2"}},
            "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}}),
    ];
    assert_eq!(bodies(&stub), expected);
    let mut described = expected[1].clone();
    described["ModelArn"] = json!("arn");
    described["PrimaryContainer"]["Image"] = json!(image);
    stub.push(reply(200, described.to_string()));
    assert_eq!(port.model("m-2").await.unwrap(), Some(ServedModel { arn: "arn".to_owned(), ..package }));
    stub.push(reply(200, json!({"ModelName": "two", "Containers": [{}, {}]}).to_string()));
    assert_eq!(port.model("two").await.unwrap().unwrap().source, ModelSource::Other);
}

#[tokio::test]
async fn a_configuration_is_written_and_read_back() {
    let (stub, port) = start().await;
    let places = AsynchronousOutput {
        output: "s3://b/out".to_owned(),
        failures: Some("s3://b/failed".to_owned()),
        max_concurrent: Some(4),
        kms_key_id: Some("key".to_owned()),
    };
    let on_instances = EndpointConfiguration {
        download_timeout_seconds: Some(600),
        startup_timeout_seconds: Some(300),
        kms_key_id: Some("volume".to_owned()),
        asynchronous: Some(places),
        ..example_config("c-1", "m-1")
    };
    let capacity =
        VariantCapacity::Serverless { memory_mb: 2048, max_concurrency: 5, provisioned_concurrency: Some(2) };
    let serverless = EndpointConfiguration { capacity, ..example_config("c-2", "m-2") };
    let expected = [
        json!({"EndpointConfigName": "c-1", "KmsKeyId": "volume",
            "ProductionVariants": [{"VariantName": "AllTraffic", "ModelName": "m-1", "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 2, "InitialVariantWeight": 1.0, "ModelDataDownloadTimeoutInSeconds": 600,
                "ContainerStartupHealthCheckTimeoutInSeconds": 300}],
            "AsyncInferenceConfig": {"ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
                "OutputConfig": {"S3OutputPath": "s3://b/out", "S3FailurePath": "s3://b/failed", "KmsKeyId": "key"}}}),
        json!({"EndpointConfigName": "c-2",
            "ProductionVariants": [{"VariantName": "AllTraffic", "ModelName": "m-2", "InitialVariantWeight": 1.0,
                "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5, "ProvisionedConcurrency": 2}}]}),
    ];
    for (config, expected) in [&on_instances, &serverless].into_iter().zip(&expected) {
        stub.push(reply(200, r#"{"EndpointConfigArn":"arn"}"#));
        port.create_config(config).await.unwrap();
        assert_eq!(bodies(&stub).last(), Some(expected));
        stub.push(reply(200, expected.to_string()));
        assert_eq!(port.config(&config.name).await.unwrap().as_ref(), Some(config));
    }
    stub.push(reply(200, r#"{"EndpointConfigs":[{"EndpointConfigName":"c-2"}],"NextToken":"2"}"#));
    stub.push(reply(200, r#"{"EndpointConfigs":[{"EndpointConfigName":"c-1"}]}"#));
    assert_eq!(port.configs("c-").await.unwrap(), ["c-2", "c-1"]);
    let listed = json!({"NameContains": "c-", "SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 100,
        "NextToken": "2"});
    assert_eq!(bodies(&stub).last(), Some(&listed));
}

#[tokio::test]
async fn all_endpoints_and_their_models_are_found() {
    let (stub, port) = start().await;
    stub.push(reply(200, r#"{"Endpoints":[{"EndpointName":"e-1"}],"NextToken":"2"}"#));
    stub.push(reply(200, r#"{"Endpoints":[{"EndpointName":"e-2"}]}"#));
    assert_eq!(port.all_endpoints().await.unwrap(), ["e-1", "e-2"]);
    let variants = r#"{"ProductionVariants":[{"ModelName":"m-1"},{"ModelName":"m-2"},{"VariantName":"v"}],
        "ShadowProductionVariants":[{"ModelName":"m-3"}]}"#;
    stub.push(reply(200, variants));
    let models = port.models_of("c").await.unwrap().unwrap();
    assert_eq!((models.names.as_slice(), models.lacks_one), (&["m-1", "m-2", "m-3"].map(str::to_owned)[..], true));
    stub.push(reply(400, r#"{"__type":"ValidationException","message":"Could not find endpoint configuration"}"#));
    assert_eq!(port.models_of("c").await.unwrap(), None);
}

#[tokio::test]
async fn each_way_of_moving_traffic_has_its_policy() {
    let percent = |value: u32| json!({"Type": "CAPACITY_PERCENT", "Value": value});
    let blue_green = |routing: Value, wait: u32| {
        json!({"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": wait,
            "MaximumExecutionTimeoutInSeconds": 1800})
    };
    let cases = [
        (
            TrafficShift::AllAtOnce { wait: 300, termination_wait: 60 },
            "BlueGreenUpdatePolicy",
            blue_green(json!({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300}), 60),
        ),
        (
            TrafficShift::Canary { percent: 10, wait: 300, termination_wait: 0 },
            "BlueGreenUpdatePolicy",
            blue_green(json!({"Type": "CANARY", "WaitIntervalInSeconds": 300, "CanarySize": percent(10)}), 0),
        ),
        (
            TrafficShift::Linear { percent: 25, wait: 300, termination_wait: 60 },
            "BlueGreenUpdatePolicy",
            blue_green(json!({"Type": "LINEAR", "WaitIntervalInSeconds": 300, "LinearStepSize": percent(25)}), 60),
        ),
        (
            TrafficShift::Rolling { percent: 20, wait: 300 },
            "RollingUpdatePolicy",
            json!({"MaximumBatchSize": percent(20), "WaitIntervalInSeconds": 300,
                "MaximumExecutionTimeoutInSeconds": 1800}),
        ),
    ];
    let (stub, port) = start().await;
    stub.answer(|_| Some(reply(200, r#"{"EndpointArn":"arn"}"#)));
    let mut change =
        EndpointChange { name: "churn".to_owned(), config: "c-2".to_owned(), keeps_counts: true, rollout: None };
    port.update_endpoint(&change).await.unwrap();
    let plain = json!({"EndpointName": "churn", "EndpointConfigName": "c-2", "RetainAllVariantProperties": true});
    assert_eq!(bodies(&stub).last(), Some(&plain));
    for (traffic, key, policy) in cases {
        for alarms in [vec!["errors".to_owned(), "slow".to_owned()], Vec::new()] {
            change.rollout = Some(RolloutSpec { traffic, limit_seconds: 1800, alarms: alarms.clone() });
            port.update_endpoint(&change).await.unwrap();
            let mut expected = plain.clone();
            expected["DeploymentConfig"][key] = policy.clone();
            if !alarms.is_empty() {
                expected["DeploymentConfig"]["AutoRollbackConfiguration"] =
                    json!({"Alarms": [{"AlarmName": "errors"}, {"AlarmName": "slow"}]});
            }
            assert_eq!(bodies(&stub).last(), Some(&expected));
        }
    }
}

#[tokio::test]
async fn an_endpoint_is_seen_with_its_deployment() {
    let (stub, port) = start().await;
    let answer = json!({"EndpointName": "churn", "EndpointArn": "arn", "EndpointConfigName": "c-1",
        "EndpointStatus": "Updating", "CreationTime": 10.0, "LastModifiedTime": 20.0, "FailureReason": "a\nb",
        "ProductionVariants": [{"VariantName": "AllTraffic", "CurrentInstanceCount": 2, "DesiredInstanceCount": 3}],
        "PendingDeploymentSummary": {"EndpointConfigName": "c-2", "ProductionVariants": [{
            "VariantName": "AllTraffic", "DesiredInstanceCount": 2, "VariantStatus": [
                {"Status": "Creating", "StartTime": 11.0},
                {"Status": "ActivatingTraffic", "StatusMessage": "10%", "StartTime": 12.0}]}]}});
    stub.push(reply(200, answer.to_string()));
    let sight = port.endpoint("churn").await.unwrap().unwrap();
    assert_eq!((sight.state, sight.config.as_str()), (EndpointState::Updating, "c-1"));
    assert_eq!((sight.pending_config.as_deref(), sight.failure.as_deref()), (Some("c-2"), Some("a; b")));
    let variant = VariantSight {
        name: "AllTraffic".to_owned(),
        current_instances: None,
        desired_instances: Some(2),
        status: Some("ActivatingTraffic: 10%".to_owned()),
    };
    assert_eq!(sight.pending_variants, [variant]);
    assert_eq!(sight.variants[0].desired_instances, Some(3));
    stub.push(reply(200, r#"{"EndpointStatus": "Paused"}"#));
    assert_eq!(port.endpoint("churn").await.unwrap().unwrap().state, EndpointState::Unknown);
    stub.push(reply(200, r#"{"Tags": [{"Key": "Project", "Value": "churn"}]}"#));
    assert_eq!(port.tags("arn").await.unwrap()["Project"], "churn");
}

#[tokio::test]
async fn refusals_are_told_apart_by_their_words() {
    let (stub, port) = start().await;
    let absent = |kind: &str| refusal(400, "ValidationException", &format!("Could not find {kind} \"arn\"."));
    stub.push(absent("model"));
    assert_eq!(port.model("a").await.unwrap(), None);
    stub.push(absent("endpoint configuration"));
    assert_eq!(port.config("a").await.unwrap(), None);
    stub.push(absent("endpoint"));
    assert_eq!(port.endpoint("a").await.unwrap(), None);
    for kind in ["model", "endpoint configuration", "endpoint"] {
        stub.push(absent(kind));
    }
    port.delete_model("a").await.unwrap();
    port.delete_config("a").await.unwrap();
    port.delete_endpoint("a").await.unwrap();
    stub.push(absent("endpoint configuration"));
    let endpoint = example_endpoint("churn", "c-1");
    assert_eq!(port.create_endpoint(&endpoint).await.unwrap_err().kind, CloudErrorKind::NotFound);
    let taken = "Cannot create already existing endpoint \"arn\".";
    stub.push(refusal(400, "ValidationException", taken));
    assert_eq!(port.create_endpoint(&endpoint).await.unwrap_err().kind, CloudErrorKind::Exists);
    let quota = "The account-level service limit 'ml.m5.large for endpoint usage' is 2 Instances, with current \
                 utilization of 2 Instances and a request delta of 2 Instances.";
    stub.push(refusal(400, "ResourceLimitExceeded", quota));
    let change =
        EndpointChange { name: "churn".to_owned(), config: "c-1".to_owned(), keeps_counts: false, rollout: None };
    assert_eq!(port.update_endpoint(&change).await.unwrap_err().kind, CloudErrorKind::Quota);
    stub.push(refusal(400, "ValidationException", "Cannot update in-progress endpoint \"arn\"."));
    assert_eq!(port.update_endpoint(&change).await.unwrap_err().kind, CloudErrorKind::Invalid);
    let denied = "User: x is not authorized to perform: cloudwatch:DescribeAlarms on resource: *";
    stub.push(refusal(400, "AccessDeniedException", denied));
    let error = port.update_endpoint(&change).await.unwrap_err();
    assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, "cloudwatch:DescribeAlarms"));
}

#[tokio::test]
async fn inference_components_are_read_with_all_their_forms() {
    let (stub, port) = start().await;
    stub.push(reply(200, r#"{"InferenceComponents":[{"InferenceComponentName":"one"}],"NextToken":"more"}"#));
    stub.push(reply(200, r#"{"InferenceComponents":[{"InferenceComponentName":"two"}]}"#));
    stub.push(reply(200, r#"{"Specification":{"ModelName":"m-1"}}"#));
    let container =
        json!({"Container": {"DeployedImage": {"SpecifiedImage": "r/serve:1", "ResolvedImage": "r/serve@sha256:1"}}});
    stub.push(reply(200, json!({"Specifications": [container, {"ModelName": "m-2"}]}).to_string()));
    let parts = port.components("shared").await.unwrap();
    assert_eq!(parts.models, ["m-1", "m-2"]);
    assert_eq!(parts.images, ["r/serve:1", "r/serve@sha256:1"]);
    assert_eq!(bodies(&stub)[0]["EndpointNameEquals"], "shared");
}

#[tokio::test]
async fn a_deletion_is_sent_once_where_the_access_says_so() {
    for (deletes_once, requests) in [(true, 1), (false, 3)] {
        let stub = Stub::with_retries(|access| access.deletes_once = deletes_once).await;
        let port = AwsEndpoints::new(Arc::clone(&stub.clients));
        stub.answer(|_| Some(refusal(400, "ThrottlingException", "Rate exceeded")));
        let error = port.delete_model("m-1").await.unwrap_err();
        assert_eq!((error.kind, stub.seen().len()), (CloudErrorKind::Throttled, requests), "{deletes_once}");
    }
}
