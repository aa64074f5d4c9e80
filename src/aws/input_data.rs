//! Looks for input data in S3 buckets of any owner, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::ProvideErrorMetadata as _;

use super::clients::Clients;
use executor::cloud::{CloudError, InputData, InputPrefix};

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

    async fn find_bucket(&self, bucket: &str) -> Result<InputPrefix, CloudError> {
        let s3 = self.clients.s3();
        let own = s3.config().region().map(ToString::to_string);
        let (there, is_absent) = match s3.head_bucket().bucket(bucket).send().await {
            Ok(reply) => (reply.bucket_region, false),
            Err(error) => match error.raw_response() {
                Some(reply) => (region_of(reply), is_absent(reply)),
                None => {
                    return Err(self
                        .clients
                        .call("look for", format!("s3://{bucket}"), "s3:ListBucket")
                        .failed(&error));
                }
            },
        };
        Ok(match (there, own) {
            (Some(there), Some(here)) if there != here => InputPrefix::OtherRegion { bucket: there, jobs: here },
            _ if is_absent => InputPrefix::NoBucket,
            _ => InputPrefix::Found,
        })
    }
}

/// A bucket that is not there, as S3 answers a request without a body.
fn is_absent(reply: &HttpResponse) -> bool {
    reply.status().as_u16() == 404
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

    #[tokio::test]
    async fn a_bucket_is_found_unless_it_is_absent_or_elsewhere() {
        let elsewhere = InputPrefix::OtherRegion { bucket: "us-east-1".to_owned(), jobs: "eu-west-1".to_owned() };
        for (answer, expected) in [
            (in_region("eu-west-1", 200), InputPrefix::Found),
            (in_region("eu-west-1", 403), InputPrefix::Found),
            (reply(403, ""), InputPrefix::Found),
            (reply(404, ""), InputPrefix::NoBucket),
            (in_region("us-east-1", 301), elsewhere.clone()),
            (in_region("us-east-1", 403), elsewhere),
        ] {
            let stub = Stub::start().await;
            stub.push(answer);
            assert_eq!(stub.input_data.find_bucket("models").await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_permission() {
        let denied = xml(403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>");
        let error = found([in_region("eu-west-1", 403), denied]).await.unwrap_err();
        assert_eq!(error.action, "s3:ListBucket");
        assert!(error.to_string().starts_with("failed to look for data below s3://data/churn/: "), "{error}");
    }
}
