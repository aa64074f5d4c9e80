//! Finds the changes in the container that the host wants.

use std::cell::RefCell;

use anyhow::Context as _;

use crate::protocol::project::Selection;
use crate::workspace::changed::{TreeNow, deletion, stripped, wanted_changes};
use crate::workspace::manifest::{Entry, EntryKind, Tree};
use crate::workspace::task::Stop;
use crate::workspace::tree::{
    ENV_FILE, ENV_FILE_MAX, FileStat, Roots, Scope, Snapshot, Walker, assigned, env_file_refused,
};
use crate::workspace::warnings::Warnings;

/// The wanted changes, parents before their content.
pub(crate) fn changes(
    roots: &Roots,
    snapshot: &Snapshot,
    selection: &Selection,
    warnings: &mut Warnings,
    stop: &Stop,
) -> anyhow::Result<Vec<Entry>> {
    let of_git = RefCell::new(Vec::new());
    let stays_with_git = selection.stays_with_git();
    let skip = |path: &[u8]| {
        let is_of_git = stays_with_git(path);
        if is_of_git {
            of_git.borrow_mut().push(path.to_vec());
        }
        is_of_git
    };
    let listed = match &roots.project {
        Some(root) => Walker::reading(root).list(&Scope::project(&skip, stop), warnings)?,
        None => Vec::new(),
    };
    let of_git = of_git.into_inner();
    let assigned = assigned(roots)?;
    let now = TreeNow { project: roots.project_bytes(), listed: &listed, of_git, assigned: &assigned };
    let mut entries = wanted_changes(now, snapshot, selection, warnings);
    if selection.folder.is_none() {
        entries.extend(env_file(roots, snapshot)?);
    }
    Ok(entries)
}

fn env_file(roots: &Roots, snapshot: &Snapshot) -> anyhow::Result<Option<Entry>> {
    let before = snapshot.stats.get(&(Tree::Tmp, ENV_FILE.to_vec()));
    let stat = match &roots.tmp {
        Some(root) => Walker::new(root).stat(ENV_FILE).context("failed to look at `gitlab_runner_env`")?,
        None => None,
    };
    let Some(stat) = stat.as_ref().and_then(FileStat::of) else {
        return Ok(before.map(|_| deletion(Tree::Tmp, ENV_FILE)));
    };
    let entry = stat.entry(Tree::Tmp, ENV_FILE.to_vec(), Vec::new());
    if entry.kind != EntryKind::File || entry.size > ENV_FILE_MAX {
        return Err(env_file_refused());
    }
    Ok((before != Some(&stat)).then(|| stripped(&entry)))
}
