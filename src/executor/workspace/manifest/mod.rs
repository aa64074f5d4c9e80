//! The wire format of a transfer: entries, and the manifest that tells of them in parts. No I/O.

mod entry;
mod part;

pub(super) use entry::{Entry, Kind, Place, Timestamp};
pub(super) use part::{Draft, End, PART_MOST, Part, PartBlock, PartChunk, Record};
