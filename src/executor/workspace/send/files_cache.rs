//! Remembers the chunks of a project directory's files from the last transfer: an unchanged file is not read again, as with git's index.
//!
//! The notes are for one directory on one host. If they are missing or wrong, files are read again; so is a file with a chunk that the
//! store no longer has.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::workspace::store::{ChunkHash, Located, USUAL};
use crate::workspace::tree::StateId;

const MAGIC: [u8; 8] = *b"SMEXFIL1";
/// Most files and most chunks that are remembered (about 70 bytes each, twice in memory); other files are read.
const MOST: usize = 400_000;
/// Notes are deleted when nothing was sent from the directory for this long.
const OLDEST: Duration = Duration::from_hours(30 * 24);

/// A run of chunks without gaps: the offset of the first in its file, and the hash and length of each.
pub(crate) type Run<'a> = (u64, &'a [(ChunkHash, u32)]);

/// The notes about one directory.
#[derive(Default)]
pub(crate) struct FilesCache {
    /// `None`: the cache is disabled.
    path: Option<PathBuf>,
    last: Notes,
    /// Positions of the files in `last`, ordered by their state.
    order: Vec<u32>,
    /// The notes of this transfer.
    now: Mutex<Notes>,
    /// A file of this transfer was not in `last`.
    is_new: AtomicBool,
}

/// Flat arrays, since there are many entries. Each file has the end of its runs, which begin at the end of the file before; likewise
/// each run its chunks.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Notes {
    files: Vec<(StateId, u32)>,
    runs: Vec<(u64, u32)>,
    chunks: Vec<(ChunkHash, u32)>,
}

impl FilesCache {
    /// Opens the notes about the directory `project`, in the host's directory `folder`. Blocks.
    pub(crate) fn open(folder: &Path, project: &Path) -> Self {
        let name = blake3::hash(project.as_os_str().as_bytes()).to_hex();
        let path = folder.join(name.get(..32).unwrap_or_default());
        let last = read(&path).unwrap_or_default();
        let mut order: Vec<u32> = (0..u32::try_from(last.files.len()).unwrap_or(0)).collect();
        order.sort_unstable_by_key(|at| last.state(*at));
        Self { path: Some(path), last, order, ..Self::default() }
    }

    /// True when a file of this size can be remembered.
    pub(crate) fn takes(&self, size: u64) -> bool {
        self.path.is_some() && size / USUAL as u64 <= MOST as u64
    }

    /// True when there are no notes of an earlier transfer.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The chunks of a file in this state, in order of the offsets.
    pub(crate) fn recall(&self, state: StateId) -> Option<Vec<Run<'_>>> {
        let found = self.order.binary_search_by_key(&Some(state), |at| self.last.state(*at)).ok()?;
        self.last.runs(*self.order.get(found)? as usize)
    }

    /// Remembers the chunks of a file that was in this state before and after it was read.
    pub(crate) fn note<'l>(
        &self,
        state: StateId,
        runs: impl IntoIterator<Item = (u64, &'l [Located]), IntoIter: Clone>,
    ) {
        self.is_new.store(true, Ordering::Relaxed);
        self.keep(state, runs);
    }

    /// Remembers chunks that were recalled.
    pub(crate) fn keep<'l>(
        &self,
        state: StateId,
        runs: impl IntoIterator<Item = (u64, &'l [Located]), IntoIter: Clone>,
    ) {
        if self.path.is_some() {
            self.now.lock().add(state, runs.into_iter());
        }
    }

    /// Replaces the last notes by those of this transfer. Blocks. A failure is logged and costs only time later.
    pub(crate) fn save(&self) {
        let Some(path) = &self.path else { return };
        let now = std::mem::take(&mut *self.now.lock());
        let is_known = !self.is_new.load(Ordering::Relaxed) && now.files.len() == self.last.files.len();
        let saved = if is_known {
            File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()))
        } else {
            write(path, &now)
        };
        if let Err(error) = saved {
            tracing::debug!(%error, "failed to save the notes about the project's files");
        }
        if let Some(folder) = path.parent() {
            drop_old(folder);
        }
    }
}

impl Notes {
    fn state(&self, file: u32) -> Option<StateId> {
        self.files.get(file as usize).map(|(state, _)| *state)
    }

    /// All runs of a file, or `None` when one is missing.
    fn runs(&self, file: usize) -> Option<Vec<Run<'_>>> {
        let (first, end) = within(&self.files, file)?;
        let run = |run| {
            let (offset, _) = self.runs.get(run)?;
            let (first, end) = within(&self.runs, run)?;
            Some((*offset, self.chunks.get(first..end)?))
        };
        (first..end).map(run).collect()
    }

    fn add<'l>(&mut self, state: StateId, runs: impl Iterator<Item = (u64, &'l [Located])> + Clone) {
        let chunks: usize = runs.clone().map(|(_, chunks)| chunks.len()).sum();
        if self.files.len() >= MOST || self.chunks.len() + chunks > MOST {
            return;
        }
        for (offset, chunks) in runs {
            self.chunks.extend(chunks.iter().map(|chunk| (chunk.hash, chunk.length)));
            self.runs.push((offset, end(&self.chunks)));
        }
        self.files.push((state, end(&self.runs)));
    }
}

/// The range of positions of the `at`th item of `ends`.
fn within<T>(ends: &[(T, u32)], at: usize) -> Option<(usize, usize)> {
    let end = |at: usize| ends.get(at).map(|(_, end)| *end as usize);
    let first = at.checked_sub(1).map_or(Some(0), end)?;
    end(at).filter(|end| first <= *end).map(|end| (first, end))
}

fn end<T>(items: &[T]) -> u32 {
    // At most `MOST`.
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn read(path: &Path) -> Option<Notes> {
    let bytes = std::fs::read(path).ok()?;
    let (body, hash) = bytes.strip_prefix(&MAGIC)?.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != hash {
        tracing::debug!(path = %path.display(), "the notes about the project's files are damaged");
        return None;
    }
    postcard::from_bytes(body).ok()
}

fn write(path: &Path, notes: &Notes) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&MAGIC)?;
    let body = Hashing { file: BufWriter::new(file.as_file_mut()), hash: blake3::Hasher::new() };
    let Hashing { file: mut writer, hash } = postcard::to_io(notes, body).map_err(io::Error::other)?;
    writer.write_all(hash.finalize().as_bytes())?;
    writer.flush()?;
    drop(writer);
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A writer that also hashes.
struct Hashing<W> {
    file: W,
    hash: blake3::Hasher,
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hash.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Deletes the notes of unused directories and temporary files of killed processes.
fn drop_old(folder: &Path) {
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > OLDEST)) {
            drop(std::fs::remove_file(file.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(text: &str) -> Located {
        let length = u32::try_from(text.len()).unwrap();
        Located { hash: ChunkHash::of(text.as_bytes()), length, block: 7, at: 9 }
    }

    type Runs = Vec<(u64, Vec<(ChunkHash, u32)>)>;

    fn recalled(cache: &FilesCache, state: StateId) -> Option<Runs> {
        Some(cache.recall(state)?.into_iter().map(|(offset, chunks)| (offset, chunks.to_vec())).collect())
    }

    #[test]
    fn what_was_noted_is_recalled() {
        let folder = tempfile::tempdir().unwrap();
        let open = |project: &str| FilesCache::open(folder.path(), Path::new(project));
        let states: Vec<StateId> = (0..50u8).map(|number| StateId([number.wrapping_mul(37); 16])).collect();
        let cache = open("/builds/a");
        for (number, state) in states.iter().enumerate() {
            let run = |part: usize| (part as u64 * 100, vec![located(&format!("{number} {part}")), located("end")]);
            let runs: Vec<_> = (0..number % 4).map(run).collect();
            cache.note(*state, runs.iter().map(|(offset, chunks)| (*offset, chunks.as_slice())));
        }
        assert_eq!(recalled(&cache, states[0]), None, "that is for the next transfer");
        cache.save();

        let cache = open("/builds/a");
        for (number, state) in states.iter().enumerate() {
            let of = |text: &str| (ChunkHash::of(text.as_bytes()), u32::try_from(text.len()).unwrap());
            let run = |part: usize| (part as u64 * 100, vec![of(&format!("{number} {part}")), of("end")]);
            assert_eq!(recalled(&cache, *state), Some((0..number % 4).map(run).collect()), "{number}");
        }
        assert_eq!(recalled(&cache, StateId([1; 16])), None);
        assert_eq!(recalled(&open("/builds/b"), states[0]), None, "another directory's");

        // Only what this transfer saw stays.
        cache.note(states[3], []);
        cache.save();
        let cache = open("/builds/a");
        assert_eq!((recalled(&cache, states[3]), recalled(&cache, states[4])), (Some(Vec::new()), None));
    }

    #[test]
    fn damaged_notes_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let open = || FilesCache::open(folder.path(), Path::new("/builds/a"));
        let state = StateId([1; 16]);
        let cache = open();
        cache.note(state, [(0, &[located("x")][..])]);
        cache.save();
        let path = cache.path.clone().unwrap();
        let sound = std::fs::read(&path).unwrap();
        assert!(recalled(&open(), state).is_some());
        for at in 0..sound.len() {
            let mut bent = sound.clone();
            bent[at] ^= 4;
            std::fs::write(&path, bent).unwrap();
            assert_eq!(recalled(&open(), state), None, "byte {at}");
            std::fs::write(&path, &sound[..at]).unwrap();
            assert_eq!(recalled(&open(), state), None, "cut at {at}");
        }
    }

    #[test]
    fn lying_notes_are_none() {
        let notes = Notes { files: vec![(StateId([1; 16]), 9)], runs: vec![(0, 9)], chunks: Vec::new() };
        assert_eq!(notes.runs(0), None);
        let notes = Notes { files: vec![(StateId([1; 16]), 2), (StateId([2; 16]), 1)], ..Notes::default() };
        assert_eq!(notes.runs(1), None);
    }

    #[test]
    fn notes_of_directories_that_are_gone_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let cache = FilesCache::open(folder.path(), Path::new("/builds/a"));
        cache.note(StateId([1; 16]), []);
        cache.save();
        let old = folder.path().join("old");
        let file = File::create(&old).unwrap();
        file.set_modified(SystemTime::now() - OLDEST - Duration::from_mins(1)).unwrap();
        cache.save();
        assert!(!old.exists() && cache.path.unwrap().exists());
    }
}
