//! Applies staged results to the host's trees, after all of them were checked.
//!
//! The container is assumed to be hostile: [`apply`] checks every entry and every path it would touch before it changes anything. It
//! never follows a link, of the container or the host.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::Context as _;

use super::asked::{EntryDecision, decisions};
use super::env_lines;
use super::judge::{judge, judge_together, refused};
use super::staging::{Staged, Staging};
use crate::protocol::project::{Selection, Trees};
use crate::workspace::manifest::{Entry, EntryKind, Tree};
use crate::workspace::path::shown;
use crate::workspace::summary::Summary;
use crate::workspace::task::Stop;
use crate::workspace::tree::{ENV_FILE, ENV_FILE_MAX, FileEnd, Roots, UNREADABLE_ENV, Walker, assigned, write};
use crate::workspace::warnings::{LeftOut, Warnings};

/// Checks the staged results against the trees, then applies them.
pub(crate) fn apply(
    staging: &Staging,
    trees: &Trees,
    selection: &Selection,
    received: Vec<String>,
    stop: &Stop,
) -> anyhow::Result<Summary> {
    let Staged { mut entries, contents } = staging.take();
    let mut warnings = Warnings::default();
    if selection.folder.is_some() {
        if let Some(entry) = entries.iter().find(|entry| entry.tree == Tree::Tmp) {
            return Err(refused(entry, "only the first node may send it"));
        }
        if entries.is_empty() {
            return Ok(Summary::default());
        }
        trees.create(trees.project_here())?;
    }
    let mut roots = Roots::open(trees)?;
    judge_together(&entries, selection.stays_with_git())?;
    let assigned = assigned_after(staging, &entries, &contents, &roots)?;
    filter_env(&mut entries, &contents, staging, &mut warnings)?;
    for entry in &mut entries {
        entry.mode |= owner_bits(entry.kind);
    }
    let decisions = decisions(&entries, &roots, selection, &assigned, stop)?;
    // Sorted by path: entries are in the order in which they were finished.
    let left_out: BTreeMap<&[u8], LeftOut> = entries
        .iter()
        .zip(&decisions)
        .filter_map(|(entry, decision)| decision.left_out().map(|why| (entry.path.as_slice(), why)))
        .collect();
    for (path, why) in left_out {
        warnings.leave_out(why, path);
    }
    let asked: Vec<(usize, &Entry)> =
        entries.iter().enumerate().filter(|(at, _)| decisions.get(*at) == Some(&EntryDecision::Apply)).collect();
    judge(&asked, &roots, stop)?;
    for line in received.into_iter().take(Warnings::MOST) {
        warnings.add(one_line(&line));
    }

    // All checks are done: from here on only the host's disk can fail.
    if roots.tmp.is_none() && asked.iter().any(|(_, entry)| entry.tree == Tree::Tmp && entry.kind == EntryKind::File) {
        roots.tmp = Some(trees.create(trees.tmp_here())?);
    }
    let mut summary = Summary::default();
    for tree in [Tree::Project, Tree::Tmp] {
        let Some(root) = roots.get(tree) else { continue };
        let mut walker = Walker::unlocking(root);
        for entry in deletions(&asked, tree) {
            write::delete(&mut walker, &entry.path)
                .with_context(|| format!("failed to delete {}", shown(&entry.path)))?;
            summary.deleted += 1;
        }
        let own = || asked.iter().copied().filter(|(_, entry)| entry.tree == tree && entry.kind != EntryKind::Deleted);
        put_in_place(&mut walker, own, &contents, staging, &mut summary)?;
        walker.relock().context("failed to restore the modes of directories")?;
    }
    summary.warnings = warnings.lines();
    Ok(summary)
}

/// Permissions that the host's stages need: git to clean the tree, the runner's helper to read it.
fn owner_bits(kind: EntryKind) -> u32 {
    match kind {
        EntryKind::Directory => 0o700,
        EntryKind::File => 0o400,
        EntryKind::Link | EntryKind::Deleted | EntryKind::Special => 0,
    }
}

/// Removes variables from `gitlab_runner_env` that would influence later host stages.
fn filter_env(
    entries: &mut [Entry],
    contents: &BTreeMap<usize, String>,
    staging: &Staging,
    warnings: &mut Warnings,
) -> anyhow::Result<()> {
    let env =
        entries.iter_mut().enumerate().find(|(_, entry)| entry.tree == Tree::Tmp && entry.kind == EntryKind::File);
    let Some((at, entry)) = env else { return Ok(()) };
    let Some(name) = contents.get(&at) else { return Ok(()) };
    let content = staging.read(name, ENV_FILE_MAX).context(UNREADABLE_ENV)?;
    if let Some((kept, explanation)) = env_lines::filtered(&content) {
        staging.rewrite(name, &kept).context("failed to write `gitlab_runner_env`")?;
        entry.size = kept.len() as u64;
        if !explanation.is_empty() {
            warnings.add(explanation);
        }
    }
    Ok(())
}

/// The deletions, children before their directories.
fn deletions<'e>(asked: &[(usize, &'e Entry)], tree: Tree) -> Vec<&'e Entry> {
    let own = asked.iter().map(|(_, entry)| *entry);
    let mut deletions: Vec<&Entry> =
        own.filter(|entry| entry.tree == tree && entry.kind == EntryKind::Deleted).collect();
    deletions.sort_unstable_by(|a, b| b.path.cmp(&a.path));
    deletions
}

/// Writes directories, then files and links, then sets the modes and times of directories.
fn put_in_place<'a, I: DoubleEndedIterator<Item = (usize, &'a Entry)>>(
    walker: &mut Walker,
    entries: impl Fn() -> I,
    contents: &BTreeMap<usize, String>,
    staging: &Staging,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let failed = |entry: &Entry| format!("failed to write {}", shown(&entry.path));
    for (_, entry) in entries().filter(|(_, entry)| entry.kind == EntryKind::Directory) {
        write::make_directory(walker, &entry.path).with_context(|| failed(entry))?;
    }
    for (at, entry) in entries() {
        match (entry.kind, contents.get(&at)) {
            (EntryKind::File, Some(content)) => {
                let end = FileEnd { size: entry.size, mode: entry.mode, mtime: entry.mtime };
                write::place_file(walker, &entry.path, staging.fd(), content, &end).with_context(|| failed(entry))?;
                summary.bytes += entry.size;
            }
            (EntryKind::Link, _) => {
                write::write_link(walker, entry).with_context(|| failed(entry))?;
            }
            _ => continue,
        }
        summary.count(entry);
    }
    for (_, entry) in entries().rev().filter(|(_, entry)| entry.kind == EntryKind::Directory) {
        write::finish_directory(walker, entry).with_context(|| failed(entry))?;
    }
    Ok(())
}

/// Makes a container's warning safe to print.
fn one_line(line: &str) -> String {
    let line: String = line.chars().take(1000).collect();
    let safe = shown(line.as_bytes());
    safe.strip_prefix('`').and_then(|safe| safe.strip_suffix('`')).unwrap_or_default().to_owned()
}

/// The future content of `gitlab_runner_env` on the host.
fn assigned_after(
    staging: &Staging,
    entries: &[Entry],
    contents: &BTreeMap<usize, String>,
    roots: &Roots,
) -> anyhow::Result<Vec<u8>> {
    let Some(at) = entries.iter().position(|entry| entry.tree == Tree::Tmp && entry.path == ENV_FILE) else {
        return assigned(roots);
    };
    let mut content = Vec::new();
    if let Some(name) = contents.get(&at) {
        staging.open_to_read(name)?.take(ENV_FILE_MAX).read_to_end(&mut content).context(UNREADABLE_ENV)?;
    }
    Ok(content)
}
