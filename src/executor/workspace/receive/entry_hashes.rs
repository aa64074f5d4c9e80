//! Compares two transfers by their manifests: what of the project the host has, and what an earlier container has changed. Also lists
//! the packs of a transfer. A container may have written the manifest: what is held of it in memory has the limits of a transfer.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context as _, ensure};

use super::quota::{Quota, TransferLimits};
use crate::cloud::ObjectStore;
use crate::protocol::keys::TransferKeys;
use crate::workspace::manifest::{Entry, ManifestPart, PartChunk, Record, Tree};
use crate::workspace::task::persist;
use crate::workspace::tree::{FileStat, Snapshot};

/// Hash of an entry's attributes and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryHash(blake3::Hash);

pub(super) type EntryPath = (Tree, Vec<u8>);

/// The snapshot of a tree that was received from `kept`, as it would be if the host's project had been received and changed since:
/// [`crate::workspace::send_changes`] then finds what the host lacks.
pub(super) async fn as_sent_by_the_host(
    store: &dyn ObjectStore,
    kept: &TransferKeys,
    host: &TransferKeys,
    received: &Snapshot,
) -> anyhow::Result<Snapshot> {
    let limits = TransferLimits::none();
    let now = entries(store, kept, &limits).await?;
    let same = |path: &EntryPath| received.stats.get(path).copied();
    Ok(before(entries(store, host, &limits).await?, &now, same))
}

/// The state of the entries `then`, where `same` has that of an entry which is the same now.
pub(super) fn before(
    then: HashMap<EntryPath, (Entry, EntryHash)>,
    now: &HashMap<EntryPath, (Entry, EntryHash)>,
    same: impl Fn(&EntryPath) -> Option<FileStat>,
) -> Snapshot {
    let stat = |(path, (entry, hash)): (EntryPath, (Entry, EntryHash))| {
        let is_same = now.get(&path).is_some_and(|(now, there)| (now.kind, *there) == (entry.kind, hash));
        let stat = is_same.then(|| same(&path)).flatten().unwrap_or_else(|| FileStat::changed(entry.kind));
        (path, stat)
    };
    Snapshot { stats: then.into_iter().map(stat).collect::<HashMap<_, _>>().into() }
}

/// The objects of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransferPacks {
    /// Number of parts of the manifest.
    pub parts: u32,
    /// Keys of the packs that it names.
    pub packs: BTreeSet<String>,
}

pub(super) async fn packs(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    limits: &TransferLimits,
) -> anyhow::Result<TransferPacks> {
    let (mut found, mut quota) = (TransferPacks::default(), Quota::of_a_tree(limits));
    each_part(store, keys, limits, |part| {
        found.parts += 1;
        for key in part.packs.iter().map(|pack| pack.key(keys)) {
            if !found.packs.contains(&key) {
                quota.pack(&key)?;
                found.packs.insert(key);
            }
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

async fn each_part(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    limits: &TransferLimits,
    mut take: impl FnMut(ManifestPart) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut quota = Quota::of_a_tree(limits);
    for number in 0.. {
        quota.part()?;
        let key = keys.part(number);
        let encoded = persist(|| store.get(&key)).await?;
        let encoded = encoded.with_context(|| format!("the object {} does not exist", store.uri(&key)))?;
        let part = ManifestPart::decode(&encoded, &keys.seal, keys.label(number))
            .with_context(|| format!("failed to read {}", store.uri(&key)))?;
        let is_last = part.end.is_some();
        take(part)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// The entries of a complete transfer with their hashes.
pub(super) async fn entries(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    limits: &TransferLimits,
) -> anyhow::Result<HashMap<EntryPath, (Entry, EntryHash)>> {
    let mut found = Entries { quota: Quota::of_a_tree(limits), known: HashMap::new(), large: HashMap::new() };
    each_part(store, keys, limits, |part| {
        let ManifestPart { chunks, records, .. } = part;
        records.into_iter().try_for_each(|record| found.record(record, &chunks))
    })
    .await?;
    Ok(found.known)
}

/// The entries of the parts that were read.
struct Entries {
    quota: Quota,
    known: HashMap<EntryPath, (Entry, EntryHash)>,
    /// Large files whose records are not complete.
    large: HashMap<u32, (Entry, ContentSum)>,
}

impl Entries {
    fn record(&mut self, record: Record, chunks: &[PartChunk]) -> anyhow::Result<()> {
        match record {
            Record::Entry(entry) => {
                self.quota.entry(&entry)?;
                self.add(entry, &ContentSum::default());
            }
            Record::File { entry, chunks: own } => {
                self.quota.entry(&entry)?;
                let mut content = ContentSum::default();
                content.add(0, chunks, &own);
                self.add(entry, &content);
            }
            Record::Begin { file, entry } => {
                self.quota.entry(&entry)?;
                let begun = self.large.insert(file, (entry, ContentSum::default()));
                ensure!(begun.is_none(), "a file begins twice");
            }
            Record::Data { file, offset, chunks: own } => {
                if let Some((_, content)) = self.large.get_mut(&file) {
                    content.add(offset, chunks, &own);
                }
            }
            Record::End { file, size, mode, mtime } => {
                if let Some((entry, content)) = self.large.remove(&file) {
                    self.add(Entry { mode, mtime, size, ..entry }, &content);
                }
            }
            Record::Void { file } => {
                if let Some((_, content)) = self.large.get_mut(&file) {
                    *content = ContentSum::default();
                }
            }
            Record::Gone { file } => drop(self.large.remove(&file)),
        }
        Ok(())
    }

    /// Set-id and sticky bits do not count: containers send none.
    fn add(&mut self, entry: Entry, content: &ContentSum) {
        let mut hash = blake3::Hasher::new();
        for word in content.0 {
            hash.update(&word.to_le_bytes());
        }
        hash.update(&(entry.mode & 0o777).to_le_bytes()).update(&entry.size.to_le_bytes());
        hash.update(&entry.mtime.seconds.to_le_bytes()).update(&entry.mtime.nanos.to_le_bytes());
        hash.update(&entry.target);
        self.known.insert((entry.tree, entry.path.clone()), (entry, EntryHash(hash.finalize())));
    }
}

/// Sum over the chunks of a file, which may come in any order, so that none of them is held. Who could make two contents of one sum would
/// only keep changes from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ContentSum([u64; 4]);

impl ContentSum {
    fn add(&mut self, mut offset: u64, chunks: &[PartChunk], own: &[u32]) {
        for chunk in own.iter().filter_map(|number| chunks.get(*number as usize)) {
            let mut hash = blake3::Hasher::new();
            hash.update(&offset.to_le_bytes()).update(&chunk.length.to_le_bytes()).update(chunk.hash.as_bytes());
            let mut bytes = [0; 8];
            let mut words = hash.finalize_xof();
            for word in &mut self.0 {
                words.fill(&mut bytes);
                *word = word.wrapping_add(u64::from_le_bytes(bytes));
            }
            offset = offset.saturating_add(chunk.length.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::store::ChunkHash;

    #[test]
    fn the_order_of_chunks_does_not_count_but_their_place_does() {
        let chunks = [1, 2].map(|byte| PartChunk { hash: ChunkHash::of(&[byte]), block: 0, at: 0, length: 1 });
        let sum = |places: &[(u64, u32)]| {
            let mut sum = ContentSum::default();
            for (offset, chunk) in places {
                sum.add(*offset, &chunks, &[*chunk]);
            }
            sum
        };
        let both = sum(&[(0, 0), (1, 1)]);
        assert_eq!(both, sum(&[(1, 1), (0, 0)]));
        assert_ne!(both, sum(&[(0, 1), (1, 0)]));
        let mut in_one_go = ContentSum::default();
        in_one_go.add(0, &chunks, &[0, 1]);
        assert_eq!(both, in_one_go);
    }
}
