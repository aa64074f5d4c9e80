//! Writes received content in the container directly under its final name, since the trees are not read yet.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use parking_lot::Mutex;

use super::git_stat;
use super::sink::{Incoming, Sink, WriteState};
use crate::workspace::manifest::{Entry, EntryKind, Tree};
use crate::workspace::path::{shown, split};
use crate::workspace::store::{ChunkHash, is_zero};
use crate::workspace::summary::Summary;
use crate::workspace::tree::{FileEnd, FileStat, Roots, Snapshot, Walker, write};

const PAGE: usize = 4096;
/// Largest `.git` file that is read: it contains one path.
const LONGEST_GIT_FILE: u64 = 8192;

/// Writes both trees.
pub(crate) struct Placing {
    roots: Roots,
    /// Walkers that no thread is using.
    idle: Mutex<Vec<(Tree, Walker)>>,
    placed: Mutex<Placed>,
}

#[derive(Default)]
struct GitFiles {
    /// The `.git` entries of the project that are files or links.
    gits: Vec<(Vec<u8>, EntryKind)>,
    /// Small files with the name of a git directory's file.
    files: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Placed {
    stats: HashMap<(Tree, Vec<u8>), FileStat>,
    /// In order of arrival: parents first.
    directories: Vec<Entry>,
    summary: Summary,
}

impl Placing {
    pub(crate) fn new(roots: Roots) -> Self {
        Self { roots, idle: Mutex::default(), placed: Mutex::default() }
    }

    fn with_walker<T>(&self, tree: Tree, work: impl FnOnce(&mut Walker) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let idle = || self.idle.lock();
        let known = {
            let mut idle = idle();
            idle.iter().position(|(own, _)| *own == tree).map(|at| idle.swap_remove(at).1)
        };
        let mut walker = match known {
            Some(walker) => walker,
            None => Walker::unlocking(self.roots.existing(tree)?),
        };
        let done = work(&mut walker);
        idle().push((tree, walker));
        done
    }

    fn note(&self, entry: &Entry, size: u64, stat: Option<FileStat>) {
        let mut placed = self.placed.lock();
        placed.summary.count(entry);
        placed.summary.bytes += size;
        placed.stats.extend(stat.map(|stat| ((entry.tree, entry.path.clone()), stat)));
    }

    /// Changes git's configurations, then sets modes and times of directories, after everything was written.
    pub(crate) fn finish(&self) -> anyhow::Result<(Snapshot, Summary)> {
        self.settle_git();
        let Placed { mut stats, directories, summary } = std::mem::take(&mut *self.placed.lock());
        for entry in directories.into_iter().rev() {
            let stat = self
                .with_walker(entry.tree, |walker| Ok(write::finish_directory(walker, &entry)?))
                .with_context(|| failed(&entry))?;
            stats.extend(stat.map(|stat| ((entry.tree, entry.path), stat)));
        }
        for (_, walker) in self.idle.lock().iter_mut() {
            walker.relock().context("failed to restore the modes of directories")?;
        }
        Ok((Snapshot { stats: stats.into() }, summary))
    }
}

impl Placing {
    /// The files that lead to git's configurations.
    fn git_files(&self) -> GitFiles {
        let placed = self.placed.lock();
        let mut found = GitFiles::default();
        for ((_, path), stat) in placed.stats.iter().filter(|((tree, _), _)| *tree == Tree::Project) {
            match split(path).1 {
                b".git" if matches!(stat.kind, EntryKind::File | EntryKind::Link) => {
                    found.gits.push((path.clone(), stat.kind));
                }
                b"HEAD" | b"config" | b"config.worktree"
                    if stat.kind == EntryKind::File && stat.size <= git_stat::LARGEST =>
                {
                    found.files.push(path.clone());
                }
                _ => {}
            }
        }
        found
    }

    /// Makes a tree that is clean on the host clean in the container. Failures are ignored: git is then slower, or needs a filter that the
    /// image may lack.
    fn settle_git(&self) {
        let GitFiles { gits, files } = self.git_files();
        let mut named = BTreeSet::new();
        for (git, kind) in gits {
            let project = self.roots.project_bytes();
            let place = self.with_walker(Tree::Project, |walker| place_of_git(walker, &git, kind)).ok().flatten();
            named.extend(place.and_then(|place| git_stat::named(project, &git, &place)));
        }
        let configurations = git_stat::configurations(files.iter().map(Vec::as_slice), &named);
        for path in configurations {
            match self.with_walker(Tree::Project, |walker| settle_configuration(walker, path)) {
                // Counts as received: a git directory with another name than `.git` may be sent back.
                Ok(stat) => {
                    let mut placed = self.placed.lock();
                    placed.stats.extend(stat.map(|stat| ((Tree::Project, path.to_vec()), stat)));
                }
                Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to settle {}", shown(path)),
            }
        }
    }
}

/// Reads the path of the git directory from a `.git` that is a file or a link.
fn place_of_git(walker: &mut Walker, git: &[u8], kind: EntryKind) -> anyhow::Result<Option<Vec<u8>>> {
    if kind == EntryKind::Link {
        return Ok(Some(walker.target(git)?));
    }
    let mut content = Vec::new();
    walker.open_file(git)?.take(LONGEST_GIT_FILE).read_to_end(&mut content)?;
    Ok(git_stat::place_in(&content).map(<[u8]>::to_vec))
}

fn settle_configuration(walker: &mut Walker, path: &[u8]) -> anyhow::Result<Option<FileStat>> {
    let mut file = walker.open_file(path)?;
    let stat = FileStat::of(&rustix::fs::fstat(&file)?).context("it is no file")?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let Some(content) = git_stat::with_minimal_stat(&content) else { return Ok(None) };
    // A new file: the old one may not be writable.
    let new = write::open_new(walker, path, true)?;
    new.write_all_at(&content, 0)?;
    let end = FileEnd { size: content.len() as u64, mode: stat.mode, mtime: stat.mtime };
    Ok(write::settle_file(&new, &end)?)
}

/// Skips pages of zeros: the file is new, so holes read as zeros.
fn write_with_holes(file: &File, offset: u64, content: &[u8]) -> std::io::Result<()> {
    let mut start = 0;
    let mut end = 0;
    for page in content.chunks(PAGE) {
        if page.len() == PAGE && is_zero(page) {
            file.write_all_at(&content[start..end], offset + start as u64)?;
            start = end + PAGE;
        }
        end += page.len();
    }
    file.write_all_at(&content[start..end], offset + start as u64)
}

fn failed(entry: &Entry) -> String {
    format!("failed to write {}", shown(&entry.path))
}

impl Sink for Placing {
    /// Accepts everything: the host is trusted.
    fn judge(&self, _: &Entry) -> Result<(), &'static str> {
        Ok(())
    }

    fn entry(&self, entry: Entry) -> anyhow::Result<()> {
        match entry.kind {
            EntryKind::Directory => {
                if !entry.path.is_empty() {
                    self.with_walker(entry.tree, |walker| Ok(write::make_directory(walker, &entry.path)?))
                        .with_context(|| failed(&entry))?;
                }
                self.placed.lock().directories.push(entry);
            }
            EntryKind::Link => {
                let stat = self
                    .with_walker(entry.tree, |walker| Ok(write::write_link(walker, &entry)?))
                    .with_context(|| failed(&entry))?;
                self.note(&entry, 0, stat);
            }
            EntryKind::File | EntryKind::Deleted | EntryKind::Special => {}
        }
        Ok(())
    }

    fn has(&self, _: &Incoming, _: u64, _: u32, _: ChunkHash) -> bool {
        // A script may have changed content of an earlier transfer.
        false
    }

    fn write(&self, file: &Incoming, offset: u64, content: &[u8]) -> anyhow::Result<()> {
        let entry = &file.entry;
        self.with_walker(entry.tree, |walker| {
            let mut state = file.state();
            let open = write::open_new(walker, &entry.path, *state == WriteState::Announced)?;
            *state = WriteState::Made;
            // The last write finishes the file while it is open; a small file has only one.
            let end = file.end_after_this();
            if end.is_none() {
                drop(state);
                write_with_holes(&open, offset, content)?;
                return Ok(());
            }
            write_with_holes(&open, offset, content)?;
            if let Some(end) = end {
                self.note(entry, end.size, write::settle_file(&open, &end)?);
                *state = WriteState::Finished;
            }
            Ok(())
        })
    }

    fn finish(&self, file: &Incoming, end: &FileEnd) -> anyhow::Result<()> {
        let entry = &file.entry;
        let mut state = file.state();
        if *state == WriteState::Finished {
            return Ok(());
        }
        let make = *state == WriteState::Announced;
        let stat = self.with_walker(entry.tree, |walker| {
            Ok(write::settle_file(&write::open_new(walker, &entry.path, make)?, end)?)
        })?;
        self.note(entry, end.size, stat);
        *state = WriteState::Finished;
        Ok(())
    }

    fn restart(&self, file: &Incoming) -> anyhow::Result<()> {
        // The next write creates the file again.
        *file.state() = WriteState::Announced;
        Ok(())
    }

    fn drop(&self, file: &Incoming) -> anyhow::Result<()> {
        if *file.state() == WriteState::Announced {
            return Ok(());
        }
        let entry = &file.entry;
        self.with_walker(entry.tree, |walker| Ok(write::delete(walker, &entry.path)?)).with_context(|| failed(entry))
    }
}
