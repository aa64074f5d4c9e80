//! Uploads of an object in parts.

use std::collections::BTreeMap;

use s3s::dto::{self, ETag};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::body::{Claimed, write};
use super::convert::{encryption_of, fault, length, precondition, stored_encoding, tag, time};
use super::operations::S3Operations;
use crate::clock;
use crate::store::{Attributes, StoredPart};

impl S3Operations {
    /// `CreateMultipartUpload`.
    pub(super) fn begin_upload(
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

    /// `UploadPart`.
    pub(super) async fn take_part(
        &self,
        req: S3Request<dto::UploadPartInput>,
    ) -> S3Result<S3Response<dto::UploadPartOutput>> {
        let input = req.input;
        if !(1..=10_000).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"));
        }
        self.store.upload(&input.bucket, &input.key, &input.upload_id).map_err(fault)?;
        let checksum = dto::Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        };
        let claimed = Claimed::new(input.checksum_algorithm.as_ref(), input.content_md5, checksum);
        let written = write(&self.store, &input.bucket, input.body, claimed, req.trailing_headers).await?;
        let part = StoredPart { tag: written.tag.clone(), segment: written.segment, modified_ms: clock::now_ms() };
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

    /// `CompleteMultipartUpload`.
    pub(super) fn join_parts(
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
        let stored = self.store.complete_upload(&input.upload_id, &chosen, &condition).map_err(fault)?;
        Ok(S3Response::new(dto::CompleteMultipartUploadOutput {
            version_id: self.shown_version(&input.bucket, &stored)?,
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: tag(&stored.object.tag),
            ..Default::default()
        }))
    }

    /// `ListParts`, all in one page.
    pub(super) fn parts_of_upload(
        &self,
        req: S3Request<dto::ListPartsInput>,
    ) -> S3Result<S3Response<dto::ListPartsOutput>> {
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

    /// `ListMultipartUploads`, all in one page.
    pub(super) fn open_uploads(
        &self,
        req: S3Request<dto::ListMultipartUploadsInput>,
    ) -> S3Response<dto::ListMultipartUploadsOutput> {
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
        S3Response::new(dto::ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            uploads: Some(uploads.collect()),
            prefix: Some(prefix.clone()),
            is_truncated: Some(false),
            ..Default::default()
        })
    }
}
