//! Where the sender's chunks are: those the store has already, and those on their way into packs.
//!
//! Shared by the reading threads. A chunk belongs to a block, a block comes into a pack, and a pack is stored; which of that has
//! happened is known here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::chunk::ChunkHash;
use super::known::Known;
use super::pack::{OpenBlock, OpenPack, PackId, SealedPack};
use super::part::Located;

/// Where a block is.
#[derive(Debug, Clone, Copy)]
struct BlockPlace {
    /// Position among the packs; `None` while the block is in no closed pack.
    pack: Option<u32>,
    at: u32,
    stored: u32,
    raw: u32,
}

#[derive(Debug)]
struct PackState {
    id: PackId,
    is_stored: bool,
}

#[derive(Default)]
struct Table {
    /// The block of each chunk, and where in it the chunk is. By length too: an index that lies about it is of no use.
    chunks: HashMap<(ChunkHash, u32), (u32, u32)>,
    blocks: Vec<BlockPlace>,
    packs: Vec<PackState>,
}

/// A pack to be stored, and its position among the packs.
pub(super) struct Parcel {
    pub(super) number: u32,
    pub(super) pack: SealedPack,
}

pub(super) struct Depot {
    table: Mutex<Table>,
    packing: Mutex<Packing>,
    /// `None` once no more packs come.
    parcels: Mutex<Option<mpsc::Sender<Parcel>>>,
}

struct Packing {
    open: OpenPack,
    /// The blocks in it.
    blocks: Vec<u32>,
    closed: usize,
}

/// A reading thread's own block in the making.
#[derive(Default)]
pub(super) struct Bench {
    block: OpenBlock,
    number: Option<u32>,
}

impl Depot {
    pub(super) fn new(known: &Known, parcels: mpsc::Sender<Parcel>) -> Self {
        let mut table = Table::default();
        for (id, index) in known.packs() {
            let pack = count(table.packs.len());
            table.packs.push(PackState { id: *id, is_stored: true });
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
        let packing = Packing { open: OpenPack::new(0), blocks: Vec::new(), closed: 0 };
        Self { table: Mutex::new(table), packing: Mutex::new(packing), parcels: Mutex::new(Some(parcels)) }
    }

    /// Tells where the chunk is, and takes it up when it is new. Blocks while packs wait for the network.
    pub(super) fn put(&self, bench: &mut Bench, chunk: &[u8]) -> anyhow::Result<Located> {
        let hash = ChunkHash::of(chunk);
        let length = count(chunk.len());
        let at = count(bench.block.len());
        {
            let mut table = lock(&self.table);
            if let Some(&(block, at)) = table.chunks.get(&(hash, length)) {
                return Ok(Located { hash, length, block, at });
            }
            let block = *bench.number.get_or_insert_with(|| {
                table.blocks.push(BlockPlace { pack: None, at: 0, stored: 0, raw: 0 });
                count(table.blocks.len() - 1)
            });
            table.chunks.insert((hash, length), (block, at));
        }
        bench.block.push(hash, chunk);
        let block = bench.number.unwrap_or_default();
        if bench.block.is_full() {
            self.close_block(bench)?;
        }
        Ok(Located { hash, length, block, at })
    }

    /// Ends a thread's block, full or not.
    pub(super) fn close_block(&self, bench: &mut Bench) -> anyhow::Result<()> {
        let Some(number) = bench.number.take() else { return Ok(()) };
        bench.block.compress()?;
        let full = {
            let mut packing = lock(&self.packing);
            packing.open.push(&bench.block)?;
            packing.blocks.push(number);
            packing.open.is_full().then(|| packing.take())
        };
        bench.block.clear();
        full.map_or(Ok(()), |full| self.close_pack(full))
    }

    /// Ends the last pack. No thread has an open block any more, and none may come.
    pub(super) fn close(&self) -> anyhow::Result<()> {
        let last = lock(&self.packing).take();
        if !last.0.is_empty() {
            self.close_pack(last)?;
        }
        lock(&self.parcels).take();
        Ok(())
    }

    fn close_pack(&self, (open, blocks): (OpenPack, Vec<u32>)) -> anyhow::Result<()> {
        let pack = open.seal()?;
        let number = {
            let mut table = lock(&self.table);
            let number = count(table.packs.len());
            table.packs.push(PackState { id: pack.id, is_stored: false });
            for (block, index) in blocks.iter().zip(&pack.index) {
                if let Some(place) = table.blocks.get_mut(*block as usize) {
                    *place = BlockPlace { pack: Some(number), at: index.at, stored: index.stored, raw: index.raw };
                }
            }
            number
        };
        let parcels = lock(&self.parcels).clone().context("a pack comes too late")?;
        parcels.blocking_send(Parcel { number, pack }).ok().context("the upload ended early")
    }

    /// The pack is in the store.
    pub(super) fn stored(&self, number: u32) {
        if let Some(pack) = lock(&self.table).packs.get_mut(number as usize) {
            pack.is_stored = true;
        }
    }

    /// The pack that has the block, with the block's place in it, once it is in the store.
    pub(super) fn find(&self, block: u32) -> Option<(PackId, u32, u32, u32)> {
        let table = lock(&self.table);
        let place = table.blocks.get(block as usize)?;
        let pack = table.packs.get(place.pack? as usize)?;
        pack.is_stored.then_some((pack.id, place.at, place.stored, place.raw))
    }
}

impl Packing {
    fn take(&mut self) -> (OpenPack, Vec<u32>) {
        self.closed += 1;
        let open = std::mem::replace(&mut self.open, OpenPack::new(self.closed));
        (open, std::mem::take(&mut self.blocks))
    }
}

/// Numbers of blocks and packs, and lengths within a block: far below 2^32.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
