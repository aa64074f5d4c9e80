//! Folders, pages and the time of S3 over the SDK.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use executor::cloud::{Access, CloudError, CloudErrorKind, ObjectSurvey, SurveyPage};

use super::clients::Clients;
use super::objects::{full_key, listed};

/// Pages without an object, of which more follow: S3 may send some, as where versions of many objects were deleted.
const MOST_EMPTY: usize = 1000;

#[derive(Debug)]
pub(super) struct AwsSurvey {
    clients: Arc<Clients>,
    bucket: String,
    prefix: String,
}

impl AwsSurvey {
    pub(super) fn new(clients: Arc<Clients>, access: &Access) -> Self {
        Self { clients, bucket: access.bucket.clone(), prefix: access.prefix.trim_matches('/').to_owned() }
    }

    fn below(&self, prefix: &str) -> String {
        format!("objects below s3://{}/{}", self.bucket, full_key(&self.prefix, prefix))
    }
}

#[async_trait]
impl ObjectSurvey for AwsSurvey {
    async fn folders(&self, prefix: &str) -> Result<Vec<String>, CloudError> {
        let call = self.clients.call("list", self.below(prefix), "s3:ListBucket");
        let own = full_key(&self.prefix, "");
        let request = self.clients.s3().list_objects_v2().bucket(&self.bucket).delimiter("/");
        let mut pages = request.prefix(full_key(&self.prefix, prefix)).into_paginator().send();
        let mut folders = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            let found = page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix);
            folders.extend(found.filter_map(|folder| folder.strip_prefix(&own).map(str::to_owned)));
        }
        Ok(folders)
    }

    async fn page(&self, prefix: &str, after: Option<&str>) -> Result<SurveyPage, CloudError> {
        let call = self.clients.call("list", self.below(prefix), "s3:ListBucket");
        let own = full_key(&self.prefix, "");
        let request = self.clients.s3().list_objects_v2().bucket(&self.bucket).prefix(full_key(&self.prefix, prefix));
        let request = request.set_start_after(after.map(|after| full_key(&self.prefix, after)));
        let mut token = None;
        for _ in 0..MOST_EMPTY {
            let request = request.clone().set_continuation_token(token);
            let reply = request.send().await.map_err(|error| call.failed(&error))?;
            let has_more = reply.is_truncated.unwrap_or_default();
            let objects: Vec<_> =
                reply.contents.unwrap_or_default().into_iter().filter_map(|object| listed(&own, object)).collect();
            if !objects.is_empty() || !has_more {
                return Ok(SurveyPage { objects, has_more });
            }
            token = reply.next_continuation_token;
            if token.is_none() {
                break;
            }
        }
        Err(call.error(CloudErrorKind::Other, "the list goes on and has no objects"))
    }

    async fn now(&self) -> Result<SystemTime, CloudError> {
        let call = self.clients.call("look at", format!("bucket {}", self.bucket), "s3:ListBucket");
        let date = ReplyDate::default();
        let request = self.clients.s3().head_bucket().bucket(&self.bucket).customize().interceptor(date.clone());
        request.send().await.map_err(|error| call.failed(&error))?;
        let text = date.text().take().unwrap_or_default();
        let time =
            DateTime::from_str(&text, DateTimeFormat::HttpDate).ok().and_then(|at| SystemTime::try_from(at).ok());
        time.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply has no date"))
    }
}

/// Keeps the header `Date` of the last reply.
#[derive(Debug, Clone, Default)]
struct ReplyDate(Arc<Mutex<Option<String>>>);

impl ReplyDate {
    fn text(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for ReplyDate {
    fn name(&self) -> &'static str {
        "ReplyDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.text() = context.response().headers().get("date").map(str::to_owned);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use axum::body::Body;
    use axum::response::Response;
    use executor::cloud::Listed;

    use super::*;
    use crate::stub::{Stub, reply};

    fn survey(stub: &Stub) -> AwsSurvey {
        AwsSurvey::new(Arc::clone(&stub.clients), &stub.access)
    }

    #[tokio::test]
    async fn folders_of_every_page_are_told_below_the_prefix() {
        let stub = Stub::start().await;
        let page = |folder: &str, next: &str| {
            reply(
                200,
                format!(
                    "<ListBucketResult><CommonPrefixes><Prefix>pre/fix/sessions/{folder}/</Prefix></CommonPrefixes>{next}</ListBucketResult>"
                ),
            )
        };
        let next = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>";
        stub.push(page("a", next));
        stub.push(page("b", ""));
        assert_eq!(survey(&stub).folders("sessions/").await.unwrap(), ["sessions/a/", "sessions/b/"]);
        let first = &stub.seen()[0].uri;
        assert!(first.contains("delimiter=%2F") && first.contains("prefix=pre%2Ffix%2Fsessions%2F"), "{first}");
    }

    #[tokio::test]
    async fn a_page_begins_behind_a_key_and_dates_its_objects() {
        let stub = Stub::start().await;
        let listed = "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>pre/fix/s/b</Key><Size>3</Size>\
                      <LastModified>1970-01-01T00:01:00Z</LastModified></Contents></ListBucketResult>";
        stub.push(reply(200, listed));
        let page = survey(&stub).page("s/", Some("s/a")).await.unwrap();
        let object = Listed { key: "s/b".to_owned(), bytes: 3, modified: Some(UNIX_EPOCH + Duration::from_mins(1)) };
        assert_eq!(page, SurveyPage { objects: vec![object], has_more: true });
        assert!(stub.seen()[0].uri.contains("start-after=pre%2Ffix%2Fs%2Fa"), "{:?}", stub.seen());
    }

    /// S3 promises no object in a page but the last.
    #[tokio::test]
    async fn a_page_without_objects_is_not_the_end() {
        let stub = Stub::start().await;
        let empty = |next: &str| {
            reply(200, format!("<ListBucketResult><IsTruncated>true</IsTruncated>{next}</ListBucketResult>"))
        };
        let next = "<NextContinuationToken>t</NextContinuationToken>";
        let last = "<ListBucketResult><Contents><Key>pre/fix/s/b</Key><Size>3</Size></Contents></ListBucketResult>";
        stub.push(empty(next));
        stub.push(reply(200, last));
        let page = survey(&stub).page("s/", None).await.unwrap();
        assert!(page.objects[0].key == "s/b" && !page.has_more, "{page:?}");
        assert!(stub.seen()[1].uri.contains("continuation-token=t"), "{:?}", stub.seen());
        stub.push(empty(""));
        assert!(survey(&stub).page("s/", None).await.unwrap_err().to_string().contains("goes on"));
    }

    #[tokio::test]
    async fn the_time_is_that_of_the_reply() {
        let stub = Stub::start().await;
        let dated = |date: &str| Response::builder().header("date", date).body(Body::empty()).unwrap();
        stub.push(dated("Thu, 01 Jan 1970 00:02:00 GMT"));
        assert_eq!(survey(&stub).now().await.unwrap(), UNIX_EPOCH + Duration::from_mins(2));
        stub.push(dated("yesterday"));
        assert!(survey(&stub).now().await.unwrap_err().to_string().contains("has no date"));
    }
}
