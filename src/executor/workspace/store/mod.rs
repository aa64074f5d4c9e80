//! Chunks, packs of chunks, and the index of chunks that the store already has. Knows no files and no manifest.

mod chunk;
mod compression;
pub(super) mod index_cache;
mod pack;
mod packer;

pub(super) use chunk::{ChunkHash, Cutter, LARGEST, USUAL, is_zero};
pub(super) use index_cache::KnownPacks;
pub(super) use pack::{Located, PackName, Visibility, decompress, is_sound, open_block};
#[cfg(test)]
pub(super) use pack::{OpenBlock, OpenPack, PackIndex, SealedPack};
pub(super) use packer::{PackUpload, Packer, ThreadBlocks};
