//! What travels, one entry at a time: a path in one of the two trees, its kind and its attributes.
//!
//! Names are bytes, as the kernel has them. No I/O.

use serde::{Deserialize, Serialize};

/// Which of the two trees an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Tree {
    Project,
    Tmp,
}

/// What an entry is. Sockets, FIFOs and devices never travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EntryKind {
    Directory,
    File,
    Link,
    /// The path was there when the workspace arrived and is gone now.
    Deleted,
    /// Anything else. No sender of ours tells of it.
    Special,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Timestamp {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// One entry of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) tree: Tree,
    pub(crate) kind: EntryKind,
    /// Relative to the tree, `/` between components; empty for the tree's own directory.
    #[serde(with = "serde_bytes")]
    pub(crate) path: Vec<u8>,
    /// Permission bits, at most `0o7777`.
    pub(crate) mode: u32,
    pub(crate) mtime: Timestamp,
    /// Bytes of a file's content.
    pub(crate) size: u64,
    /// Where a link points.
    #[serde(with = "serde_bytes")]
    pub(crate) target: Vec<u8>,
}
