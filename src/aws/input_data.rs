//! Looks for input data in S3 buckets of any owner, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::ProvideErrorMetadata as _;

use super::clients::Clients;
use executor::cloud::{CloudError, CloudErrorKind, InputData, InputPrefix};

/// S3 sends it with every answer about a bucket, refusals included.
const REGION: &str = "x-amz-bucket-region";

#[derive(Debug)]
pub(super) struct AwsInputData {
    clients: Arc<Clients>,
}

impl AwsInputData {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    /// The bucket's region as far as S3 tells it, whoever may read the bucket.
    async fn region(&self, bucket: &str) -> Option<String> {
        match self.clients.s3().head_bucket().bucket(bucket).send().await {
            Ok(reply) => reply.bucket_region,
            Err(error) => error.raw_response().and_then(region_of),
        }
    }
}

#[async_trait]
impl InputData for AwsInputData {
    async fn find(&self, bucket: &str, prefix: &str) -> Result<InputPrefix, CloudError> {
        let s3 = self.clients.s3();
        let own = s3.config().region().map(ToString::to_string);
        if let (Some(there), Some(here)) = (self.region(bucket).await, own)
            && there != here
        {
            return Ok(InputPrefix::OtherRegion { bucket: there, jobs: here });
        }
        let call = self.clients.call("look for data below", format!("s3://{bucket}/{prefix}"), "s3:ListBucket");
        match s3.list_objects_v2().bucket(bucket).prefix(prefix).max_keys(2).send().await {
            Ok(reply) => Ok(match reply.contents() {
                [] => InputPrefix::Empty,
                [one] if one.key() == Some(prefix) && !prefix.ends_with('/') => InputPrefix::Object,
                _ => InputPrefix::Found,
            }),
            Err(error) if error.code() == Some("NoSuchBucket") => Ok(InputPrefix::NoBucket),
            Err(error) => Err(call.failed(&error)),
        }
    }

    async fn find_bucket(&self, bucket: &str, owner: Option<&str>) -> Result<InputPrefix, CloudError> {
        let s3 = self.clients.s3();
        let call = self.clients.call("look for", format!("the bucket {bucket}"), "s3:ListBucket");
        let request = s3.head_bucket().bucket(bucket).set_expected_bucket_owner(owner.map(str::to_owned));
        let (there, status, error) = match request.send().await {
            Ok(reply) => (reply.bucket_region, 200, None),
            Err(error) => match error.raw_response() {
                Some(reply) => (region_of(reply), reply.status().as_u16(), Some(error)),
                None => return Err(call.failed(&error)),
            },
        };
        if let (Some(there), Some(here)) = (there, s3.config().region().map(ToString::to_string))
            && there != here
        {
            return Ok(InputPrefix::OtherRegion { bucket: there, jobs: here });
        }
        match (status, error) {
            (_, None) => Ok(InputPrefix::Found),
            (404, _) => Ok(InputPrefix::NoBucket),
            // S3 answers so for a bucket of another owner, also to those who may read it.
            (403, _) if owner.is_some() && s3.head_bucket().bucket(bucket).send().await.is_ok() => {
                Ok(InputPrefix::OtherOwner)
            }
            (403, _) => Ok(InputPrefix::Unreadable),
            // The answer to this request has no code: S3 throttles with 503.
            (503, _) => {
                Err(call.error(CloudErrorKind::Throttled, "S3 asks to slow down, or is not available (HTTP 503)"))
            }
            (_, Some(error)) => Err(call.failed(&error)),
        }
    }
}

fn region_of(reply: &HttpResponse) -> Option<String> {
    reply.headers().get(REGION).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{Stub, reply};

    async fn found(replies: impl IntoIterator<Item = axum::response::Response>) -> Result<InputPrefix, CloudError> {
        found_at("churn/", replies).await
    }

    async fn found_at(
        prefix: &str,
        replies: impl IntoIterator<Item = axum::response::Response>,
    ) -> Result<InputPrefix, CloudError> {
        let stub = Stub::start().await;
        replies.into_iter().for_each(|reply| stub.push(reply));
        stub.input_data.find("data", prefix).await
    }

    fn xml(status: u16, body: &str) -> axum::response::Response {
        reply(status, format!("<?xml version=\"1.0\"?>{body}"))
    }

    fn in_region(region: &'static str, status: u16) -> axum::response::Response {
        let mut answer = reply(status, "");
        answer.headers_mut().insert(REGION, axum::http::HeaderValue::from_static(region));
        answer
    }

    #[tokio::test]
    async fn a_prefix_has_objects_or_none_or_no_bucket() {
        let list = "<ListBucketResult><Contents><Key>churn/a</Key></Contents></ListBucketResult>";
        let here = || in_region("eu-west-1", 200);
        assert_eq!(found([here(), xml(200, list)]).await.unwrap(), InputPrefix::Found);
        assert_eq!(found([here(), xml(200, "<ListBucketResult/>")]).await.unwrap(), InputPrefix::Empty);
        let none = xml(404, "<Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>");
        assert_eq!(found([reply(404, ""), none]).await.unwrap(), InputPrefix::NoBucket);
    }

    #[tokio::test]
    async fn an_object_is_the_only_key_that_begins_with_its_own() {
        let keys = |keys: &[&str]| {
            let contents: Vec<_> = keys.iter().map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
            let contents = contents.concat();
            [in_region("eu-west-1", 200), xml(200, &format!("<ListBucketResult>{contents}</ListBucketResult>"))]
        };
        assert_eq!(found_at("churn", keys(&["churn"])).await.unwrap(), InputPrefix::Object);
        assert_eq!(found_at("churn", keys(&["churn", "churn2"])).await.unwrap(), InputPrefix::Found);
        assert_eq!(found_at("churn/", keys(&["churn/"])).await.unwrap(), InputPrefix::Found);
    }

    /// S3 tells the region also to those who may not read the bucket.
    #[tokio::test]
    async fn a_bucket_of_another_region_is_told_apart() {
        let elsewhere = InputPrefix::OtherRegion { bucket: "us-east-1".to_owned(), jobs: "eu-west-1".to_owned() };
        for status in [200, 301, 403] {
            assert_eq!(found([in_region("us-east-1", status)]).await.unwrap(), elsewhere, "{status}");
        }
    }

    async fn bucket_found(
        owner: Option<&str>,
        replies: impl IntoIterator<Item = axum::response::Response>,
    ) -> Result<InputPrefix, CloudErrorKind> {
        let stub = Stub::start().await;
        replies.into_iter().for_each(|reply| stub.push(reply));
        stub.input_data.find_bucket("models", owner).await.map_err(|error| error.kind)
    }

    #[tokio::test]
    async fn each_answer_about_a_bucket_has_its_meaning() {
        let elsewhere = InputPrefix::OtherRegion { bucket: "us-east-1".to_owned(), jobs: "eu-west-1".to_owned() };
        for (answer, expected) in [
            (in_region("eu-west-1", 200), Ok(InputPrefix::Found)),
            (in_region("eu-west-1", 403), Ok(InputPrefix::Unreadable)),
            (reply(403, ""), Ok(InputPrefix::Unreadable)),
            (reply(404, ""), Ok(InputPrefix::NoBucket)),
            (reply(503, ""), Err(CloudErrorKind::Throttled)),
            (reply(429, ""), Err(CloudErrorKind::Throttled)),
            (reply(500, ""), Err(CloudErrorKind::Transient)),
            (reply(400, ""), Err(CloudErrorKind::Invalid)),
            (in_region("us-east-1", 301), Ok(elsewhere.clone())),
            (in_region("us-east-1", 403), Ok(elsewhere)),
        ] {
            assert_eq!(bucket_found(None, [answer]).await, expected);
        }
    }

    #[tokio::test]
    async fn a_bucket_of_another_account_is_told_apart_from_one_that_may_not_be_read() {
        let owner = Some("123456789012");
        assert_eq!(bucket_found(owner, [reply(403, ""), reply(200, "")]).await, Ok(InputPrefix::OtherOwner));
        assert_eq!(bucket_found(owner, [reply(403, ""), reply(403, "")]).await, Ok(InputPrefix::Unreadable));
    }

    #[tokio::test]
    async fn a_refusal_names_the_permission() {
        let denied = xml(403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>");
        let error = found([in_region("eu-west-1", 403), denied]).await.unwrap_err();
        assert_eq!(error.action, "s3:ListBucket");
        assert!(error.to_string().starts_with("failed to look for data below s3://data/churn/: "), "{error}");
    }
}
