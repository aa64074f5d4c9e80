//! What is sent, what is found of it, and what the sender's threads share.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::depot::Depot;
use super::entry::{Entry, Instant, Kind, Mark, Place, StateId, TICK, is_private_of_git, shown};
use super::files_cache::FilesCache;
use super::pack::Audience;
use super::part::Located;
use super::tree::{Walker, is_absent};
use super::{Progress, Roots, Stop, Warnings};

/// Most chunks of a large file that are told of at once: about 2 MiB, which travel while the rest is read.
pub(super) const RUN: usize = 8;

/// What to do with a file that changes while it is read, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsteady {
    /// On the way up nothing should run: an error.
    Refuse,
    /// On the way back a process may still write its log: keep what was read, with a warning.
    Keep,
}

/// What is sent.
pub(super) enum Source {
    /// Both trees with all they hold.
    Trees,
    /// These entries, parents before what they hold.
    Entries(Vec<Entry>),
}

/// What is sent, and from where.
pub(super) struct Job {
    pub(super) roots: Roots,
    pub(super) source: Source,
    pub(super) unsteady: Unsteady,
    /// What was left out so far.
    pub(super) warnings: Warnings,
    /// What files of the project are known to hold.
    pub(super) files: Arc<FilesCache>,
}

/// What the threads found, in an order in which it can be received.
pub(super) enum Found {
    Entry(Entry),
    File {
        entry: Entry,
        chunks: Vec<Located>,
    },
    Begin {
        file: u32,
        entry: Entry,
    },
    Data {
        file: u32,
        offset: u64,
        chunks: Vec<Located>,
    },
    End {
        file: u32,
        size: u64,
        mode: u32,
        mtime: Instant,
    },
    Void {
        file: u32,
    },
    Gone {
        file: u32,
    },
    /// Nothing more comes.
    Done {
        warnings: Warnings,
    },
}

pub(super) enum Work {
    Files(Vec<Entry>),
    Stretch { large: Arc<Large>, from: u64, to: u64 },
}

/// A large file that several threads read.
pub(super) struct Large {
    pub(super) file: u32,
    pub(super) entry: Entry,
    pub(super) before: Mark,
    pub(super) state: Option<StateId>,
    /// Stretches that are still to be read.
    pub(super) left: AtomicUsize,
    /// One of them ended early, or was of another file.
    pub(super) is_torn: AtomicBool,
    /// Whether it is remembered what was told of it, by offset.
    pub(super) is_noted: bool,
    pub(super) told: Mutex<BTreeMap<u64, Vec<Located>>>,
}

/// What all threads share.
pub(super) struct Shared<'a> {
    pub(super) roots: &'a Roots,
    pub(super) depot: &'a Depot,
    pub(super) files: &'a FilesCache,
    pub(super) found: &'a mpsc::Sender<Found>,
    pub(super) stop: &'a Stop,
    pub(super) progress: &'a Progress,
    pub(super) unsteady: Unsteady,
    pub(super) warnings: Mutex<Warnings>,
    /// Why the threads were stopped.
    pub(super) error: Mutex<Option<anyhow::Error>>,
}

pub(super) const NOBODY: &str = "nobody takes what is sent";

impl Shared<'_> {
    /// The first error stops the others.
    pub(super) fn note(&self, ended: anyhow::Result<()>) {
        if let Err(error) = ended {
            lock(&self.error).get_or_insert(error);
            self.stop.stop();
        }
    }

    pub(super) fn tell(&self, found: Found) -> anyhow::Result<()> {
        self.found.blocking_send(found).ok().context(NOBODY)
    }

    /// What travels of a mode: set-id and sticky bits stay where the way leads back to a host.
    pub(super) fn mode(&self, mode: u32) -> u32 {
        match self.unsteady {
            Unsteady::Refuse => mode,
            Unsteady::Keep => mode & 0o777,
        }
    }

    pub(super) fn warn_gone(&self, entry: &Entry) {
        self.warn(format!("skipped: {}: it vanished while it was read", shown(&entry.path)));
    }

    pub(super) fn warn(&self, line: String) {
        lock(&self.warnings).add(line);
    }
}

pub(super) fn walker(shared: &Shared<'_>, place: Place) -> anyhow::Result<Walker> {
    Ok(Walker::reading(shared.roots.get(place).context("the temporary directory does not exist")?))
}

/// The file and its state; `None` when it is gone or no file any more and that is no error.
pub(super) fn open(shared: &Shared<'_>, walker: &mut Walker, entry: &Entry) -> anyhow::Result<Option<(File, Mark)>> {
    let failed = || format!("failed to read {}", shown(&entry.path));
    let file = match walker.open_file(&entry.path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) && shared.unsteady == Unsteady::Keep => return Ok(None),
        Err(error) => return Err(error).with_context(failed),
    };
    let look = || anyhow::Ok(Mark::of(&rustix::fs::fstat(&file)?).filter(|mark| mark.kind == Kind::File));
    let mut mark = look().with_context(failed)?;
    if mark.is_some_and(|mark| mark.is_fresh()) {
        // Where time is told in seconds, a change within the same one is not seen.
        let begun = std::time::Instant::now();
        while let Some(left) = TICK.checked_sub(begun.elapsed()) {
            std::thread::park_timeout(left);
        }
        mark = look().with_context(failed)?;
    }
    match mark {
        Some(mark) => Ok(Some((file, mark))),
        None if shared.unsteady == Unsteady::Keep => Ok(None),
        None => Err(anyhow::anyhow!("it became something else than a file")).with_context(failed),
    }
}

/// File variables and git's credentials are the job's own, and no later job's, nor anybody's who may read the project's packs.
pub(super) fn audience(entry: &Entry) -> Audience {
    if entry.place == Place::Tmp || is_private_of_git(&entry.path) { Audience::Session } else { Audience::Project }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
