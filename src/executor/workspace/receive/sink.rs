//! The destination of received files: the trees in the container, the staging directory on the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use anyhow::Context as _;
use parking_lot::{Mutex, MutexGuard};

use crate::workspace::manifest::Entry;
use crate::workspace::path::shown;
use crate::workspace::store::ChunkHash;
use crate::workspace::tree::FileEnd;

/// Receives entries and content. Called from several threads at a time; a file is identified by its number.
pub(crate) trait Sink: Send + Sync + 'static {
    /// The entry as it is to be received; `None` when nothing of it is.
    fn choose(&self, entry: Entry) -> Option<Entry> {
        Some(entry)
    }
    /// Checks the entry by itself; the error is the reason to refuse it.
    fn judge(&self, entry: &Entry) -> Result<(), &'static str>;
    /// Takes a directory, link or deletion.
    fn entry(&self, entry: Entry) -> anyhow::Result<()>;
    /// True when `length` bytes of the file from `offset` on exist already, from an interrupted transfer.
    fn has(&self, file: &Incoming, offset: u64, length: u32, hash: ChunkHash) -> bool;
    /// Writes content of a file; the first call creates the file.
    fn write(&self, file: &Incoming, offset: u64, content: &[u8]) -> anyhow::Result<()>;
    /// Completes a file after its last content.
    fn finish(&self, file: &Incoming, end: &FileEnd) -> anyhow::Result<()>;
    /// Drops all content of a file so far.
    fn restart(&self, file: &Incoming) -> anyhow::Result<()>;
    /// Removes a file that vanished at the sender.
    fn drop(&self, file: &Incoming) -> anyhow::Result<()>;
}

/// The state of a file in a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteState {
    Announced,
    /// Created, with content missing.
    Made,
    Finished,
}

/// A file being received.
pub(crate) struct Incoming {
    pub(crate) entry: Entry,
    /// Number among all files of the transfer, from 0.
    pub(crate) number: u64,
    state: Mutex<WriteState>,
    /// Number of times its content became void.
    pub(crate) generation: AtomicU32,
    /// Outstanding writes, plus one until the end is known.
    pub(crate) pending: AtomicUsize,
    end: Mutex<Option<FileEnd>>,
}

impl Incoming {
    pub(crate) fn new(entry: Entry, number: u64) -> Arc<Self> {
        let (state, end) = (Mutex::new(WriteState::Announced), Mutex::new(None));
        let generation = AtomicU32::new(0);
        Arc::new(Self { entry, number, state, generation, pending: AtomicUsize::new(1), end })
    }

    /// The end, if the current write is the last one.
    pub(crate) fn end_after_this(&self) -> Option<FileEnd> {
        let is_last = self.pending.load(Ordering::Acquire) == 1;
        is_last.then(|| *self.end.lock()).flatten()
    }

    /// The sink's state; keep the lock while the file is created or finished.
    pub(crate) fn state(&self) -> MutexGuard<'_, WriteState> {
        self.state.lock()
    }

    pub(crate) fn set_end(&self, end: FileEnd) {
        *self.end.lock() = Some(end);
    }

    /// Counts a write, or the arrival of the end; the last one finishes the file.
    pub(crate) fn settle(&self, sink: &impl Sink) -> anyhow::Result<()> {
        if self.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let end = *self.end.lock();
        let finished = end.context("it has no end").and_then(|end| sink.finish(self, &end));
        finished.with_context(|| format!("failed to write {}", shown(&self.entry.path)))
    }
}
