//! Buckets and objects on disk: atomic conditional writes, listing in key order, multipart uploads without copying.
//!
//! Each bucket is a folder with `data/` (bodies, written once, never changed) and `index.jsonl` (one line per change, the
//! last one of a key wins), and `settings.json`. The index lives in memory; every check-and-write happens under its lock. This module knows no
//! HTTP.

mod bucket;
mod buckets;
mod listing;
mod multipart;
mod object;
#[cfg(test)]
mod tests;
mod versions;

pub(crate) use self::buckets::Store;
pub(crate) use self::object::{Attributes, FileSegment, Object, Precondition, StoreError, Stored, StoredPart, tag_of};
pub(crate) use self::versions::{VersionQuery, Versioning, version_id};
