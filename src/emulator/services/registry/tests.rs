//! The operations on the model registry.

#![expect(clippy::needless_pass_by_value, reason = "a test writes a request where it is sent")]

mod accounts;

use std::sync::Arc;

use serde_json::{Value, json};
use test_case::test_case;

use super::Registry;
use crate::caller::Caller;
use crate::config::EmulatorConfig;
use crate::protocol::{Answer, ApiError};
use crate::service::{answer, authorize};
use crate::shared::Shared;

/// The service as one caller uses it.
struct Desk {
    registry: Arc<Registry>,
    caller: Caller,
}

impl Desk {
    fn new() -> Self {
        Self::with_faults(&json!({}))
    }

    fn with_faults(plan: &Value) -> Self {
        Self::with(|config| config.faults = serde_json::from_value(plan.clone()).unwrap())
    }

    fn with(change: impl FnOnce(&mut EmulatorConfig)) -> Self {
        let mut config = EmulatorConfig::new("never-used");
        change(&mut config);
        let shared = Arc::new(Shared::new(config, String::new()).unwrap());
        Self { registry: Arc::new(Registry::new(&shared)), caller: Caller::administrator() }
    }

    /// The same service for a caller in another region.
    fn in_region(&self, region: &str) -> Self {
        let caller = Caller { region: region.to_owned(), ..self.caller.clone() };
        Self { registry: Arc::clone(&self.registry), caller }
    }

    /// The caller's policies decide first, as for a request that comes over the wire.
    fn ask(&self, operation: &str, request: &Value) -> Answer {
        authorize(&*self.registry, &self.registry.shared, operation, request, &self.caller)?;
        answer(&self.registry, operation, request, &self.caller)
    }

    fn call(&self, operation: &str, request: Value) -> Value {
        self.ask(operation, &request).unwrap_or_else(|error| panic!("{operation}: {error:?}")).unwrap_or_default()
    }

    fn refused(&self, operation: &str, request: Value) -> ApiError {
        self.ask(operation, &request).expect_err(operation)
    }

    fn group(&self, name: &str) -> String {
        let reply = self.call("CreateModelPackageGroup", json!({"ModelPackageGroupName": name}));
        reply["ModelPackageGroupArn"].as_str().unwrap().to_owned()
    }

    fn create(&self, request: Value) -> String {
        self.call("CreateModelPackage", request)["ModelPackageArn"].as_str().unwrap().to_owned()
    }

    fn describe(&self, name: &str) -> Value {
        self.call("DescribeModelPackage", json!({"ModelPackageName": name}))
    }

    /// The members of a list's entries that end with `Arn`, without all before the last `:`.
    fn listed(&self, operation: &str, request: Value) -> Vec<String> {
        let reply = self.call(operation, request);
        let list = reply.as_object().unwrap().values().find_map(Value::as_array).unwrap().clone();
        let arn =
            |one: &Value| one.as_object().unwrap().iter().find(|(name, _)| name.ends_with("Arn")).unwrap().1.clone();
        list.iter().map(|one| arn(one).as_str().unwrap().rsplit(':').next().unwrap().to_owned()).collect()
    }
}

fn version(group: &str) -> Value {
    json!({"ModelPackageGroupName": group, "InferenceSpecification": {"Containers": [{"Image": "image"}]}})
}

fn with(mut request: Value, name: &str, value: Value) -> Value {
    request[name] = value;
    request
}

#[test]
fn versions_are_numbered_and_no_number_comes_again() {
    let desk = Desk::new();
    desk.group("fraud");
    let arn = |number: u32| format!("arn:aws:sagemaker:us-east-1:000000000000:model-package/fraud/{number}");
    assert_eq!([desk.create(version("fraud")), desk.create(version("fraud"))], [arn(1), arn(2)]);
    desk.call("DeleteModelPackage", json!({"ModelPackageName": arn(2)}));
    assert_eq!(desk.create(version("fraud")), arn(3));
    let described = desk.describe(&arn(3));
    assert_eq!(described["ModelPackageVersion"], 3);
    assert_eq!(described["ModelPackageGroupName"], "fraud");
    assert_eq!(described.get("ModelPackageName"), None, "AWS shows none, whatever its model says");
    assert_eq!(described["ModelApprovalStatus"], "PendingManualApproval");
    assert_eq!(described["ModelPackageStatus"], "Completed");
    assert_eq!(described["CertifyForMarketplace"], false);
    assert_eq!(described["CreatedBy"]["IamIdentity"]["Arn"], "arn:aws:iam::000000000000:user/test");
    assert_eq!(described.get("LastModifiedTime"), None);
    let error = desk.refused("DescribeModelPackage", json!({"ModelPackageName": arn(2)}));
    assert_eq!(error, ApiError::validation(format!("ModelPackage {} does not exist.", arn(2))));
}

#[test]
fn a_group_is_made_once_and_deleted_when_it_is_empty() {
    let desk = Desk::new();
    let arn = desk.group("fraud");
    let again = desk.refused("CreateModelPackageGroup", json!({"ModelPackageGroupName": "fraud"}));
    assert_eq!(again, ApiError::validation(format!("Model Package Group already exists: {arn}")));
    let package = desk.create(version("fraud"));
    let described = desk.call("DescribeModelPackageGroup", json!({"ModelPackageGroupName": arn}));
    assert_eq!(described["ModelPackageGroupStatus"], "Completed");
    let full = desk.refused("DeleteModelPackageGroup", json!({"ModelPackageGroupName": "fraud"}));
    assert_eq!(full.code, "ConflictException");
    desk.call("DeleteModelPackage", json!({"ModelPackageName": package}));
    desk.call("DeleteModelPackageGroup", json!({"ModelPackageGroupName": "fraud"}));
    let absent = desk.refused("DescribeModelPackageGroup", json!({"ModelPackageGroupName": "fraud"}));
    assert_eq!(absent.message, format!("ModelPackageGroup {arn} does not exist."));
    assert_eq!(desk.refused("CreateModelPackage", version("fraud")).message, "Model Package Group does not exist.");
    desk.group("fraud");
    assert_eq!(desk.create(version("fraud")), package, "a new group counts from 1");
}

#[test]
fn a_client_token_makes_a_retry_the_same_version() {
    let desk = Desk::new();
    desk.group("fraud");
    let request = with(version("fraud"), "ClientToken", json!("one"));
    let first = desk.create(request.clone());
    assert_eq!(desk.create(request.clone()), first);
    let other = desk.refused("CreateModelPackage", with(request.clone(), "Domain", json!("other")));
    assert_eq!(other.code, "ConflictException");
    assert_ne!(desk.create(with(version("fraud"), "ClientToken", json!("two"))), first);
    desk.call("DeleteModelPackage", json!({"ModelPackageName": first}));
    assert!(desk.create(request).ends_with("fraud/3"), "what is deleted is made again");
}

#[test]
fn an_update_with_a_client_token_happens_once() {
    let desk = Desk::new();
    desk.group("fraud");
    let arn = desk.create(version("fraud"));
    let update = |token: &str, status: &str| {
        let request = json!({"ModelPackageArn": arn, "ClientToken": token, "ModelApprovalStatus": status});
        desk.ask("UpdateModelPackage", &request).map(drop).map_err(|error| error.code)
    };
    assert_eq!(update("one", "Approved"), Ok(()));
    assert_eq!(update("two", "Rejected"), Ok(()));
    assert_eq!(update("one", "Approved"), Ok(()), "a late retry");
    assert_eq!(desk.describe(&arn)["ModelApprovalStatus"], "Rejected");
    assert_eq!(update("one", "Rejected"), Err("ConflictException".to_owned()));
}

#[test_case(json!({"ModelPackageName": "a", "ModelPackageGroupName": "fraud"}), "Both ModelPackageName"; "two names")]
#[test_case(json!({}), "Missing ARN."; "no name")]
#[test_case(json!({"ModelPackageGroupName": "fraud", "Tags": [{"Key": "a", "Value": "b"}]}), "Tags cannot be specified"; "tags of a version")]
#[test_case(json!({"ModelPackageName": "a", "InferenceSpecification": {"Containers": [{"Environment": {"A": "b"}}]}}), "Environment variable map"; "environment without a group")]
#[test_case(json!({"ModelPackageName": "a", "SourceUri": "s3://b/m", "InferenceSpecification": {"Containers": [{}]}}), "cannot be specified together"; "two sources")]
#[test_case(json!({"ModelPackageName": "taken"}), "Model Package already exists"; "a name twice")]
#[test_case(json!({"ModelPackageName": "a", "Tags": [{"Key": "aws:a", "Value": "b"}]}), "reserved"; "a tag of AWS")]
#[test_case(json!({"ModelPackageGroupName": "fraud", "SourceUri": "arn:aws:sagemaker:us-east-1:000000000000:model-package/fraud/9"}), "model-package/fraud/9 does not exist."; "a copy of nothing")]
#[test_case(json!({"ModelPackageGroupName": "fraud", "AdditionalInferenceSpecifications": [{"Name": "a", "Containers": [{}]}, {"Name": "a", "Containers": [{}]}]}), "Duplicate name: a"; "a specification twice")]
fn a_wrong_creation_is_refused(request: Value, words: &str) {
    let desk = Desk::new();
    desk.group("fraud");
    desk.create(json!({"ModelPackageName": "taken"}));
    let error = desk.refused("CreateModelPackage", request);
    assert_eq!(error.code, "ValidationException");
    assert!(error.message.contains(words), "{}", error.message);
    assert_eq!(desk.listed("ListModelPackages", json!({"ModelPackageType": "Both"})), ["model-package/taken"]);
}

#[test]
fn an_update_changes_what_it_names() {
    let desk = Desk::new();
    desk.group("fraud");
    let properties = json!({"commit": "abc", "stage": "dev"});
    let arn = desk.create(with(version("fraud"), "CustomerMetadataProperties", properties));
    desk.call(
        "UpdateModelPackage",
        json!({
            "ModelPackageArn": arn,
            "ModelApprovalStatus": "Approved",
            "ApprovalDescription": "approved by @user",
            "CustomerMetadataProperties": {"stage": "prod", "pipeline": "7"},
            "CustomerMetadataPropertiesToRemove": ["commit", "absent"],
            "ModelLifeCycle": {"Stage": "prod", "StageStatus": "approved"},
            "AdditionalInferenceSpecificationsToAdd": [{"Name": "small", "Containers": [{"Image": "other"}]}],
        }),
    );
    let described = desk.describe(&arn);
    assert_eq!(described["ModelApprovalStatus"], "Approved");
    assert_eq!(described["ApprovalDescription"], "approved by @user");
    assert_eq!(described["CustomerMetadataProperties"], json!({"stage": "prod", "pipeline": "7"}));
    assert_eq!(described["ModelLifeCycle"]["Stage"], "prod");
    assert_eq!(described["AdditionalInferenceSpecifications"][0]["Name"], "small");
    assert_eq!(described["InferenceSpecification"]["Containers"][0]["Image"], "image");
    assert_eq!(described["LastModifiedBy"], described["CreatedBy"]);
    let many = (0..49).map(|number| (format!("key{number}"), json!("value"))).collect::<serde_json::Map<_, _>>();
    let refused =
        desk.refused("UpdateModelPackage", json!({"ModelPackageArn": arn, "CustomerMetadataProperties": many}));
    assert!(refused.message.contains("at most 50"), "{}", refused.message);
    let again = json!({"ModelPackageArn": arn, "AdditionalInferenceSpecificationsToAdd": [{"Name": "small", "Containers": [{}]}]});
    assert!(desk.refused("UpdateModelPackage", again).message.contains("Duplicate name: small"));
    let alone = desk.create(json!({"ModelPackageName": "alone"}));
    let refused =
        desk.refused("UpdateModelPackage", json!({"ModelPackageArn": alone, "ModelApprovalStatus": "Approved"}));
    assert!(refused.message.contains("is not versioned"), "{}", refused.message);
}

#[test]
fn an_archived_card_stays_as_it_is() {
    let desk = Desk::new();
    desk.group("fraud");
    let card = json!({"ModelCardContent": "{\"a\":1}", "ModelCardStatus": "Draft"});
    let arn = desk.create(with(version("fraud"), "ModelCard", card));
    let metadata = desk.call("DescribeModelPackage", json!({"ModelPackageName": arn, "IncludedData": "MetadataOnly"}));
    assert_eq!(metadata["ModelCard"], json!({"ModelCardContent": "{}", "ModelCardStatus": "Draft"}));
    desk.call("UpdateModelPackage", json!({"ModelPackageArn": arn, "ModelCard": {"ModelCardStatus": "Archived"}}));
    assert_eq!(desk.describe(&arn)["ModelCard"]["ModelCardContent"], "{\"a\":1}");
    let change = json!({"ModelPackageArn": arn, "ModelCard": {"ModelCardContent": "{}"}});
    assert_eq!(desk.refused("UpdateModelPackage", change).message, "Model Card is in Archived state.");
}

#[test]
fn a_copy_has_the_contents_of_its_source_but_not_its_approval() {
    let desk = Desk::new();
    desk.group("dev");
    desk.group("prod");
    let source = with(version("dev"), "ModelApprovalStatus", json!("Approved"));
    let source = desk.create(with(source, "Task", json!("CLASSIFICATION")));
    let copy = desk.create(json!({"ModelPackageGroupName": "prod", "SourceUri": source, "Domain": "own"}));
    let described = desk.describe(&copy);
    assert_eq!(described["InferenceSpecification"]["Containers"][0]["Image"], "image");
    assert_eq!((&described["Task"], &described["Domain"]), (&json!("CLASSIFICATION"), &json!("own")));
    assert_eq!(described["SourceUri"], json!(source));
    assert_eq!(described["ModelApprovalStatus"], "PendingManualApproval");
}

#[test]
fn lists_have_filters_an_order_and_pages() {
    let desk = Desk::new();
    for group in ["fraud", "churn"] {
        desk.group(group);
    }
    for (group, status) in [("fraud", "Approved"), ("fraud", "Rejected"), ("churn", "Approved")] {
        desk.create(with(version(group), "ModelApprovalStatus", json!(status)));
    }
    desk.create(json!({"ModelPackageName": "alone"}));
    let packages = |request: Value| desk.listed("ListModelPackages", request);
    assert_eq!(packages(json!({})), ["model-package/alone"], "those without a group, as AWS's default is");
    assert_eq!(
        packages(json!({"ModelPackageType": "Versioned"})),
        ["model-package/fraud/1", "model-package/fraud/2", "model-package/churn/1"]
    );
    assert_eq!(packages(json!({"ModelPackageType": "Both"})).len(), 4);
    assert_eq!(
        packages(json!({"ModelPackageGroupName": "fraud", "SortOrder": "Descending"})),
        ["model-package/fraud/2", "model-package/fraud/1"]
    );
    let approved = json!({"ModelPackageType": "Versioned", "ModelApprovalStatus": "Approved", "SortBy": "Name"});
    assert_eq!(packages(approved), ["model-package/churn/1", "model-package/fraud/1"]);
    assert_eq!(packages(json!({"ModelPackageType": "Both", "NameContains": "alo"})), ["model-package/alone"]);
    assert_eq!(packages(json!({"CreationTimeAfter": 4_000_000_000_u64})).len(), 0);
    assert_eq!(packages(json!({"CreationTimeBefore": 4_000_000_000_u64})).len(), 1);
    let groups = |request: Value| desk.listed("ListModelPackageGroups", request);
    assert_eq!(groups(json!({"SortBy": "Name"})), ["model-package-group/churn", "model-package-group/fraud"]);
    assert_eq!(groups(json!({"NameContains": "rau"})), ["model-package-group/fraud"]);
    let first = desk.call("ListModelPackageGroups", json!({"MaxResults": 1}));
    let second = desk.call("ListModelPackageGroups", json!({"MaxResults": 1, "NextToken": first["NextToken"]}));
    let name = |page: &Value| page["ModelPackageGroupSummaryList"][0]["ModelPackageGroupName"].clone();
    assert_eq!([name(&first), name(&second)], ["fraud", "churn"]);
    assert_eq!(second.get("NextToken"), None);
    assert_eq!(desk.refused("ListModelPackageGroups", json!({"NextToken": "x"})).message, "Invalid pagination token.");
    let absent = desk.refused("ListModelPackages", json!({"ModelPackageGroupName": "none"}));
    assert!(absent.message.ends_with("does not exist."), "{}", absent.message);
}

#[test]
fn a_batch_tells_each_version_or_its_error() {
    let desk = Desk::new();
    desk.group("fraud");
    let arn = desk.create(version("fraud"));
    let absent = arn.replace("fraud/1", "fraud/2");
    let reply = desk.call("BatchDescribeModelPackage", json!({"ModelPackageArnList": [arn, absent]}));
    assert_eq!(reply["ModelPackageSummaries"][&arn]["ModelPackageVersion"], 1);
    let error = &reply["BatchDescribeModelPackageErrorMap"][&absent];
    assert_eq!(error["ErrorCode"], "ValidationException");
    assert_eq!(error["ErrorResponse"], format!("ModelPackage {absent} does not exist."));
}

#[test]
fn a_policy_belongs_to_its_group() {
    let desk = Desk::new();
    let arn = desk.group("fraud");
    let name = json!({"ModelPackageGroupName": "fraud"});
    let none = ApiError::validation(format!("Cannot find resource policy for: {arn}"));
    assert_eq!(desk.refused("GetModelPackageGroupPolicy", name.clone()), none);
    assert_eq!(desk.refused("DeleteModelPackageGroupPolicy", name.clone()), none);
    let text = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"AWS": "111122223333"},
        "Action": "sagemaker:DescribeModelPackageGroup", "Resource": arn}})
    .to_string();
    let put = |policy: &str| with(name.clone(), "ResourcePolicy", json!(policy));
    assert_eq!(desk.call("PutModelPackageGroupPolicy", put(&text))["ModelPackageGroupArn"], json!(arn));
    assert_eq!(desk.call("GetModelPackageGroupPolicy", name.clone())["ResourcePolicy"], json!(text));
    for wrong in ["no JSON", "{}", r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#] {
        let error = desk.refused("PutModelPackageGroupPolicy", put(wrong));
        assert!(error.message.starts_with("Invalid resource policy"), "{}", error.message);
    }
    desk.call("DeleteModelPackageGroupPolicy", name.clone());
    assert_eq!(desk.refused("GetModelPackageGroupPolicy", name), none);
    let absent = desk.refused("GetModelPackageGroupPolicy", json!({"ModelPackageGroupName": "none"}));
    assert_eq!(absent.message, format!("Cannot find Model Package Group: {}", arn.replace("fraud", "none")));
}

#[test]
fn each_region_has_records_of_its_own() {
    let desk = Desk::new();
    let (here, there) = (desk.group("fraud"), desk.in_region("us-gov-west-1"));
    let theirs = there.group("fraud");
    assert_eq!(theirs, "arn:aws-us-gov:sagemaker:us-gov-west-1:000000000000:model-package-group/fraud");
    let package = desk.create(version("fraud"));
    there.create(version("fraud"));
    assert_eq!(desk.listed("ListModelPackages", json!({"ModelPackageType": "Both"})).len(), 1);
    assert_eq!(desk.listed("ListModelPackageGroups", json!({})).len(), 1);
    for (operation, request) in [
        ("DescribeModelPackageGroup", json!({"ModelPackageGroupName": here})),
        ("DescribeModelPackage", json!({"ModelPackageName": package})),
    ] {
        let error = there.refused(operation, request);
        assert!(error.message.ends_with("does not exist."), "{}", error.message);
    }
}

#[test]
fn a_plan_decides_how_a_package_becomes_complete() {
    let hour = 3_600_000;
    let desk = Desk::with_faults(&json!({"packages": [
        {"name": "fraud", "count": 1, "pending_ms": hour},
        {"name": "fraud", "count": 1, "in_progress_ms": hour},
        {"name": "fraud", "count": 1, "reason": "the image cannot be pulled"},
        {"name": "other", "reason": "never"},
    ]}));
    desk.group("fraud");
    let status = || desk.describe(&desk.create(version("fraud")))["ModelPackageStatus"].clone();
    assert_eq!([status(), status(), status(), status()], ["Pending", "InProgress", "Failed", "Completed"]);
    let details = desk.describe("fraud/3")["ModelPackageStatusDetails"].clone();
    assert_eq!(details["ValidationStatuses"][0]["FailureReason"], "the image cannot be pulled");
    assert_eq!(
        desk.describe("fraud/4")["ModelPackageStatusDetails"],
        json!({"ValidationStatuses": [], "ImageScanStatuses": []})
    );
}
