//! The images of a repository in ECR: their list, and their deletion. Only `prune` asks for them.

use std::time::SystemTime;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_ecr::config::Builder;
use aws_sdk_ecr::error::ProvideErrorMetadata as _;
use aws_sdk_ecr::primitives::DateTime;
use aws_sdk_ecr::types::{ImageDetail, ImageFailureCode, ImageIdentifier};
use executor::base::policy_statement::one_or_many;
use executor::cloud::{CloudError, RepositoryImage, RepositoryImages};
use serde_json::Value;

use super::AwsImages;

/// Most images that AWS lists in one page.
const PAGE: i32 = 1000;
/// Media types of indices.
const INDICES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

#[async_trait]
impl RepositoryImages for AwsImages {
    async fn repository_images(&self, account: &str, repository: &str) -> Result<Vec<RepositoryImage>, CloudError> {
        let call = self.clients.call("list", format!("the images of {repository}"), "ecr:DescribeImages");
        let request = self.clients.ecr().describe_images().registry_id(account).repository_name(repository);
        let mut pages = request.max_results(PAGE).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Err(error) if error.code() == Some("RepositoryNotFoundException") => return Ok(Vec::new()),
                page => {
                    let page = page.map_err(|error| call.failed(&error))?;
                    found.extend(page.image_details.unwrap_or_default().into_iter().filter_map(stored));
                }
            }
        }
        Ok(found)
    }

    async fn is_shared(&self, account: &str, repository: &str) -> Result<bool, CloudError> {
        let call = self.clients.call("get", format!("the policy of {repository}"), "ecr:GetRepositoryPolicy");
        let request = self.clients.ecr().get_repository_policy().registry_id(account).repository_name(repository);
        let absent = ["RepositoryPolicyNotFoundException", "RepositoryNotFoundException"];
        match request.send().await {
            Err(error) if error.code().is_some_and(|code| absent.contains(&code)) => Ok(false),
            reply => {
                let text = reply.map_err(|error| call.failed(&error))?.policy_text.unwrap_or_default();
                Ok(lets_others_in(&text, account))
            }
        }
    }

    async fn delete_images(
        &self,
        account: &str,
        repository: &str,
        digests: &[String],
    ) -> Result<Vec<(String, String)>, CloudError> {
        let call = self.clients.call("delete", format!("images of {repository}"), "ecr:BatchDeleteImage");
        let ids = digests.iter().map(|digest| ImageIdentifier::builder().image_digest(digest).build()).collect();
        let request = self.clients.ecr().batch_delete_image().registry_id(account).repository_name(repository);
        let request = request.set_image_ids(Some(ids)).customize();
        let once = Builder::new().retry_config(RetryConfig::disabled());
        let reply = request.config_override(once).send().await.map_err(|error| call.failed(&error))?;
        let failures = reply.failures.unwrap_or_default().into_iter();
        let failures = failures.filter(|failure| failure.failure_code != Some(ImageFailureCode::ImageNotFound));
        let failures = failures.filter_map(|failure| {
            let digest = failure.image_id?.image_digest?;
            let code = failure.failure_code.map(|code| code.as_str().to_owned()).unwrap_or_default();
            Some((digest, failure.failure_reason.map_or_else(|| code.clone(), |reason| format!("{code}: {reason}"))))
        });
        Ok(failures.collect())
    }
}

/// Tells whether a policy allows anything to somebody who is not of the account, or has a form that is not understood. Services of AWS act
/// for the account itself.
fn lets_others_in(policy: &str, account: &str) -> bool {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return true };
    let statements = one_or_many(&policy["Statement"]);
    let allowing = statements.iter().filter(|statement| statement["Effect"] != "Deny");
    let is_own = |principal: &Value| {
        let name = principal.as_str().unwrap_or_default();
        name == account || (name.starts_with("arn:") && name.split(':').nth(4) == Some(account))
    };
    let is_closed = |statement: &Value| {
        let principals = statement["Principal"].as_object();
        principals.is_some_and(|kinds| {
            kinds
                .iter()
                .all(|(kind, names)| kind == "Service" || (kind == "AWS" && one_or_many(names).into_iter().all(is_own)))
        })
    };
    allowing.into_iter().any(|statement| !is_closed(statement))
}

fn stored(detail: ImageDetail) -> Option<RepositoryImage> {
    let time = |at: Option<DateTime>| at.and_then(|at| SystemTime::try_from(at).ok());
    Some(RepositoryImage {
        digest: detail.image_digest?,
        is_index: detail.image_manifest_media_type.is_some_and(|media_type| INDICES.contains(&media_type.as_str())),
        tags: detail.image_tags.unwrap_or_default(),
        // No pull is earlier than its push.
        used: time(detail.image_pushed_at).max(time(detail.last_recorded_pull_time)),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::stub::{Stub, refusal, reply};

    #[tokio::test]
    async fn images_are_listed_with_their_last_use_and_refusals_are_told() {
        let stub = Stub::start().await;
        let images = AwsImages::new(Arc::clone(&stub.clients));
        let details = json!([
            {"imageDigest": "sha256:a", "imageTags": ["context-1"], "imagePushedAt": 60.0, "lastRecordedPullTime": 120.0},
            {"imageDigest": "sha256:b", "imagePushedAt": 60.0, "imageManifestMediaType": INDICES[0]},
        ]);
        stub.push(reply(200, json!({"imageDetails": details}).to_string()));
        let found = images.repository_images("123456789012", "train").await.unwrap();
        assert_eq!(found[0].used, Some(SystemTime::UNIX_EPOCH + Duration::from_mins(2)));
        assert_eq!((found[0].tags.as_slice(), found[1].tags.len()), (&["context-1".to_owned()][..], 0));
        assert_eq!((found[0].is_index, found[1].is_index), (false, true));
        stub.push(refusal(400, "RepositoryNotFoundException", "no"));
        assert!(images.repository_images("123456789012", "absent").await.unwrap().is_empty());
        let failures = json!([
            {"imageId": {"imageDigest": "sha256:a"}, "failureCode": "ImageNotFound", "failureReason": "gone"},
            {"imageId": {"imageDigest": "sha256:b"}, "failureCode": "ImageReferencedByManifestList", "failureReason": "in use"},
        ]);
        stub.push(reply(200, json!({"failures": failures}).to_string()));
        let digests = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        let stay = images.delete_images("123456789012", "train", &digests).await.unwrap();
        assert_eq!(stay, [("sha256:b".to_owned(), "ImageReferencedByManifestList: in use".to_owned())]);
    }

    #[tokio::test]
    async fn a_throttled_deletion_is_sent_once() {
        let stub = Stub::start_with_retries().await;
        let images = AwsImages::new(Arc::clone(&stub.clients));
        stub.push(refusal(400, "ThrottlingException", "Rate exceeded"));
        let error = images.delete_images("123456789012", "train", &["sha256:a".to_owned()]).await.unwrap_err();
        assert_eq!((error.kind, stub.seen().len()), (executor::cloud::CloudErrorKind::Throttled, 1));
    }

    #[tokio::test]
    async fn a_repository_is_shared_by_its_policy() {
        let stub = Stub::start().await;
        let images = AwsImages::new(Arc::clone(&stub.clients));
        stub.push(refusal(400, "RepositoryPolicyNotFoundException", "no"));
        assert!(!images.is_shared("123456789012", "train").await.unwrap());
        let allow = |principal: serde_json::Value| json!({"Statement": [{"Effect": "Allow", "Principal": principal}]});
        for (policy, is_shared) in [
            (allow(json!({"AWS": "arn:aws:iam::123456789012:root"})), false),
            (allow(json!({"AWS": ["123456789012"], "Service": "codebuild.amazonaws.com"})), false),
            (json!({"Statement": {"Effect": "Deny", "Principal": "*"}}), false),
            (allow(json!("*")), true),
            (allow(json!({"AWS": "*"})), true),
            (allow(json!({"AWS": ["123456789012", "arn:aws:iam::210987654321:role/x"]})), true),
            (allow(json!({"Federated": "x"})), true),
            (json!({"Statement": [{"Effect": "Allow", "NotPrincipal": {"AWS": "123456789012"}}]}), true),
        ] {
            stub.push(reply(200, json!({"policyText": policy.to_string()}).to_string()));
            assert_eq!(images.is_shared("123456789012", "train").await.unwrap(), is_shared, "{policy}");
        }
        stub.push(reply(200, json!({"policyText": "no JSON"}).to_string()));
        assert!(images.is_shared("123456789012", "train").await.unwrap());
    }
}
