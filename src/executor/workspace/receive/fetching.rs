//! Runs a receiver: reads the parts of a manifest as they arrive, fetches the blocks they name, and passes checked content to a [`Sink`].
//!
//! It works while the sender does. Every chunk is checked against its hash before it is used. Sizes that a container claims are bounded
//! here; `judge` decides whether a path may be written.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::fetch_plan::{Fetch, Target};
use super::manifest_reader::{AllSent, FIRST_PAUSE, ManifestReader};
use super::quota::TransferLimits;
use super::sink::Sink;
use crate::cloud::ObjectStore;
use crate::protocol::keys::TransferKeys;
use crate::workspace::path::shown;
use crate::workspace::store::{ChunkHash, open_block};
use crate::workspace::task::{Stop, StopOnDrop, TransferProgress, on_thread, persist};

/// A pack that the manifest names is not in the store, for instance because it expired: sending again helps.
#[derive(Debug, thiserror::Error)]
#[error("the object {uri} does not exist")]
pub struct MissingPacks {
    pub uri: String,
}

/// The content of a chunk does not match its hash: the pack was damaged or changed.
#[derive(Debug, thiserror::Error)]
#[error("the chunk {chunk} in the pack {pack} is damaged")]
pub struct Damaged {
    /// Pack id and chunk hash in hexadecimal.
    pub pack: String,
    pub chunk: String,
}

/// Concurrent fetches; with fetches of the largest size they take about half of the receiver's memory.
const FETCHES: usize = 8;

/// Receives a whole transfer; returns the sender's warnings. After it has returned, even with an error, nothing is written any more:
/// the caller must hold the only other reference to `sink`.
pub(crate) async fn fetch<S: Sink>(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    all_sent: &AllSent,
    limits: &TransferLimits,
    sink: &Arc<S>,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Vec<String>> {
    let stop = Stop::default();
    let _guard = StopOnDrop(stop.clone());
    let reader = ManifestReader::new(store, keys, all_sent, limits, sink.clone(), progress);
    let warnings = Mutex::new(Vec::new());
    // More threads than processors would only block each other: a directory takes one new file at a time.
    let writers = std::thread::available_parallelism().map_or(1, usize::from).clamp(2, FETCHES);
    let writers = &Semaphore::new(writers);
    let fetches = stream::try_unfold(reader, |mut reader| async {
        if let Some(found) = reader.warnings.take() {
            *warnings.lock() = found;
            return Ok::<_, anyhow::Error>(None);
        }
        let part = reader.part().await?;
        let fetches = reader.plan(part).await?;
        Ok(Some((stream::iter(fetches.into_iter().map(anyhow::Ok)), reader)))
    });
    let outcome = fetches
        .try_flatten()
        .map_ok(|fetch| async {
            let bytes = get(store, keys, &fetch, all_sent, progress).await?;
            let _writer = writers.acquire().await?;
            write(fetch, bytes, sink, &stop, progress).await
        })
        .try_buffer_unordered(FETCHES)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await;
    // After an error, threads end at their next check.
    stop.stop();
    while Arc::strong_count(sink) > 1 {
        tokio::time::sleep(FIRST_PAUSE).await;
    }
    outcome?;
    Ok(warnings.into_inner())
}

/// Downloads the bytes of a fetch.
async fn get(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    fetch: &Fetch,
    all_sent: &AllSent,
    progress: &TransferProgress,
) -> anyhow::Result<Bytes> {
    let key = fetch.pack.key(keys);
    let (start, length) = (fetch.start(), fetch.end() - fetch.start());
    let found = loop {
        match persist(|| store.get_range(&key, u64::from(start), u64::from(length))).await {
            Err(error) if error.kind.may_pass() && !all_sent.is_set() => {
                tracing::warn!(%error, "failed to fetch a part of a transfer");
            }
            found => break found?,
        }
    };
    let bytes = found.ok_or_else(|| MissingPacks { uri: store.uri(&key) })?;
    progress.sent(bytes.len());
    Ok(bytes)
}

pub(crate) async fn write<S: Sink>(
    fetch: Fetch,
    bytes: Bytes,
    sink: &Arc<S>,
    stop: &Stop,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<()> {
    let (sink, stop, busy) = (sink.clone(), stop.clone(), progress.busy());
    let written = on_thread(move |_| {
        let _busy = busy;
        unpack(&fetch, &bytes, &*sink, &stop)
    })
    .await?;
    progress.read(written);
    Ok(())
}

/// Decompresses the blocks, checks the chunks and writes them. Returns the number of bytes written.
fn unpack<S: Sink>(fetch: &Fetch, bytes: &Bytes, sink: &S, stop: &Stop) -> anyhow::Result<u64> {
    let mut content = Vec::new();
    let mut written = 0;
    for block in &fetch.blocks {
        stop.check()?;
        let from = (block.at - fetch.start()) as usize;
        let stored = bytes.get(from..from + block.stored as usize);
        let is_open = stored.is_some_and(|stored| open_block(stored, block.raw, &mut content).is_ok());
        for (hash, at, length, targets) in &block.chunks {
            let chunk = content.get(*at as usize..).and_then(|rest| rest.get(..*length as usize));
            let Some(chunk) = chunk.filter(|chunk| is_open && ChunkHash::of(chunk) == *hash) else {
                return Err(Damaged { pack: fetch.pack.id.to_string(), chunk: hash.to_string() }.into());
            };
            for Target { file, offset, .. } in targets {
                stop.check()?;
                sink.write(file, *offset, chunk)
                    .with_context(|| format!("failed to write {}", shown(&file.entry.path)))?;
                file.settle(sink)?;
                written += u64::from(*length);
            }
        }
    }
    Ok(written)
}
