//! The requests of the registry's port, and what becomes of the answers.

use serde_json::{Value, json};

use super::*;
use crate::stub::{SeenRequest, Stub, refusal, reply};

fn spec() -> VersionSpec {
    VersionSpec {
        group: "churn".to_owned(),
        client_token: "0123456789abcdef0123456789abcdef0123".to_owned(),
        description: "text".to_owned(),
        image: "registry/serve@sha256:00".to_owned(),
        model_data_url: "s3://b/models/1/model.tar.gz".to_owned(),
        environment: BTreeMap::from([("WORKERS".to_owned(), "2".to_owned())]),
        content_types: vec!["text/csv".to_owned()],
        response_types: Vec::new(),
        instance_types: vec!["ml.m5.large".to_owned()],
        metrics: Some(StoredMetrics {
            uri: "s3://b/metrics/2.json".to_owned(),
            content_type: "application/json".to_owned(),
            digest: Some("sha256:22".to_owned()),
        }),
        commit: Some("c0ffee".to_owned()),
        repository: None,
        generated_by: None,
        project: Some("group/project".to_owned()),
        metadata: BTreeMap::from([("pipeline-id".to_owned(), "7".to_owned())]),
    }
}

fn body(seen: &SeenRequest) -> Value {
    serde_json::from_slice(&seen.body).unwrap()
}

#[tokio::test]
async fn a_version_waits_for_approval_and_has_no_tags() {
    let stub = Stub::start().await;
    stub.push(reply(200, r#"{"ModelPackageArn":"arn"}"#));
    assert_eq!(stub.registry.create_version(&spec()).await.unwrap(), "arn");
    let [seen] = stub.seen().try_into().unwrap();
    let expected = json!({
        "ModelPackageGroupName": "churn",
        "ClientToken": "0123456789abcdef0123456789abcdef0123",
        "ModelPackageDescription": "text",
        "ModelApprovalStatus": "PendingManualApproval",
        "InferenceSpecification": {
            "Containers": [{
                "Image": "registry/serve@sha256:00",
                "ImageDigest": "sha256:00",
                "ModelDataUrl": "s3://b/models/1/model.tar.gz",
                "Environment": {"WORKERS": "2"},
            }],
            "SupportedContentTypes": ["text/csv"],
            "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
        },
        "ModelMetrics": {"ModelQuality": {"Statistics": {
            "ContentType": "application/json", "ContentDigest": "sha256:22", "S3Uri": "s3://b/metrics/2.json",
        }}},
        "MetadataProperties": {"CommitId": "c0ffee", "ProjectId": "group/project"},
        "CustomerMetadataProperties": {"pipeline-id": "7"},
    });
    assert_eq!(body(&seen), expected);
}

#[tokio::test]
async fn what_does_not_exist_is_absent_and_other_refusals_are_errors() {
    let stub = Stub::start().await;
    let absent = || refusal(400, "ValidationException", "ModelPackageGroup arn:aws:sagemaker:x does not exist.");
    for _ in 0..3 {
        stub.push(absent());
    }
    assert_eq!(stub.registry.group("churn").await.unwrap(), None);
    assert_eq!(stub.registry.versions("churn", None, None).await.unwrap(), ModelVersionPage::default());
    assert_eq!(stub.registry.version("arn").await.unwrap(), None);
    stub.push(refusal(400, "ValidationException", "ModelPackage Not Found: arn"));
    assert_eq!(stub.registry.version("arn").await.unwrap(), None);
    stub.push(refusal(400, "AccessDeniedException", "not authorized to perform: sagemaker:DescribeModelPackage"));
    let error = stub.registry.version("arn").await.unwrap_err();
    assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, "sagemaker:DescribeModelPackage"));
}

#[tokio::test]
async fn a_description_gives_the_version_with_the_reasons_of_its_failure() {
    let stub = Stub::start().await;
    let described = json!({
        "ModelPackageArn": "arn", "ModelPackageGroupName": "churn", "ModelPackageVersion": 3,
        "ModelPackageStatus": "Failed", "ModelApprovalStatus": "Rejected", "ApprovalDescription": "no",
        "ModelPackageStatusDetails": {
            "ValidationStatuses": [{"Name": "scan", "Status": "Failed", "FailureReason": "no image"}],
        },
        "InferenceSpecification": {"Containers": [{"Image": "i@sha256:1", "ModelDataUrl": "s3://b/m"}]},
        "CustomerMetadataProperties": {"a": "b"},
    });
    stub.push(reply(200, described.to_string()));
    let found = stub.registry.version("arn").await.unwrap().unwrap();
    assert_eq!((found.number, found.approval), (3, Approval::Rejected));
    assert_eq!(found.state, RegistrationState::Failed("scan: no image".to_owned()));
    assert_eq!((found.image.as_str(), found.model_data_url.as_str()), ("i@sha256:1", "s3://b/m"));
    assert_eq!(found.metadata["a"], "b");
}

#[tokio::test]
async fn lists_are_newest_first_and_go_on_by_a_token() {
    let stub = Stub::start().await;
    let listed = json!({"NextToken": "t", "ModelPackageSummaryList": [{
        "ModelPackageArn": "arn", "ModelPackageVersion": 2, "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": "Approved", "CreationTime": 1, "ModelPackageDescription": "d",
    }]});
    stub.push(reply(200, listed.to_string()));
    let page = stub.registry.versions("churn", Some(Approval::Approved), Some("before".to_owned())).await.unwrap();
    assert_eq!((page.next.as_deref(), page.versions[0].number), (Some("t"), 2));
    let expected = json!({
        "ModelPackageGroupName": "churn", "ModelApprovalStatus": "Approved", "NextToken": "before",
        "SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 100,
    });
    assert_eq!(body(&stub.seen()[0]), expected);
}

#[tokio::test]
async fn errors_name_the_settings_of_the_manifest() {
    let stub = Stub::with(|access| access.settings = executor::cloud::SettingsFile::Manifest).await;
    let refused = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>";
    stub.push(reply(404, refused));
    let error = stub.objects.put("a", Vec::new()).await.unwrap_err();
    assert!(
        error.message.ends_with("set `environments.<name>.bucket` in the manifest to a bucket that exists"),
        "{error}"
    );
    stub.push(refusal(403, "UnrecognizedClientException", "The security token is invalid"));
    let error = stub.registry.group("churn").await.unwrap_err();
    assert!(error.message.contains("the job's variables `AWS_ROLE_ARN`"), "{error}");
}
