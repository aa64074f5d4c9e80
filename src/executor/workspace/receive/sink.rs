//! Where received files go: in the container into the trees at once, on the host into a directory of its own.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Context as _;

use crate::workspace::manifest::Entry;
use crate::workspace::path::shown;
use crate::workspace::store::ChunkHash;
use crate::workspace::task::lock;
use crate::workspace::tree::FileEnd;

/// Takes what comes. Called from several threads at a time; a file's number tells its calls from others'.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Why the entry cannot be taken, by itself.
    fn judge(&self, entry: &Entry) -> Result<(), &'static str>;
    /// A directory, link or deletion.
    fn entry(&self, entry: Entry) -> anyhow::Result<()>;
    /// Whether `length` bytes of the file from `offset` on are there already, as after a transfer that broke off.
    fn has(&self, file: &Incoming, offset: u64, length: u32, hash: ChunkHash) -> bool;
    /// Content of a file; for each the first call makes it.
    fn write(&self, file: &Incoming, offset: u64, content: &[u8]) -> anyhow::Result<()>;
    /// All content is there.
    fn finish(&self, file: &Incoming, end: &FileEnd) -> anyhow::Result<()>;
    /// All content so far is void.
    fn restart(&self, file: &Incoming) -> anyhow::Result<()>;
    /// There is no such file.
    fn drop(&self, file: &Incoming) -> anyhow::Result<()>;
}

/// How far a sink is with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteState {
    Announced,
    /// It is there, content is missing.
    Made,
    Finished,
}

/// A file on its way.
pub(crate) struct Incoming {
    pub(crate) entry: Entry,
    /// Counted over all files of the transfer, from 0.
    pub(crate) number: u64,
    state: Mutex<WriteState>,
    /// How often its content was void.
    pub(crate) generation: AtomicU32,
    /// Writes to come, and one more until the end is known.
    pub(crate) pending: AtomicUsize,
    end: Mutex<Option<FileEnd>>,
}

impl Incoming {
    pub(crate) fn new(entry: Entry, number: u64) -> Arc<Self> {
        let (state, end) = (Mutex::new(WriteState::Announced), Mutex::new(None));
        let generation = AtomicU32::new(0);
        Arc::new(Self { entry, number, state, generation, pending: AtomicUsize::new(1), end })
    }

    /// The end, for the one who writes what is missing last.
    pub(crate) fn end_after_this(&self) -> Option<FileEnd> {
        let is_last = self.pending.load(Ordering::Acquire) == 1;
        is_last.then(|| *lock(&self.end)).flatten()
    }

    /// How far the sink is; held while it makes or finishes the file.
    pub(crate) fn state(&self) -> MutexGuard<'_, WriteState> {
        lock(&self.state)
    }

    pub(crate) fn set_end(&self, end: FileEnd) {
        *lock(&self.end) = Some(end);
    }

    /// One write, or the end, has come; the last one finishes the file.
    pub(crate) fn settle(&self, sink: &impl Sink) -> anyhow::Result<()> {
        if self.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let end = *lock(&self.end);
        let finished = end.context("it has no end").and_then(|end| sink.finish(self, &end));
        finished.with_context(|| format!("failed to write {}", shown(&self.entry.path)))
    }
}
