//! The operations of S3 on the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use s3s::dto;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::access::BucketAccess;
use super::body::{Claimed, body_of, write};
use super::convert::{
    check_read, checksum_type, encryption_of, fault, length, metadata_of, precondition, stored_encoding, tag, time,
    with_checksum, with_wanted_checksums,
};
use crate::clock;
use crate::store::{Attributes, Object, Precondition, Store};

/// The implementation of the protocol's operations, for `s3s`.
pub(super) struct S3Operations {
    pub(super) store: Arc<Store>,
    pub(super) access: BucketAccess,
}

#[async_trait::async_trait]
impl S3 for S3Operations {
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
        let wanted = req.input.create_bucket_configuration.and_then(|config| config.location_constraint);
        if let Some(wanted) = wanted {
            // The old name of one region.
            let region = if wanted.as_str() == "EU" { "eu-west-1" } else { wanted.as_str() }.to_owned();
            self.store
                .change_settings(&req.input.bucket, |settings| settings.location = Some(region))
                .map_err(fault)?;
        }
        let location = Some(format!("/{}", req.input.bucket));
        Ok(S3Response::new(dto::CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<dto::HeadBucketInput>) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        let bucket_region = self.access.region_of(&req.extensions, &req.input.bucket)?;
        // All buckets belong to the emulator's own account.
        if req.input.expected_bucket_owner.is_some_and(|owner| owner != self.access.shared.config.account) {
            return Err(s3_error!(AccessDenied));
        }
        Ok(S3Response::new(dto::HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<dto::GetBucketLocationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLocationOutput>> {
        let region = self.access.region_of(&req.extensions, &req.input.bucket)?;
        // The first region has no constraint.
        let location_constraint = region.filter(|region| region != "us-east-1").map(Into::into);
        Ok(S3Response::new(dto::GetBucketLocationOutput { location_constraint }))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<dto::GetBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::GetBucketVersioningOutput>> {
        self.versioning(&req.input.bucket).map(S3Response::new)
    }

    async fn put_bucket_versioning(
        &self,
        req: S3Request<dto::PutBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::PutBucketVersioningOutput>> {
        self.set_versioning(&req.input).map(S3Response::new)
    }

    async fn list_object_versions(
        &self,
        req: S3Request<dto::ListObjectVersionsInput>,
    ) -> S3Result<S3Response<dto::ListObjectVersionsOutput>> {
        self.list_versions(req.input).map(S3Response::new)
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        req: S3Request<dto::GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLifecycleConfigurationOutput>> {
        self.lifecycle(&req.input.bucket).map(S3Response::new)
    }

    async fn put_bucket_lifecycle_configuration(
        &self,
        req: S3Request<dto::PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<dto::PutBucketLifecycleConfigurationOutput>> {
        self.put_lifecycle(&req.input).map(S3Response::new)
    }

    async fn delete_bucket_lifecycle(
        &self,
        req: S3Request<dto::DeleteBucketLifecycleInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketLifecycleOutput>> {
        self.set_lifecycle(&req.input.bucket, None)?;
        Ok(S3Response::with_status(dto::DeleteBucketLifecycleOutput {}, hyper::StatusCode::NO_CONTENT))
    }

    async fn get_bucket_policy(
        &self,
        req: S3Request<dto::GetBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::GetBucketPolicyOutput>> {
        self.policy(&req.input.bucket).map(S3Response::new)
    }

    async fn put_bucket_policy(
        &self,
        req: S3Request<dto::PutBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::PutBucketPolicyOutput>> {
        self.put_policy(&req.input)?;
        Ok(S3Response::with_status(dto::PutBucketPolicyOutput {}, hyper::StatusCode::NO_CONTENT))
    }

    async fn delete_bucket_policy(
        &self,
        req: S3Request<dto::DeleteBucketPolicyInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketPolicyOutput>> {
        self.store.change_settings(&req.input.bucket, |settings| settings.policy = None).map_err(fault)?;
        Ok(S3Response::with_status(dto::DeleteBucketPolicyOutput {}, hyper::StatusCode::NO_CONTENT))
    }

    async fn get_bucket_encryption(
        &self,
        req: S3Request<dto::GetBucketEncryptionInput>,
    ) -> S3Result<S3Response<dto::GetBucketEncryptionOutput>> {
        self.encryption(&req.input.bucket).map(S3Response::new)
    }

    async fn put_bucket_encryption(
        &self,
        req: S3Request<dto::PutBucketEncryptionInput>,
    ) -> S3Result<S3Response<dto::PutBucketEncryptionOutput>> {
        self.put_encryption(&req.input)?;
        Ok(S3Response::new(dto::PutBucketEncryptionOutput {}))
    }

    async fn get_public_access_block(
        &self,
        req: S3Request<dto::GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<dto::GetPublicAccessBlockOutput>> {
        self.public_access(&req.input.bucket).map(S3Response::new)
    }

    async fn put_public_access_block(
        &self,
        req: S3Request<dto::PutPublicAccessBlockInput>,
    ) -> S3Result<S3Response<dto::PutPublicAccessBlockOutput>> {
        self.set_public_access(&req.input.bucket, &req.input.public_access_block_configuration)?;
        Ok(S3Response::new(dto::PutPublicAccessBlockOutput {}))
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
        let checksum = dto::Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        };
        let claimed = Claimed::new(input.checksum_algorithm.as_ref(), input.content_md5, checksum);
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
        let written = write(&self.store, &input.bucket, input.body, claimed, req.trailing_headers).await?;
        let checksum = written.checksum;
        let object = Object {
            tag: written.tag.clone(),
            bytes: written.segment.bytes,
            modified_ms: clock::now_ms(),
            segments: vec![written.segment],
            attributes: with_checksum(attributes, &checksum),
            version: None,
        };
        let encryption = encryption_of(&object.attributes);
        let kms_key = object.attributes.kms_key.clone();
        let stored = self.store.commit(&input.bucket, &input.key, object, &condition).map_err(fault)?;
        Ok(S3Response::new(dto::PutObjectOutput {
            e_tag: tag(&written.tag),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum_type(&stored.object.attributes),
            server_side_encryption: encryption,
            ssekms_key_id: kms_key,
            version_id: self.shown_version(&input.bucket, &stored)?,
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        let input = req.input;
        let found = self.store.get(&input.bucket, &input.key, input.version_id.as_deref());
        let stored = found.map_err(|error| self.access.read_error(&req.extensions, &input.bucket, error))?;
        let version_id = self.shown_version(&input.bucket, &stored)?;
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
        let mode = input.checksum_mode.filter(|_| whole);
        let checksums = with_wanted_checksums(&attributes, mode.as_ref());
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
            version_id,
            checksum_type: checksum_type(&checksums),
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
        let found = self.store.get(&input.bucket, &input.key, input.version_id.as_deref());
        let stored = found.map_err(|error| self.access.read_error(&req.extensions, &input.bucket, error))?;
        check_read(&stored, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let attributes = with_wanted_checksums(&stored.object.attributes, input.checksum_mode.as_ref());
        Ok(S3Response::new(dto::HeadObjectOutput {
            version_id: self.shown_version(&input.bucket, &stored)?,
            checksum_type: checksum_type(&attributes),
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
        let input = req.input;
        let deleted = self.delete(&input.bucket, &input.key, input.version_id, &condition)?;
        let output = dto::DeleteObjectOutput {
            delete_marker: deleted.is_marker.then_some(true),
            version_id: deleted.version,
            ..Default::default()
        };
        Ok(S3Response::with_status(output, hyper::StatusCode::NO_CONTENT))
    }

    async fn delete_objects(
        &self,
        req: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let input = req.input;
        let quiet = input.delete.quiet.unwrap_or(false);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in input.delete.objects {
            if let Err(error) = self.access.check_deletion(&req.extensions, &input.bucket, &object) {
                errors.push(error);
                continue;
            }
            let one = self.delete(&input.bucket, &object.key, object.version_id.clone(), &Precondition::None)?;
            deleted.push(dto::DeletedObject {
                key: Some(object.key),
                version_id: object.version_id,
                delete_marker: one.is_marker.then_some(true),
                delete_marker_version_id: one.version.filter(|_| one.is_marker),
            });
        }
        let deleted = (!quiet).then_some(deleted);
        let errors = (!errors.is_empty()).then_some(errors);
        Ok(S3Response::new(dto::DeleteObjectsOutput { deleted, errors, ..Default::default() }))
    }

    async fn list_objects(
        &self,
        req: S3Request<dto::ListObjectsInput>,
    ) -> S3Result<S3Response<dto::ListObjectsOutput>> {
        let marker = req.input.marker.clone();
        let v2 = |v1: dto::ListObjectsInput| dto::ListObjectsV2Input { start_after: v1.marker.clone(), ..v1.into() };
        let page = self.list_objects_v2(req.map_input(v2));
        Ok(page.await?.map_output(|v2| dto::ListObjectsOutput {
            name: v2.name,
            prefix: v2.prefix,
            marker,
            max_keys: v2.max_keys,
            is_truncated: v2.is_truncated,
            next_marker: v2.next_continuation_token,
            contents: v2.contents,
            common_prefixes: v2.common_prefixes,
            delimiter: v2.delimiter,
            encoding_type: v2.encoding_type,
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        self.page(req.input).map(S3Response::new)
    }

    async fn copy_object(&self, req: S3Request<dto::CopyObjectInput>) -> S3Result<S3Response<dto::CopyObjectOutput>> {
        self.copy(req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<dto::CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CreateMultipartUploadOutput>> {
        self.begin_upload(req)
    }

    async fn upload_part(&self, req: S3Request<dto::UploadPartInput>) -> S3Result<S3Response<dto::UploadPartOutput>> {
        self.take_part(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CompleteMultipartUploadOutput>> {
        self.join_parts(req)
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
        self.parts_of_upload(req)
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<dto::ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<dto::ListMultipartUploadsOutput>> {
        Ok(self.open_uploads(req))
    }
}
