//! Copies of objects.

use std::sync::Arc;

use s3s::{S3Request, S3Response, S3Result, dto, s3_error};

use super::body::{Claimed, body_of, write};
use super::convert::{check_read, encryption_of, fault, tag, time, with_checksum};
use super::operations::S3Operations;
use crate::clock;
use crate::store::{FileSegment, Object, Precondition, Stored};

impl S3Operations {
    /// `CopyObject`: the copy shares the files of its source, unless the store is asked for a checksum of it.
    pub(super) async fn copy(
        &self,
        req: S3Request<dto::CopyObjectInput>,
    ) -> S3Result<S3Response<dto::CopyObjectOutput>> {
        let input = req.input;
        let dto::CopySource::Bucket { bucket, key, version_id } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "only buckets can be copied from"));
        };
        let source = self.store.get(bucket, key, version_id.as_deref());
        let source = source.map_err(|error| self.access.read_error(&req.extensions, bucket, error))?;
        check_read(&source, input.copy_source_if_match.as_ref(), input.copy_source_if_none_match.as_ref())?;
        let mut object = match &input.checksum_algorithm {
            Some(algorithm) => self.rewritten(&source, &input.bucket, algorithm).await?,
            None => self.linked(&source, &input.bucket).await?,
        };
        object.modified_ms = clock::now_ms();
        if input.metadata_directive.as_ref().is_some_and(|one| one.as_str() == dto::MetadataDirective::REPLACE) {
            let attributes = &mut object.attributes;
            attributes.content_type.clone_from(&input.content_type);
            attributes.metadata = input.metadata.clone().into_iter().flatten().collect();
        }
        object.attributes.encryption = input.server_side_encryption.map(|one| one.as_str().to_owned());
        object.attributes.kms_key = input.ssekms_key_id;
        let Object { tag: copy_tag, attributes, modified_ms, .. } = object.clone();
        let stored = self.store.commit(&input.bucket, &input.key, object, &Precondition::None).map_err(fault)?;
        let result = dto::CopyObjectResult {
            e_tag: tag(&copy_tag),
            last_modified: time(modified_ms),
            checksum_sha256: attributes.sha256.clone(),
            ..Default::default()
        };
        Ok(S3Response::new(dto::CopyObjectOutput {
            copy_object_result: Some(result),
            server_side_encryption: encryption_of(&attributes),
            ssekms_key_id: attributes.kms_key,
            version_id: self.shown_version(&input.bucket, &stored)?,
            copy_source_version_id: self.shown_version(bucket, &source)?,
            ..Default::default()
        }))
    }

    /// Bodies never change, so both objects can share one.
    async fn linked(&self, source: &Stored, bucket: &str) -> S3Result<Object> {
        let mut segments = Vec::new();
        for (path, bytes) in source.files() {
            let (file, target) = self.store.fresh_file(bucket).map_err(fault)?;
            tokio::fs::hard_link(path, target).await.map_err(|error| fault(error.into()))?;
            segments.push(FileSegment { file, bytes });
        }
        Ok(Object { segments, ..source.object.clone() })
    }

    async fn rewritten(
        &self,
        source: &Arc<Stored>,
        bucket: &str,
        algorithm: &dto::ChecksumAlgorithm,
    ) -> S3Result<Object> {
        let claimed = Claimed { algorithm: Some(algorithm.as_str().to_owned()), ..Claimed::default() };
        let body = body_of(Arc::clone(source), 0..source.object.bytes).await?;
        let written = write(&self.store, bucket, Some(body), claimed, None).await?;
        Ok(Object {
            tag: written.tag,
            bytes: written.segment.bytes,
            segments: vec![written.segment],
            attributes: with_checksum(source.object.attributes.clone(), &written.checksum),
            modified_ms: 0,
            version: None,
        })
    }
}
