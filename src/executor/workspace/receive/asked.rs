//! What the job asks for, as the host sees it. Every entry that came back is held against it, for a container may send what it likes.
//!
//! The host searches the tree that it will have: its own, with what came and without what was deleted. An honest container searched a tree
//! that holds more, in files that nobody asked for; what it found is found here as well, because every link and directory on the way comes back too.
//! Where the container's search took too many steps it sends everything. Here the limit is half of its own, so that it is reached as well.

use std::collections::{HashMap, HashSet};

use crate::protocol::project::Selection;
use crate::workspace::listing::{node, view};
use crate::workspace::manifest::{Entry, Kind, Place};
use crate::workspace::path::{ancestors, enters_git};
use crate::workspace::select::{Effort, Node, View, Wanted};
use crate::workspace::task::Stop;
use crate::workspace::tree::{FileStat, Roots, Scope, Walker};
use crate::workspace::warnings::{LeftOut, Warnings};

/// What is done about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Apply,
    /// There is nothing to do, and nothing to tell.
    Pass,
    LeaveOut(LeftOut),
}

impl Verdict {
    pub(crate) fn left_out(self) -> Option<LeftOut> {
        match self {
            Verdict::LeaveOut(why) => Some(why),
            Verdict::Apply | Verdict::Pass => None,
        }
    }
}

/// Tells what to do about each entry. `assigned` is the content that `gitlab_runner_env` will have.
pub(crate) fn verdicts(
    entries: &[Entry],
    roots: &Roots,
    selection: &Selection,
    assigned: &[u8],
    stop: &Stop,
) -> anyhow::Result<Vec<Verdict>> {
    let project = roots.project_bytes();
    let listed = if selection.everything || entries.is_empty() { Vec::new() } else { list(roots, stop)? };
    let after = selection.wanted(&tree_after(project, &listed, entries), assigned, Effort::Host);
    let written = written(project, entries, selection, &after);
    let above_written = above(entries.iter().zip(&written).filter(|(_, why)| why.is_none()).map(|(entry, _)| entry));
    let is_asked = |why: &Option<LeftOut>| !matches!(why, Some(LeftOut::Unasked));
    let above_asked = above(entries.iter().zip(&written).filter(|(_, why)| is_asked(why)).map(|(entry, _)| entry));
    let replaced: HashSet<&[u8]> = entries
        .iter()
        .zip(&written)
        .filter(|(entry, why)| why.is_none() && !matches!(entry.kind, Kind::Directory | Kind::Deleted))
        .map(|(entry, _)| entry.path.as_slice())
        .collect();
    let has_deletions = entries.iter().any(|entry| entry.kind == Kind::Deleted && entry.place == Place::Project);
    let before = if has_deletions && !selection.everything {
        selection.wanted(&view(project, &listed), assigned, Effort::Host)
    } else {
        Wanted::default()
    };
    let held: HashSet<&[u8]> = listed.iter().map(|(entry, _)| entry.path.as_slice()).collect();
    let verdict = |(entry, why): (&Entry, &Option<LeftOut>)| match (entry.kind, why) {
        _ if entry.place == Place::Tmp => Verdict::Apply,
        (Kind::Deleted, _) => {
            let path = entry.path.as_slice();
            if selection.everything || before.wants(path) || ancestors(path).any(|above| replaced.contains(above)) {
                Verdict::Apply
            } else if held.contains(path) {
                Verdict::LeaveOut(LeftOut::Unasked)
            } else {
                Verdict::Pass
            }
        }
        (_, None) => Verdict::Apply,
        (Kind::Directory, Some(_)) if above_written.contains(entry.path.as_slice()) => Verdict::Apply,
        (Kind::Directory, Some(_)) if above_asked.contains(entry.path.as_slice()) => Verdict::Pass,
        (_, Some(why)) => Verdict::LeaveOut(*why),
    };
    Ok(entries.iter().zip(&written).map(verdict).collect())
}

/// Why each entry is not written, by itself.
fn written(project: &[u8], entries: &[Entry], selection: &Selection, after: &Wanted) -> Vec<Option<LeftOut>> {
    let judge = |entry: &Entry| {
        if entry.place == Place::Tmp || entry.kind == Kind::Deleted {
            None
        } else if !after.wants(&entry.path) {
            Some(LeftOut::Unasked)
        } else {
            selection.leaves_out(after, project, &entry.path, node(entry))
        }
    };
    entries.iter().map(judge).collect()
}

/// Directories above entries of the project that are no deletions.
fn above<'e>(entries: impl Iterator<Item = &'e Entry>) -> HashSet<&'e [u8]> {
    let here = entries.filter(|entry| entry.place == Place::Project && entry.kind != Kind::Deleted);
    here.flat_map(|entry| ancestors(&entry.path)).collect()
}

fn list(roots: &Roots, stop: &Stop) -> anyhow::Result<Vec<(Entry, FileStat)>> {
    let mut walker = Walker::unlocking(roots.project()?);
    let listed = walker.list(&Scope::project(&enters_git, stop), &mut Warnings::default());
    walker.relock()?;
    listed
}

fn tree_after<'e>(project: &[u8], listed: &'e [(Entry, FileStat)], entries: &'e [Entry]) -> View<'e> {
    let mut nodes: HashMap<&[u8], Node<'_>> = HashMap::with_capacity(listed.len() + entries.len());
    let own = listed.iter().map(|(entry, _)| entry);
    for entry in own.chain(entries.iter().filter(|entry| entry.place == Place::Project)) {
        match entry.kind {
            Kind::Deleted => nodes.remove(entry.path.as_slice()),
            _ => nodes.insert(&entry.path, node(entry)),
        };
    }
    View::new(project, nodes)
}
