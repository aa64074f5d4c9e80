//! Versions and lifecycle of buckets, between the store and the protocol.

use s3s::dto;
use s3s::{S3Result, s3_error};

use super::convert::{fault, length, tag, time};
use super::operations::S3Operations;
use crate::store::{Precondition, Stored, VersionQuery, Versioning, version_id};

/// Outcome of a deletion.
pub(super) struct Deletion {
    /// The delete marker that was put, or the version that was deleted.
    pub(super) version: Option<String>,
    pub(super) is_marker: bool,
}

impl S3Operations {
    /// The version's id, in a bucket that has versions.
    pub(super) fn shown_version(&self, bucket: &str, stored: &Stored) -> S3Result<Option<String>> {
        let settings = self.store.settings(bucket).map_err(fault)?;
        Ok((settings.versioning != Versioning::Off).then(|| version_id(&stored.object).to_owned()))
    }

    /// Deletes the current object of a key, or one version for good.
    pub(super) fn delete(
        &self,
        bucket: &str,
        key: &str,
        version: Option<String>,
        condition: &Precondition,
    ) -> S3Result<Deletion> {
        if let Some(id) = version {
            let is_marker = self.store.delete_version(bucket, key, &id).map_err(fault)?;
            return Ok(Deletion { version: Some(id), is_marker });
        }
        let version = self.store.delete(bucket, key, condition).map_err(fault)?;
        Ok(Deletion { is_marker: version.is_some(), version })
    }

    pub(super) fn versioning(&self, bucket: &str) -> S3Result<dto::GetBucketVersioningOutput> {
        let status = match self.store.settings(bucket).map_err(fault)?.versioning {
            Versioning::Off => None,
            Versioning::Enabled => Some(dto::BucketVersioningStatus::ENABLED),
            Versioning::Suspended => Some(dto::BucketVersioningStatus::SUSPENDED),
        };
        let status = status.map(dto::BucketVersioningStatus::from_static);
        Ok(dto::GetBucketVersioningOutput { status, ..Default::default() })
    }

    pub(super) fn set_versioning(
        &self,
        input: &dto::PutBucketVersioningInput,
    ) -> S3Result<dto::PutBucketVersioningOutput> {
        let versioning = match input.versioning_configuration.status.as_ref().map(dto::BucketVersioningStatus::as_str) {
            Some(dto::BucketVersioningStatus::ENABLED) => Versioning::Enabled,
            Some(dto::BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
            _ => return Err(s3_error!(MalformedXML)),
        };
        self.store.change_settings(&input.bucket, |settings| settings.versioning = versioning).map_err(fault)?;
        Ok(dto::PutBucketVersioningOutput::default())
    }

    pub(super) fn lifecycle(&self, bucket: &str) -> S3Result<dto::GetBucketLifecycleConfigurationOutput> {
        let stored = self.store.settings(bucket).map_err(fault)?.lifecycle;
        let stored = stored
            .ok_or_else(|| s3_error!(NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist"))?;
        let rules = serde_json::from_value(stored).map_err(|error| s3_error!(InternalError, "{error}"))?;
        Ok(dto::GetBucketLifecycleConfigurationOutput { rules: Some(rules), ..Default::default() })
    }

    pub(super) fn put_lifecycle(
        &self,
        input: &dto::PutBucketLifecycleConfigurationInput,
    ) -> S3Result<dto::PutBucketLifecycleConfigurationOutput> {
        let configuration = input.lifecycle_configuration.as_ref().ok_or_else(|| s3_error!(MalformedXML))?;
        self.set_lifecycle(&input.bucket, Some(&configuration.rules))?;
        Ok(dto::PutBucketLifecycleConfigurationOutput::default())
    }

    pub(super) fn set_lifecycle(&self, bucket: &str, rules: Option<&dto::LifecycleRules>) -> S3Result<()> {
        let lifecycle = rules.map(serde_json::to_value).transpose();
        let lifecycle = lifecycle.map_err(|error| s3_error!(InternalError, "{error}"))?;
        self.store.change_settings(bucket, |settings| settings.lifecycle = lifecycle).map_err(fault)
    }

    pub(super) fn list_versions(&self, input: dto::ListObjectVersionsInput) -> S3Result<dto::ListObjectVersionsOutput> {
        let max_keys = input.max_keys.unwrap_or(1000).clamp(0, 1000);
        let query = VersionQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            key_marker: input.key_marker.clone(),
            version_marker: input.version_id_marker.clone(),
            limit: usize::try_from(max_keys).unwrap_or_default(),
        };
        let page = self.store.versions(&input.bucket, &query).map_err(fault)?;
        let (mut versions, mut delete_markers) = (Vec::new(), Vec::new());
        for one in page.versions {
            let (key, version_id, is_latest) = (Some(one.key), Some(one.version.id()), Some(one.is_latest));
            let last_modified = time(one.version.modified_ms);
            match one.version.stored {
                Some(stored) => versions.push(dto::ObjectVersion {
                    key,
                    version_id,
                    is_latest,
                    last_modified,
                    e_tag: tag(&stored.object.tag),
                    size: length(stored.object.bytes),
                    storage_class: Some(dto::ObjectVersionStorageClass::from_static("STANDARD")),
                    ..Default::default()
                }),
                None => delete_markers.push(dto::DeleteMarkerEntry {
                    key,
                    version_id,
                    is_latest,
                    last_modified,
                    ..Default::default()
                }),
            }
        }
        let prefixes = page.prefixes.into_iter().map(|prefix| dto::CommonPrefix { prefix: Some(prefix) });
        let is_truncated = Some(page.next.is_some());
        let (next_key_marker, next_version_id_marker) = page.next.map_or((None, None), |(key, id)| (Some(key), id));
        Ok(dto::ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            key_marker: input.key_marker,
            version_id_marker: input.version_id_marker,
            max_keys: Some(max_keys),
            versions: Some(versions),
            delete_markers: Some(delete_markers),
            common_prefixes: Some(prefixes.collect()),
            is_truncated,
            next_key_marker,
            next_version_id_marker,
            ..Default::default()
        })
    }
}
