//! Content that arrives in the container: written under its own name at once, for nobody reads the trees yet.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use super::chunk::{ChunkHash, is_zero};
use super::entry::{Entry, Kind, Mark, Place, shown, split};
use super::fetching::{FileEnd, Incoming, Sink, State};
use super::tree::Walker;
use super::{Roots, Snapshot, Summary, git_stat, restore};

const PAGE: usize = 4096;
/// A `.git` that is a file holds one path.
const LONGEST_GIT_FILE: u64 = 8192;

/// Both trees while they are written.
pub(super) struct Placing {
    roots: Roots,
    /// Walkers that no thread uses at the moment.
    idle: Mutex<Vec<(Place, Walker)>>,
    placed: Mutex<Placed>,
}

#[derive(Default)]
struct GitFiles {
    /// Each `.git` of the project that is a file or a link.
    gits: Vec<(Vec<u8>, Kind)>,
    /// Files of a name that a git directory has, small ones alone.
    files: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Placed {
    marks: HashMap<(Place, Vec<u8>), Mark>,
    /// In the order in which they came: parents first.
    directories: Vec<Entry>,
    summary: Summary,
}

impl Placing {
    pub(super) fn new(roots: Roots) -> Self {
        Self { roots, idle: Mutex::default(), placed: Mutex::default() }
    }

    fn with_walker<T>(&self, place: Place, work: impl FnOnce(&mut Walker) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = {
            let mut idle = idle();
            idle.iter().position(|(own, _)| *own == place).map(|at| idle.swap_remove(at).1)
        };
        let mut walker = match known {
            Some(walker) => walker,
            None => Walker::unlocking(self.roots.get(place).context("the temporary directory does not exist")?),
        };
        let done = work(&mut walker);
        idle().push((place, walker));
        done
    }

    fn note(&self, entry: &Entry, size: u64, mark: Option<Mark>) {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.summary.count(entry);
        placed.summary.bytes += size;
        placed.marks.extend(mark.map(|mark| ((entry.place, entry.path.clone()), mark)));
    }

    /// Git's settings, then modes and times of directories, once nothing more is written into them.
    pub(super) fn finish(&self) -> anyhow::Result<(Snapshot, Summary)> {
        self.settle_git();
        let Placed { mut marks, directories, summary } =
            std::mem::take(&mut *self.placed.lock().unwrap_or_else(PoisonError::into_inner));
        for entry in directories.into_iter().rev() {
            let mark = self
                .with_walker(entry.place, |walker| Ok(restore::finish_directory(walker, &entry)?))
                .with_context(|| failed(&entry))?;
            marks.extend(mark.map(|mark| ((entry.place, entry.path), mark)));
        }
        for (_, walker) in self.idle.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            walker.relock().context("failed to restore the modes of directories")?;
        }
        Ok((Snapshot { marks: marks.into() }, summary))
    }
}

impl Placing {
    /// What tells where git's configurations are.
    fn git_files(&self) -> GitFiles {
        let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = GitFiles::default();
        for ((_, path), mark) in placed.marks.iter().filter(|((place, _), _)| *place == Place::Project) {
            match split(path).1 {
                b".git" if matches!(mark.kind, Kind::File | Kind::Link) => found.gits.push((path.clone(), mark.kind)),
                b"HEAD" | b"config" | b"config.worktree"
                    if mark.kind == Kind::File && mark.size <= git_stat::LARGEST =>
                {
                    found.files.push(path.clone());
                }
                _ => {}
            }
        }
        found
    }

    /// A tree that was clean on the host is clean here. What cannot be changed costs git time, or a filter that the image lacks: no reason to fail.
    fn settle_git(&self) {
        let GitFiles { gits, files } = self.git_files();
        let mut named = BTreeSet::new();
        for (git, kind) in gits {
            let project = self.roots.project_bytes();
            let place = self.with_walker(Place::Project, |walker| place_of_git(walker, &git, kind)).ok().flatten();
            named.extend(place.and_then(|place| git_stat::named(project, &git, &place)));
        }
        let configurations = git_stat::configurations(files.iter().map(Vec::as_slice), &named);
        for path in configurations {
            match self.with_walker(Place::Project, |walker| settle_configuration(walker, path)) {
                // It is as it arrived: a git directory of another name than `.git` may go back.
                Ok(mark) => {
                    let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
                    placed.marks.extend(mark.map(|mark| ((Place::Project, path.to_vec()), mark)));
                }
                Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to settle {}", shown(path)),
            }
        }
    }
}

/// What a `.git` that is a file or a link says of its directory's place.
fn place_of_git(walker: &mut Walker, git: &[u8], kind: Kind) -> anyhow::Result<Option<Vec<u8>>> {
    if kind == Kind::Link {
        return Ok(Some(walker.target(git)?));
    }
    let mut content = Vec::new();
    walker.open_file(git)?.take(LONGEST_GIT_FILE).read_to_end(&mut content)?;
    Ok(git_stat::place_in(&content).map(<[u8]>::to_vec))
}

fn settle_configuration(walker: &mut Walker, path: &[u8]) -> anyhow::Result<Option<Mark>> {
    let mut file = walker.open_file(path)?;
    let mark = Mark::of(&rustix::fs::fstat(&file)?).context("it is no file")?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let Some(content) = git_stat::with_minimal_stat(&content) else { return Ok(None) };
    // A new file in its place: the old one may not be writable.
    let new = restore::open_new(walker, path, true)?;
    new.write_all_at(&content, 0)?;
    let end = FileEnd { size: content.len() as u64, mode: mark.mode, mtime: mark.mtime };
    Ok(restore::settle_file(&new, &end)?)
}

/// Leaves out pages of zeros: the file is new, so a hole reads the same.
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
    /// The host is trusted.
    fn judge(&self, _: &Entry) -> Result<(), &'static str> {
        Ok(())
    }

    fn entry(&self, entry: Entry) -> anyhow::Result<()> {
        match entry.kind {
            Kind::Directory => {
                if !entry.path.is_empty() {
                    self.with_walker(entry.place, |walker| Ok(restore::make_directory(walker, &entry.path)?))
                        .with_context(|| failed(&entry))?;
                }
                self.placed.lock().unwrap_or_else(PoisonError::into_inner).directories.push(entry);
            }
            Kind::Link => {
                let mark = self
                    .with_walker(entry.place, |walker| Ok(restore::write_link(walker, &entry)?))
                    .with_context(|| failed(&entry))?;
                self.note(&entry, 0, mark);
            }
            Kind::File | Kind::Deleted | Kind::Special => {}
        }
        Ok(())
    }

    fn has(&self, _: &Incoming, _: u64, _: u32, _: ChunkHash) -> bool {
        // A script may have been here since an earlier arrival.
        false
    }

    fn write(&self, file: &Incoming, offset: u64, content: &[u8]) -> anyhow::Result<()> {
        let entry = &file.entry;
        self.with_walker(entry.place, |walker| {
            let mut state = file.state();
            let open = restore::open_new(walker, &entry.path, *state == State::Announced)?;
            *state = State::Made;
            // The last one finishes it while it is open; of small files it is the only one.
            let end = file.end_after_this();
            if end.is_none() {
                drop(state);
                write_with_holes(&open, offset, content)?;
                return Ok(());
            }
            write_with_holes(&open, offset, content)?;
            if let Some(end) = end {
                self.note(entry, end.size, restore::settle_file(&open, &end)?);
                *state = State::Finished;
            }
            Ok(())
        })
    }

    fn finish(&self, file: &Incoming, end: &FileEnd) -> anyhow::Result<()> {
        let entry = &file.entry;
        let mut state = file.state();
        if *state == State::Finished {
            return Ok(());
        }
        let make = *state == State::Announced;
        let mark = self.with_walker(entry.place, |walker| {
            Ok(restore::settle_file(&restore::open_new(walker, &entry.path, make)?, end)?)
        })?;
        self.note(entry, end.size, mark);
        *state = State::Finished;
        Ok(())
    }

    fn restart(&self, file: &Incoming) -> anyhow::Result<()> {
        // Made anew by the next write.
        *file.state() = State::Announced;
        Ok(())
    }

    fn drop(&self, file: &Incoming) -> anyhow::Result<()> {
        if *file.state() == State::Announced {
            return Ok(());
        }
        let entry = &file.entry;
        self.with_walker(entry.place, |walker| Ok(restore::delete(walker, &entry.path)?)).with_context(|| failed(entry))
    }
}
