//! Compares two transfers by their manifests: what of the project the host has, and what an earlier container has changed. Also lists
//! the packs of a transfer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context as _;

use crate::cloud::ObjectStore;
use crate::protocol::keys::TransferKeys;
use crate::workspace::manifest::{Entry, EntryKind, ManifestPart, PartChunk, Record, Tree};
use crate::workspace::task::persist;
use crate::workspace::tree::{FileStat, Snapshot};

/// Kind of an entry, and the hash of its attributes and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntryHash {
    kind: EntryKind,
    hash: blake3::Hash,
}

type EntryHashes = HashMap<(Tree, Vec<u8>), EntryHash>;

/// The snapshot of a tree that was received from `kept`, as it would be if the host's project had been received and changed since:
/// [`crate::workspace::send_changes`] then finds what the host lacks.
pub(super) async fn as_sent_by_the_host(
    store: &dyn ObjectStore,
    kept: &TransferKeys,
    host: &TransferKeys,
    received: &Snapshot,
) -> anyhow::Result<Snapshot> {
    let (now, then) = (entry_hashes(store, kept).await?, entry_hashes(store, host).await?);
    let stat = |(path, before): ((Tree, Vec<u8>), EntryHash)| {
        let same = received.stats.get(&path).filter(|_| now.get(&path) == Some(&before));
        let stat = same.copied().unwrap_or_else(|| FileStat::changed(before.kind));
        (path, stat)
    };
    Ok(Snapshot { stats: then.into_iter().map(stat).collect::<HashMap<_, _>>().into() })
}

/// Keys of the packs that the manifest of a complete transfer names.
pub(super) async fn packs(store: &dyn ObjectStore, keys: &TransferKeys) -> anyhow::Result<BTreeSet<String>> {
    let mut packs = BTreeSet::new();
    each_part(store, keys, |part| packs.extend(part.packs.iter().map(|pack| pack.key(keys)))).await?;
    Ok(packs)
}

async fn each_part(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    mut take: impl FnMut(&ManifestPart),
) -> anyhow::Result<()> {
    for number in 0.. {
        let key = keys.part(number);
        let encoded = persist(|| store.get(&key)).await?;
        let encoded = encoded.with_context(|| format!("the object {} does not exist", store.uri(&key)))?;
        let part = ManifestPart::decode(&encoded, &keys.seal, keys.label(number))
            .with_context(|| format!("failed to read {}", store.uri(&key)))?;
        take(&part);
        if part.end.is_some() {
            break;
        }
    }
    Ok(())
}

async fn entry_hashes(store: &dyn ObjectStore, keys: &TransferKeys) -> anyhow::Result<EntryHashes> {
    let (mut hashes, mut large) = (EntryHashes::new(), HashMap::<u32, LargeFile>::new());
    each_part(store, keys, |part| {
        for record in &part.records {
            match record {
                Record::Entry(entry) => add(&mut hashes, entry, &mut blake3::Hasher::new()),
                Record::File { entry, chunks } => {
                    let mut content = blake3::Hasher::new();
                    let chunks = chunks.iter().filter_map(|number| part.chunks.get(*number as usize));
                    chunks.for_each(|chunk| add_chunk(&mut content, chunk));
                    add(&mut hashes, entry, &mut content);
                }
                Record::Begin { file, entry } => {
                    large.insert(*file, LargeFile { entry: entry.clone(), chunks: BTreeMap::new() });
                }
                Record::Data { file, offset, chunks } => {
                    if let Some(large) = large.get_mut(file) {
                        large.add(*offset, part, chunks);
                    }
                }
                Record::End { file, size, mode, mtime } => {
                    if let Some(LargeFile { entry, chunks }) = large.remove(file) {
                        let entry = Entry { size: *size, mode: *mode, mtime: *mtime, ..entry };
                        let mut content = blake3::Hasher::new();
                        for chunk in chunks.into_values() {
                            add_chunk(&mut content, &chunk);
                        }
                        add(&mut hashes, &entry, &mut content);
                    }
                }
                Record::Void { file } => {
                    if let Some(large) = large.get_mut(file) {
                        large.chunks.clear();
                    }
                }
                Record::Gone { file } => drop(large.remove(file)),
            }
        }
    })
    .await?;
    Ok(hashes)
}

/// A large file whose records are not complete; its chunks may come in any order.
struct LargeFile {
    entry: Entry,
    /// By offset.
    chunks: BTreeMap<u64, PartChunk>,
}

impl LargeFile {
    fn add(&mut self, mut offset: u64, part: &ManifestPart, chunks: &[u32]) {
        for chunk in chunks.iter().filter_map(|number| part.chunks.get(*number as usize)) {
            self.chunks.insert(offset, *chunk);
            offset = offset.saturating_add(chunk.length.into());
        }
    }
}

fn add_chunk(content: &mut blake3::Hasher, chunk: &PartChunk) {
    content.update(&chunk.length.to_le_bytes()).update(chunk.hash.as_bytes());
}

/// Set-id and sticky bits do not count: containers send none.
fn add(hashes: &mut EntryHashes, entry: &Entry, content: &mut blake3::Hasher) {
    content.update(&(entry.mode & 0o777).to_le_bytes()).update(&entry.size.to_le_bytes());
    content.update(&entry.mtime.seconds.to_le_bytes()).update(&entry.mtime.nanos.to_le_bytes());
    content.update(&entry.target);
    let found = EntryHash { kind: entry.kind, hash: content.finalize() };
    hashes.insert((entry.tree, entry.path.clone()), found);
}
