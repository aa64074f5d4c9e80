//! Decides which changes of a tree the host wants, by an earlier and the present state of the tree. No I/O.

use std::collections::{HashMap, HashSet};

use crate::protocol::project::Selection;
use crate::workspace::listing::node;
use crate::workspace::manifest::{Entry, EntryKind, Timestamp, Tree};
use crate::workspace::path::{DEEPEST, ancestors, split};
use crate::workspace::select::{Effort, Node, TreeView};
use crate::workspace::tree::{FileStat, Snapshot};
use crate::workspace::warnings::{LeftOut, Warnings};

/// The present state of a project.
pub(crate) struct TreeNow<'a> {
    /// Its path as scripts see it.
    pub(crate) project: &'a [u8],
    /// Its entries, without those in a `.git` that never come back.
    pub(crate) listed: &'a [(Entry, FileStat)],
    /// The paths of such a `.git`.
    pub(crate) of_git: Vec<Vec<u8>>,
    /// The content of `gitlab_runner_env`.
    pub(crate) assigned: &'a [u8],
}

/// The changes of the project since `snapshot` that the selection wants, parents before their content.
pub(crate) fn wanted_changes(
    now: TreeNow<'_>,
    snapshot: &Snapshot,
    selection: &Selection,
    warnings: &mut Warnings,
) -> Vec<Entry> {
    let TreeNow { project, listed, of_git, assigned } = now;
    let stays_with_git = selection.stays_with_git();
    let nodes = listed.iter().map(|(entry, _)| (entry.path.as_slice(), node(entry)));
    let now_there = TreeView::new(project, nodes.chain(of_git.iter().map(|path| (path.as_slice(), Node::Other))));
    let wanted = selection.wanted(now_there, assigned, Effort::Container);
    for path in of_git {
        // Entries received from the host are not reported: the host still has them.
        if wanted.wants(&path) && !snapshot.stats.contains_key(&(Tree::Project, path.clone())) {
            let is_repository = split(&path).1 == b".git";
            warnings.leave_out(if is_repository { LeftOut::NestedRepository } else { LeftOut::GitName }, &path);
        }
    }
    let mut send: HashSet<&[u8]> = HashSet::new();
    // Links that the host will not write but needs for its own search: a path of the job may lead through them.
    let mut told: HashSet<&[u8]> = HashSet::new();
    let mut now: HashMap<&[u8], EntryKind> = HashMap::with_capacity(listed.len());
    for (entry, stat) in listed {
        now.insert(&entry.path, stat.kind);
        let before = snapshot.stats.get(&(Tree::Project, entry.path.clone()));
        if before.is_some_and(|before| before.is_same(stat)) || !wanted.wants(&entry.path) {
            continue;
        }
        if ancestors(&entry.path).count() > DEEPEST {
            warnings.leave_out(LeftOut::TooDeep, &entry.path);
            continue;
        }
        let is_left_out = selection.leaves_out(&wanted, project, &entry.path, node(entry)).is_some();
        if is_left_out {
            told.insert(&entry.path)
        } else {
            send.insert(&entry.path)
        };
        // Directories on the way that the host lacks, or has as another kind, are part of the change.
        for above in ancestors(&entry.path) {
            let known = snapshot.stats.get(&(Tree::Project, above.to_vec()));
            if known.is_none_or(|stat| stat.kind != EntryKind::Directory) {
                send.insert(above);
            }
        }
    }
    let replaced = |path: &[u8]| {
        ancestors(path)
            .any(|above| send.contains(above) && now.get(above).is_some_and(|kind| *kind != EntryKind::Directory))
    };
    let is_gone = |path: &[u8]| ancestors(path).count() <= DEEPEST && !now.contains_key(path);
    let gone: Vec<&[u8]> =
        before(snapshot, stays_with_git).map(|(path, _)| path).filter(|path| is_gone(path)).collect();
    let mut entries: Vec<Entry> = Vec::new();
    if !gone.is_empty() {
        // The host's tree before the deletions is the one that its own search sees.
        let wanted =
            selection.wanted(view_before(project, snapshot, listed, stays_with_git), assigned, Effort::Container);
        let deleted = gone.into_iter().filter(|path| wanted.wants(path) || replaced(path));
        entries.extend(deleted.map(|path| deletion(Tree::Project, path)));
    }
    let is_sent = |path: &[u8]| send.contains(path) || told.contains(path);
    entries.extend(listed.iter().filter(|(entry, _)| is_sent(&entry.path)).map(|(entry, _)| stripped(entry)));
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// The project's entries as received.
fn before(snapshot: &Snapshot, stays_with_git: fn(&[u8]) -> bool) -> impl Iterator<Item = (&[u8], &FileStat)> {
    let paths = snapshot.stats.iter().filter(|((tree, _), _)| *tree == Tree::Project);
    paths
        .map(|((_, path), stat)| (path.as_slice(), stat))
        .filter(move |(path, _)| !path.is_empty() && !stays_with_git(path))
}

/// The project as received. The target of a link is known only if the link is unchanged.
fn view_before<'a>(
    project: &[u8],
    snapshot: &'a Snapshot,
    listed: &'a [(Entry, FileStat)],
    stays_with_git: fn(&[u8]) -> bool,
) -> TreeView<'a> {
    let links = listed.iter().filter(|(entry, _)| entry.kind == EntryKind::Link);
    let links: HashMap<&[u8], (&Entry, &FileStat)> =
        links.map(|(entry, stat)| (entry.path.as_slice(), (entry, stat))).collect();
    let node = |path: &[u8], stat: &FileStat| match stat.kind {
        EntryKind::Directory => Node::Directory,
        EntryKind::Link => match links.get(path) {
            Some((entry, now)) if stat.is_same(now) => Node::Link(&entry.target),
            _ => Node::Link(&[]),
        },
        EntryKind::File | EntryKind::Deleted | EntryKind::Special => Node::Other,
    };
    TreeView::new(project, before(snapshot, stays_with_git).map(|(path, stat)| (path, node(path, stat))))
}

pub(crate) fn deletion(tree: Tree, path: &[u8]) -> Entry {
    let mtime = Timestamp::default();
    Entry { tree, kind: EntryKind::Deleted, path: path.to_vec(), mode: 0, mtime, size: 0, target: Vec::new() }
}

/// The entry without set-id and sticky bits.
pub(crate) fn stripped(entry: &Entry) -> Entry {
    Entry { mode: entry.mode & 0o777, ..entry.clone() }
}
