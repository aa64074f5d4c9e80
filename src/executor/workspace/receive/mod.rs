//! The receiving side: the container takes the project as it comes, the host judges the results before it writes them.

mod apply;
mod asked;
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

pub use fetching::{Damaged, MissingPacks};
pub use manifest_reader::AllSent;
pub use quota::TransferLimits;

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

/// What may come back from a container.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// What the job asks for: the host's own, never one that came from a container.
    pub selection: &'a Selection,
    pub limits: &'a TransferLimits,
}

/// Where on the host results go.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    pub trees: &'a Trees,
    /// A directory that need not exist, best on the file system of the trees.
    pub staging: &'a Path,
}

/// Container: receives what [`crate::workspace::send()`] sends, while it does, and returns the state of every entry for [`crate::workspace::send_changes`].
/// Whatever is there already and does not travel stays. It waits for the sender without end: whoever calls ends it, and then
/// waits for [`TransferProgress::at_rest`].
///
/// [`MissingPacks`] and [`Damaged`] are among the causes of its errors.
pub async fn receive(
    store: &dyn ObjectStore,
    route: &TransferKeys,
    trees: &Trees,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<(Snapshot, Summary)> {
    let started = Instant::now();
    let received = async {
        let placing = Arc::new(Placing::new(Roots::create(trees)?));
        let all_sent = AllSent::default();
        let warnings = fetching::fetch(store, route, &all_sent, &TransferLimits::none(), &placing, progress).await?;
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
    // File systems tell time in ticks of up to 10 ms: a script that starts within the same tick could change a file
    // without a trace.
    tokio::time::sleep(Duration::from_millis(12)).await;
    summary.sent = progress.transferred();
    summary.elapsed = started.elapsed();
    Ok((snapshot, summary))
}

/// Host: fetches what [`crate::workspace::send_changes`] sends, while it does, and applies it. When `all_sent` was told, what is missing is an
/// error; before, it is waited for without end.
///
/// Everything is fetched into the staging directory and checked
/// first, contents included: on an offending entry the error names it and the host's trees are as they were. Only a
/// failing disk can end in between. A call that was cut short leaves that directory, and the next one goes on from it.
/// What the selection does not ask for, by the host's own search, is not applied, with a warning, and so it is with links that lead out of
/// the project unless the selection keeps them.
pub async fn apply_changes(
    store: &dyn ObjectStore,
    route: &TransferKeys,
    destination: Destination<'_>,
    bounds: Bounds<'_>,
    all_sent: &AllSent,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let (trees, selection, limits) = (destination.trees.clone(), bounds.selection.clone(), bounds.limits);
    let applied = async {
        let staging = Arc::new(Staging::open(destination.staging)?);
        let warnings = match fetching::fetch(store, route, all_sent, limits, &staging, progress).await {
            Ok(warnings) => warnings,
            Err(error) => {
                // Of use to another try alone.
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
            // Applied or refused, it is of no more use.
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
