//! Multipart uploads, completed without copying the parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::buckets::Store;
use super::object::{Attributes, Object, PartialUpload, Precondition, StoreError, Stored, StoredPart, tag_of};
use crate::clock;

impl Store {
    /// Starts a multipart upload.
    pub(crate) fn start_upload(&self, bucket: &str, key: &str, attributes: Attributes) -> Result<String, StoreError> {
        self.bucket(bucket)?;
        let id = self.fresh_name();
        let upload = PartialUpload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            attributes,
            started_ms: clock::now_ms(),
            parts: BTreeMap::new(),
        };
        self.uploads.lock().insert(id.clone(), upload);
        Ok(id)
    }

    /// The upload of an id, when it belongs to this key.
    pub(crate) fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<PartialUpload, StoreError> {
        let uploads = self.uploads.lock();
        let upload = uploads.get(id).filter(|upload| upload.bucket == bucket && upload.key == key);
        upload.cloned().ok_or(StoreError::NoSuchUpload)
    }

    /// Adds or replaces a part.
    pub(crate) fn add_part(&self, id: &str, number: i32, part: StoredPart) -> Result<(), StoreError> {
        let mut uploads = self.uploads.lock();
        let upload = uploads.get_mut(id).ok_or(StoreError::NoSuchUpload)?;
        let replaced = upload.parts.insert(number, part);
        let bucket = upload.bucket.clone();
        drop(uploads);
        self.remove_parts(&bucket, replaced);
        Ok(())
    }

    /// Completes an upload: the chosen parts become an object. On an error the upload stays as it was.
    pub(crate) fn complete_upload(
        &self,
        id: &str,
        chosen: &[(i32, Option<String>)],
        precondition: &Precondition,
    ) -> Result<Arc<Stored>, StoreError> {
        let upload = self.uploads.lock().get(id).cloned().ok_or(StoreError::NoSuchUpload)?;
        let mut segments = Vec::with_capacity(chosen.len());
        let mut tags = blake3::Hasher::new();
        let mut previous = 0;
        for (number, tag) in chosen {
            if *number <= previous {
                return Err(StoreError::InvalidPartOrder);
            }
            previous = *number;
            let part = upload.parts.get(number).ok_or(StoreError::InvalidPart)?;
            if tag.as_ref().is_some_and(|tag| *tag != part.tag) {
                return Err(StoreError::InvalidPart);
            }
            tags.update(part.tag.as_bytes());
            segments.push(part.segment.clone());
        }
        if segments.is_empty() {
            return Err(StoreError::InvalidPart);
        }
        let object = Object {
            tag: format!("{}-{}", tag_of(&tags), segments.len()),
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            modified_ms: clock::now_ms(),
            segments,
            attributes: upload.attributes.clone(),
            version: None,
        };
        // Only one of two racing completions gets the upload.
        let Some(taken) = self.uploads.lock().remove(id) else { return Err(StoreError::NoSuchUpload) };
        let bucket = self.bucket(&upload.bucket)?;
        let refused = bucket.index.lock().check(&upload.key, precondition);
        if let Err(error) = refused {
            self.uploads.lock().insert(id.to_owned(), taken);
            return Err(error);
        }
        let stored = self.commit(&upload.bucket, &upload.key, object, precondition)?;
        let unused = taken.parts.into_values().filter(|part| !stored.object.segments.contains(&part.segment));
        self.remove_parts(&upload.bucket, unused);
        Ok(stored)
    }

    /// Removes an upload and its parts.
    pub(crate) fn abort_upload(&self, id: &str) -> Result<(), StoreError> {
        let upload = self.uploads.lock().remove(id).ok_or(StoreError::NoSuchUpload)?;
        self.remove_parts(&upload.bucket, upload.parts.into_values());
        Ok(())
    }

    /// Uploads of a bucket by id.
    pub(crate) fn uploads_of(&self, bucket: &str) -> Vec<(String, PartialUpload)> {
        let uploads = self.uploads.lock();
        uploads.iter().filter(|(_, one)| one.bucket == bucket).map(|(id, one)| (id.clone(), one.clone())).collect()
    }

    fn remove_parts(&self, bucket: &str, parts: impl IntoIterator<Item = StoredPart>) {
        if let Ok(bucket) = self.bucket(bucket) {
            for part in parts {
                // A file that cannot be removed only costs space.
                drop(std::fs::remove_file(bucket.folder.join("data").join(part.segment.file)));
            }
        }
    }
}
