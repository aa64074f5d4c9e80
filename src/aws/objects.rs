//! S3 objects over the SDK: whole, in ranges, streamed from files, conditional, listed, deleted in batches.
//!
//! Memory stays bounded for files of any size. This module gives keys no meaning; it only puts the operator's prefix in front.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier, ServerSideEncryption};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::clients::{ATTEMPT_TIMEOUT, Clients, TRANSFER_ATTEMPT_TIMEOUT, timeouts};
use super::errors::AwsCall;
use executor::cloud::{Access, CloudError, CloudErrorKind, Listed, MOST_BYTES, ObjectStore};

/// Files up to this size go in one request, larger ones in parts of it.
pub(super) const PART_BYTES: u64 = 16 * 1024 * 1024;
/// S3's limit of parts in one upload; a larger file gets larger parts.
const MAX_PARTS: u64 = 10_000;
const PARALLEL_PARTS: usize = 4;
/// S3's limit of keys in one deletion.
const DELETE_BATCH: usize = 1000;
/// Five attempts where the SDK cannot retry by itself: an interrupted body, a key that a batch could not delete, a conflict.
const PAUSES: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(Duration::from_millis(100)).with_max_times(4);

#[derive(Debug)]
pub(super) struct AwsObjects {
    clients: Arc<Clients>,
    bucket: String,
    prefix: String,
    kms_key_id: Option<String>,
}

impl AwsObjects {
    pub(super) fn new(clients: Arc<Clients>, access: &Access) -> Self {
        Self {
            clients,
            bucket: access.bucket.clone(),
            prefix: access.prefix.trim_matches('/').to_owned(),
            kms_key_id: access.kms_key_id.clone(),
        }
    }

    fn full_key(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    fn call(&self, verb: &str, key: &str, action: &'static str) -> AwsCall {
        AwsCall::new(verb, format!("object {}", self.uri(key)), action)
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        self.kms_key_id.as_ref().map(|_| ServerSideEncryption::AwsKms)
    }

    async fn put_body(
        &self,
        call: &AwsCall,
        key: &str,
        body: ByteStream,
        limit: TimeoutConfig,
    ) -> Result<(), CloudError> {
        self.clients
            .s3()
            .put_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .body(body)
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.kms_key_id.clone())
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(limit))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| call.failed(&error))
    }

    async fn put_parts(&self, call: &AwsCall, key: &str, path: &Path, size: u64) -> Result<(), CloudError> {
        let upload = self
            .clients
            .s3()
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.kms_key_id.clone())
            .send()
            .await
            .map_err(|error| call.failed(&error))?
            .upload_id
            .ok_or_else(|| call.error(CloudErrorKind::Other, "the reply holds no upload id"))?;
        let sent = self.send_parts(call, key, path, size, &upload).await;
        if sent.is_err() {
            let aborted = self
                .clients
                .s3()
                .abort_multipart_upload()
                .bucket(&self.bucket)
                .key(self.full_key(key))
                .upload_id(&upload)
                .send()
                .await;
            if aborted.is_err_and(|error| error.code() != Some("NoSuchUpload")) {
                tracing::warn!(key, "an incomplete upload stays until the bucket's lifecycle rule removes it");
            }
        }
        sent
    }

    async fn send_parts(
        &self,
        call: &AwsCall,
        key: &str,
        path: &Path,
        size: u64,
        upload: &str,
    ) -> Result<(), CloudError> {
        let mut parts: Vec<CompletedPart> = futures::stream::iter(parts_of(size))
            .map(|part| self.send_part(call, key, path, upload, part))
            .buffer_unordered(PARALLEL_PARTS)
            .try_collect()
            .await?;
        parts.sort_by_key(CompletedPart::part_number);
        let completed = self
            .clients
            .s3()
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .upload_id(upload)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .send()
            .await;
        match completed {
            Ok(_) => Ok(()),
            // The upload may be complete: the reply of the first attempt was lost, or the reply of a success cannot be parsed.
            Err(error) if may_be_complete(&error) && self.size(key).await? == Some(size) => Ok(()),
            Err(error) => Err(call.failed(&error)),
        }
    }

    async fn send_part(
        &self,
        call: &AwsCall,
        key: &str,
        path: &Path,
        upload: &str,
        part: Part,
    ) -> Result<CompletedPart, CloudError> {
        let body = file_body(call, path, part.offset, part.length).await?;
        let reply = self
            .clients
            .s3()
            .upload_part()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .upload_id(upload)
            .part_number(part.number)
            .body(body)
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts(TRANSFER_ATTEMPT_TIMEOUT)))
            .send()
            .await
            .map_err(|error| call.failed(&error))?;
        Ok(CompletedPart::builder()
            .part_number(part.number)
            .set_e_tag(reply.e_tag)
            .set_checksum_crc32(reply.checksum_crc32)
            .build())
    }

    /// Deletes one batch; returns the keys that failed for a transient reason, with the first such error.
    async fn delete_batch(&self, keys: Vec<String>) -> Result<Option<(Vec<String>, CloudError)>, CloudError> {
        let what = match keys.as_slice() {
            [key] => format!("object s3://{}/{key}", self.bucket),
            keys => format!("{} objects in s3://{}/{}", keys.len(), self.bucket, self.prefix),
        };
        let call = AwsCall::new("delete", what, "s3:DeleteObject");
        let unbuilt = |error: aws_sdk_s3::error::BuildError| call.error(CloudErrorKind::Invalid, error.to_string());
        let objects = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(key).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(unbuilt)?;
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(unbuilt)?;
        let reply = self
            .clients
            .s3()
            .delete_objects()
            .bucket(&self.bucket)
            .delete(delete)
            .send()
            .await
            .map_err(|error| call.failed(&error))?;
        let mut again: Option<(Vec<String>, CloudError)> = None;
        for failed in reply.errors.unwrap_or_default() {
            let code = failed.code.as_deref();
            if code == Some("NoSuchKey") {
                continue;
            }
            let key = failed.key.unwrap_or_default();
            let call = AwsCall::new("delete", format!("object s3://{}/{key}", self.bucket), "s3:DeleteObject");
            let error = call.refused(code, None, failed.message.as_deref().unwrap_or_default());
            if !matches!(error.kind, CloudErrorKind::Throttled | CloudErrorKind::Transient) {
                return Err(error);
            }
            again.get_or_insert_with(|| (Vec::new(), error)).0.push(key);
        }
        Ok(again)
    }
}

#[async_trait]
impl ObjectStore for AwsObjects {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        let call = self.call("get", key, "s3:GetObject");
        let mut pauses = PAUSES.build();
        loop {
            let reply = self.clients.s3().get_object().bucket(&self.bucket).key(self.full_key(key)).send().await;
            let reply = match reply {
                Ok(reply) => reply,
                Err(error) if is_absent_object(&error) => return Ok(None),
                Err(error) => return Err(call.failed(&error)),
            };
            let length = reply.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
            if length > MOST_BYTES {
                let message = format!("the object has {length} bytes; at most {MOST_BYTES} are read");
                return Err(call.error(CloudErrorKind::Other, message));
            }
            let error = match reply.body.collect().await {
                Ok(body) => return Ok(Some(body.to_vec())),
                Err(error) => call.broke_off(&error),
            };
            let Some(pause) = pauses.next() else { return Err(error) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        let call = self.call("get", key, "s3:GetObject");
        if length == 0 {
            return Ok(self.size(key).await?.map(|_| Bytes::new()));
        }
        if length > MOST_BYTES {
            return Err(call.error(CloudErrorKind::Other, format!("at most {MOST_BYTES} bytes are read at once")));
        }
        let range = format!("bytes={start}-{}", start.saturating_add(length - 1));
        let mut pauses = PAUSES.build();
        loop {
            let request = self.clients.s3().get_object().bucket(&self.bucket).key(self.full_key(key)).range(&range);
            let reply = match request.send().await {
                Ok(reply) => reply,
                Err(error) if is_absent_object(&error) => return Ok(None),
                // The object has no byte from `start` on.
                Err(error) if error.code() == Some("InvalidRange") => return Ok(Some(Bytes::new())),
                Err(error) => return Err(call.failed(&error)),
            };
            let expected = reply.content_length().and_then(|length| u64::try_from(length).ok());
            if expected.is_none_or(|expected| expected > length) {
                return Err(call.error(CloudErrorKind::Other, "the reply holds more than the range that was asked for"));
            }
            let error = match reply.body.collect().await {
                Ok(body) => return Ok(Some(body.into_bytes())),
                Err(error) => call.broke_off(&error),
            };
            let Some(pause) = pauses.next() else { return Err(error) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        let call = self.call("look at", key, "s3:GetObject");
        match self.clients.s3().head_object().bucket(&self.bucket).key(self.full_key(key)).send().await {
            Ok(reply) => Ok(Some(reply.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0))),
            Err(error) => {
                let error = call.failed(&error);
                if error.kind == CloudErrorKind::NotFound { Ok(None) } else { Err(error) }
            }
        }
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        let call = self.call("put", key, "s3:PutObject");
        let limit = put_limit(body.len());
        self.put_body(&call, key, ByteStream::from(body), limit).await
    }

    /// A multipart upload is aborted when it fails. After a cancel or a kill it stays until the bucket's lifecycle rule for
    /// incomplete uploads removes it.
    async fn put_file(&self, key: &str, path: &Path) -> Result<(), CloudError> {
        let call = self.call("put", key, "s3:PutObject");
        let metadata = tokio::fs::metadata(path).await.map_err(|error| call.local("read", path, &error))?;
        if metadata.len() > PART_BYTES {
            return self.put_parts(&call, key, path, metadata.len()).await;
        }
        let body = file_body(&call, path, 0, metadata.len()).await?;
        self.put_body(&call, key, body, timeouts(TRANSFER_ATTEMPT_TIMEOUT)).await
    }

    /// `false` also when this caller created the object: a reply was lost and the SDK retried. A caller for whom that matters
    /// compares the body.
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        let call = self.call("put", key, "s3:PutObject");
        let limit = put_limit(body.len());
        let mut pauses = PAUSES.build();
        loop {
            let reply = self
                .clients
                .s3()
                .put_object()
                .bucket(&self.bucket)
                .key(self.full_key(key))
                .if_none_match("*")
                .body(ByteStream::from(body.clone()))
                .set_server_side_encryption(self.encryption())
                .set_ssekms_key_id(self.kms_key_id.clone())
                .customize()
                .config_override(aws_sdk_s3::config::Builder::new().timeout_config(limit.clone()))
                .send()
                .await;
            let Err(error) = reply else { return Ok(true) };
            let conflict = error.code() == Some("ConditionalRequestConflict");
            let error = call.failed(&error);
            if error.kind == CloudErrorKind::Exists {
                return Ok(false);
            }
            let Some(pause) = pauses.next().filter(|_| conflict) else { return Err(error) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        let call = AwsCall::new("list", format!("objects below {}", self.uri(prefix)), "s3:ListBucket");
        let own = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let mut pages = self
            .clients
            .s3()
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.full_key(prefix))
            .into_paginator()
            .send();
        let mut listed = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            for object in page.contents.unwrap_or_default() {
                let Some(key) = object.key.as_deref().and_then(|key| key.strip_prefix(&own)) else { continue };
                listed.push(Listed {
                    key: key.to_owned(),
                    bytes: object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                    modified: object.last_modified.and_then(|at| SystemTime::try_from(at).ok()),
                });
            }
        }
        Ok(listed)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        for batch in keys.chunks(DELETE_BATCH) {
            let mut left: Vec<String> = batch.iter().map(|key| self.full_key(key)).collect();
            let mut pauses = PAUSES.build();
            while let Some((again, error)) = self.delete_batch(std::mem::take(&mut left)).await? {
                let Some(pause) = pauses.next() else { return Err(error) };
                left = again;
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://{}/{}", self.bucket, self.full_key(key))
    }
}

/// Time limits of a put; larger for a large body.
fn put_limit(bytes: usize) -> TimeoutConfig {
    timeouts(if bytes > 1 << 20 { TRANSFER_ATTEMPT_TIMEOUT } else { ATTEMPT_TIMEOUT })
}

/// A range of a file as a body that can be retried; it is read while it is sent.
async fn file_body(call: &AwsCall, path: &Path, offset: u64, length: u64) -> Result<ByteStream, CloudError> {
    if length == 0 {
        return Ok(ByteStream::from_static(b""));
    }
    ByteStream::read_from()
        .path(path)
        .offset(offset)
        .length(Length::Exact(length))
        .buffer_size(64 * 1024)
        .build()
        .await
        .map_err(|error| call.error(CloudErrorKind::Other, format!("failed to read {}: {error}", path.display())))
}

/// One part of an upload; numbers start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    number: i32,
    offset: u64,
    length: u64,
}

/// Whether an upload that failed to complete may be complete: it is unknown now, or the reply is a success that cannot be parsed.
fn may_be_complete<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let succeeded = error.raw_response().is_some_and(|reply| reply.status().is_success());
    error.code() == Some("NoSuchUpload") || (succeeded && error.code().is_none())
}

/// Whether the object is absent. `NotFound` is the SDK's code for a 404 without a body, as of a proxy; an absent bucket has another.
fn is_absent_object<E: ProvideErrorMetadata>(error: &E) -> bool {
    matches!(error.code(), Some("NoSuchKey" | "NotFound"))
}

/// The parts of a file of `size` bytes: equal lengths within S3's limits, the last one shorter.
fn parts_of(size: u64) -> impl Iterator<Item = Part> {
    let length = PART_BYTES.max(size.div_ceil(MAX_PARTS));
    let count = size.div_ceil(length);
    (1..=i32::try_from(count).unwrap_or(i32::MAX)).zip(0_u64..).map(move |(number, index)| {
        let offset = index * length;
        Part { number, offset, length: length.min(size - offset) }
    })
}

#[cfg(test)]
mod tests;
