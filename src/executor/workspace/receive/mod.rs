//! The receiver: the container writes the project as it arrives; the host checks the results before it writes them.

mod apply;
mod asked;
mod entry_hashes;
mod env_lines;
mod fetch_plan;
mod fetching;
mod git_stat;
mod judge;
mod manifest_reader;
mod placing;
mod quota;
mod sink;
mod staging;

pub use env_lines::filtered as lines_for_the_host;
pub use fetching::{Damaged, MissingPacks};
pub use manifest_reader::AllSent;
pub use quota::TransferLimits;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cloud::{CloudError, ObjectStore};
use crate::protocol::keys::TransferKeys;
use crate::protocol::project::{Selection, Trees};
use crate::workspace::summary::Summary;
use crate::workspace::task::{Stop, TransferProgress, on_thread};
use crate::workspace::tree::{Roots, Snapshot};
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

/// Keys of the packs that a complete transfer needs.
pub async fn packs_of(store: &dyn ObjectStore, keys: &TransferKeys) -> anyhow::Result<BTreeSet<String>> {
    entry_hashes::packs(store, keys).await
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
    let (trees, selection, limits) = (destination.trees.clone(), bounds.selection.clone(), bounds.limits);
    let applied = async {
        let staging = Arc::new(Staging::open(destination.staging, selection.stays_with_git())?);
        let warnings = match fetching::fetch(store, keys, all_sent, limits, &staging, progress).await {
            Ok(warnings) => warnings,
            Err(error) => {
                // Kept only when a retry can use it.
                if !CloudError::may_pass(&error) {
                    staging.remove();
                }
                return Err(error);
            }
        };
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
    };
    let mut summary: Summary =
        applied.await.map_err(|error: anyhow::Error| error.context("failed to bring back the results of the job"))?;
    summary.sent = progress.transferred();
    summary.elapsed = started.elapsed();
    Ok(summary)
}
