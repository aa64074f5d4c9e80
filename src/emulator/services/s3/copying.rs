//! Copies of objects.

use s3s::{S3Request, S3Response, S3Result, dto, s3_error};

use super::convert::{fault, tag, time};
use super::operations::S3Operations;
use crate::clock;
use crate::store::{FileSegment, Precondition};

impl S3Operations {
    /// `CopyObject`: the copy shares the files of its source.
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
        let mut object = source.object.clone();
        object.modified_ms = clock::now_ms();
        let mut segments = Vec::new();
        for (path, bytes) in source.files() {
            let (file, target) = self.store.fresh_file(&input.bucket).map_err(fault)?;
            // Bodies never change, so both objects can share one.
            tokio::fs::hard_link(path, target).await.map_err(|error| fault(error.into()))?;
            segments.push(FileSegment { file, bytes });
        }
        object.segments = segments;
        let copy_tag = object.tag.clone();
        let modified = object.modified_ms;
        let stored = self.store.commit(&input.bucket, &input.key, object, &Precondition::None).map_err(fault)?;
        let result =
            dto::CopyObjectResult { e_tag: tag(&copy_tag), last_modified: time(modified), ..Default::default() };
        Ok(S3Response::new(dto::CopyObjectOutput {
            copy_object_result: Some(result),
            version_id: self.shown_version(&input.bucket, &stored)?,
            copy_source_version_id: self.shown_version(bucket, &source)?,
            ..Default::default()
        }))
    }
}
