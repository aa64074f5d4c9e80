//! Runs a sender: reads files, uploads packs and publishes the manifest, all at the same time.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::publishing::{FINDINGS, Publisher};
use super::reading;
use super::source::SendJob;
use crate::cloud::ObjectStore;
use crate::protocol::keys::TransferKeys;
use crate::workspace::store::{KnownPacks, PackName, PackUpload, Packer, Visibility};
use crate::workspace::summary::Summary;
use crate::workspace::task::{Stop, StopOnDrop, TransferProgress, persist};

/// Concurrent uploads of packs: enough for a store with high latency; each takes 8 MiB of memory.
const UPLOADS: usize = 5;
/// Packs that wait for an upload.
const WAITING: usize = 1;

/// Sends the job's entries; returns once the last part of the manifest is stored.
pub(crate) async fn send(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    job: SendJob,
    mut known: KnownPacks,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let stop = Stop::default();
    let _guard = StopOnDrop(stop.clone());
    let (give_upload, uploads) = mpsc::channel(WAITING);
    let (give_found, found) = mpsc::channel(FINDINGS);
    let (give_stored, stored) = mpsc::unbounded_channel();
    let packer = Arc::new(Packer::new(&known, give_upload));
    known.forget_indexes();
    let known = &known;
    let reading = tokio::task::spawn_blocking({
        let (packer, progress) = (packer.clone(), progress.clone());
        move || reading::read(job, &packer, &give_found, &progress, &stop)
    });
    let reading = async { reading.await.context("the reading threads ended early")? };
    let uploading = async {
        let mut uploads = in_order(uploads)
            .map(|upload: PackUpload| async move {
                let key = PackName { id: upload.pack.id, visibility: upload.visibility }.key(keys);
                // Another sender may have stored the same pack. A pack that expires soon is replaced.
                if known.is_old(upload.pack.id) {
                    persist(|| store.put(&key, upload.pack.bytes.to_vec())).await?;
                } else {
                    persist(|| store.put_if_absent(&key, upload.pack.bytes.clone())).await?;
                }
                Ok::<_, anyhow::Error>(upload)
            })
            .buffer_unordered(UPLOADS);
        while let Some(upload) = uploads.next().await {
            let PackUpload { number, pack, visibility } = upload?;
            progress.sent(pack.bytes.len());
            if visibility == Visibility::Project {
                known.remember(pack.id, &pack.encoded);
            }
            // The receiver ends early only after an error.
            let _ = give_stored.send(packer.stored(number));
            packer.reuse(pack.bytes);
        }
        Ok(())
    };
    let publisher = Publisher::new(store, keys, &packer, progress);
    let ((), (), mut summary) = tokio::try_join!(reading, uploading, publisher.run(found, stored))?;
    summary.sent = progress.transferred();
    summary.elapsed = started.elapsed();
    Ok(summary)
}

fn in_order<T>(mut receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    stream::poll_fn(move |context| receiver.poll_recv(context))
}
