//! Objects and multipart uploads: their attributes, the files of their bytes, and the removal of those files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

/// An error of a store operation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the specified bucket does not exist")]
    NoSuchBucket,
    #[error("the specified key does not exist")]
    NoSuchKey,
    #[error("the specified version does not exist")]
    NoSuchVersion,
    /// The version of a key that was asked for, or its newest one, is a delete marker.
    #[error("the version is a delete marker")]
    DeleteMarker { id: String, asked: bool },
    #[error("the specified upload does not exist")]
    NoSuchUpload,
    #[error("one or more of the specified parts could not be found or do not match")]
    InvalidPart,
    #[error("the list of parts was not in ascending order")]
    InvalidPartOrder,
    #[error("at least one of the preconditions did not hold")]
    Precondition,
    #[error("failed to access the disk of the emulator: {0}")]
    Io(#[from] std::io::Error),
}

/// The condition of a write or a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    None,
    /// No object under the key.
    Absent,
    /// Some object under the key.
    Present,
    /// An object with this entity tag under the key.
    Tag(String),
}

/// A piece of a body: a file of the bucket's data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileSegment {
    pub(crate) file: String,
    pub(crate) bytes: u64,
}

/// Attributes that the writer gave; returned with the object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) encryption: Option<String>,
    pub(crate) kms_key: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) crc32: Option<String>,
    pub(crate) crc32c: Option<String>,
    pub(crate) crc64nvme: Option<String>,
    pub(crate) sha1: Option<String>,
    pub(crate) sha256: Option<String>,
}

/// An object's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) tag: String,
    pub(crate) bytes: u64,
    pub(crate) modified_ms: u64,
    pub(crate) segments: Vec<FileSegment>,
    #[serde(default)]
    pub(crate) attributes: Attributes,
    /// `None` is the version `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

/// An object in the store. Its files are removed once it has been replaced and the last reader is done.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) object: Object,
    data: PathBuf,
    doomed: AtomicBool,
}

impl Stored {
    /// An object with its files in the folder `data`; they are removed with it once it is doomed.
    pub(super) fn new(object: Object, data: PathBuf, doomed: bool) -> Self {
        Self { object, data, doomed: AtomicBool::new(doomed) }
    }

    pub(super) fn keep(&self) {
        self.doomed.store(false, Ordering::Release);
    }

    /// Marks the object as replaced: its files are removed when the last reader is done.
    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    /// The files of the body in order, with their lengths.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        self.object.segments.iter().map(|segment| (self.data.join(&segment.file), segment.bytes)).collect()
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire) {
            for segment in &self.object.segments {
                // A file that cannot be removed only costs space.
                drop(std::fs::remove_file(self.data.join(&segment.file)));
            }
        }
    }
}

/// A multipart upload in progress; lost when the emulator ends.
#[derive(Debug, Clone)]
pub(crate) struct PartialUpload {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) attributes: Attributes,
    pub(crate) started_ms: u64,
    pub(crate) parts: BTreeMap<i32, StoredPart>,
}

/// A part of an upload.
#[derive(Debug, Clone)]
pub(crate) struct StoredPart {
    pub(crate) tag: String,
    pub(crate) segment: FileSegment,
    pub(crate) modified_ms: u64,
}

/// The entity tag of a hashed body. Like that of a KMS-encrypted object it is not the MD5 of the content.
pub(crate) fn tag_of(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex().chars().take(32).collect()
}
