//! Plans the fetches: the byte ranges of packs that the files of one part need.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::sink::{Incoming, Sink};
use crate::workspace::manifest::{PartBlock, PartChunk};
use crate::workspace::store::{ChunkHash, PackName};

/// Largest fetch.
const FETCH: u32 = 4 << 20;
/// Blocks with at most this gap between them are fetched together.
const GAP: u32 = 256 << 10;

/// A place in a file to write a chunk to.
pub(crate) struct Target {
    pub(super) file: Arc<Incoming>,
    pub(super) offset: u64,
    /// Generation of the file at planning; a later one invalidates the target.
    generation: u32,
}

/// A block with its wanted chunks.
pub(super) struct Block {
    pub(super) at: u32,
    pub(super) stored: u32,
    pub(super) raw: u32,
    /// Chunks (hash, offset in the block, length), each with its targets.
    pub(super) chunks: Vec<(ChunkHash, u32, u32, Vec<Target>)>,
}

/// One fetch: neighboring blocks of one pack.
pub(crate) struct Fetch {
    pub(super) pack: PackName,
    pub(super) blocks: Vec<Block>,
}

impl Fetch {
    pub(crate) fn start(&self) -> u32 {
        self.blocks.first().map_or(0, |block| block.at)
    }

    /// Number of bytes to write.
    pub(crate) fn content(&self) -> u64 {
        let chunks = self.blocks.iter().flat_map(|block| &block.chunks);
        chunks.map(|(_, _, length, targets)| u64::from(*length) * targets.len() as u64).sum()
    }

    pub(crate) fn end(&self) -> u32 {
        self.blocks.last().map_or(0, |block| block.at + block.stored)
    }
}

/// The targets by block and chunk.
pub(crate) type WantedChunks = HashMap<u32, HashMap<u32, Vec<Target>>>;

/// Adds chunks of a file from `offset` on; returns their total length.
pub(crate) fn want(
    wanted: &mut WantedChunks,
    chunks: &[PartChunk],
    file: &Arc<Incoming>,
    offset: u64,
    own: &[u32],
) -> u64 {
    let mut length = 0;
    for number in own {
        let Some(chunk) = chunks.get(*number as usize) else { continue };
        let generation = file.generation.load(Ordering::Acquire);
        let target = Target { file: file.clone(), offset: offset.saturating_add(length), generation };
        file.pending.fetch_add(1, Ordering::AcqRel);
        wanted.entry(chunk.block).or_default().entry(*number).or_default().push(target);
        length += u64::from(chunk.length);
    }
    length
}

/// The chunks that the sink does not have, by block, with the pack's number.
pub(crate) fn absent(
    wanted: WantedChunks,
    blocks: &[PartBlock],
    chunks: &[PartChunk],
    sink: &impl Sink,
) -> anyhow::Result<Vec<(u32, Block)>> {
    let mut found = Vec::with_capacity(wanted.len());
    for (number, own) in wanted {
        let Some(block) = blocks.get(number as usize) else { continue };
        let mut left = Vec::with_capacity(own.len());
        for (number, mut targets) in own {
            let Some(chunk) = chunks.get(number as usize) else { continue };
            let mut here = Vec::new();
            targets.retain(|target| {
                if target.generation != target.file.generation.load(Ordering::Acquire) {
                    target.file.pending.fetch_sub(1, Ordering::AcqRel);
                    return false;
                }
                let has = sink.has(&target.file, target.offset, chunk.length, chunk.hash);
                if has {
                    here.push(target.file.clone());
                }
                !has
            });
            here.into_iter().try_for_each(|file| file.settle(sink))?;
            if !targets.is_empty() {
                left.push((chunk.hash, chunk.at, chunk.length, targets));
            }
        }
        if !left.is_empty() {
            left.sort_unstable_by_key(|(_, at, ..)| *at);
            found.push((block.pack, Block { at: block.at, stored: block.stored, raw: block.raw, chunks: left }));
        }
    }
    Ok(found)
}

/// Combines neighboring blocks into fetches.
pub(crate) fn fetches(mut blocks: Vec<(u32, Block)>, packs: &[PackName]) -> Vec<Fetch> {
    blocks.sort_unstable_by_key(|(pack, block)| (*pack, block.at));
    let mut fetches: Vec<Fetch> = Vec::new();
    for (pack, block) in blocks {
        let Some(pack) = packs.get(pack as usize).copied() else { continue };
        let end = block.at + block.stored;
        match fetches.last_mut() {
            Some(last)
                if last.pack == pack
                    && block.at >= last.end()
                    && block.at - last.end() <= GAP
                    && end - last.start() <= FETCH =>
            {
                last.blocks.push(block);
            }
            _ => fetches.push(Fetch { pack, blocks: vec![block] }),
        }
    }
    fetches
}
