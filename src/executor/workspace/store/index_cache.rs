//! Which chunks the store has: the packs that a listing shows, with their indexes from this host's cache or from the packs
//! themselves.
//!
//! The listing is the truth, the cache saves requests only: without it, or with a wrong one, the indexes are read again. A pack
//! that cannot be read counts as absent, so its chunks are sent again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, stream};

use super::pack::{IndexBlock, PACK_MOST, PackId, PackIndex, is_intact};
use crate::cloud::{Listed, ObjectStore};
use crate::workspace::task::on_thread;

/// Older packs are not counted on: the bucket's lifecycle rule may remove them while a job needs them. Their chunks are
/// sent again, about once a week.
const OLDEST: Duration = Duration::from_hours(7 * 24);
/// Most packs and chunks that are taken into account, the newest first: memory has bounds.
const MOST_PACKS: usize = 20_000;
const MOST_CHUNKS: usize = 1_000_000;
/// Most indexes that are fetched for one transfer, and how many at a time.
const MOST_FETCHED: usize = 512;
const FETCHES: usize = 8;
/// The end of a pack that is fetched first: mostly it holds the whole index.
const TAIL: u64 = 64 << 10;

/// The packs that can be counted on.
#[derive(Default)]
pub(crate) struct KnownPacks {
    packs: Vec<(PackId, Vec<IndexBlock>)>,
    /// Packs that are there and may soon be gone.
    old: HashSet<PackId>,
    cache: Option<IndexCache>,
}

impl KnownPacks {
    /// Nothing is known, nothing is remembered.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// Looks at what lies below `prefix`. `cache` is this host's own directory for these packs.
    pub(crate) async fn look(store: &dyn ObjectStore, prefix: &str, cache: &Path, now: SystemTime) -> Self {
        let cache = IndexCache { dir: cache.to_owned() };
        let listed = match store.inventory(&format!("{prefix}/")).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "failed to see what the store has of the project, all of it is sent");
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

    /// A pack of this name is there, and old: writing it anew gives it another life.
    pub(crate) fn is_old(&self, id: PackId) -> bool {
        self.old.contains(&id)
    }

    /// Remembers a pack that was stored.
    pub(crate) fn remember(&self, id: PackId, index: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.put(id, index);
        }
    }

    /// Lets the indexes go: a transfer has made a table of its own of them.
    pub(crate) fn forget_indexes(&mut self) {
        self.packs = Vec::new();
    }
}

/// Those young enough to be counted on, the newest first, and the names of the others.
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

/// The indexes that the cache has of these packs, as many as may be held.
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

/// A host's copies of indexes, one file a pack. Losing it costs requests, nothing else; so nothing here fails.
struct IndexCache {
    dir: PathBuf,
}

impl IndexCache {
    fn get(&self, id: PackId) -> Option<Vec<IndexBlock>> {
        let encoded = std::fs::read(self.dir.join(id.to_string())).ok()?;
        PackIndex::of(id, &encoded).ok()
    }

    fn put(&self, id: PackId, encoded: &[u8]) {
        let written = std::fs::create_dir_all(&self.dir).and_then(|()| {
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            std::io::Write::write_all(&mut file, encoded)?;
            file.persist(self.dir.join(id.to_string())).map_err(|error| error.error)
        });
        if let Err(error) = written {
            tracing::debug!(%error, "the index of a pack is not remembered");
        }
    }

    /// Forgets packs that the store has no longer, and what a killed process left.
    fn keep(&self, ids: &HashSet<PackId>) {
        let Ok(files) = std::fs::read_dir(&self.dir) else { return };
        for file in files.flatten() {
            let id = file.file_name().to_str().and_then(|name| name.parse::<PackId>().ok());
            let is_old = || {
                let modified = file.metadata().and_then(|metadata| metadata.modified());
                modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_hours(1)))
            };
            // Another job's process may just have stored a pack, or be writing a file.
            if id.is_none_or(|id| !ids.contains(&id)) && is_old() {
                drop(std::fs::remove_file(file.path()));
            }
        }
    }
}

/// Forgets a pack that somebody found to be wrong, if it is: in the store, and with it in every cache.
pub(crate) async fn forget(store: &dyn ObjectStore, prefix: &str, id: PackId, cache: &Path) -> anyhow::Result<()> {
    let key = format!("{prefix}/{id}");
    drop(std::fs::remove_file(cache.join(id.to_string())));
    // One that cannot be read is of no use either; the store's own checksums may say so.
    let found = store.get_range(&key, 0, u64::from(PACK_MOST) + 1).await.ok().flatten();
    if let Some(bytes) = found
        && on_thread(move |_| Ok(is_intact(&bytes, id))).await?
    {
        tracing::warn!(pack = %id, "a pack that was called damaged is not");
        return Ok(());
    }
    store.delete(&[key]).await?;
    Ok(())
}
