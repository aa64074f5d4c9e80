//! Packs the sender's new chunks, and knows the location of every chunk: in the store or in a pack being filled.
//!
//! Shared by the reading threads. A chunk goes into a block, a block into a pack, and a pack into the store; the table records how far
//! each has come.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use super::chunk::ChunkHash;
use super::compression::Compression;
use super::index_cache::KnownPacks;
use super::pack::{Located, OpenBlock, OpenPack, PackName, SealedPack, Visibility};

/// The location of a block.
#[derive(Debug, Clone, Copy)]
struct BlockPlace {
    /// Position of the pack in the table; `None` until the block's pack is closed.
    pack: Option<u32>,
    at: u32,
    stored: u32,
    raw: u32,
}

#[derive(Debug)]
struct PackState {
    name: PackName,
    is_stored: bool,
    /// Its blocks, if it is a pack of this transfer that is not stored yet.
    blocks: Vec<u32>,
}

#[derive(Default)]
struct Table {
    /// Block and offset of each chunk. The length is part of the key, so that an index with a wrong length does no harm.
    chunks: HashMap<(ChunkHash, u32), (u32, u32)>,
    blocks: Vec<BlockPlace>,
    packs: Vec<PackState>,
}

/// A pack to store.
pub(crate) struct PackUpload {
    pub(crate) number: u32,
    pub(crate) pack: SealedPack,
    pub(crate) visibility: Visibility,
}

pub(crate) struct Packer {
    table: Mutex<Table>,
    shared: Mutex<Packing>,
    private: Mutex<Packing>,
    compression: Mutex<Compression>,
    /// Memory of stored packs for reuse: new pages cost as much time as copying into them.
    spare: Mutex<Vec<Vec<u8>>>,
    /// `None` after the last pack.
    uploads: Mutex<Option<mpsc::Sender<PackUpload>>>,
}

struct Packing {
    open: OpenPack,
    /// The numbers of the blocks in `open`.
    blocks: Vec<u32>,
    closed: usize,
}

/// The blocks that a reading thread is filling.
#[derive(Default)]
pub(crate) struct ThreadBlocks {
    shared: PendingBlock,
    private: PendingBlock,
}

#[derive(Default)]
struct PendingBlock {
    block: OpenBlock,
    number: Option<u32>,
    /// When the block before was full.
    since: Option<Instant>,
}

impl ThreadBlocks {
    fn pending(&mut self, visibility: Visibility) -> &mut PendingBlock {
        match visibility {
            Visibility::Project => &mut self.shared,
            Visibility::Session => &mut self.private,
        }
    }
}

impl Packer {
    pub(crate) fn new(known: &KnownPacks, uploads: mpsc::Sender<PackUpload>) -> Self {
        let mut table = Table::default();
        for (id, index) in known.packs() {
            let pack = count(table.packs.len());
            let name = PackName { id: *id, visibility: Visibility::Project };
            table.packs.push(PackState { name, is_stored: true, blocks: Vec::new() });
            for block in index {
                let number = count(table.blocks.len());
                table.blocks.push(BlockPlace { pack: Some(pack), at: block.at, stored: block.stored, raw: block.raw });
                let mut at = 0;
                for (hash, length) in &block.chunks {
                    table.chunks.entry((*hash, *length)).or_insert((number, at));
                    at += length;
                }
            }
        }
        let packing = || Mutex::new(Packing { open: OpenPack::new(0, Vec::new()), blocks: Vec::new(), closed: 0 });
        let (shared, private) = (packing(), packing());
        let (table, compression, uploads) = (Mutex::new(table), Mutex::default(), Mutex::new(Some(uploads)));
        Self { table, shared, private, compression, spare: Mutex::default(), uploads }
    }

    fn packing(&self, visibility: Visibility) -> MutexGuard<'_, Packing> {
        match visibility {
            Visibility::Project => self.shared.lock(),
            Visibility::Session => self.private.lock(),
        }
    }

    /// Returns the chunk's location; adds the chunk when it is new. Blocks while packs wait for the network.
    pub(crate) fn put(
        &self,
        blocks: &mut ThreadBlocks,
        visibility: Visibility,
        chunk: &[u8],
    ) -> anyhow::Result<Located> {
        let hash = ChunkHash::of(chunk);
        let length = count(chunk.len());
        let pending = blocks.pending(visibility);
        let at = count(pending.block.len());
        let block = {
            let mut table = self.table.lock();
            if let Some(&(block, at)) = table.chunks.get(&(hash, length)) {
                return Ok(Located { hash, length, block, at });
            }
            let block = *pending.number.get_or_insert_with(|| {
                table.blocks.push(BlockPlace { pack: None, at: 0, stored: 0, raw: 0 });
                count(table.blocks.len() - 1)
            });
            table.chunks.insert((hash, length), (block, at));
            block
        };
        pending.block.push(hash, chunk);
        if pending.block.is_full() {
            self.close_block(pending, visibility)?;
        }
        Ok(Located { hash, length, block, at })
    }

    /// The locations of these chunks; `None` when one is unknown.
    pub(crate) fn locate(&self, chunks: &[(ChunkHash, u32)]) -> Option<Vec<Located>> {
        let table = self.table.lock();
        let locate = |&(hash, length): &(ChunkHash, u32)| {
            table.chunks.get(&(hash, length)).map(|&(block, at)| Located { hash, length, block, at })
        };
        chunks.iter().map(locate).collect()
    }

    /// Closes a thread's blocks, full or not.
    pub(crate) fn close_blocks(&self, blocks: &mut ThreadBlocks) -> anyhow::Result<()> {
        self.close_block(&mut blocks.shared, Visibility::Project)?;
        self.close_block(&mut blocks.private, Visibility::Session)
    }

    fn close_block(&self, pending: &mut PendingBlock, visibility: Visibility) -> anyhow::Result<()> {
        let Some(number) = pending.number.take() else { return Ok(()) };
        let level = self.compression.lock().level();
        let begun = Instant::now();
        pending.block.compress(level)?;
        self.compression
            .lock()
            .spent(begun.elapsed(), pending.since.replace(begun).map(|last| begun.duration_since(last)));
        let full = {
            let mut packing = self.packing(visibility);
            packing.open.push(&pending.block)?;
            packing.blocks.push(number);
            packing.open.is_full().then(|| packing.take(self.spare.lock().pop()))
        };
        pending.block.clear();
        full.map_or(Ok(()), |full| self.close_pack(full, visibility))
    }

    /// Closes the last packs. All threads must have closed their blocks.
    pub(crate) fn close(&self) -> anyhow::Result<()> {
        for visibility in [Visibility::Project, Visibility::Session] {
            let last = self.packing(visibility).take(None);
            if !last.0.is_empty() {
                self.close_pack(last, visibility)?;
            }
        }
        self.uploads.lock().take();
        Ok(())
    }

    fn close_pack(&self, (open, blocks): (OpenPack, Vec<u32>), visibility: Visibility) -> anyhow::Result<()> {
        let pack = open.seal()?;
        let number = {
            let mut table = self.table.lock();
            let number = count(table.packs.len());
            for (block, index) in blocks.iter().zip(&pack.index) {
                if let Some(place) = table.blocks.get_mut(*block as usize) {
                    *place = BlockPlace { pack: Some(number), at: index.at, stored: index.stored, raw: index.raw };
                }
            }
            table.packs.push(PackState { name: PackName { id: pack.id, visibility }, is_stored: false, blocks });
            number
        };
        let uploads = self.uploads.lock().clone().context("a pack comes too late")?;
        self.compression.lock().adapt(uploads.capacity() > 0);
        uploads.blocking_send(PackUpload { number, pack, visibility }).ok().context("the upload ended early")
    }

    /// Records that a pack is stored; returns its blocks.
    pub(crate) fn stored(&self, number: u32) -> Vec<u32> {
        self.compression.lock().stored();
        let mut table = self.table.lock();
        let Some(pack) = table.packs.get_mut(number as usize) else { return Vec::new() };
        pack.is_stored = true;
        std::mem::take(&mut pack.blocks)
    }

    /// Takes back the memory of a stored pack.
    pub(crate) fn reuse(&self, bytes: Bytes) {
        if bytes.is_unique() {
            self.spare.lock().push(bytes.into());
        }
    }

    /// The block's pack with the block's offset and sizes, once the pack is stored.
    pub(crate) fn find(&self, block: u32) -> Option<(PackName, u32, u32, u32)> {
        let table = self.table.lock();
        let place = table.blocks.get(block as usize)?;
        let pack = table.packs.get(place.pack? as usize)?;
        pack.is_stored.then_some((pack.name, place.at, place.stored, place.raw))
    }
}

impl Packing {
    fn take(&mut self, spare: Option<Vec<u8>>) -> (OpenPack, Vec<u32>) {
        self.closed += 1;
        let open = std::mem::replace(&mut self.open, OpenPack::new(self.closed, spare.unwrap_or_default()));
        (open, std::mem::take(&mut self.blocks))
    }
}

/// Converts numbers of blocks and packs and lengths within a block, which are far below 2^32.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
