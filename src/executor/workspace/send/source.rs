//! The sender's input, the events of its threads, and their shared context.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::files_cache::FilesCache;
use crate::workspace::manifest::{Entry, EntryKind, Record, Tree};
use crate::workspace::path::{is_private_of_git, shown};
use crate::workspace::store::{Located, Packer, Visibility};
use crate::workspace::task::{Stop, TransferProgress};
use crate::workspace::tree::{FileStat, Roots, StateId, TICK, Walker, is_absent};
use crate::workspace::warnings::Warnings;

/// Most chunks of a large file in one finding: about 2 MiB, which are transferred while the rest is read.
pub(crate) const RUN: usize = 8;

/// The treatment of a file that keeps changing while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangePolicy {
    /// Host: nothing should run there, so it is an error.
    Refuse,
    /// Container: a process may still write its log, so the content that was read is sent, with a warning.
    Keep,
}

/// The entries to send.
pub(crate) enum Source {
    /// Both trees, complete.
    Trees,
    /// These entries, parents before their content.
    Entries(Vec<Entry>),
}

/// A transfer to send.
pub(crate) struct SendJob {
    pub(crate) roots: Roots,
    pub(crate) source: Source,
    pub(crate) on_change: ChangePolicy,
    /// Entries left out so far.
    pub(crate) warnings: Warnings,
    /// The known chunks of the project's files.
    pub(crate) files: Arc<FilesCache>,
}

/// A finding of the reading threads.
pub(crate) type Finding = Record<Located>;

/// An event of the reading threads, in an order that a receiver can process.
pub(crate) enum ScanEvent {
    Found(Finding),
    /// The last event.
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
    /// Number of ranges not read yet.
    pub(crate) left: AtomicUsize,
    /// A range ended early or was read from another file.
    pub(crate) is_torn: AtomicBool,
    /// True when `told` is to be kept for the files cache.
    pub(crate) is_noted: bool,
    pub(crate) told: Mutex<BTreeMap<u64, Vec<Located>>>,
}

/// Context shared by all threads.
pub(crate) struct SendContext<'a> {
    pub(crate) roots: &'a Roots,
    pub(crate) packer: &'a Packer,
    pub(crate) files: &'a FilesCache,
    pub(crate) found: &'a mpsc::Sender<ScanEvent>,
    pub(crate) stop: &'a Stop,
    pub(crate) progress: &'a TransferProgress,
    pub(crate) on_change: ChangePolicy,
    pub(crate) warnings: Mutex<Warnings>,
    /// The first error, which stopped the threads.
    pub(crate) error: Mutex<Option<anyhow::Error>>,
}

pub(crate) const PUBLISHER_ENDED: &str = "the publisher ended early";

impl SendContext<'_> {
    /// Records a thread's result; the first error stops the others.
    pub(crate) fn note(&self, ended: anyhow::Result<()>) {
        if let Err(error) = ended {
            self.error.lock().get_or_insert(error);
            self.stop.stop();
        }
    }

    pub(crate) fn emit(&self, finding: Finding) -> anyhow::Result<()> {
        self.found.blocking_send(ScanEvent::Found(finding)).ok().context(PUBLISHER_ENDED)
    }

    /// The mode to send: without set-id and sticky bits on the way back to a host.
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
        self.warnings.lock().add(line);
    }
}

/// Opens the file and reads its state; `None` when it is gone or no longer a file, unless that is an error.
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
        // Waits for one tick only: on file systems with whole seconds, a change within the same second may be missed.
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

/// The visibility of an entry's chunks. File variables and git's credentials must be hidden from later jobs and other readers of the
/// project's packs.
pub(crate) fn visibility(entry: &Entry) -> Visibility {
    if entry.tree == Tree::Tmp || is_private_of_git(&entry.path) { Visibility::Session } else { Visibility::Project }
}
