//! The parts of a transfer's manifest. Each lists files whose content is stored already, so a receiver can work while the sender
//! does. Described in `docs/WIRE-FORMATS.md`.
//!
//! Parts are numbered from 0; the last one has a [`TransferEnd`]. No I/O. [`ManifestPart::decode`] trusts nothing: all references of
//! its result are valid, and all sizes are within the limits.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use anyhow::{Context as _, ensure};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::entry::{Entry, EntryKind, Timestamp};
use crate::base::seal::{Label, Seal};
use crate::workspace::path::LONGEST_PATH;
use crate::workspace::store::{ChunkHash, LARGEST, Located, PackName, decompress, is_sound};

const MAGIC: [u8; 8] = *b"SMEXPRT3";
/// Of a session without a key.
const MAGIC_WITHOUT_KEY: [u8; 8] = *b"SMEXPRT2";
const LEVEL: i32 = 1;
/// Largest accepted part, uncompressed; senders stay below 5 MiB.
pub(crate) const PART_MOST: usize = 8 << 20;
/// Most accepted records of a part; senders stay below 44,000. A record of two bytes takes a hundred in memory.
const RECORDS: usize = 1 << 16;
/// Most accepted references to chunks in a part; senders stay below 100,000.
const REFERENCES: usize = 1 << 18;
/// Most warnings, and the length of the longest in bytes.
const WARNINGS: usize = 101;
const WARNING: usize = 20 << 10;

/// One part of the manifest. Records refer to chunks, chunks to blocks and blocks to packs, each by the position in this part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestPart {
    pub(crate) packs: Vec<PackName>,
    pub(crate) blocks: Vec<PartBlock>,
    pub(crate) chunks: Vec<PartChunk>,
    #[serde(deserialize_with = "at_most::<_, _, RECORDS>")]
    pub(crate) records: Vec<Record>,
    pub(crate) end: Option<TransferEnd>,
}

/// A block: its pack, its offset there, and its stored and uncompressed sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartBlock {
    pub(crate) pack: u32,
    pub(crate) at: u32,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
}

/// A chunk: its block, and its offset in the block's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartChunk {
    pub(crate) hash: ChunkHash,
    pub(crate) block: u32,
    pub(crate) at: u32,
    pub(crate) length: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record<C = u32> {
    /// A directory, link or deletion.
    Entry(Entry),
    /// A whole file: its chunks in order.
    File { entry: Entry, chunks: Vec<C> },
    /// Begins a large file with this number, counted from 0. Size, mode and time of the entry are those of its end.
    Begin { file: u32, entry: Entry },
    /// Chunks of a large file from `offset` on. Bytes that no chunk covers are zeros.
    Data { file: u32, offset: u64, chunks: Vec<C> },
    /// A large file is complete.
    End { file: u32, size: u64, mode: u32, mtime: Timestamp },
    /// A large file changed while it was read: all its content so far is void and is sent again.
    Void { file: u32 },
    /// A large file vanished while it was read: there is no such file.
    Gone { file: u32 },
}

/// The end of the transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferEnd {
    /// The sender's warnings.
    #[serde(deserialize_with = "at_most::<_, _, WARNINGS>")]
    pub(crate) warnings: Vec<String>,
}

impl<C> Record<C> {
    /// Converts the references to chunks.
    pub(crate) fn with_chunks<D>(self, tell: impl FnMut(C) -> anyhow::Result<D>) -> anyhow::Result<Record<D>> {
        Ok(match self {
            Self::Entry(entry) => Record::Entry(entry),
            Self::File { entry, chunks } => {
                Record::File { entry, chunks: chunks.into_iter().map(tell).collect::<Result<_, _>>()? }
            }
            Self::Begin { file, entry } => Record::Begin { file, entry },
            Self::Data { file, offset, chunks } => {
                Record::Data { file, offset, chunks: chunks.into_iter().map(tell).collect::<Result<_, _>>()? }
            }
            Self::End { file, size, mode, mtime } => Record::End { file, size, mode, mtime },
            Self::Void { file } => Record::Void { file },
            Self::Gone { file } => Record::Gone { file },
        })
    }

    fn references(&self) -> usize {
        match self {
            Self::File { chunks, .. } | Self::Data { chunks, .. } => chunks.len(),
            Self::Entry(_) | Self::Begin { .. } | Self::End { .. } | Self::Void { .. } | Self::Gone { .. } => 0,
        }
    }
}

/// Deserializes at most `MOST` items, so that a lie about their number costs no memory.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(items: D) -> Result<Vec<T>, D::Error> {
    struct AtMost<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for AtMost<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MOST} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut found = Vec::new();
            while let Some(item) = items.next_element()? {
                if found.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                found.push(item);
            }
            Ok(found)
        }
    }

    items.deserialize_seq(AtMost::<T, MOST>(PhantomData))
}

impl ManifestPart {
    pub(crate) fn encode(&self, seal: &Seal, label: Label) -> anyhow::Result<Vec<u8>> {
        let plain = postcard::to_stdvec(self).context("failed to encode the manifest")?;
        let compressed = zstd::bulk::compress(&plain, LEVEL).context("failed to compress the manifest")?;
        let (magic, hash) = match seal.tag(label, &compressed) {
            Some(tag) => (MAGIC, tag),
            None => (MAGIC_WITHOUT_KEY, blake3::hash(&plain)),
        };
        Ok([&magic, hash.as_bytes().as_slice(), &compressed].concat())
    }

    /// Nothing is decompressed before its tag was compared.
    pub(crate) fn decode(encoded: &[u8], seal: &Seal, label: Label) -> anyhow::Result<Self> {
        let (magic, rest) = encoded.split_at_checked(MAGIC.len()).context(DAMAGED)?;
        let expected = if *seal == Seal::Absent { MAGIC_WITHOUT_KEY } else { MAGIC };
        ensure!(magic == expected, "another version of the program, or another writer, has stored this manifest");
        let (hash, compressed) = rest.split_first_chunk().context(DAMAGED)?;
        let hash = blake3::Hash::from_bytes(*hash);
        let tag = seal.tag(label, compressed);
        ensure!(tag.is_none_or(|tag| tag == hash), FORGED);
        let plain = decompress(compressed, PART_MOST).context(DAMAGED)?;
        ensure!(tag.is_some() || blake3::hash(&plain) == hash, DAMAGED);
        let part: Self = postcard::from_bytes(&plain).context(DAMAGED)?;
        part.check().context(DAMAGED)?;
        Ok(part)
    }

    fn check(&self) -> anyhow::Result<()> {
        for block in &self.blocks {
            ensure!((block.pack as usize) < self.packs.len(), "a block in no pack");
            ensure!(is_sound(block.at, block.stored, block.raw), "an impossible block");
        }
        for chunk in &self.chunks {
            let block = self.blocks.get(chunk.block as usize).context("a chunk in no block")?;
            let end = u64::from(chunk.at) + u64::from(chunk.length);
            let fits = chunk.length > 0 && chunk.length as usize <= LARGEST && end <= u64::from(block.raw);
            ensure!(fits, "an impossible chunk");
        }
        let references: usize = self.records.iter().map(Record::references).sum();
        ensure!(references <= REFERENCES, "too many references to chunks");
        for record in &self.records {
            match record {
                Record::Entry(entry) => {
                    ensure!(entry.kind != EntryKind::File, "a file without content");
                    check_entry(entry)?;
                }
                Record::File { entry, chunks } => {
                    ensure!(entry.kind == EntryKind::File, "content of no file");
                    check_entry(entry)?;
                    ensure!(self.length(chunks)? == entry.size, "a file of another size than its content");
                }
                Record::Begin { entry, .. } => {
                    ensure!(entry.kind == EntryKind::File, "content of no file");
                    check_entry(entry)?;
                }
                Record::Data { offset, chunks, .. } => {
                    ensure!(offset.checked_add(self.length(chunks)?).is_some(), "content beyond the end");
                }
                Record::End { mode, mtime, .. } => check_attributes(*mode, *mtime)?,
                Record::Void { .. } | Record::Gone { .. } => {}
            }
        }
        if let Some(end) = &self.end {
            ensure!(end.warnings.iter().all(|line| line.len() <= WARNING), "too long a warning");
        }
        Ok(())
    }

    /// Total length of these chunks.
    pub(crate) fn length(&self, chunks: &[u32]) -> anyhow::Result<u64> {
        chunks.iter().try_fold(0u64, |length, chunk| {
            let chunk = self.chunks.get(*chunk as usize).context("a chunk that is not there")?;
            Ok(length + u64::from(chunk.length))
        })
    }
}

const DAMAGED: &str = "the manifest is damaged";
const FORGED: &str =
    "the manifest does not have the tag of this session: it is damaged, or another writer has stored it";

fn check_entry(entry: &Entry) -> anyhow::Result<()> {
    ensure!(entry.path.len() <= LONGEST_PATH && entry.target.len() <= LONGEST_PATH, "too long a name");
    check_attributes(entry.mode, entry.mtime)
}

fn check_attributes(mode: u32, mtime: Timestamp) -> anyhow::Result<()> {
    ensure!(mode <= 0o7777 && mtime.nanos < 1_000_000_000, "impossible attributes");
    Ok(())
}

/// Builds a part.
#[derive(Debug, Default)]
pub(crate) struct PartBuilder {
    pub(crate) part: ManifestPart,
    packs: HashMap<PackName, u32>,
    blocks: HashMap<u32, u32>,
    chunks: HashMap<(u32, u32), u32>,
    /// Estimated size of the part, uncompressed.
    weight: usize,
}

impl PartBuilder {
    /// Adds a chunk if it is new and returns its position in this part; `place` returns the location of its block.
    pub(crate) fn chunk(&mut self, chunk: &Located, place: impl FnOnce() -> (PackName, u32, u32, u32)) -> u32 {
        if let Some(known) = self.chunks.get(&(chunk.block, chunk.at)) {
            self.weight += 10;
            return *known;
        }
        let part = &mut self.part;
        let block = *self.blocks.entry(chunk.block).or_insert_with(|| {
            let (name, at, stored, raw) = place();
            let pack = *self.packs.entry(name).or_insert_with(|| {
                part.packs.push(name);
                position(part.packs.len())
            });
            part.blocks.push(PartBlock { pack, at, stored, raw });
            position(part.blocks.len())
        });
        part.chunks.push(PartChunk { hash: chunk.hash, block, at: chunk.at, length: chunk.length });
        let new = position(part.chunks.len());
        self.chunks.insert((chunk.block, chunk.at), new);
        self.weight += 64;
        new
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.weight += 48;
        if let Record::Entry(entry) | Record::File { entry, .. } | Record::Begin { entry, .. } = &record {
            self.weight += entry.path.len() + entry.target.len();
        }
        self.part.records.push(record);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.part.records.is_empty()
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight
    }
}

/// The position of the last of `count` items.
fn position(count: usize) -> u32 {
    u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::super::entry::Tree;
    use super::*;
    use crate::base::node::NodeId;
    use crate::base::seal::SealKey;
    use crate::workspace::store::{Located, Visibility};

    fn entry(kind: EntryKind, size: u64) -> Entry {
        let (mode, mtime) = (0o644, Timestamp::default());
        Entry { tree: Tree::Project, kind, path: b"f".to_vec(), mode, mtime, size, target: Vec::new() }
    }

    fn seal() -> Seal {
        Seal::Keyed(SealKey::new([7; 32]))
    }

    fn label() -> Label {
        Label::results_part(NodeId::LEADER, 0, 3)
    }

    fn part() -> ManifestPart {
        let mut draft = PartBuilder::default();
        let pack =
            PackName { id: "00112233445566778899aabbccddeeff".parse().unwrap(), visibility: Visibility::Session };
        let located = |at, length| Located { hash: ChunkHash::of(b"x"), length, block: 9, at };
        let first = draft.chunk(&located(0, 10), || (pack, 8, 20, 30));
        let second = draft.chunk(&located(10, 20), || unreachable!("the block is known"));
        assert_eq!(draft.chunk(&located(0, 10), || unreachable!()), first);
        draft.record(Record::Entry(entry(EntryKind::Directory, 0)));
        draft.record(Record::File { entry: entry(EntryKind::File, 30), chunks: vec![first, second] });
        draft.part
    }

    #[test]
    fn a_part_comes_back() {
        let part = ManifestPart { end: Some(TransferEnd { warnings: vec!["skipped".to_owned()] }), ..part() };
        assert_eq!(ManifestPart::decode(&part.encode(&seal(), label()).unwrap(), &seal(), label()).unwrap(), part);
    }

    #[test]
    fn no_bit_can_change() {
        let encoded = part().encode(&seal(), label()).unwrap();
        for at in 0..encoded.len() {
            let mut bent = encoded.clone();
            bent[at] ^= 1;
            assert!(ManifestPart::decode(&bent, &seal(), label()).is_err(), "byte {at}");
            assert!(ManifestPart::decode(&encoded[..at], &seal(), label()).is_err(), "cut at {at}");
        }
    }

    #[test_case(|part| part.blocks[0].pack = 1; "block in no pack")]
    #[test_case(|part| part.blocks[0].stored = 31; "block larger than its content")]
    #[test_case(|part| part.blocks[0].at = u32::MAX; "block beyond its pack")]
    #[test_case(|part| part.chunks[0].block = 1; "chunk in no block")]
    #[test_case(|part| part.chunks[1].length = 21; "chunk beyond its block")]
    #[test_case(|part| part.chunks[1].length = 0; "empty chunk")]
    #[test_case(|part| part.records.push(Record::Entry(entry(EntryKind::File, 0))); "file without content")]
    #[test_case(|part| part.records.push(Record::File { entry: entry(EntryKind::Link, 0), chunks: vec![] }); "content of a link")]
    #[test_case(|part| part.records.push(Record::File { entry: entry(EntryKind::File, 9), chunks: vec![0] }); "another size")]
    #[test_case(|part| part.records.push(Record::Data { file: 0, offset: 0, chunks: vec![2] }); "no such chunk")]
    #[test_case(|part| part.records.push(Record::Data { file: 0, offset: u64::MAX, chunks: vec![0] }); "beyond the end")]
    #[test_case(|part| part.records.push(Record::End { file: 0, size: 0, mode: 0o10000, mtime: Timestamp::default() }); "mode")]
    #[test_case(|part| part.end = Some(TransferEnd { warnings: vec![String::new(); 102] }); "warnings")]
    fn an_impossible_part_is_refused(change: fn(&mut ManifestPart)) {
        let mut part = part();
        change(&mut part);
        assert!(ManifestPart::decode(&part.encode(&seal(), label()).unwrap(), &seal(), label()).is_err());
    }

    #[test]
    fn records_have_a_limit() {
        let with = |count| {
            ManifestPart { records: vec![Record::Void { file: 0 }; count], ..ManifestPart::default() }
                .encode(&seal(), label())
                .unwrap()
        };
        assert_eq!(ManifestPart::decode(&with(RECORDS), &seal(), label()).unwrap().records.len(), RECORDS);
        assert!(ManifestPart::decode(&with(RECORDS + 1), &seal(), label()).is_err());
    }

    #[test]
    fn a_part_is_of_one_session_and_place() {
        let encoded = part().encode(&seal(), label()).unwrap();
        let other = Seal::Keyed(SealKey::new([8; 32]));
        for (seal, label) in [(&other, label()), (&seal(), label().numbered(4)), (&seal(), Label::project_part(0, 3))] {
            let error = ManifestPart::decode(&encoded, seal, label).unwrap_err();
            assert!(error.to_string().contains("another writer"), "{error}");
        }
        for (writer, reader) in [(&seal(), &Seal::Absent), (&Seal::Absent, &seal())] {
            assert!(ManifestPart::decode(&part().encode(writer, label()).unwrap(), reader, label()).is_err());
        }
        let without = part().encode(&Seal::Absent, label()).unwrap();
        assert_eq!(
            ManifestPart::decode(&without, &Seal::Absent, label()).unwrap(),
            part(),
            "begun by a version without keys"
        );
    }

    #[test]
    fn another_version_is_told() {
        let error = ManifestPart::decode(b"SMEXPACKxxxx", &seal(), label()).unwrap_err();
        assert!(error.to_string().contains("version"), "{error}");
    }
}
