//! The sender: the host sends the project, the container sends changes.

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
use crate::workspace::manifest::{Entry, EntryKind, Tree};
use crate::workspace::path::shown;
use crate::workspace::store::index_cache::{self, KnownPacks};
use crate::workspace::summary::Summary;
use crate::workspace::task::{TransferProgress, on_thread};
use crate::workspace::tree::{Roots, Snapshot};
use crate::workspace::warnings::Warnings;
use files_cache::FilesCache;
use source::{ChangePolicy, SendJob, Source};

/// Folder of the index cache in the host's directory of a project.
const INDEXES: &str = "indexes";

/// Host: sends both trees; a missing temporary tree counts as empty. Content that may be secret (the temporary tree and git's
/// configuration) goes into private packs. Chunks that the store has in the project's packs are not sent again. `cache` is a directory
/// of this host for the indexes of these packs and the chunks of the project's files; it may be lost or wrong. `now` is the time of
/// day, to compute the age of packs.
///
/// A receiver may work at the same time. Fails, naming the file, when a file cannot be read or keeps changing.
pub async fn send(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    trees: &Trees,
    cache: &Path,
    now: SystemTime,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let sent = async {
        let roots = Roots::open(trees)?;
        let (indexes, notes, project) = (cache.join(INDEXES), cache.join("files"), trees.project_here().to_owned());
        let files = on_thread(move |_| Ok(Arc::new(FilesCache::open(&notes, &project))));
        let (known, files) = tokio::join!(KnownPacks::look(store, &keys.packs, &indexes, now), files);
        let files = files?;
        let job = SendJob {
            roots,
            source: Source::Trees,
            on_change: ChangePolicy::Refuse,
            warnings: Warnings::default(),
            files: files.clone(),
        };
        let summary = sending::send(store, keys, job, known, progress).await?;
        on_thread(move |_| {
            files.save();
            Ok(summary)
        })
        .await
    };
    sent.await.context("failed to send the workspace")
}

/// Container: sends both trees as they are, for the next container of the job. A file that changes while it is read is sent as it was
/// read, with a warning.
pub async fn send_tree(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
    trees: &Trees,
    now: SystemTime,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Summary> {
    let sent = async {
        let cache = tempfile::tempdir().context("failed to create a temporary directory")?;
        let known = KnownPacks::look(store, &keys.packs, cache.path(), now).await;
        let mut warnings = Warnings::default();
        let roots = Roots::open_after_script(trees, &mut warnings)?;
        let (source, on_change, files) = (Source::Trees, ChangePolicy::Keep, Arc::default());
        sending::send(store, keys, SendJob { roots, source, on_change, warnings, files }, known, progress).await
    };
    sent.await.context("failed to send the project to the next stage")
}

/// Container: sends the changes since `snapshot` that `selection` wants.
///
/// Deletions are changes; a project directory that is missing or replaced counts as empty. Nothing in a `.git` is sent, and of the
/// temporary tree only `gitlab_runner_env`. A file that changes while it is read is sent as it was read, with a warning.
pub async fn send_changes(
    store: &dyn ObjectStore,
    keys: &TransferKeys,
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
        sending::send(store, keys, job.await?, KnownPacks::nothing(), progress).await
    };
    sent.await.context("failed to send the results of the job")
}

/// Container: the files that [`send_changes`] would send, by their paths.
pub async fn changed_files(trees: &Trees, snapshot: &Snapshot, selection: &Selection) -> anyhow::Result<Vec<String>> {
    let (trees, snapshot, selection) = (trees.clone(), snapshot.clone(), selection.clone());
    let entries = on_thread(move |stop| {
        let mut warnings = Warnings::default();
        let roots = Roots::open_after_script(&trees, &mut warnings)?;
        changes::changes(&roots, &snapshot, &selection, &mut warnings, stop)
    });
    let is_file =
        |entry: &Entry| entry.tree == Tree::Project && matches!(entry.kind, EntryKind::File | EntryKind::Link);
    Ok(entries.await?.iter().filter(|entry| is_file(entry)).map(|entry| shown(&entry.path)).collect())
}

/// Host: deletes a pack that a receiver reported as [`crate::workspace::Damaged`], so that its chunks are sent again.
pub async fn forget(store: &dyn ObjectStore, keys: &TransferKeys, pack: &str, cache: &Path) -> anyhow::Result<()> {
    index_cache::forget(store, &keys.packs, pack.parse()?, &cache.join(INDEXES)).await
}
