//! What is sent, what is found of it, and what the sender's threads share.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::files_cache::FilesCache;
use crate::workspace::manifest::{Entry, EntryKind, Record, Tree};
use crate::workspace::path::{is_private_of_git, shown};
use crate::workspace::store::{Located, Packer, Visibility};
use crate::workspace::task::{Stop, TransferProgress, lock};
use crate::workspace::tree::{FileStat, Roots, StateId, TICK, Walker, is_absent};
use crate::workspace::warnings::Warnings;

/// Most chunks of a large file that are told of at once: about 2 MiB, which travel while the rest is read.
pub(crate) const RUN: usize = 8;

/// What to do with a file that changes while it is read, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangePolicy {
    /// On the way up nothing should run: an error.
    Refuse,
    /// On the way back a process may still write its log: keep what was read, with a warning.
    Keep,
}

/// What is sent.
pub(crate) enum Source {
    /// Both trees with all they hold.
    Trees,
    /// These entries, parents before what they hold.
    Entries(Vec<Entry>),
}

/// What is sent, and from where.
pub(crate) struct SendJob {
    pub(crate) roots: Roots,
    pub(crate) source: Source,
    pub(crate) on_change: ChangePolicy,
    /// What was left out so far.
    pub(crate) warnings: Warnings,
    /// What files of the project are known to hold.
    pub(crate) files: Arc<FilesCache>,
}

/// One finding of the threads.
pub(crate) type Finding = Record<Located>;

/// What the threads tell, in an order in which it can be received.
pub(crate) enum ScanEvent {
    Found(Finding),
    /// Nothing more comes.
    Done(Warnings),
}

pub(crate) enum Work {
    Files(Vec<Entry>),
    Range { large: Arc<LargeFile>, from: u64, to: u64 },
}

/// A large file that several threads read.
pub(crate) struct LargeFile {
    pub(crate) file: u32,
    pub(crate) entry: Entry,
    pub(crate) before: FileStat,
    pub(crate) state: Option<StateId>,
    /// Stretches that are still to be read.
    pub(crate) left: AtomicUsize,
    /// One of them ended early, or was of another file.
    pub(crate) is_torn: AtomicBool,
    /// Whether it is remembered what was told of it, by offset.
    pub(crate) is_noted: bool,
    pub(crate) told: Mutex<BTreeMap<u64, Vec<Located>>>,
}

/// What all threads share.
pub(crate) struct SendContext<'a> {
    pub(crate) roots: &'a Roots,
    pub(crate) packer: &'a Packer,
    pub(crate) files: &'a FilesCache,
    pub(crate) found: &'a mpsc::Sender<ScanEvent>,
    pub(crate) stop: &'a Stop,
    pub(crate) progress: &'a TransferProgress,
    pub(crate) on_change: ChangePolicy,
    pub(crate) warnings: Mutex<Warnings>,
    /// Why the threads were stopped.
    pub(crate) error: Mutex<Option<anyhow::Error>>,
}

pub(crate) const PUBLISHER_ENDED: &str = "the publisher ended early";

impl SendContext<'_> {
    /// The first error stops the others.
    pub(crate) fn note(&self, ended: anyhow::Result<()>) {
        if let Err(error) = ended {
            lock(&self.error).get_or_insert(error);
            self.stop.stop();
        }
    }

    pub(crate) fn tell(&self, finding: Finding) -> anyhow::Result<()> {
        self.found.blocking_send(ScanEvent::Found(finding)).ok().context(PUBLISHER_ENDED)
    }

    /// What travels of a mode: set-id and sticky bits stay where the way leads back to a host.
    pub(crate) fn mode(&self, mode: u32) -> u32 {
        match self.on_change {
            ChangePolicy::Refuse => mode,
            ChangePolicy::Keep => mode & 0o777,
        }
    }

    pub(crate) fn warn_gone(&self, entry: &Entry) {
        self.warn(format!("skipped: {}: it vanished while it was read", shown(&entry.path)));
    }

    pub(crate) fn warn(&self, line: String) {
        lock(&self.warnings).add(line);
    }
}

/// The file and its state; `None` when it is gone or no file any more and that is no error.
pub(crate) fn open(
    shared: &SendContext<'_>,
    walker: &mut Walker,
    entry: &Entry,
) -> anyhow::Result<Option<(File, FileStat)>> {
    let failed = || format!("failed to read {}", shown(&entry.path));
    let file = match walker.open_file(&entry.path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) && shared.on_change == ChangePolicy::Keep => return Ok(None),
        Err(error) => return Err(error).with_context(failed),
    };
    let look = || anyhow::Ok(FileStat::of(&rustix::fs::fstat(&file)?).filter(|stat| stat.kind == EntryKind::File));
    let mut stat = look().with_context(failed)?;
    if stat.is_some_and(|stat| stat.is_fresh()) {
        // Where time is told in seconds, a change within the same one is not seen.
        let begun = std::time::Instant::now();
        while let Some(left) = TICK.checked_sub(begun.elapsed()) {
            std::thread::park_timeout(left);
        }
        stat = look().with_context(failed)?;
    }
    match stat {
        Some(stat) => Ok(Some((file, stat))),
        None if shared.on_change == ChangePolicy::Keep => Ok(None),
        None => Err(anyhow::anyhow!("it became something else than a file")).with_context(failed),
    }
}

/// File variables and git's credentials are the job's own, and no later job's, nor anybody's who may read the project's packs.
pub(crate) fn visibility(entry: &Entry) -> Visibility {
    if entry.tree == Tree::Tmp || is_private_of_git(&entry.path) { Visibility::Session } else { Visibility::Project }
}
