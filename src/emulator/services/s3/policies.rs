//! The policies of buckets: checked when they are put, and kept as they were sent.

use s3s::dto;
use s3s::{S3Result, s3_error};
use serde_json::Value;

use super::convert::fault;
use super::operations::S3Operations;
use crate::iam::{Document, PolicyKind};

impl S3Operations {
    pub(super) fn policy(&self, bucket: &str) -> S3Result<dto::GetBucketPolicyOutput> {
        let policy = self.store.settings(bucket).map_err(fault)?.policy;
        let policy = policy.ok_or_else(|| s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist"))?;
        Ok(dto::GetBucketPolicyOutput { policy: Some(policy) })
    }

    pub(super) fn put_policy(&self, input: &dto::PutBucketPolicyInput) -> S3Result<()> {
        check(&input.policy, &input.bucket).map_err(|error| s3_error!(MalformedPolicy, "{error}"))?;
        let policy = Some(input.policy.clone());
        self.store.change_settings(&input.bucket, |settings| settings.policy = policy).map_err(fault)
    }
}

/// Each statement of a bucket's policy has a principal, and only resources of the bucket.
fn check(policy: &str, bucket: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(policy)
        .map_err(|_| "Policies must be valid JSON and the first byte must be '{'".to_owned())?;
    Document::parse(PolicyKind::Resource, &value)?;
    let statements = &value["Statement"];
    let statements = statements.as_array().map_or(std::slice::from_ref(statements), Vec::as_slice);
    for statement in statements {
        if ["Principal", "NotPrincipal"].iter().all(|name| statement[*name].is_null()) {
            return Err("Missing required field Principal".to_owned());
        }
        let resources = ["Resource", "NotResource"].into_iter().map(|name| &statement[name]);
        let texts = resources.flat_map(|value| value.as_array().into_iter().flatten().chain([value]));
        let outside = |resource: &str| {
            let path = resource.strip_prefix("arn:aws").and_then(|arn| arn.split_once(":s3:::"));
            let path = path.filter(|(partition, _)| !partition.contains(':')).map(|(_, path)| path);
            let rest = path.and_then(|path| path.strip_prefix(bucket));
            resource != "*" && !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '*', '?']))
        };
        if texts.filter_map(Value::as_str).any(outside) {
            return Err("Policy has invalid resource".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_names_principals_and_its_bucket() {
        let verdict = |principal: Value, resource: Value| {
            let statement = json!({"Effect": "Deny", "Principal": principal, "Action": "s3:*", "Resource": resource});
            check(&json!({"Version": "2012-10-17", "Statement": [statement]}).to_string(), "bucket")
        };
        assert_eq!(verdict(json!("*"), json!(["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"])), Ok(()));
        assert_eq!(verdict(json!("*"), json!("arn:aws:s3:::bucket2/*")), Err("Policy has invalid resource".to_owned()));
        assert!(verdict(Value::Null, json!("arn:aws:s3:::bucket/*")).is_err());
        assert!(check("Statement", "bucket").unwrap_err().starts_with("Policies must be valid JSON"));
    }
}
