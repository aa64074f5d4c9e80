//! S3 objects over the SDK: whole, in ranges, with a hash, conditional, listed, deleted in batches.
//!
//! Memory stays bounded for files of any size. This module gives keys no meaning; it only puts the operator's prefix in front.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumMode, Delete, ExpirationStatus, LifecycleRule, Object, ObjectIdentifier, ServerSideEncryption,
};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use base64_simd::STANDARD;
use bytes::Bytes;

use super::clients::{ATTEMPT_TIMEOUT, Clients, TRANSFER_ATTEMPT_TIMEOUT, timeouts};
use super::errors::AwsCall;
use executor::cloud::{
    Access, CloudError, CloudErrorKind, Content, Listed, MOST_BYTES, ObjectStore, Retention, Sha256Hash, StoredHash,
    VersionExpiration,
};

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
        full_key(&self.prefix, key)
    }

    fn call(&self, verb: &str, key: &str, action: &'static str) -> AwsCall {
        self.clients.call(verb, format!("object {}", self.uri(key)), action)
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        self.kms_key_id.as_ref().map(|_| ServerSideEncryption::AwsKms)
    }

    async fn put_body(
        &self,
        call: &AwsCall,
        key: &str,
        body: ByteStream,
        hash: Option<&Sha256Hash>,
        limit: TimeoutConfig,
    ) -> Result<(), CloudError> {
        self.clients
            .s3()
            .put_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .body(body)
            .set_checksum_sha256(hash.map(|hash| STANDARD.encode_to_string(hash)))
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.kms_key_id.clone())
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(limit))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| call.failed(&error))
    }

    async fn is_versioned(&self) -> Result<bool, CloudError> {
        let call =
            self.clients.call("read the versioning of", format!("bucket {}", self.bucket), "s3:GetBucketVersioning");
        let reply = self.clients.s3().get_bucket_versioning().bucket(&self.bucket).send().await;
        // Suspended versioning keeps the versions that are there.
        Ok(reply.map_err(|error| call.failed(&error))?.status.is_some())
    }

    async fn version_expirations(&self) -> Result<Vec<VersionExpiration>, CloudError> {
        let bucket = format!("bucket {}", self.bucket);
        let call = self.clients.call("read the lifecycle rules of", bucket, "s3:GetLifecycleConfiguration");
        let rules = match self.clients.s3().get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await {
            Ok(reply) => reply.rules.unwrap_or_default(),
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Vec::new(),
            Err(error) => return Err(call.failed(&error)),
        };
        let own = self.full_key("");
        Ok(rules.iter().filter_map(|rule| expiration(rule, &own)).collect())
    }

    /// Deletes one batch; returns the keys that failed for a transient reason, with the first such error.
    async fn delete_batch(&self, keys: Vec<String>) -> Result<Option<(Vec<String>, CloudError)>, CloudError> {
        let what = match keys.as_slice() {
            [key] => format!("object s3://{}/{key}", self.bucket),
            keys => format!("{} objects in s3://{}/{}", keys.len(), self.bucket, self.prefix),
        };
        let call = self.clients.call("delete", what, "s3:DeleteObject");
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
            .customize()
            .config_override(self.clients.object_deletion())
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
            let call = self.clients.call("delete", format!("object s3://{}/{key}", self.bucket), "s3:DeleteObject");
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
        self.put_body(&call, key, ByteStream::from(body), None, limit).await
    }

    async fn put_document(&self, key: &str, body: Vec<u8>, cache_control: &str) -> Result<(), CloudError> {
        let call = self.call("put", key, "s3:PutObject");
        let put = self.clients.s3().put_object().bucket(&self.bucket).key(self.full_key(key)).body(body.into());
        let put = put.content_type("application/json").cache_control(cache_control);
        let put = put.set_server_side_encryption(self.encryption()).set_ssekms_key_id(self.kms_key_id.clone());
        put.send().await.map(|_| ()).map_err(|error| call.failed(&error))
    }

    async fn put_with_hash(&self, key: &str, content: Content<'_>, hash: &Sha256Hash) -> Result<(), CloudError> {
        let call = self.call("put", key, "s3:PutObject");
        let body = match content {
            Content::Bytes(bytes) => ByteStream::from(bytes.to_vec()),
            Content::File(path) => file_body(&call, path).await?,
        };
        self.put_body(&call, key, body, Some(hash), timeouts(TRANSFER_ATTEMPT_TIMEOUT)).await
    }

    async fn stored_hash(&self, key: &str) -> Result<StoredHash, CloudError> {
        let call = self.call("look at", key, "s3:GetObject");
        let request = self.clients.s3().head_object().bucket(&self.bucket).key(self.full_key(key));
        match request.checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(reply) => Ok(reply.checksum_sha256().and_then(decoded).map_or(StoredHash::Unknown, StoredHash::Known)),
            Err(error) => {
                let error = call.failed(&error);
                if error.kind == CloudErrorKind::NotFound { Ok(StoredHash::Absent) } else { Err(error) }
            }
        }
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
        let call = self.clients.call("list", format!("objects below {}", self.uri(prefix)), "s3:ListBucket");
        let own = self.full_key("");
        let mut pages = self
            .clients
            .s3()
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.full_key(prefix))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| listed(&own, object)));
        }
        Ok(found)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        for batch in keys.chunks(DELETE_BATCH) {
            let mut left: Vec<String> = batch.iter().map(|key| self.full_key(key)).collect();
            let mut pauses = PAUSES.build();
            while let Some((again, error)) = self.delete_batch(std::mem::take(&mut left)).await? {
                let pause = pauses.next().filter(|_| !self.clients.deletes_once());
                let Some(pause) = pause else { return Err(error) };
                left = again;
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    async fn retention(&self) -> Result<Retention, CloudError> {
        let (versioning, rules) = tokio::join!(self.is_versioned(), self.version_expirations());
        // The rules of a bucket without versions need not be readable.
        if versioning? {
            return Ok(Retention { is_versioned: true, expirations: rules? });
        }
        Ok(Retention::default())
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://{}/{}", self.bucket, self.full_key(key))
    }
}

/// The key in the bucket; `prefix` is the operator's, without a slash at its end.
pub(super) fn full_key(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") }
}

/// An object of a listing; `own` is the full key of the empty key.
pub(super) fn listed(own: &str, object: Object) -> Option<Listed> {
    Some(Listed {
        key: object.key?.strip_prefix(own)?.to_owned(),
        bytes: object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        modified: object.last_modified.and_then(|at| SystemTime::try_from(at).ok()),
    })
}

/// Time limits of a put; larger for a large body.
fn put_limit(bytes: usize) -> TimeoutConfig {
    timeouts(if bytes > 1 << 20 { TRANSFER_ATTEMPT_TIMEOUT } else { ATTEMPT_TIMEOUT })
}

/// A file as a body that can be retried; it is read while it is sent.
async fn file_body(call: &AwsCall, path: &Path) -> Result<ByteStream, CloudError> {
    ByteStream::read_from()
        .path(path)
        .buffer_size(64 * 1024)
        .build()
        .await
        .map_err(|error| call.error(CloudErrorKind::Other, format!("failed to read {}: {error}", path.display())))
}

/// `None` for a hash of another form, such as that of an object written in parts.
pub(super) fn decoded(hash: &str) -> Option<Sha256Hash> {
    STANDARD.decode_to_vec(hash).ok()?.try_into().ok()
}

/// The rule, if it is enabled and deletes every old version below its prefix, and that prefix concerns keys that begin with `own`.
fn expiration(rule: &LifecycleRule, own: &str) -> Option<VersionExpiration> {
    let versions = rule.noncurrent_version_expiration()?;
    let keeps_some = versions.newer_noncurrent_versions().is_some_and(|number| number > 0);
    let filter = rule.filter();
    // A rule for a size or a tag is not for every object.
    let is_partial = filter.is_some_and(|filter| {
        let is_of_size = filter.object_size_greater_than().or(filter.object_size_less_than()).is_some();
        filter.tag().is_some() || is_of_size || filter.and().is_some()
    });
    #[expect(deprecated, reason = "older rules have their prefix there")]
    let prefix = filter.and_then(|filter| filter.prefix()).or(rule.prefix()).unwrap_or_default();
    if *rule.status() != ExpirationStatus::Enabled || keeps_some || is_partial {
        return None;
    }
    let prefix = if own.starts_with(prefix) { "" } else { prefix.strip_prefix(own)? };
    Some(VersionExpiration { prefix: prefix.to_owned(), days: u32::try_from(versions.noncurrent_days()?).ok()? })
}

/// Whether the object is absent. `NotFound` is the SDK's code for a 404 without a body, as of a proxy; an absent bucket has another.
fn is_absent_object<E: ProvideErrorMetadata>(error: &E) -> bool {
    matches!(error.code(), Some("NoSuchKey" | "NotFound"))
}

#[cfg(test)]
mod tests;
