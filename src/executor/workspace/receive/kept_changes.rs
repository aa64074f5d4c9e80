//! Decides on the host what of a tree that a container has kept for a next one are the results: that container sends none. The container
//! may be hostile: what is decided here is checked like other results before it is applied.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::entry_hashes::{self, EntryHash, EntryPath};
use super::fetching;
use super::judge::refused;
use super::manifest_reader::AllSent;
use super::quota::TransferLimits;
use super::staging::Staging;
use crate::cloud::ObjectStore;
use crate::protocol::keys::TransferKeys;
use crate::protocol::project::{Selection, Trees};
use crate::workspace::changed::{TreeNow, deletion, wanted_changes};
use crate::workspace::manifest::{Entry, EntryKind, Tree};
use crate::workspace::path::{malformed, split};
use crate::workspace::task::{TransferProgress, on_thread};
use crate::workspace::tree::{ENV_FILE, ENV_FILE_MAX, FileStat, Roots, assigned};
use crate::workspace::warnings::Warnings;

/// Directory beside the staged results.
const ENV_STAGING: &str = "gitlab_runner_env";

/// The changes of a kept tree that the job selects.
pub(super) struct KeptChanges {
    /// Entries of the kept tree to receive.
    pub(super) chosen: HashSet<EntryPath>,
    /// Deletions of what the host has.
    pub(super) deleted: Vec<Entry>,
    pub(super) warnings: Vec<String>,
}

type Entries = HashMap<EntryPath, (Entry, EntryHash)>;

/// Compares the tree `kept` with the one that the host has sent as `host`.
pub(super) async fn find(
    store: &dyn ObjectStore,
    kept: &TransferKeys,
    host: &TransferKeys,
    (trees, staging): (&Trees, &Path),
    selection: &Selection,
    limits: &TransferLimits,
) -> anyhow::Result<KeptChanges> {
    let now = entry_hashes::entries(store, kept, limits).await?;
    let then = entry_hashes::entries(store, host, &TransferLimits::none()).await?;
    let env = env_file();
    let env_changed = hash(&now, &env) != hash(&then, &env);
    let assigned = match now.contains_key(&env) {
        true if env_changed => fetch_env(store, kept, staging, selection).await?,
        true => assigned(&Roots::open(trees)?)?,
        false => Vec::new(),
    };
    let (project, selection) = (trees.project.clone(), selection.clone());
    on_thread(move |_| {
        let project = project.as_os_str().as_bytes();
        let mut changes = changes(project, &now, then, &selection, &assigned)?;
        if env_changed && now.contains_key(&env) {
            changes.chosen.insert(env);
        } else if env_changed {
            changes.deleted.push(deletion(Tree::Tmp, ENV_FILE));
        }
        Ok(changes)
    })
    .await
}

fn env_file() -> EntryPath {
    (Tree::Tmp, ENV_FILE.to_vec())
}

fn hash(entries: &Entries, path: &EntryPath) -> Option<EntryHash> {
    entries.get(path).map(|(_, hash)| *hash)
}

/// The content of the kept `gitlab_runner_env`, whose variables the job's paths may name.
async fn fetch_env(
    store: &dyn ObjectStore,
    kept: &TransferKeys,
    staging: &Path,
    selection: &Selection,
) -> anyhow::Result<Vec<u8>> {
    let all_sent = AllSent::default();
    all_sent.set();
    let staging = Staging::open(&staging.with_file_name(ENV_STAGING), selection.stays_with_git())?;
    let staging = Arc::new(staging.choosing([env_file()].into(), Vec::new()));
    let (progress, limits) = (Arc::<TransferProgress>::default(), TransferLimits::default());
    let fetched = fetching::fetch(store, kept, &all_sent, &limits, &staging, &progress).await;
    progress.at_rest().await;
    let content = fetched.and_then(|_| {
        let staged = staging.take();
        staged.contents.values().next().map_or_else(|| Ok(Vec::new()), |name| staging.read(name, ENV_FILE_MAX))
    });
    staging.remove();
    content
}

fn changes(
    project: &[u8],
    now: &Entries,
    then: Entries,
    selection: &Selection,
    assigned: &[u8],
) -> anyhow::Result<KeptChanges> {
    let stays_with_git = selection.stays_with_git();
    let (mut listed, mut of_git) = (Vec::new(), Vec::new());
    for (entry, _) in now.values().filter(|(entry, _)| entry.tree == Tree::Project && !entry.path.is_empty()) {
        if let Some(why) = malformed(&entry.path) {
            return Err(refused(entry, why));
        }
        if !stays_with_git(&entry.path) {
            listed.push((entry.clone(), FileStat::sent(entry)));
        } else if !stays_with_git(split(&entry.path).0) {
            of_git.push(entry.path.clone());
        }
    }
    let same = |path: &EntryPath| now.get(path).map(|(entry, _)| FileStat::sent(entry));
    let before = entry_hashes::before(then, now, same);
    let mut warnings = Warnings::default();
    let tree = TreeNow { project, listed: &listed, of_git, assigned };
    let wanted = wanted_changes(tree, &before, selection, &mut warnings);
    let (deleted, sent): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|entry| entry.kind == EntryKind::Deleted);
    let chosen = sent.into_iter().map(|entry| (entry.tree, entry.path)).collect();
    Ok(KeptChanges { chosen, deleted, warnings: warnings.lines() })
}
