//! The S3 half: the operations of the protocol on [`Store`], with checksums that are verified and returned.
//!
//! Signatures, chunked bodies and XML are the work of `s3s`; disk and conditions that of the store.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use s3s::auth::{S3Auth, SecretKey};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{self, ETag, ETagCondition, StreamingBlob, Timestamp};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use super::clock;
use super::store::{Attributes, Object, Part, Precondition, Segment, Store, StoreError, Stored, tag_of};

/// The only secret there is; every access key that the emulator takes has it.
pub(crate) const SECRET: &str = "test";
/// Bodies up to this size are answered from memory, larger ones streamed.
const SMALL: u64 = 256 * 1024;
const CHUNK: usize = 256 * 1024;

/// The S3 service on a store.
pub(crate) fn service(store: Arc<Store>) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Objects { store });
    builder.set_auth(TestSecret);
    builder.build()
}

struct TestSecret;

#[async_trait::async_trait]
impl S3Auth for TestSecret {
    async fn get_secret_key(&self, _access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(SECRET))
    }
}

struct Objects {
    store: Arc<Store>,
}

/// A body on disk that is not yet an object, with what was computed on the way.
struct Written {
    segment: Segment,
    tag: String,
    checksum: dto::Checksum,
}

/// What the client says its body hashes to.
#[derive(Default)]
struct Claimed {
    algorithm: Option<String>,
    md5: Option<String>,
    checksum: dto::Checksum,
}

impl Objects {
    /// Streams a body to a fresh file, hashing it; refuses it when a claim does not hold.
    async fn write(
        &self,
        bucket: &str,
        body: Option<StreamingBlob>,
        mut claimed: Claimed,
        trailers: Option<s3s::TrailingHeaders>,
    ) -> S3Result<Written> {
        let (file, path) = self.store.fresh_file(bucket).map_err(fault)?;
        let mut checksums = hasher_for(&claimed)?;
        let mut md5 = claimed.md5.is_some().then(Md5::new);
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0_u64;
        // A small body is written at once: each step on the blocking pool costs more than the write.
        let mut small = Vec::new();
        let mut out = None;
        if let Some(mut body) = body {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| s3_error!(IncompleteBody, "the body ended early: {error}"))?;
                bytes += chunk.len() as u64;
                checksums.update(&chunk);
                hasher.update(&chunk);
                if let Some(md5) = &mut md5 {
                    md5.update(&chunk);
                }
                small.extend_from_slice(&chunk);
                if small.len() >= CHUNK {
                    let file = match &mut out {
                        Some(file) => file,
                        None => out.insert(tokio::fs::File::create(&path).await.map_err(io_fault)?),
                    };
                    file.write_all(&small).await.map_err(io_fault)?;
                    small.clear();
                }
            }
        }
        if let Some(mut file) = out {
            file.write_all(&small).await.map_err(io_fault)?;
            file.flush().await.map_err(io_fault)?;
        } else {
            tokio::fs::write(&path, small).await.map_err(io_fault)?;
        }
        claimed.take_trailers(trailers.and_then(|trailers| trailers.take()).as_ref());
        let computed = checksums.finalize();
        let verdict = verify(&claimed, &computed, md5.map(Md5::finalize));
        if let Err(error) = verdict {
            // An orphan on disk only costs space until the next start.
            drop(tokio::fs::remove_file(&path).await);
            return Err(error);
        }
        Ok(Written { segment: Segment { file, bytes }, tag: tag_of(&hasher), checksum: computed })
    }
}

impl Claimed {
    fn take_trailers(&mut self, trailers: Option<&hyper::HeaderMap>) {
        let Some(trailers) = trailers else { return };
        let value = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let claims = &mut self.checksum;
        for (claim, name) in [
            (&mut claims.checksum_crc32, "x-amz-checksum-crc32"),
            (&mut claims.checksum_crc32c, "x-amz-checksum-crc32c"),
            (&mut claims.checksum_crc64nvme, "x-amz-checksum-crc64nvme"),
            (&mut claims.checksum_sha1, "x-amz-checksum-sha1"),
            (&mut claims.checksum_sha256, "x-amz-checksum-sha256"),
        ] {
            if let Some(value) = value(name) {
                *claim = Some(value);
            }
        }
    }
}

fn hasher_for(claimed: &Claimed) -> S3Result<ChecksumHasher> {
    let mut hasher = ChecksumHasher::default();
    let claims = &claimed.checksum;
    let algorithm = claimed.algorithm.as_deref();
    hasher.crc32 = (claims.checksum_crc32.is_some() || algorithm == Some("CRC32")).then(Default::default);
    hasher.crc32c = (claims.checksum_crc32c.is_some() || algorithm == Some("CRC32C")).then(Default::default);
    hasher.crc64nvme = (claims.checksum_crc64nvme.is_some() || algorithm == Some("CRC64NVME")).then(Default::default);
    hasher.sha1 = (claims.checksum_sha1.is_some() || algorithm == Some("SHA1")).then(Default::default);
    hasher.sha256 = (claims.checksum_sha256.is_some() || algorithm == Some("SHA256")).then(Default::default);
    match algorithm {
        None | Some("CRC32" | "CRC32C" | "CRC64NVME" | "SHA1" | "SHA256") => Ok(hasher),
        Some(other) => Err(s3_error!(InvalidRequest, "checksum algorithm {other} is not known")),
    }
}

fn verify(claimed: &Claimed, computed: &dto::Checksum, md5: Option<impl AsRef<[u8]>>) -> S3Result<()> {
    let claims = &claimed.checksum;
    for (claim, sum) in [
        (&claims.checksum_crc32, &computed.checksum_crc32),
        (&claims.checksum_crc32c, &computed.checksum_crc32c),
        (&claims.checksum_crc64nvme, &computed.checksum_crc64nvme),
        (&claims.checksum_sha1, &computed.checksum_sha1),
        (&claims.checksum_sha256, &computed.checksum_sha256),
    ] {
        if claim.is_some() && claim != sum {
            return Err(s3_error!(BadDigest, "the checksum you specified did not match the calculated checksum"));
        }
    }
    if let (Some(claim), Some(sum)) = (&claimed.md5, md5)
        && *claim != base64(sum.as_ref())
    {
        return Err(s3_error!(BadDigest, "the Content-MD5 you specified did not match what we received"));
    }
    Ok(())
}

/// Standard base64 with padding; short inputs only.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'=');
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn io_fault(error: std::io::Error) -> s3s::S3Error {
    fault(error.into())
}

fn fault(error: StoreError) -> s3s::S3Error {
    match error {
        StoreError::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
        StoreError::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
        StoreError::NoSuchUpload => s3_error!(NoSuchUpload, "The specified upload does not exist."),
        StoreError::InvalidPart => s3_error!(InvalidPart, "One or more of the specified parts could not be found."),
        StoreError::InvalidPartOrder => s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."),
        StoreError::Precondition => {
            s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
        }
        StoreError::Io(error) => s3_error!(InternalError, "{error}"),
    }
}

/// The condition of a write; `If-None-Match` takes only `*`, as on S3.
fn precondition(matches: Option<&ETagCondition>, none_match: Option<&ETagCondition>) -> S3Result<Precondition> {
    match (matches, none_match) {
        (None, None) => Ok(Precondition::None),
        (None, Some(ETagCondition::Any)) => Ok(Precondition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Precondition::Present),
        (Some(ETagCondition::ETag(tag)), None) => Ok(Precondition::Tag(tag.value().to_owned())),
        _ => Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every member of the protocol is optional")]
fn tag(tag: &str) -> Option<ETag> {
    Some(ETag::Strong(tag.to_owned()))
}

#[expect(clippy::unnecessary_wraps, reason = "every member of the protocol is optional")]
fn time(ms: u64) -> Option<Timestamp> {
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(ms);
    Some(Timestamp::from(time))
}

fn length(bytes: u64) -> Option<i64> {
    i64::try_from(bytes).ok()
}

fn listed(key: String, stored: &Stored) -> dto::Object {
    dto::Object {
        key: Some(key),
        e_tag: tag(&stored.object.tag),
        size: length(stored.object.bytes),
        last_modified: time(stored.object.modified_ms),
        storage_class: Some(dto::ObjectStorageClass::from_static(dto::ObjectStorageClass::STANDARD)),
        ..Default::default()
    }
}

/// Whether a reader's conditions let the object through.
fn check_read(stored: &Stored, matches: Option<&ETagCondition>, none_match: Option<&ETagCondition>) -> S3Result<()> {
    let holds = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == stored.object.tag,
    };
    if matches.is_some_and(|condition| !holds(condition)) {
        return Err(fault(StoreError::Precondition));
    }
    if none_match.is_some_and(holds) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

/// The bytes of a range of an object, over the files it consists of.
async fn body_of(stored: Arc<Stored>, range: std::ops::Range<u64>) -> S3Result<StreamingBlob> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (path, bytes) in stored.files() {
        let (from, to) = (range.start.max(start), range.end.min(start + bytes));
        if from < to {
            pieces.push((path, from - start, to - from));
        }
        start += bytes;
    }
    if range.end - range.start <= SMALL {
        let read = tokio::task::spawn_blocking(move || {
            let mut content = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
            for (path, offset, bytes) in pieces {
                let mut file = std::fs::File::open(path)?;
                file.seek(std::io::SeekFrom::Start(offset))?;
                file.take(bytes).read_to_end(&mut content)?;
            }
            // The files of a replaced object stay until here.
            drop(stored);
            Ok(content)
        });
        let content = read.await.unwrap_or_else(|error| Err(error.into())).map_err(io_fault)?;
        return Ok(StreamingBlob::from(Body::from(Bytes::from(content))));
    }
    let stream = futures::stream::iter(pieces)
        .then(move |(path, offset, bytes)| {
            // The reader keeps the object, hence its files, until the body is sent.
            let kept = Arc::clone(&stored);
            async move {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(std::io::SeekFrom::Start(offset)).await?;
                let chunks = ReaderStream::with_capacity(file.take(bytes), CHUNK);
                Ok::<_, std::io::Error>(chunks.inspect(move |_| {
                    let _kept: &Arc<Stored> = &kept;
                }))
            }
        })
        .try_flatten();
    Ok(StreamingBlob::wrap(Box::pin(stream)))
}

fn metadata_of(attributes: &Attributes) -> Option<dto::Metadata> {
    (!attributes.metadata.is_empty()).then(|| attributes.metadata.clone().into_iter().collect())
}

#[expect(clippy::unnecessary_wraps, reason = "every member of the protocol is optional")]
fn encryption_of(attributes: &Attributes) -> Option<dto::ServerSideEncryption> {
    let algorithm = attributes.encryption.clone().unwrap_or_else(|| "AES256".to_owned());
    Some(dto::ServerSideEncryption::from(algorithm))
}

/// The encoding of the object itself: the framing of the upload is not part of it.
fn stored_encoding(sent: Option<&str>) -> Option<String> {
    let kept: Vec<_> = sent?.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

fn with_checksum(mut attributes: Attributes, checksum: &dto::Checksum) -> Attributes {
    attributes.crc32.clone_from(&checksum.checksum_crc32);
    attributes.crc32c.clone_from(&checksum.checksum_crc32c);
    attributes.crc64nvme.clone_from(&checksum.checksum_crc64nvme);
    attributes.sha1.clone_from(&checksum.checksum_sha1);
    attributes.sha256.clone_from(&checksum.checksum_sha256);
    attributes
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn create_bucket(
        &self,
        req: S3Request<dto::CreateBucketInput>,
    ) -> S3Result<S3Response<dto::CreateBucketOutput>> {
        if !self.store.create_bucket(&req.input.bucket).map_err(fault)? {
            return Err(s3_error!(
                BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it."
            ));
        }
        let location = Some(format!("/{}", req.input.bucket));
        Ok(S3Response::new(dto::CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<dto::HeadBucketInput>) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        if !self.store.has_bucket(&req.input.bucket) {
            return Err(fault(StoreError::NoSuchBucket));
        }
        Ok(S3Response::new(dto::HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<dto::GetBucketLocationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLocationOutput>> {
        if !self.store.has_bucket(&req.input.bucket) {
            return Err(fault(StoreError::NoSuchBucket));
        }
        Ok(S3Response::new(dto::GetBucketLocationOutput::default()))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<dto::DeleteBucketInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketOutput>> {
        if !self.store.delete_bucket(&req.input.bucket).map_err(fault)? {
            return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
        }
        Ok(S3Response::new(dto::DeleteBucketOutput {}))
    }

    async fn list_buckets(
        &self,
        _req: S3Request<dto::ListBucketsInput>,
    ) -> S3Result<S3Response<dto::ListBucketsOutput>> {
        let buckets = self.store.buckets().into_iter();
        let buckets = buckets.map(|(name, created)| dto::Bucket {
            name: Some(name),
            creation_date: time(created),
            ..Default::default()
        });
        Ok(S3Response::new(dto::ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() }))
    }

    async fn put_object(&self, req: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
        let input = req.input;
        let condition = precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let claimed = Claimed {
            algorithm: input.checksum_algorithm.map(|algorithm| algorithm.as_str().to_owned()),
            md5: input.content_md5,
            checksum: dto::Checksum {
                checksum_crc32: input.checksum_crc32,
                checksum_crc32c: input.checksum_crc32c,
                checksum_crc64nvme: input.checksum_crc64nvme,
                checksum_sha1: input.checksum_sha1,
                checksum_sha256: input.checksum_sha256,
                ..Default::default()
            },
        };
        let attributes = Attributes {
            content_type: input.content_type,
            content_encoding: stored_encoding(input.content_encoding.as_deref()),
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            encryption: input.server_side_encryption.map(|one| one.as_str().to_owned()),
            kms_key: input.ssekms_key_id,
            metadata: input.metadata.map(|map| map.into_iter().collect::<BTreeMap<_, _>>()).unwrap_or_default(),
            ..Attributes::default()
        };
        let written = self.write(&input.bucket, input.body, claimed, req.trailing_headers).await?;
        let checksum = written.checksum;
        let object = Object {
            tag: written.tag.clone(),
            bytes: written.segment.bytes,
            modified_ms: clock::now_ms(),
            segments: vec![written.segment],
            attributes: with_checksum(attributes, &checksum),
        };
        let encryption = encryption_of(&object.attributes);
        let kms_key = object.attributes.kms_key.clone();
        self.store.commit(&input.bucket, &input.key, object, &condition).map_err(fault)?;
        Ok(S3Response::new(dto::PutObjectOutput {
            e_tag: tag(&written.tag),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            server_side_encryption: encryption,
            ssekms_key_id: kms_key,
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        let input = req.input;
        let stored = self.store.get(&input.bucket, &input.key).map_err(fault)?;
        check_read(&stored, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let total = stored.object.bytes;
        let range = match input.range {
            Some(range) => range.check(total)?,
            None => 0..total,
        };
        let whole = range.start == 0 && range.end == total;
        let content_range =
            input.range.is_some().then(|| format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1)));
        let attributes = stored.object.attributes.clone();
        let checksums = if whole { attributes.clone() } else { Attributes::default() };
        let (stored_tag, modified) = (stored.object.tag.clone(), stored.object.modified_ms);
        let content_length = length(range.end - range.start);
        let body = body_of(stored, range).await?;
        let status = content_range.is_some().then_some(hyper::StatusCode::PARTIAL_CONTENT);
        let output = dto::GetObjectOutput {
            body: Some(body),
            content_length,
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            e_tag: tag(&stored_tag),
            last_modified: time(modified),
            metadata: metadata_of(&attributes),
            server_side_encryption: encryption_of(&attributes),
            ssekms_key_id: attributes.kms_key,
            content_type: attributes.content_type,
            content_encoding: attributes.content_encoding,
            content_disposition: attributes.content_disposition,
            content_language: attributes.content_language,
            cache_control: attributes.cache_control,
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            ..Default::default()
        };
        let mut response = S3Response::new(output);
        response.status = status;
        Ok(response)
    }

    async fn head_object(&self, req: S3Request<dto::HeadObjectInput>) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        let input = req.input;
        let stored = self.store.get(&input.bucket, &input.key).map_err(fault)?;
        check_read(&stored, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let attributes = stored.object.attributes.clone();
        Ok(S3Response::new(dto::HeadObjectOutput {
            content_length: length(stored.object.bytes),
            accept_ranges: Some("bytes".to_owned()),
            e_tag: tag(&stored.object.tag),
            last_modified: time(stored.object.modified_ms),
            metadata: metadata_of(&attributes),
            server_side_encryption: encryption_of(&attributes),
            ssekms_key_id: attributes.kms_key,
            content_type: attributes.content_type,
            content_encoding: attributes.content_encoding,
            content_disposition: attributes.content_disposition,
            content_language: attributes.content_language,
            cache_control: attributes.cache_control,
            checksum_crc32: attributes.crc32,
            checksum_crc32c: attributes.crc32c,
            checksum_crc64nvme: attributes.crc64nvme,
            checksum_sha1: attributes.sha1,
            checksum_sha256: attributes.sha256,
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        let condition = precondition(req.input.if_match.as_ref(), None)?;
        self.store.delete(&req.input.bucket, &req.input.key, &condition).map_err(fault)?;
        Ok(S3Response::with_status(dto::DeleteObjectOutput::default(), hyper::StatusCode::NO_CONTENT))
    }

    async fn delete_objects(
        &self,
        req: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let input = req.input;
        let quiet = input.delete.quiet.unwrap_or(false);
        let mut deleted = Vec::new();
        for object in input.delete.objects {
            self.store.delete(&input.bucket, &object.key, &Precondition::None).map_err(fault)?;
            deleted.push(dto::DeletedObject { key: Some(object.key), ..Default::default() });
        }
        let deleted = (!quiet).then_some(deleted);
        Ok(S3Response::new(dto::DeleteObjectsOutput { deleted, ..Default::default() }))
    }

    async fn list_objects(
        &self,
        req: S3Request<dto::ListObjectsInput>,
    ) -> S3Result<S3Response<dto::ListObjectsOutput>> {
        let input = req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let limit = input.max_keys.unwrap_or(1000).clamp(0, 1000);
        let page = self
            .store
            .list(
                &input.bucket,
                &prefix,
                input.marker.as_deref(),
                input.delimiter.as_deref(),
                usize::try_from(limit).unwrap_or_default(),
            )
            .map_err(fault)?;
        Ok(S3Response::new(dto::ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(prefix),
            marker: input.marker,
            max_keys: Some(limit),
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next,
            contents: Some(page.objects.into_iter().map(|(key, stored)| listed(key, &stored)).collect()),
            common_prefixes: Some(
                page.prefixes.into_iter().map(|prefix| dto::CommonPrefix { prefix: Some(prefix) }).collect(),
            ),
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        let input = req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let limit = input.max_keys.unwrap_or(1000).clamp(0, 1000);
        let after = input.continuation_token.as_deref().or(input.start_after.as_deref());
        let page = self
            .store
            .list(&input.bucket, &prefix, after, input.delimiter.as_deref(), usize::try_from(limit).unwrap_or_default())
            .map_err(fault)?;
        let count = page.objects.len() + page.prefixes.len();
        Ok(S3Response::new(dto::ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            max_keys: Some(limit),
            key_count: i32::try_from(count).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            contents: Some(page.objects.into_iter().map(|(key, stored)| listed(key, &stored)).collect()),
            common_prefixes: Some(
                page.prefixes.into_iter().map(|prefix| dto::CommonPrefix { prefix: Some(prefix) }).collect(),
            ),
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    async fn copy_object(&self, req: S3Request<dto::CopyObjectInput>) -> S3Result<S3Response<dto::CopyObjectOutput>> {
        let input = req.input;
        let dto::CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "only buckets can be copied from"));
        };
        let source = self.store.get(bucket, key).map_err(fault)?;
        let mut object = source.object.clone();
        object.modified_ms = clock::now_ms();
        let mut segments = Vec::new();
        for (path, bytes) in source.files() {
            let (file, target) = self.store.fresh_file(&input.bucket).map_err(fault)?;
            // Bodies never change, so both objects can share one.
            tokio::fs::hard_link(path, target).await.map_err(|error| fault(error.into()))?;
            segments.push(Segment { file, bytes });
        }
        object.segments = segments;
        let copy_tag = object.tag.clone();
        let modified = object.modified_ms;
        self.store.commit(&input.bucket, &input.key, object, &Precondition::None).map_err(fault)?;
        let result =
            dto::CopyObjectResult { e_tag: tag(&copy_tag), last_modified: time(modified), ..Default::default() };
        Ok(S3Response::new(dto::CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<dto::CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CreateMultipartUploadOutput>> {
        let input = req.input;
        let attributes = Attributes {
            content_type: input.content_type,
            content_encoding: stored_encoding(input.content_encoding.as_deref()),
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            encryption: input.server_side_encryption.map(|one| one.as_str().to_owned()),
            kms_key: input.ssekms_key_id,
            metadata: input.metadata.map(|map| map.into_iter().collect::<BTreeMap<_, _>>()).unwrap_or_default(),
            ..Attributes::default()
        };
        let encryption = encryption_of(&attributes);
        let upload = self.store.start_upload(&input.bucket, &input.key, attributes).map_err(fault)?;
        Ok(S3Response::new(dto::CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload),
            server_side_encryption: encryption,
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<dto::UploadPartInput>) -> S3Result<S3Response<dto::UploadPartOutput>> {
        let input = req.input;
        if !(1..=10_000).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"));
        }
        self.store.upload(&input.bucket, &input.key, &input.upload_id).map_err(fault)?;
        let claimed = Claimed {
            algorithm: input.checksum_algorithm.map(|algorithm| algorithm.as_str().to_owned()),
            md5: input.content_md5,
            checksum: dto::Checksum {
                checksum_crc32: input.checksum_crc32,
                checksum_crc32c: input.checksum_crc32c,
                checksum_crc64nvme: input.checksum_crc64nvme,
                checksum_sha1: input.checksum_sha1,
                checksum_sha256: input.checksum_sha256,
                ..Default::default()
            },
        };
        let written = self.write(&input.bucket, input.body, claimed, req.trailing_headers).await?;
        let part = Part { tag: written.tag.clone(), segment: written.segment, modified_ms: clock::now_ms() };
        self.store.add_part(&input.upload_id, input.part_number, part).map_err(fault)?;
        Ok(S3Response::new(dto::UploadPartOutput {
            e_tag: tag(&written.tag),
            checksum_crc32: written.checksum.checksum_crc32,
            checksum_crc32c: written.checksum.checksum_crc32c,
            checksum_crc64nvme: written.checksum.checksum_crc64nvme,
            checksum_sha1: written.checksum.checksum_sha1,
            checksum_sha256: written.checksum.checksum_sha256,
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CompleteMultipartUploadOutput>> {
        let input = req.input;
        let condition = precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        self.store.upload(&input.bucket, &input.key, &input.upload_id).map_err(fault)?;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let chosen: Vec<_> = parts
            .into_iter()
            .map(|part| (part.part_number.unwrap_or_default(), part.e_tag.map(ETag::into_value)))
            .collect();
        let object = self.store.complete_upload(&input.upload_id, &chosen, &condition).map_err(fault)?;
        Ok(S3Response::new(dto::CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: tag(&object.tag),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<dto::AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::AbortMultipartUploadOutput>> {
        let input = req.input;
        self.store.upload(&input.bucket, &input.key, &input.upload_id).map_err(fault)?;
        self.store.abort_upload(&input.upload_id).map_err(fault)?;
        let output = dto::AbortMultipartUploadOutput::default();
        Ok(S3Response::with_status(output, hyper::StatusCode::NO_CONTENT))
    }

    async fn list_parts(&self, req: S3Request<dto::ListPartsInput>) -> S3Result<S3Response<dto::ListPartsOutput>> {
        let input = req.input;
        let upload = self.store.upload(&input.bucket, &input.key, &input.upload_id).map_err(fault)?;
        let parts = upload.parts.into_iter().map(|(number, part)| dto::Part {
            part_number: Some(number),
            e_tag: tag(&part.tag),
            size: length(part.segment.bytes),
            last_modified: time(part.modified_ms),
            ..Default::default()
        });
        Ok(S3Response::new(dto::ListPartsOutput {
            parts: Some(parts.collect()),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(false),
            ..Default::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<dto::ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<dto::ListMultipartUploadsOutput>> {
        let input = req.input;
        let prefix = input.prefix.unwrap_or_default();
        let uploads = self.store.uploads_of(&input.bucket).into_iter();
        let uploads =
            uploads.filter(|(_, upload)| upload.key.starts_with(&prefix)).map(|(id, upload)| dto::MultipartUpload {
                upload_id: Some(id),
                key: Some(upload.key),
                initiated: time(upload.started_ms),
                ..Default::default()
            });
        Ok(S3Response::new(dto::ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            uploads: Some(uploads.collect()),
            prefix: Some(prefix.clone()),
            is_truncated: Some(false),
            ..Default::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_pads() {
        assert_eq!(
            [b"".as_slice(), b"f", b"fo", b"foo", b"foob"].map(base64),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }
}
