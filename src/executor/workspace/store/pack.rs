//! The pack: an object with many chunks, compressed in blocks, and an index at its end. Described in `docs/WIRE-FORMATS.md`.
//!
//! A block contains neighboring chunks, so that small files compress as well as large ones; to read one chunk, its block is fetched.
//! No I/O. Readers trust no number: every length is checked against a limit before memory is allocated for it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::chunk::{ChunkHash, LARGEST};
use crate::protocol::keys::TransferKeys;

const MAGIC: [u8; 8] = *b"SMEXPAK2";
/// Size of the trailer: the index's length and the magic number again.
const TRAILER: usize = 12;
/// Uncompressed size at which a block is closed.
const BLOCK: usize = 512 << 10;
/// Largest uncompressed size of a block: nearly full plus the largest chunk.
pub(crate) const BLOCK_MOST: usize = BLOCK + LARGEST;
/// Size at which a pack is closed; the first packs are smaller, so that a receiver can begin.
const PACK: usize = 8 << 20;
const FIRST_PACK: usize = 1 << 20;
/// Largest pack.
pub(crate) const PACK_MOST: u32 = 32 << 20;
/// Estimated size of a chunk in the index, which is incompressible.
const INDEX_CHUNK: usize = 36;
/// Largest uncompressed index of a pack: it has at most this many chunks, of about 34 bytes each.
const INDEX_MOST: usize = 16 << 20;
/// zstd level of indexes.
const LEVEL: i32 = 1;

/// The id of a pack: the first half of the BLAKE3 hash of its index, which contains the hash of every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PackId([u8; 16]);

impl PackId {
    fn of(index: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(index).as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PackId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let plain = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(plain, "this is not a pack id");
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
        }
        Ok(Self(id))
    }
}

/// The jobs that may use a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Visibility {
    /// Every job of the project: the pack stays in the store.
    Project,
    /// Only this transfer: the pack is deleted with the session.
    Session,
}

/// A pack's id and visibility, which determine its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PackName {
    pub(crate) id: PackId,
    pub(crate) visibility: Visibility,
}

impl PackName {
    pub(crate) fn key(&self, keys: &TransferKeys) -> String {
        match self.visibility {
            Visibility::Project => keys.shared_pack(self.id),
            Visibility::Session => keys.private_pack(self.id),
        }
    }
}

/// A block in the index of its pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexBlock {
    /// Offset in the pack; `stored`: size there, equal to `raw` when the block is not compressed.
    pub(crate) at: u32,
    pub(crate) stored: u32,
    /// Uncompressed size.
    pub(crate) raw: u32,
    /// The chunks in order, with their lengths.
    pub(crate) chunks: Vec<(ChunkHash, u32)>,
}

/// A block that is being filled.
#[derive(Default)]
pub(crate) struct OpenBlock {
    raw: Vec<u8>,
    /// Empty when the content is stored uncompressed.
    compressed: Vec<u8>,
    chunks: Vec<(ChunkHash, u32)>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl OpenBlock {
    /// Offset of the next chunk in the block's content.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    pub(crate) fn push(&mut self, hash: ChunkHash, chunk: &[u8]) {
        self.raw.extend_from_slice(chunk);
        // A chunk has at most `LARGEST` bytes.
        self.chunks.push((hash, u32::try_from(chunk.len()).unwrap_or(u32::MAX)));
    }

    pub(crate) fn is_full(&self) -> bool {
        self.raw.len() >= BLOCK
    }

    /// Compresses the content at this zstd level, if any; content that does not shrink is stored uncompressed.
    pub(crate) fn compress(&mut self, level: Option<i32>) -> anyhow::Result<()> {
        self.compressed.clear();
        let Some(level) = level else { return Ok(()) };
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(level).context("failed to start the compression")?),
        };
        compressor.set_compression_level(level).context("failed to set the level of the compression")?;
        self.compressed.reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
        compressor.compress_to_buffer(&self.raw, &mut self.compressed).context("failed to compress")?;
        if self.compressed.len() >= self.raw.len() {
            self.compressed.clear();
        }
        Ok(())
    }

    /// The bytes for the pack.
    fn stored(&self) -> &[u8] {
        if self.compressed.is_empty() { &self.raw } else { &self.compressed }
    }

    pub(crate) fn clear(&mut self) {
        self.raw.clear();
        self.compressed.clear();
        self.chunks.clear();
    }
}

/// A pack that is being filled.
pub(crate) struct OpenPack {
    bytes: Vec<u8>,
    index: Vec<IndexBlock>,
    chunks: usize,
    closes_at: usize,
}

impl OpenPack {
    /// The `number`th pack of a transfer, counted from 0; reuses the memory of `bytes`.
    pub(crate) fn new(number: usize, mut bytes: Vec<u8>) -> Self {
        let closes_at = FIRST_PACK.checked_shl(u32::try_from(number).unwrap_or(u32::MAX)).unwrap_or(0);
        let closes_at = if closes_at == 0 { PACK } else { closes_at.min(PACK) };
        bytes.clear();
        bytes.reserve(closes_at + BLOCK_MOST);
        bytes.extend_from_slice(&MAGIC);
        Self { bytes, index: Vec::new(), chunks: 0, closes_at }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Adds a block, compressed or not.
    pub(crate) fn push(&mut self, block: &OpenBlock) -> anyhow::Result<()> {
        self.index.push(IndexBlock {
            at: u32::try_from(self.bytes.len())?,
            stored: u32::try_from(block.stored().len())?,
            raw: u32::try_from(block.raw.len())?,
            chunks: block.chunks.clone(),
        });
        self.chunks += block.chunks.len();
        self.bytes.extend_from_slice(block.stored());
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() + self.chunks * INDEX_CHUNK >= self.closes_at
    }

    /// Completes the pack with its index.
    pub(crate) fn seal(mut self) -> anyhow::Result<SealedPack> {
        let index = PackIndex::encode(&self.index)?;
        self.bytes.extend_from_slice(&index);
        self.bytes.extend_from_slice(&u32::try_from(index.len())?.to_le_bytes());
        self.bytes.extend_from_slice(&MAGIC);
        ensure!(self.bytes.len() <= PACK_MOST as usize, "a pack grew to {} bytes", self.bytes.len());
        Ok(SealedPack { id: PackId::of(&index), bytes: Bytes::from(self.bytes), index: self.index, encoded: index })
    }
}

/// A complete pack.
pub(crate) struct SealedPack {
    pub(crate) id: PackId,
    pub(crate) bytes: Bytes,
    pub(crate) index: Vec<IndexBlock>,
    /// The encoded index, as in the pack.
    pub(crate) encoded: Vec<u8>,
}

/// The index of a pack: stored at its end, and separately in a host's cache.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PackIndex;

impl PackIndex {
    fn encode(blocks: &[IndexBlock]) -> anyhow::Result<Vec<u8>> {
        let plain = postcard::to_stdvec(blocks).context("failed to encode the index of a pack")?;
        let mut encoded = blake3::hash(&plain).as_bytes().to_vec();
        encoded.extend(zstd::bulk::compress(&plain, LEVEL).context("failed to compress the index of a pack")?);
        Ok(encoded)
    }

    /// Decodes the index and checks that it belongs to the pack `id`.
    pub(crate) fn of(id: PackId, encoded: &[u8]) -> anyhow::Result<Vec<IndexBlock>> {
        ensure!(PackId::of(encoded) == id, "the index belongs to another pack");
        Self::decode(encoded)
    }

    /// Decodes the blocks and checks them: in order, within the pack, chunks within their block.
    pub(crate) fn decode(encoded: &[u8]) -> anyhow::Result<Vec<IndexBlock>> {
        let (hash, compressed) = encoded.split_at_checked(32).context(DAMAGED)?;
        let plain = decompress(compressed, INDEX_MOST).context(DAMAGED)?;
        ensure!(blake3::hash(&plain).as_bytes() == hash, DAMAGED);
        let blocks: Vec<IndexBlock> = postcard::from_bytes(&plain).context(DAMAGED)?;
        let mut end = 0u32;
        for block in &blocks {
            ensure!(block.at >= end && is_sound(block.at, block.stored, block.raw), DAMAGED);
            end = block.at + block.stored;
            let mut length = 0u64;
            for (_, chunk) in &block.chunks {
                ensure!(*chunk > 0, DAMAGED);
                length += u64::from(*chunk);
            }
            ensure!(length == u64::from(block.raw), DAMAGED);
        }
        Ok(blocks)
    }

    /// The distance of the index's start from the end of the pack; `tail` is the end of the pack. Fails for other data.
    pub(crate) fn reach(tail: &[u8]) -> anyhow::Result<usize> {
        let trailer = tail.len().checked_sub(TRAILER).and_then(|at| tail.get(at..)).context(DAMAGED)?;
        let (length, magic) = trailer.split_at(4);
        ensure!(magic == MAGIC, "this is not a pack");
        let length = u32::from_le_bytes(length.try_into().context(DAMAGED)?);
        ensure!(length <= PACK_MOST, DAMAGED);
        Ok(length as usize + TRAILER)
    }

    /// The index, if `tail`, the end of the pack, contains it.
    pub(crate) fn within(tail: &[u8]) -> anyhow::Result<Option<&[u8]>> {
        let reach = Self::reach(tail)?;
        Ok(tail.len().checked_sub(reach).map(|at| &tail[at..tail.len() - TRAILER]))
    }
}

/// True when the bytes are the whole pack `id` and every chunk matches its hash.
pub(crate) fn is_intact(pack: &[u8], id: PackId) -> bool {
    let check = || -> anyhow::Result<()> {
        let index = PackIndex::within(pack)?.context(DAMAGED)?;
        let mut content = Vec::new();
        for block in PackIndex::of(id, index)? {
            let stored = pack.get(block.at as usize..(block.at + block.stored) as usize).context(DAMAGED)?;
            open_block(stored, block.raw, &mut content)?;
            let mut rest = content.as_slice();
            for (hash, length) in block.chunks {
                let (chunk, after) = rest.split_at_checked(length as usize).context(DAMAGED)?;
                ensure!(ChunkHash::of(chunk) == hash, DAMAGED);
                rest = after;
            }
        }
        Ok(())
    };
    check().is_ok()
}

const DAMAGED: &str = "the index of the pack is damaged or cut short";

/// True when a pack can have a block of these sizes at this offset.
pub(crate) fn is_sound(at: u32, stored: u32, raw: u32) -> bool {
    let end = u64::from(at) + u64::from(stored);
    raw > 0 && raw as usize <= BLOCK_MOST && stored > 0 && stored <= raw && end <= u64::from(PACK_MOST)
}

/// Decompresses a block into `content`, a buffer for reuse.
pub(crate) fn open_block(stored: &[u8], raw: u32, content: &mut Vec<u8>) -> anyhow::Result<()> {
    content.clear();
    if stored.len() == raw as usize {
        content.extend_from_slice(stored);
        return Ok(());
    }
    let raw = raw as usize;
    ensure!(raw <= BLOCK_MOST, "a block of {raw} bytes");
    content.reserve(raw);
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let length = decompressor.decompress_to_buffer(stored, content)?;
    ensure!(length == raw, "a block of another length");
    Ok(())
}

/// Decompresses at most `most` bytes.
pub(crate) fn decompress(compressed: &[u8], most: usize) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut decoder = zstd::Decoder::with_buffer(compressed)?.single_frame();
    decoder.window_log_max(23)?;
    let mut plain = Vec::new();
    decoder.by_ref().take(most as u64 + 1).read_to_end(&mut plain)?;
    ensure!(plain.len() <= most, "more than {most} bytes");
    ensure!(decoder.finish().is_empty(), "something follows the end");
    Ok(plain)
}

/// A chunk with its location in the sender's numbering of blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    pub(crate) hash: ChunkHash,
    pub(crate) length: u32,
    /// The sender's number of the block; `at`: the chunk's offset in it.
    pub(crate) block: u32,
    pub(crate) at: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(chunks: &[&[u8]]) -> OpenBlock {
        let mut block = OpenBlock::default();
        for chunk in chunks {
            block.push(ChunkHash::of(chunk), chunk);
        }
        block.compress(Some(1)).unwrap();
        block
    }

    fn pack() -> SealedPack {
        let mut pack = OpenPack::new(0, Vec::new());
        pack.push(&block(&[&[7; 1000], b"second"])).unwrap();
        pack.push(&block(&[b"short"])).unwrap();
        pack.seal().unwrap()
    }

    #[test]
    fn a_pack_holds_its_blocks_and_its_index() {
        let pack = pack();
        let index = PackIndex::decode(PackIndex::within(&pack.bytes).unwrap().unwrap()).unwrap();
        assert_eq!(index, pack.index);
        assert_eq!(pack.id.to_string().parse::<PackId>().unwrap(), pack.id);
        let mut content = Vec::new();
        let at = |block: &IndexBlock| &pack.bytes[block.at as usize..][..block.stored as usize];
        open_block(at(&index[0]), index[0].raw, &mut content).unwrap();
        assert!(index[0].stored < 100 && content.ends_with(b"\x07second"));
        open_block(at(&index[1]), index[1].raw, &mut content).unwrap();
        assert_eq!((content.as_slice(), index[1].stored), (&b"short"[..], 5), "what does not shrink is not compressed");
    }

    #[test]
    fn the_index_is_found_from_the_end() {
        let pack = pack();
        let reach = PackIndex::reach(&pack.bytes[pack.bytes.len() - 12..]).unwrap();
        assert_eq!(reach, pack.encoded.len() + 12);
        assert_eq!(PackIndex::within(&pack.bytes[pack.bytes.len() - reach + 1..]).unwrap(), None);
        assert_eq!(PackIndex::within(&pack.bytes[pack.bytes.len() - reach..]).unwrap(), Some(&pack.encoded[..]));
    }

    #[test]
    fn no_bit_of_a_pack_can_change() {
        let pack = pack();
        assert!(is_intact(&pack.bytes, pack.id));
        for at in MAGIC.len()..pack.bytes.len() {
            let mut bent = pack.bytes.to_vec();
            bent[at] ^= 4;
            assert!(!is_intact(&bent, pack.id), "byte {at}");
        }
        assert!(!is_intact(&pack.bytes[1..], pack.id) && !is_intact(b"", pack.id));
        let mut other = OpenPack::new(0, Vec::new());
        other.push(&block(&[b"other"])).unwrap();
        assert!(!is_intact(&other.seal().unwrap().bytes, pack.id), "a sound pack of another name");
    }

    #[test]
    fn no_bit_of_an_index_can_change() {
        let pack = pack();
        for at in 0..pack.encoded.len() {
            let mut bent = pack.encoded.clone();
            bent[at] ^= 4;
            assert!(PackIndex::decode(&bent).is_err(), "byte {at}");
        }
        assert!(PackIndex::decode(&pack.encoded[..pack.encoded.len() - 1]).is_err());
        assert!(PackIndex::reach(b"").is_err() && PackIndex::reach(&[0; 40]).is_err());
    }

    #[test]
    fn impossible_blocks_are_refused() {
        for (at, stored, raw, chunk) in
            [(0, 0, 5, 5), (0, 6, 5, 5), (0, 5, u32::MAX, 5), (u32::MAX, 5, 5, 5), (0, 5, 5, 4), (0, 5, 0, 0)]
        {
            let blocks = [IndexBlock { at, stored, raw, chunks: vec![(ChunkHash::of(b""), chunk)] }];
            assert!(PackIndex::decode(&PackIndex::encode(&blocks).unwrap()).is_err(), "{blocks:?}");
        }
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let bomb = zstd::bulk::compress(&vec![0; 3 << 20], 1).unwrap();
        assert!(open_block(&bomb, 1000, &mut Vec::new()).is_err());
        assert!(decompress(&bomb, 1 << 20).is_err());
        assert_eq!(decompress(&bomb, 3 << 20).unwrap().len(), 3 << 20);
    }

    #[test]
    fn names_that_are_no_packs_are_refused() {
        for text in ["", "0", "0123456789abcdef0123456789abcdeF", "../3456789abcdef0123456789abcde"] {
            assert!(text.parse::<PackId>().is_err(), "{text}");
        }
    }
}
