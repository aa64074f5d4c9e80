//! The wire format of a transfer: entries, and the parts of the manifest that list them. No I/O.

mod entry;
mod part;

pub(super) use entry::{Entry, EntryKind, Timestamp, Tree};
pub(super) use part::{ManifestPart, PART_MOST, PartBlock, PartBuilder, PartChunk, Record, TransferEnd};
