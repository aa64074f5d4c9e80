//! Decides whether entries may be written: each by itself, all together, and against the host's trees. All rules against a hostile
//! container are here, except the check of the job's paths (`asked`).

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use rustix::fs::FileType;

use crate::base::failure::Failure;
use crate::workspace::manifest::{Entry, EntryKind, Tree};
use crate::workspace::path::{DEEPEST, ancestors, malformed, shown};
use crate::workspace::task::Stop;
use crate::workspace::tree::{ENV_FILE, ENV_FILE_MAX, Roots, Scope, Walker};
use crate::workspace::warnings::Warnings;

/// Set-user-id and set-group-id: refused in results.
const SET_ID: u32 = 0o6000;
const TOO_DEEP: &str = "it is more than 256 directories deep";

/// Checks an entry by itself; `is_git` tells paths in a `.git` that no container may write. The receiver calls it too, before it fetches or
/// keeps anything for the entry.
pub(crate) fn judge_alone(entry: &Entry, is_git: fn(&[u8]) -> bool) -> Result<(), &'static str> {
    if let Some(why) = malformed(&entry.path) {
        return Err(why);
    }
    if ancestors(&entry.path).count() > DEEPEST {
        return Err(TOO_DEEP);
    }
    if is_git(&entry.path) {
        return Err("nothing may be written into `.git`");
    }
    if entry.kind == EntryKind::Special {
        return Err("it is neither a file, a directory nor a link");
    }
    if entry.mode & SET_ID != 0 {
        return Err("it is set-user-id or set-group-id");
    }
    if entry.kind != EntryKind::Link && !entry.target.is_empty() {
        return Err("it is not a link but has a link target");
    }
    if entry.tree == Tree::Tmp {
        if entry.path != ENV_FILE || !matches!(entry.kind, EntryKind::File | EntryKind::Deleted) {
            return Err("of the temporary directory only the file `gitlab_runner_env` may come back");
        }
        if entry.size > ENV_FILE_MAX {
            return Err("it is larger than 1 MiB");
        }
    }
    Ok(())
}

pub(crate) fn refused(entry: &Entry, why: &str) -> anyhow::Error {
    Failure::user(format!("{} is refused: {why}", shown(&entry.path)))
        .hint("keep the file out of the job's `artifacts` and `cache` paths, or let the script remove it")
        .into()
}

/// Checks every entry by itself and the entries against each other.
pub(crate) fn judge_together(entries: &[Entry], is_git: fn(&[u8]) -> bool) -> anyhow::Result<()> {
    let mut known: HashMap<(Tree, &[u8]), &Entry> = HashMap::with_capacity(entries.len());
    for entry in entries {
        judge_alone(entry, is_git).map_err(|why| refused(entry, why))?;
        if known.insert((entry.tree, &entry.path), entry).is_some() {
            return Err(refused(entry, "the container sent this path twice"));
        }
    }
    for entry in entries.iter().filter(|entry| entry.kind != EntryKind::Deleted) {
        for above in ancestors(&entry.path) {
            if known.get(&(entry.tree, above)).is_some_and(|above| above.kind != EntryKind::Directory) {
                return Err(refused(entry, &format!("{} above it is no directory", shown(above))));
            }
        }
    }
    Ok(())
}

/// Checks the entries that the job asked for against the host's trees.
pub(crate) fn judge(asked: &[(usize, &Entry)], roots: &Roots, stop: &Stop) -> anyhow::Result<()> {
    let known: HashMap<(Tree, &[u8]), &Entry> =
        asked.iter().map(|(_, entry)| ((entry.tree, entry.path.as_slice()), *entry)).collect();
    let mut host = Host { walker: Walker::new(roots.project()?), kinds: HashMap::new() };
    for (_, entry) in asked {
        stop.check()?;
        if entry.tree == Tree::Project && entry.kind != EntryKind::Deleted {
            host.judge(entry, &known)?;
        }
    }
    host.judge_bare_repository(&known)?;
    if let Some(root) = &roots.tmp
        && asked.iter().any(|(_, entry)| entry.tree == Tree::Tmp)
        && let Some(stat) = Walker::new(root).stat(ENV_FILE)?
        && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
    {
        bail!("`gitlab_runner_env` is a directory on the host");
    }
    Ok(())
}

/// The host's tree at the paths to write.
struct Host {
    walker: Walker,
    /// Types by path; `None`: missing.
    kinds: HashMap<Vec<u8>, Option<FileType>>,
}

impl Host {
    fn kind(&mut self, path: &[u8]) -> anyhow::Result<Option<FileType>> {
        if let Some(kind) = self.kinds.get(path) {
            return Ok(*kind);
        }
        let stat = self.walker.stat(path).with_context(|| format!("failed to look at {}", shown(path)))?;
        let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
        self.kinds.insert(path.to_vec(), kind);
        Ok(kind)
    }

    fn judge(&mut self, entry: &Entry, known: &HashMap<(Tree, &[u8]), &Entry>) -> anyhow::Result<()> {
        for above in ancestors(&entry.path) {
            match self.kind(above)? {
                Some(FileType::Directory) => {}
                // So nothing is below it on the host either.
                None => return Ok(()),
                Some(_) if known.get(&(entry.tree, above)).is_some_and(|above| above.kind == EntryKind::Directory) => {
                    return Ok(());
                }
                Some(_) => return Err(refused(entry, &format!("{} is no directory on the host", shown(above)))),
            }
        }
        if entry.kind != EntryKind::Directory && self.kind(&entry.path)? == Some(FileType::Directory) {
            self.judge_replaced(entry, known)?;
        }
        Ok(())
    }

    /// A file or link may replace a directory of the host only if the container deleted its whole content.
    fn judge_replaced(&mut self, entry: &Entry, known: &HashMap<(Tree, &[u8]), &Entry>) -> anyhow::Result<()> {
        let mut ignored = Warnings::default();
        let stop = Stop::default();
        let scope = Scope { tree: entry.tree, top: &entry.path, skip: &|_| false, stop: &stop };
        let held = self.walker.list(&scope, &mut ignored)?;
        let kept = held
            .iter()
            .map(|(held, _)| held)
            .find(|held| known.get(&(held.tree, &held.path[..])).is_none_or(|held| held.kind != EntryKind::Deleted));
        match kept {
            None if ignored.is_empty() => Ok(()),
            None => Err(refused(entry, "it would replace a directory of the host that holds a socket, FIFO or device")),
            Some(kept) => Err(refused(
                entry,
                &format!("it would replace a directory of the host that holds {}", shown(&kept.path)),
            )),
        }
    }

    /// Without a `.git`, git treats a directory with a `HEAD` as a repository when it finds objects and references there or where `commondir`
    /// leads, and uses its configuration.
    fn judge_bare_repository(&mut self, known: &HashMap<(Tree, &[u8]), &Entry>) -> anyhow::Result<()> {
        const PARTS: [&[u8]; 6] = [b"HEAD", b"objects", b"refs", b"commondir", b"config", b"config.worktree"];
        let coming = |name: &[u8]| {
            known.values().copied().find(|entry| {
                entry.tree == Tree::Project && entry.kind != EntryKind::Deleted && entry.path.eq_ignore_ascii_case(name)
            })
        };
        let Some(first) = PARTS.iter().find_map(|part| coming(part)) else { return Ok(()) };
        if self.kind(b".git")?.is_some() {
            return Ok(());
        }
        let mut is_there = |name: &[u8]| anyhow::Ok(coming(name).is_some() || self.kind(name)?.is_some());
        let is_repository =
            is_there(b"HEAD")? && (is_there(b"commondir")? || (is_there(b"objects")? && is_there(b"refs")?));
        if is_repository {
            return Err(refused(first, "it would make the project directory a bare git repository"));
        }
        Ok(())
    }
}
