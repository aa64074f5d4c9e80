//! What is stored and under which name: chunks, packs of them, and what the store has already. Knows no files and no manifest.

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
