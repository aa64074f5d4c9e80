//! The operations that the role of a training job may call. The user may call all.
//!
//! Code in a container has its job's role. If that could create jobs, it could run commands on this machine; if it could
//! describe jobs, it would know the places of other sessions.

use super::caller::Caller;

/// Service, operation, and the action in `runner-config/iam/training-job.json` that allows it. Neither resources nor conditions
/// of that policy are checked. `GetCallerIdentity` needs no permission.
const GRANTED: &[(&str, &str, &str)] = &[
    ("logs", "CreateLogGroup", "CreateLogGroup"),
    ("logs", "CreateLogStream", "CreateLogStream"),
    ("logs", "DescribeLogStreams", "DescribeLogStreams"),
    ("logs", "PutLogEvents", "PutLogEvents"),
    ("s3", "GetObject", "GetObject"),
    ("s3", "HeadObject", "GetObject"),
    ("s3", "PutObject", "PutObject"),
    ("s3", "CreateMultipartUpload", "PutObject"),
    ("s3", "UploadPart", "PutObject"),
    ("s3", "CompleteMultipartUpload", "PutObject"),
    ("s3", "AbortMultipartUpload", "AbortMultipartUpload"),
    ("s3", "ListObjects", "ListBucket"),
    ("s3", "ListObjectsV2", "ListBucket"),
];

/// Refuses what the caller may not do, with the message that AWS gives.
pub(crate) fn check(
    caller: &Caller,
    service: &str,
    operation: &str,
    resource: impl FnOnce() -> String,
) -> Result<(), String> {
    let granted = GRANTED.iter().any(|(of, name, _)| (*of, *name) == (service, operation));
    if caller.job.is_none() || granted {
        return Ok(());
    }
    let action = format!("{service}:{}", action(operation));
    let (user, resource) = (caller.arn(), resource());
    Err(format!(
        "User: {user} is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows \
         the {action} action"
    ))
}

/// The action of an operation that is not granted; a few operations of S3 have another name than their action.
fn action(operation: &str) -> &str {
    match operation {
        "CopyObject" | "UploadPartCopy" | "PostObject" => "PutObject",
        "DeleteObjects" => "DeleteObject",
        "HeadBucket" => "ListBucket",
        "ListBuckets" => "ListAllMyBuckets",
        "ListObjectVersions" => "ListBucketVersions",
        "ListParts" => "ListMultipartUploadParts",
        "ListMultipartUploads" => "ListBucketMultipartUploads",
        "GetBucketLifecycleConfiguration" => "GetLifecycleConfiguration",
        "PutBucketLifecycleConfiguration" | "DeleteBucketLifecycle" => "PutLifecycleConfiguration",
        _ => operation,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_shipped_policy_grants_the_same_actions() {
        let policy = include_str!("../../runner-config/iam/training-job.json");
        let action = regex::Regex::new(r#""((?:s3|logs|sagemaker|sts):\w+)""#).unwrap();
        let shipped: BTreeSet<String> = action.captures_iter(policy).map(|found| found[1].to_owned()).collect();
        // Each condition of S3 has the form of an action.
        let shipped: BTreeSet<String> = shipped.into_iter().filter(|name| name != "s3:prefix").collect();
        assert_eq!(
            GRANTED.iter().map(|(service, _, action)| format!("{service}:{action}")).collect::<BTreeSet<_>>(),
            shipped
        );
    }

    #[test]
    fn the_message_names_user_action_and_resource() {
        let mut caller = Caller::user();
        let refusal = |caller: &Caller| check(caller, "s3", "DeleteObjects", || "\"arn:aws:s3:::bucket\"".to_owned());
        assert_eq!(refusal(&caller), Ok(()));
        caller.job = Some("job".to_owned());
        assert_eq!(
            refusal(&caller).unwrap_err(),
            "User: arn:aws:sts::000000000000:assumed-role/emulator/SageMaker is not authorized to perform: s3:DeleteObject on \
             resource: \"arn:aws:s3:::bucket\" because no identity-based policy allows the s3:DeleteObject action"
        );
    }
}
