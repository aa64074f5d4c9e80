//! Conversions between the types of the store and those of the protocol.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use s3s::dto::{self, ChecksumMode, ChecksumType, ETag, ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};

use crate::store::{Attributes, Precondition, StoreError, Stored};

pub(super) fn io_fault(error: std::io::Error) -> s3s::S3Error {
    fault(error.into())
}

pub(super) fn fault(error: StoreError) -> s3s::S3Error {
    match error {
        StoreError::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
        StoreError::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
        StoreError::NoSuchVersion => s3_error!(NoSuchVersion, "The specified version does not exist."),
        StoreError::DeleteMarker { id, asked } => deleted(&id, asked),
        StoreError::NoSuchUpload => s3_error!(NoSuchUpload, "The specified upload does not exist."),
        StoreError::InvalidPart => s3_error!(InvalidPart, "One or more of the specified parts could not be found."),
        StoreError::InvalidPartOrder => s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."),
        StoreError::Precondition => {
            s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
        }
        StoreError::Io(error) => s3_error!(InternalError, "{error}"),
    }
}

/// The answer to a read of a delete marker, with the headers that tell it from an absent key.
fn deleted(id: &str, asked: bool) -> s3s::S3Error {
    let mut error = if asked {
        s3_error!(MethodNotAllowed, "The specified method is not allowed against this resource.")
    } else {
        s3_error!(NoSuchKey, "The specified key does not exist.")
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-amz-version-id", id);
    }
    error.set_headers(headers);
    error
}

/// The condition of a write; `If-None-Match` takes only `*`, as on S3.
pub(super) fn precondition(
    matches: Option<&ETagCondition>,
    none_match: Option<&ETagCondition>,
) -> S3Result<Precondition> {
    match (matches, none_match) {
        (None, None) => Ok(Precondition::None),
        (None, Some(ETagCondition::Any)) => Ok(Precondition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Precondition::Present),
        (Some(ETagCondition::ETag(tag)), None) => Ok(Precondition::Tag(tag.value().to_owned())),
        _ => Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every member of the protocol is optional")]
pub(super) fn tag(tag: &str) -> Option<ETag> {
    Some(ETag::Strong(tag.to_owned()))
}

#[expect(clippy::unnecessary_wraps, reason = "every member of the protocol is optional")]
pub(super) fn time(ms: u64) -> Option<Timestamp> {
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(ms);
    Some(Timestamp::from(time))
}

pub(super) fn length(bytes: u64) -> Option<i64> {
    i64::try_from(bytes).ok()
}

pub(super) fn listed(key: String, stored: &Stored) -> dto::Object {
    dto::Object {
        key: Some(key),
        e_tag: tag(&stored.object.tag),
        size: length(stored.object.bytes),
        last_modified: time(stored.object.modified_ms),
        storage_class: Some(dto::ObjectStorageClass::from_static(dto::ObjectStorageClass::STANDARD)),
        ..Default::default()
    }
}

/// Checks the conditions of a read.
pub(super) fn check_read(
    stored: &Stored,
    matches: Option<&ETagCondition>,
    none_match: Option<&ETagCondition>,
) -> S3Result<()> {
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

pub(super) fn metadata_of(attributes: &Attributes) -> Option<dto::Metadata> {
    (!attributes.metadata.is_empty()).then(|| attributes.metadata.clone().into_iter().collect())
}

#[expect(clippy::unnecessary_wraps, reason = "every member of the protocol is optional")]
pub(super) fn encryption_of(attributes: &Attributes) -> Option<dto::ServerSideEncryption> {
    let algorithm = attributes.encryption.clone().unwrap_or_else(|| "AES256".to_owned());
    Some(dto::ServerSideEncryption::from(algorithm))
}

/// The encoding of the object itself: the framing of the upload is not part of it.
pub(super) fn stored_encoding(sent: Option<&str>) -> Option<String> {
    let kept: Vec<_> = sent?.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// The attributes with the checksums that a reader asked for.
pub(super) fn with_wanted_checksums(attributes: &Attributes, mode: Option<&ChecksumMode>) -> Attributes {
    if mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED) {
        return attributes.clone();
    }
    with_checksum(attributes.clone(), &dto::Checksum::default())
}

/// The type of the checksums that are there: always of the whole object, since parts have none.
pub(super) fn checksum_type(of: &Attributes) -> Option<ChecksumType> {
    let sums = [&of.crc32, &of.crc32c, &of.crc64nvme, &of.sha1, &of.sha256];
    sums.iter().any(|sum| sum.is_some()).then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT))
}

pub(super) fn with_checksum(mut attributes: Attributes, checksum: &dto::Checksum) -> Attributes {
    attributes.crc32.clone_from(&checksum.checksum_crc32);
    attributes.crc32c.clone_from(&checksum.checksum_crc32c);
    attributes.crc64nvme.clone_from(&checksum.checksum_crc64nvme);
    attributes.sha1.clone_from(&checksum.checksum_sha1);
    attributes.sha256.clone_from(&checksum.checksum_sha256);
    attributes
}
