//! Finds the chunks that the store has: lists the packs, and reads their indexes from this host's cache or from the packs.
//!
//! The listing is authoritative; the cache only saves requests, and indexes missing or wrong in it are read again. A pack that cannot
//! be read counts as absent, so its chunks are sent again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, stream};

use super::pack::{IndexBlock, PACK_MOST, PackId, PackIndex, is_intact};
use crate::base::files::{self, Durability};
use crate::cloud::{Listed, ObjectStore};
use crate::workspace::task::on_thread;

/// Age from which packs are not used: the bucket's lifecycle rule may delete them while a job needs them. Their chunks are sent again,
/// about once a week.
const OLDEST: Duration = Duration::from_hours(7 * 24);
/// Most packs and chunks that are used, the newest first, to bound the memory.
const MOST_PACKS: usize = 20_000;
const MOST_CHUNKS: usize = 1_000_000;
/// Most indexes fetched for one transfer, and most at a time.
const MOST_FETCHED: usize = 512;
const FETCHES: usize = 8;
/// Size of the first fetch from the end of a pack: it usually contains the whole index.
const TAIL: u64 = 64 << 10;

/// The packs that a transfer can use.
#[derive(Default)]
pub(crate) struct KnownPacks {
    packs: Vec<(PackId, Vec<IndexBlock>)>,
    /// Stored packs that may be deleted soon.
    old: HashSet<PackId>,
    cache: Option<IndexCache>,
}

impl KnownPacks {
    /// No packs, no cache.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// Lists the packs below `prefix` and reads their indexes. `cache` is this host's directory for them.
    pub(crate) async fn look(store: &dyn ObjectStore, prefix: &str, cache: &Path, now: SystemTime) -> Self {
        let cache = IndexCache { dir: cache.to_owned() };
        let listed = match store.inventory(&format!("{prefix}/")).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "failed to list the packs of the project in the store; all chunks are sent");
                return Self { cache: Some(cache), ..Self::default() };
            }
        };
        let (usable, old) = usable(&listed, now);
        cache.keep(&usable.iter().map(|(id, _)| *id).collect());
        let names: Vec<PackId> = usable.iter().map(|(id, _)| *id).collect();
        let (cache, cached) = read_cache(cache, names).await;
        let mut room = MOST_CHUNKS.saturating_sub(cached.iter().map(|(_, index)| chunks(index)).sum());
        let is_cached: HashSet<PackId> = cached.iter().map(|(id, _)| *id).collect();
        let unknown = usable.into_iter().filter(|(id, _)| !is_cached.contains(id)).take(MOST_FETCHED);
        let mut packs = cached;
        let mut fetched = stream::iter(unknown)
            .map(|(id, object)| async move { (id, fetch_index(store, object).await) })
            .buffer_unordered(FETCHES);
        while room > 0
            && let Some((id, index)) = fetched.next().await
        {
            match index.and_then(|encoded| Ok((PackIndex::of(id, &encoded)?, encoded))) {
                Ok((index, encoded)) => {
                    cache.put(id, &encoded);
                    room = room.saturating_sub(chunks(&index));
                    packs.push((id, index));
                }
                Err(error) => tracing::debug!(pack = %id, error = format!("{error:#}"), "a pack cannot be used"),
            }
        }
        drop(fetched);
        Self { packs, old, cache: Some(cache) }
    }

    pub(crate) fn packs(&self) -> &[(PackId, Vec<IndexBlock>)] {
        &self.packs
    }

    /// True for a stored pack that is too old to use: storing it again renews its age.
    pub(crate) fn is_old(&self, id: PackId) -> bool {
        self.old.contains(&id)
    }

    /// Caches the index of a stored pack.
    pub(crate) fn remember(&self, id: PackId, index: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.put(id, index);
        }
    }

    /// Frees the indexes, once a transfer has built its table from them.
    pub(crate) fn forget_indexes(&mut self) {
        self.packs = Vec::new();
    }
}

/// Splits the packs into usable ones, the newest first, and the ids of old ones.
fn usable(listed: &[Listed], now: SystemTime) -> (Vec<(PackId, &Listed)>, HashSet<PackId>) {
    let mut usable = Vec::new();
    let mut old = HashSet::new();
    for object in listed {
        let Some(id) = object.key.rsplit('/').next().and_then(|name| name.parse().ok()) else { continue };
        let age = object.modified.map(|modified| now.duration_since(modified).unwrap_or_default());
        match age {
            Some(age) if age < OLDEST => usable.push((age, id, object)),
            _ => {
                old.insert(id);
            }
        }
    }
    usable.sort_by_key(|(age, ..)| *age);
    usable.truncate(MOST_PACKS);
    (usable.into_iter().map(|(_, id, object)| (id, object)).collect(), old)
}

fn chunks(index: &[IndexBlock]) -> usize {
    index.iter().map(|block| block.chunks.len()).sum()
}

/// Reads the cached indexes of these packs, up to the memory limit.
async fn read_cache(cache: IndexCache, names: Vec<PackId>) -> (IndexCache, Vec<(PackId, Vec<IndexBlock>)>) {
    let dir = cache.dir.clone();
    let read = on_thread(move |stop| {
        let mut found = Vec::new();
        let mut room = MOST_CHUNKS;
        for id in names {
            stop.check()?;
            let Some(index) = cache.get(id) else { continue };
            let Some(left) = room.checked_sub(chunks(&index)) else { break };
            room = left;
            found.push((id, index));
        }
        Ok((cache, found))
    });
    read.await.unwrap_or_else(|_| (IndexCache { dir }, Vec::new()))
}

async fn fetch_index(store: &dyn ObjectStore, object: &Listed) -> anyhow::Result<Vec<u8>> {
    let mut reach = TAIL;
    for _ in 0..2 {
        let start = object.bytes.saturating_sub(reach);
        let tail = store.get_range(&object.key, start, object.bytes - start).await?.unwrap_or_default();
        if let Some(index) = PackIndex::within(&tail)? {
            return Ok(index.to_vec());
        }
        reach = PackIndex::reach(&tail)? as u64;
    }
    anyhow::bail!("the pack is shorter than its index")
}

/// A host's cache of indexes, one file per pack. Errors are ignored: a lost index costs a request only.
struct IndexCache {
    dir: PathBuf,
}

impl IndexCache {
    fn get(&self, id: PackId) -> Option<Vec<IndexBlock>> {
        let encoded = std::fs::read(self.dir.join(id.to_string())).ok()?;
        PackIndex::of(id, &encoded).ok()
    }

    fn put(&self, id: PackId, encoded: &[u8]) {
        let path = self.dir.join(id.to_string());
        let written =
            std::fs::create_dir_all(&self.dir).and_then(|()| files::replace(&path, encoded, Durability::Eventual));
        if let Err(error) = written {
            tracing::debug!(%error, "failed to cache the index of a pack");
        }
    }

    /// Removes the indexes of packs that the store no longer has, and temporary files of killed processes.
    fn keep(&self, ids: &HashSet<PackId>) {
        let Ok(files) = std::fs::read_dir(&self.dir) else { return };
        for file in files.flatten() {
            let id = file.file_name().to_str().and_then(|name| name.parse::<PackId>().ok());
            let is_old = || {
                let modified = file.metadata().and_then(|metadata| metadata.modified());
                modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_hours(1)))
            };
            // A recent file may be of another job's process that has just stored a pack or is writing.
            if id.is_none_or(|id| !ids.contains(&id)) && is_old() {
                drop(std::fs::remove_file(file.path()));
            }
        }
    }
}

/// Deletes a pack that a receiver reported as damaged, if it is: from the store and from this host's cache.
pub(crate) async fn forget(store: &dyn ObjectStore, prefix: &str, id: PackId, cache: &Path) -> anyhow::Result<()> {
    let key = format!("{prefix}/{id}");
    drop(std::fs::remove_file(cache.join(id.to_string())));
    // A pack that cannot be read, for instance after a failed checksum of the store, is deleted too.
    let found = store.get_range(&key, 0, u64::from(PACK_MOST) + 1).await.ok().flatten();
    if let Some(bytes) = found
        && on_thread(move |_| Ok(is_intact(&bytes, id))).await?
    {
        tracing::warn!(pack = %id, "a pack that was reported as damaged is intact");
        return Ok(());
    }
    store.delete(&[key]).await?;
    Ok(())
}
