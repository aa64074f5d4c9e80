//! Decides on the host which received entries the job asked for: a container may send anything.
//!
//! The host searches its future tree: its own entries with the received ones and without the deleted ones. An honest container searched
//! a tree with additional, unwanted files; the host finds the same, because every link and directory on the way is sent back too. Where
//! the container's search exceeded its limit it sends everything; the host's limit is half of that, so that it is exceeded as well.

use std::collections::{HashMap, HashSet};

use crate::protocol::project::Selection;
use crate::workspace::listing::{node, view};
use crate::workspace::manifest::{Entry, EntryKind, Tree};
use crate::workspace::path::ancestors;
use crate::workspace::select::{Effort, Node, TreeView, Wanted};
use crate::workspace::task::Stop;
use crate::workspace::tree::{FileStat, Roots, Scope, Walker};
use crate::workspace::warnings::{LeftOut, Warnings};

/// The decision about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryDecision {
    Apply,
    /// Nothing to do and no warning.
    Pass,
    LeaveOut(LeftOut),
}

impl EntryDecision {
    pub(crate) fn left_out(self) -> Option<LeftOut> {
        match self {
            EntryDecision::LeaveOut(why) => Some(why),
            EntryDecision::Apply | EntryDecision::Pass => None,
        }
    }
}

/// Decides about each entry. `assigned` is the future content of `gitlab_runner_env`.
pub(crate) fn decisions(
    entries: &[Entry],
    roots: &Roots,
    selection: &Selection,
    assigned: &[u8],
    stop: &Stop,
) -> anyhow::Result<Vec<EntryDecision>> {
    let project = roots.project_bytes();
    let listed = if selection.everything || entries.is_empty() {
        Vec::new()
    } else {
        list(roots, selection.stays_with_git(), stop)?
    };
    let after = selection.wanted(tree_after(project, &listed, entries), assigned, Effort::Host);
    let written = written(project, entries, selection, &after);
    let above_written = above(entries.iter().zip(&written).filter(|(_, why)| why.is_none()).map(|(entry, _)| entry));
    let is_asked = |why: &Option<LeftOut>| !matches!(why, Some(LeftOut::Unasked));
    let above_asked = above(entries.iter().zip(&written).filter(|(_, why)| is_asked(why)).map(|(entry, _)| entry));
    let replaced: HashSet<&[u8]> = entries
        .iter()
        .zip(&written)
        .filter(|(entry, why)| why.is_none() && !matches!(entry.kind, EntryKind::Directory | EntryKind::Deleted))
        .map(|(entry, _)| entry.path.as_slice())
        .collect();
    let has_deletions = entries.iter().any(|entry| entry.kind == EntryKind::Deleted && entry.tree == Tree::Project);
    let before = if has_deletions && !selection.everything {
        selection.wanted(view(project, &listed), assigned, Effort::Host)
    } else {
        Wanted::default()
    };
    let held: HashSet<&[u8]> = listed.iter().map(|(entry, _)| entry.path.as_slice()).collect();
    let decision = |(entry, why): (&Entry, &Option<LeftOut>)| match (entry.kind, why) {
        _ if entry.tree == Tree::Tmp => EntryDecision::Apply,
        (EntryKind::Deleted, _) => {
            let path = entry.path.as_slice();
            if selection.everything || before.wants(path) || ancestors(path).any(|above| replaced.contains(above)) {
                EntryDecision::Apply
            } else if held.contains(path) {
                EntryDecision::LeaveOut(LeftOut::Unasked)
            } else {
                EntryDecision::Pass
            }
        }
        (_, None) => EntryDecision::Apply,
        (EntryKind::Directory, Some(_)) if above_written.contains(entry.path.as_slice()) => EntryDecision::Apply,
        (EntryKind::Directory, Some(_)) if above_asked.contains(entry.path.as_slice()) => EntryDecision::Pass,
        (_, Some(why)) => EntryDecision::LeaveOut(*why),
    };
    Ok(entries.iter().zip(&written).map(decision).collect())
}

/// For each entry by itself, the reason not to write it, if any.
fn written(project: &[u8], entries: &[Entry], selection: &Selection, after: &Wanted) -> Vec<Option<LeftOut>> {
    let judge = |entry: &Entry| {
        if entry.tree == Tree::Tmp || entry.kind == EntryKind::Deleted {
            None
        } else if !after.wants(&entry.path) {
            Some(LeftOut::Unasked)
        } else {
            selection.leaves_out(after, project, &entry.path, node(entry))
        }
    };
    entries.iter().map(judge).collect()
}

/// The directories above entries of the project that are not deletions.
fn above<'e>(entries: impl Iterator<Item = &'e Entry>) -> HashSet<&'e [u8]> {
    let here = entries.filter(|entry| entry.tree == Tree::Project && entry.kind != EntryKind::Deleted);
    here.flat_map(|entry| ancestors(&entry.path)).collect()
}

fn list(roots: &Roots, stays_with_git: fn(&[u8]) -> bool, stop: &Stop) -> anyhow::Result<Vec<(Entry, FileStat)>> {
    let mut walker = Walker::unlocking(roots.project()?);
    let listed = walker.list(&Scope::project(&stays_with_git, stop), &mut Warnings::default());
    walker.relock()?;
    listed
}

fn tree_after<'e>(project: &[u8], listed: &'e [(Entry, FileStat)], entries: &'e [Entry]) -> TreeView<'e> {
    let mut nodes: HashMap<&[u8], Node<'_>> = HashMap::with_capacity(listed.len() + entries.len());
    let own = listed.iter().map(|(entry, _)| entry);
    for entry in own.chain(entries.iter().filter(|entry| entry.tree == Tree::Project)) {
        match entry.kind {
            EntryKind::Deleted => nodes.remove(entry.path.as_slice()),
            _ => nodes.insert(&entry.path, node(entry)),
        };
    }
    TreeView::new(project, nodes)
}
