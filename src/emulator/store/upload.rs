//! A multipart upload and its parts.

use std::collections::BTreeMap;

use super::object::{Attributes, Segment};

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
