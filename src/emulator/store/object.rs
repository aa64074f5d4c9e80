//! An object and the upload that becomes one: what they are, where their bytes lie, when files vanish.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

/// What a store operation can answer besides success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the specified bucket does not exist")]
    NoSuchBucket,
    #[error("the specified key does not exist")]
    NoSuchKey,
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

/// What must hold for a write or a delete to happen.
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
pub(crate) struct Segment {
    pub(crate) file: String,
    pub(crate) bytes: u64,
}

/// What the writer said about an object; returned with it.
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
    pub(crate) segments: Vec<Segment>,
    #[serde(default)]
    pub(crate) attributes: Attributes,
}

/// An object in the store. Its files vanish when it has been replaced and the last reader is gone.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) object: Object,
    data: PathBuf,
    doomed: AtomicBool,
}

impl Stored {
    /// With its files in the folder `data`; they vanish with it when it is doomed.
    pub(super) fn new(object: Object, data: PathBuf, doomed: bool) -> Self {
        Self { object, data, doomed: AtomicBool::new(doomed) }
    }

    pub(super) fn keep(&self) {
        self.doomed.store(false, Ordering::Release);
    }

    /// The files vanish when the last reader is gone.
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
pub(crate) struct Upload {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) attributes: Attributes,
    pub(crate) started_ms: u64,
    pub(crate) parts: BTreeMap<i32, Part>,
}

/// A part of an upload.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) tag: String,
    pub(crate) segment: Segment,
    pub(crate) modified_ms: u64,
}

/// The entity tag of a hashed body. Like that of a KMS-encrypted object it is not the MD5 of the content.
pub(crate) fn tag_of(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex().chars().take(32).collect()
}
