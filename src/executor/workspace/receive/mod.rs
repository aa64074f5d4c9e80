//! The receiver: the container writes the project as it arrives; the host checks the results before it writes them.

mod apply;
mod asked;
mod entry_hashes;
mod env_lines;
mod fetch_plan;
mod fetching;
mod git_stat;
mod judge;
mod kept_changes;
mod manifest_reader;
mod placing;
mod quota;
mod sink;
mod staging;

pub use entry_hashes::TransferPacks;
pub use env_lines::filtered as lines_for_the_host;
pub use fetching::{Damaged, MissingPacks};
pub use manifest_reader::{AllSent, MissingPart};
pub use quota::TransferLimits;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cloud::{CloudError, ObjectStore};
use crate::protocol::keys::TransferKeys;
use crate::protocol::project::{Selection, Trees};
use crate::workspace::summary::Summary;
use crate::workspace::task::{Stop, TransferProgress, on_thread};
use crate::workspace::tree::{Roots, Snapshot};
use kept_changes::KeptChanges;
use placing::Placing;
use staging::Staging;

/// Restrictions on the results of a container.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// The job's selection, from the host; never from a container.
    pub selection: &'a Selection,
    pub limits: &'a TransferLimits,
}

/// The destination of results on the host.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    pub trees: &'a Trees,
    /// A directory for staging; made if missing, best on the file system of the trees.
    pub staging: &'a Path,
}

/// Container: receives a [`crate::workspace::send()`] while it runs; returns the state of every entry for
/// [`crate::workspace::send_changes`]. Existing entries that are not transferred stay. Waits for the sender without limit: the caller
/// must end it, and then wait for [`TransferProgress::at_rest`].
///
/// The causes of an error may include [`MissingPacks`] and [`Damaged`].
pub async fn receive(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    trees: &Trees,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<(Snapshot, Summary)> {
    let started = Instant::now();
    let received = async {
        let placing = Arc::new(Placing::new(Roots::create(trees)?));
        let all_sent = AllSent::default();
        let warnings = fetching::fetch(store, keys, &all_sent, &TransferLimits::none(), &placing, progress).await?;
        let busy = progress.busy();
        let finish = move |_: &Stop| {
            let _busy = busy;
            placing.finish()
        };
        let (snapshot, mut summary) = on_thread(finish).await?;
        summary.warnings = warnings;
        Ok((snapshot, summary))
    };
    let (snapshot, mut summary): (Snapshot, Summary) =
        received.await.map_err(|error: anyhow::Error| error.context("failed to receive the workspace"))?;
    // File systems store times in steps of up to 10 ms: a change by a script that starts within the same step would go unnoticed.
    tokio::time::sleep(Duration::from_millis(12)).await;
    summary.sent = progress.transferred();
    summary.elapsed = started.elapsed();
    Ok((snapshot, summary))
}

/// Container: receives a [`crate::workspace::send_tree`] of an earlier container. The state that it returns is that of the host's files,
/// which `host` has sent: [`crate::workspace::send_changes`] then sends what the host lacks.
pub async fn receive_kept(
    store: &dyn ObjectStore,
    kept: &TransferKeys,
    host: &TransferKeys,
    trees: &Trees,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<(Snapshot, Summary)> {
    let (snapshot, summary) = receive(store, kept, trees, progress).await?;
    let snapshot = entry_hashes::as_sent_by_the_host(store, kept, host, &snapshot).await?;
    Ok((snapshot, summary))
}

/// The objects of a complete transfer. The manifest may be that of a container.
pub async fn packs_of(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    limits: &TransferLimits,
) -> anyhow::Result<TransferPacks> {
    entry_hashes::packs(store, keys, limits).await.context("failed to look for the files that the container has left")
}

/// Host: fetches and applies a [`crate::workspace::send_changes`] while it runs. Waits for missing parts without limit until `all_sent`
/// is set; then they are an error.
///
/// Everything is fetched into the staging directory and checked first, including contents: on a forbidden entry the error names it and
/// the host's trees are unchanged. Only a failing disk can leave a partial result. An interrupted call leaves the staging directory, and
/// the next one reuses its content. Entries outside the selection, by the host's own search, are left out with a warning; so are links
/// out of the project unless the selection keeps them.
pub async fn apply_changes(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    destination: Destination<'_>,
    bounds: Bounds<'_>,
    all_sent: &AllSent,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let applied = async {
        let staging = Staging::open(destination.staging, bounds.selection.stays_with_git())?;
        stage_and_apply(store, keys, (staging, Vec::new()), destination, bounds, all_sent, progress).await
    };
    summed_up(applied.await, started, progress)
}

/// Host: applies the changes of a complete [`crate::workspace::send_tree`] as the results of its container, compared with what the host
/// has sent as `host`. See [`apply_changes`].
pub async fn apply_kept(
    store: &dyn ObjectStore,
    kept: &TransferKeys,
    host: &TransferKeys,
    destination: Destination<'_>,
    bounds: Bounds<'_>,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let applied = async {
        let (places, Bounds { selection, limits }) = ((destination.trees, destination.staging), bounds);
        let KeptChanges { chosen, deleted, warnings } =
            kept_changes::find(store, kept, host, places, selection, limits).await?;
        let staging = Staging::open(destination.staging, bounds.selection.stays_with_git())?;
        let staging = staging.choosing(chosen, deleted);
        let all_sent = AllSent::default();
        all_sent.set();
        stage_and_apply(store, kept, (staging, warnings), destination, bounds, &all_sent, progress).await
    };
    summed_up(applied.await, started, progress)
}

/// Fetches into the staging directory, and applies what is in it, with warnings that are known before.
async fn stage_and_apply(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    (staging, mut warnings): (Staging, Vec<String>),
    destination: Destination<'_>,
    bounds: Bounds<'_>,
    all_sent: &AllSent,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let (trees, selection, staging) = (destination.trees.clone(), bounds.selection.clone(), Arc::new(staging));
    match fetching::fetch(store, keys, all_sent, bounds.limits, &staging, progress).await {
        Ok(more) => warnings.extend(more),
        Err(error) => {
            // Kept only when a retry can use it.
            if !CloudError::may_pass(&error) {
                staging.remove();
            }
            return Err(error);
        }
    }
    progress.arrived();
    let busy = progress.busy();
    on_thread(move |stop| {
        let _busy = busy;
        let applied = apply::apply(&staging, &trees, &selection, warnings, stop);
        // Not needed after success or refusal.
        staging.remove();
        applied
    })
    .await
}

fn summed_up(
    applied: anyhow::Result<Summary>,
    started: Instant,
    progress: &TransferProgress,
) -> anyhow::Result<Summary> {
    let mut summary = applied.context("failed to bring back the results of the job")?;
    summary.sent = progress.transferred();
    summary.elapsed = started.elapsed();
    Ok(summary)
}
