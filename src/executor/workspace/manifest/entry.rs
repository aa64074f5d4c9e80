//! The entry of a transfer: a path in one of the two trees, with its kind and attributes. Names are bytes, as in the kernel. No I/O.

use serde::{Deserialize, Serialize};

/// Which of the two trees an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Tree {
    Project,
    Tmp,
}

/// The kind of an entry. Sockets, FIFOs and devices are never transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EntryKind {
    Directory,
    File,
    Link,
    /// The path existed when the workspace was received and is gone now.
    Deleted,
    /// Anything else; never sent by this program.
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
    /// Size of a file in bytes.
    pub(crate) size: u64,
    /// Target of a link.
    #[serde(with = "serde_bytes")]
    pub(crate) target: Vec<u8>,
}
