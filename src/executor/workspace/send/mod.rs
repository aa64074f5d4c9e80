//! The sending side: the host sends the project, the container sends what changed.

mod changes;
pub(super) mod files_cache;
mod publishing;
mod reading;
pub(super) mod sending;
pub(super) mod source;
mod walking;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;

use crate::cloud::ObjectStore;
use crate::protocol::keys::TransferKeys;
use crate::protocol::project::{Selection, Trees};
use crate::workspace::store::index_cache::{self, KnownPacks};
use crate::workspace::summary::Summary;
use crate::workspace::task::{TransferProgress, on_thread};
use crate::workspace::tree::{Roots, Snapshot};
use crate::workspace::warnings::Warnings;
use files_cache::FilesCache;
use source::{ChangePolicy, SendJob, Source};

/// Where in a host's directory for one project its copies of the packs' indexes are.
const INDEXES: &str = "indexes";

/// Host: sends both trees. A missing temporary tree is empty. What may hold secrets of the job, the temporary tree and git's
/// configuration, goes into private packs. Chunks that the store has below the route's packs are not sent. `cache` is a directory of
/// this host that remembers which ones those are, and what the project's files held the last time; it may be lost or wrong. `now` is the
/// time of day, by which packs become too old to count on.
///
/// A receiver may work at the same time. Fails, naming the file, when one cannot be read or keeps changing.
pub async fn send(
    store: &dyn ObjectStore,
    route: &TransferKeys,
    trees: &Trees,
    cache: &Path,
    now: SystemTime,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let sent = async {
        let roots = Roots::open(trees)?;
        let (indexes, notes, project) = (cache.join(INDEXES), cache.join("files"), trees.project.clone());
        let files = on_thread(move |_| Ok(Arc::new(FilesCache::open(&notes, &project))));
        let (known, files) = tokio::join!(KnownPacks::look(store, &route.packs, &indexes, now), files);
        let files = files?;
        let job = SendJob {
            roots,
            source: Source::Trees,
            on_change: ChangePolicy::Refuse,
            warnings: Warnings::default(),
            files: files.clone(),
        };
        let summary = sending::send(store, route, job, known, progress).await?;
        on_thread(move |_| {
            files.save();
            Ok(summary)
        })
        .await
    };
    sent.await.context("failed to send the workspace")
}

/// Container: finds what changed since `snapshot`, keeps what `selection` wants, and sends it.
///
/// Deletions are changes; a project directory that is gone, or is no directory any more, is empty. Nothing in a `.git` goes back, and of the temporary tree only `gitlab_runner_env`.
/// A file that changes while it is read goes back as it was read, with a warning.
pub async fn send_changes(
    store: &dyn ObjectStore,
    route: &TransferKeys,
    trees: &Trees,
    snapshot: &Snapshot,
    selection: &Selection,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let (trees, snapshot, selection) = (trees.clone(), snapshot.clone(), selection.clone());
    let sent = async {
        let job = on_thread(move |stop| {
            let mut warnings = Warnings::default();
            let roots = Roots::open_after_script(&trees, &mut warnings)?;
            let entries = changes::changes(&roots, &snapshot, &selection, &mut warnings, stop)?;
            let files = Arc::default();
            Ok(SendJob { roots, source: Source::Entries(entries), on_change: ChangePolicy::Keep, warnings, files })
        });
        sending::send(store, route, job.await?, KnownPacks::nothing(), progress).await
    };
    sent.await.context("failed to send the results of the job")
}

/// Host: drops a pack that a receiver found [`crate::workspace::Damaged`], so that its chunks are sent again by whoever needs them next.
pub async fn forget(store: &dyn ObjectStore, route: &TransferKeys, pack: &str, cache: &Path) -> anyhow::Result<()> {
    index_cache::forget(store, &route.packs, pack.parse()?, &cache.join(INDEXES)).await
}
