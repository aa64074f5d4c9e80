//! The actions and resources that each operation needs, as AWS's service authorization reference lists them.

use hyper::HeaderMap;
use s3s::path::S3Path;
use serde_json::Value;

use super::building::build_actions;
use super::context::{NeededAction, SAGEMAKER, training_job};
use super::identity::account_of;
use super::monitoring::{autoscaling_actions, cloudwatch_actions};
use super::packages::package_actions;
use super::secrets::secret_action;
use super::serving::serving_actions;
use crate::caller::Caller;
use crate::partition::partition;
use crate::protocol::text;
use crate::tags::{TagMap, Tags, tag_map};

/// The actions that an operation of `SageMaker` or CloudWatch Logs needs.
pub(crate) fn json_actions(
    service: &str,
    operation: &str,
    request: &Value,
    caller: &Caller,
    tags: &Tags,
) -> Vec<NeededAction> {
    let action = format!("{service}:{operation}");
    match service {
        "ecr" => return vec![image_action(operation, request, caller, tags)],
        // Quotas are no resources that a policy names.
        "servicequotas" => return vec![NeededAction::new(action, "*")],
        "secretsmanager" => return vec![secret_action(operation, request, caller, tags)],
        "monitoring" => return cloudwatch_actions(operation, request, caller, tags),
        "codebuild" => return build_actions(operation, request, caller, tags),
        "application-autoscaling" => return autoscaling_actions(operation, request, caller),
        _ => {}
    }
    if service == "logs" {
        return vec![NeededAction::new(action, log_resource(request, caller))];
    }
    if let Some(needed) = package_actions(operation, request, caller, tags) {
        return needed;
    }
    if let Some(needed) = serving_actions(operation, request, caller, tags) {
        return needed;
    }
    let job = |name: &str| {
        format!("arn:{}:sagemaker:{}:{}:training-job/{name}", partition(&caller.region), caller.region, caller.account)
    };
    let resource = match operation {
        "ListTrainingJobs" => job("*"),
        "AddTags" | "ListTags" | "DeleteTags" => text(request, "ResourceArn").unwrap_or("*").to_owned(),
        _ => job(text(request, "TrainingJobName").unwrap_or("*")),
    };
    let sent = tag_map(request.get("Tags"));
    let needed = NeededAction::new(action, resource.clone()).owned_by(account_of(&resource).unwrap_or(&caller.account));
    match operation {
        "CreateTrainingJob" => create_actions(training_job(needed, request), request, &sent),
        "AddTags" => vec![needed.request_tags(&sent).resource_tags(service, &tags_of(tags, &resource))],
        "DeleteTags" => {
            let removed = request["TagKeys"].as_array().into_iter().flatten().filter_map(Value::as_str);
            vec![needed.key("aws:TagKeys", removed).resource_tags(service, &tags_of(tags, &resource))]
        }
        _ => vec![needed.resource_tags(service, &tags_of(tags, &resource))],
    }
}

/// A training job's creation also tags it and hands it a role.
fn create_actions(create: NeededAction, request: &Value, tags: &TagMap) -> Vec<NeededAction> {
    let job = create.resource.clone();
    let resources = &request["ResourceConfig"];
    let preferred = resources["InstancePreferences"].as_array().into_iter().flatten();
    let preferred = preferred.flat_map(|one| one["TrainingPlanArns"].as_array().into_iter().flatten());
    let plans = preferred.chain([&resources["TrainingPlanArn"]]).filter_map(Value::as_str);
    let create = create.request_tags(tags);
    // The permission is needed on the plan too.
    let on_plans = plans.map(|plan| NeededAction { resource: plan.to_owned(), ..create.clone() });
    let mut needed: Vec<_> = std::iter::once(create.clone()).chain(on_plans).collect();
    if !tags.is_empty() {
        let tagging = NeededAction::new("sagemaker:AddTags", job.clone()).request_tags(tags);
        needed.push(tagging.key("sagemaker:TaggingAction", ["CreateTrainingJob"]));
    }
    let pass = NeededAction::new("iam:PassRole", text(request, "RoleArn").unwrap_or("*"));
    needed.push(pass.key("iam:PassedToService", [SAGEMAKER]).key("iam:AssociatedResourceArn", [job]));
    needed
}

fn tags_of(tags: &Tags, resource: &str) -> TagMap {
    tags.with(resource, |one| one.tags.clone()).unwrap_or_default()
}

/// ECR's operations are on a repository, but for the password and the list of all repositories.
fn image_action(operation: &str, request: &Value, caller: &Caller, tags: &Tags) -> NeededAction {
    let resource = match operation {
        "GetAuthorizationToken" => "*".to_owned(),
        "ListTagsForResource" | "TagResource" | "UntagResource" => {
            text(request, "resourceArn").unwrap_or("*").to_owned()
        }
        "DescribeRepositories" => {
            let name = request.pointer("/repositoryNames/0").and_then(Value::as_str).unwrap_or("*");
            repository(&serde_json::json!({"repositoryName": name}), caller)
        }
        _ => repository(request, caller),
    };
    let sent = tag_map(request.get("tags"));
    let needed = NeededAction::new(format!("ecr:{operation}"), resource.clone()).request_tags(&sent);
    needed.resource_tags("ecr", &tags_of(tags, &resource))
}

fn repository(request: &Value, caller: &Caller) -> String {
    let account = text(request, "registryId").unwrap_or(&caller.account);
    let name = text(request, "repositoryName").unwrap_or_default();
    format!("arn:{}:ecr:{}:{account}:repository/{name}", partition(&caller.region), caller.region)
}

/// CloudWatch Logs names group and stream in each resource, both empty where the request has none.
fn log_resource(request: &Value, caller: &Caller) -> String {
    let identifier = text(request, "logGroupIdentifier").and_then(|one| one.split(":log-group:").last());
    let group = text(request, "logGroupName").or(identifier).unwrap_or_default();
    let stream = text(request, "logStreamName").unwrap_or_default();
    let Caller { region, account, .. } = caller;
    format!("arn:{}:logs:{region}:{account}:log-group:{group}:log-stream:{stream}", partition(region))
}

/// The actions that an operation of S3 needs. Those of `DeleteObjects` are decided for each key.
pub(crate) fn s3_actions(
    operation: &str,
    path: &S3Path,
    query: &[(String, String)],
    headers: &HeaderMap,
    region: &str,
) -> Vec<NeededAction> {
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let version = value("versionId");
    let resource = match path {
        S3Path::Root => "*".to_owned(),
        S3Path::Bucket { bucket } => s3_arn(region, bucket),
        S3Path::Object { bucket, key } => s3_arn(region, &format!("{bucket}/{key}")),
    };
    if operation == "DeleteObjects" {
        return Vec::new();
    }
    let mut needed = NeededAction::new(format!("s3:{}", s3_action(operation, version.is_some())), resource);
    let listed = [("s3:prefix", "prefix"), ("s3:delimiter", "delimiter"), ("s3:max-keys", "max-keys")];
    let in_query =
        listed.into_iter().filter(|_| operation.starts_with("ListObject")).chain([("s3:VersionId", "versionId")]);
    for (key, value) in in_query.filter_map(|(key, name)| Some((key, value(name)?))) {
        needed.keys.set(key, [value]);
    }
    for name in [
        "x-amz-acl",
        "x-amz-copy-source",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-storage-class",
        "if-match",
        "if-none-match",
    ] {
        if let Some(value) = header(name) {
            needed.keys.set(&format!("s3:{name}"), [value]);
        }
    }
    let mut all = vec![needed];
    if let Some(source) = header("x-amz-copy-source") {
        all.insert(0, copied(source, region));
    }
    all
}

/// The ARN of a bucket, or of an object as `BUCKET/KEY`, in the partition of the region.
pub(crate) fn s3_arn(region: &str, path: &str) -> String {
    format!("arn:{}:s3:::{path}", partition(region))
}

/// Reading the source of a copy.
fn copied(source: &str, region: &str) -> NeededAction {
    let source = urlencoding::decode(source).unwrap_or_default().into_owned();
    let (object, version) =
        source.split_once("?versionId=").map_or((source.as_str(), None), |(key, id)| (key, Some(id)));
    let action = format!("s3:{}", s3_action("GetObject", version.is_some()));
    NeededAction::new(action, s3_arn(region, object.trim_start_matches('/')))
}

/// A few operations of S3 have another name than their action.
pub(crate) fn s3_action(operation: &str, of_version: bool) -> &str {
    match operation {
        // Old versions have actions of their own.
        "GetObject" | "HeadObject" if of_version => "GetObjectVersion",
        "DeleteObject" if of_version => "DeleteObjectVersion",
        "HeadObject" => "GetObject",
        "CopyObject"
        | "UploadPartCopy"
        | "PostObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "CompleteMultipartUpload" => "PutObject",
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => "ListBucket",
        "ListBuckets" => "ListAllMyBuckets",
        "ListObjectVersions" => "ListBucketVersions",
        "ListParts" => "ListMultipartUploadParts",
        "ListMultipartUploads" => "ListBucketMultipartUploads",
        "GetBucketLifecycleConfiguration" => "GetLifecycleConfiguration",
        "PutBucketLifecycleConfiguration" | "DeleteBucketLifecycle" => "PutLifecycleConfiguration",
        "GetBucketEncryption" => "GetEncryptionConfiguration",
        "PutBucketEncryption" => "PutEncryptionConfiguration",
        "GetPublicAccessBlock" => "GetBucketPublicAccessBlock",
        "PutPublicAccessBlock" => "PutBucketPublicAccessBlock",
        _ => operation,
    }
}
