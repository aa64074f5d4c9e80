//! Reads the parts of a manifest in order and plans the fetches for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::fetch_plan::{Fetch, WantedChunks, absent, fetches, want};
use super::judge::refused;
use super::quota::{Quota, TransferLimits};
use super::sink::{Incoming, Sink};
use crate::cloud::ObjectStore;
use crate::protocol::keys::TransferKeys;
use crate::workspace::manifest::{Entry, ManifestPart, Record};
use crate::workspace::task::{TransferProgress, on_thread, persist};
use crate::workspace::tree::FileEnd;

/// A flag that all of a transfer is in the store.
#[derive(Debug, Clone, Default)]
pub struct AllSent(Arc<AtomicBool>);

impl AllSent {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A part of a complete transfer is not in the store.
#[derive(Debug, thiserror::Error)]
#[error("the object {uri} does not exist")]
pub struct MissingPart {
    pub uri: String,
}

/// Number of times that a large file's content may become void.
const VOIDS: u32 = 8;
/// Poll interval for the next part; grows to [`LAST_PAUSE`].
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);
const NOT_BEGUN: &str = "the manifest names a file that has not begun";

/// A large file that has begun.
struct OpenFile {
    file: Arc<Incoming>,
    /// Bytes covered by data.
    covered: u64,
    /// Number of times its content became void.
    voids: u32,
    /// Its chunks in the current part, which are not planned yet.
    noted: usize,
}

impl OpenFile {
    /// Invalidates the file's planned writes and waits for those in progress.
    async fn forget(&mut self) {
        self.file.generation.fetch_add(1, Ordering::AcqRel);
        while self.file.pending.load(Ordering::Acquire) > 1 + self.noted {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }
}

/// A change of the sink for a record, made in order before the part's content is fetched.
enum Step {
    Entry(Entry),
    Settle(Arc<Incoming>),
    Restart(Arc<Incoming>),
    Drop(Arc<Incoming>),
}

impl Step {
    fn take(self, sink: &impl Sink) -> anyhow::Result<()> {
        match self {
            Step::Entry(entry) => sink.entry(entry),
            Step::Settle(file) => file.settle(sink),
            Step::Restart(file) => sink.restart(&file),
            Step::Drop(file) => sink.drop(&file),
        }
    }
}

/// Reads the parts of a manifest.
pub(crate) struct ManifestReader<'a, S> {
    store: &'a dyn ObjectStore,
    keys: &'a TransferKeys,
    all_sent: &'a AllSent,
    sink: Arc<S>,
    progress: &'a Arc<TransferProgress>,
    next: u32,
    /// Large files by the sender's number.
    large: HashMap<u32, OpenFile>,
    /// Numbers of large files of which nothing is received.
    passed: HashSet<u32>,
    files: u64,
    quota: Quota,
    /// The sender's warnings, once the last part was read.
    pub(super) warnings: Option<Vec<String>>,
}

impl<'a, S: Sink> ManifestReader<'a, S> {
    pub(super) fn new(
        store: &'a dyn ObjectStore,
        keys: &'a TransferKeys,
        all_sent: &'a AllSent,
        limits: &TransferLimits,
        sink: Arc<S>,
        progress: &'a Arc<TransferProgress>,
    ) -> Self {
        let (quota, large, passed) = (Quota::new(limits), HashMap::new(), HashSet::new());
        Self { store, keys, all_sent, sink, progress, next: 0, large, passed, files: 0, quota, warnings: None }
    }

    pub(super) async fn part(&mut self) -> anyhow::Result<ManifestPart> {
        let key = self.keys.part(self.next);
        let mut pause = FIRST_PAUSE;
        let encoded = loop {
            // Read before the request: if everything was sent before, the part must exist.
            let is_all_sent = self.all_sent.is_set();
            match persist(|| self.store.get(&key)).await {
                Ok(Some(encoded)) => break encoded,
                // Retried without limit: the caller bounds the wait for the sender.
                Err(error) if error.kind.may_pass() && !is_all_sent => {
                    tracing::warn!(%error, "failed to look for the next part of a transfer");
                }
                Err(error) => return Err(error.into()),
                Ok(None) if is_all_sent => {
                    return Err(MissingPart { uri: self.store.uri(&key) }.into());
                }
                Ok(None) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 3 / 2).min(LAST_PAUSE);
        };
        let label = self.keys.label(self.next);
        self.next += 1;
        self.progress.sent(encoded.len());
        ManifestPart::decode(&encoded, &self.keys.seal, label)
            .with_context(|| format!("failed to read {}", self.store.uri(&key)))
    }

    /// Passes a part's entries to the sink and returns the fetches for its files.
    pub(super) async fn plan(&mut self, part: ManifestPart) -> anyhow::Result<Vec<Fetch>> {
        let mut wanted = WantedChunks::new();
        let mut steps = Vec::new();
        let ManifestPart { packs, blocks, chunks, records, end } = part;
        let is_empty = records.is_empty();
        for record in records {
            let Some(record) = self.chosen(record) else { continue };
            match record {
                Record::Entry(entry) => {
                    self.quota.entry(&entry)?;
                    self.judge(&entry)?;
                    steps.push(Step::Entry(entry));
                }
                Record::File { entry, chunks: own } => {
                    let end = FileEnd { size: entry.size, mode: entry.mode, mtime: entry.mtime };
                    let file = self.begin(entry)?;
                    self.quota.bytes(end.size, &file.entry)?;
                    file.set_end(end);
                    want(&mut wanted, &chunks, &file, 0, &own);
                    steps.push(Step::Settle(file));
                }
                Record::Begin { file, entry } => {
                    let open = OpenFile { file: self.begin(entry)?, covered: 0, voids: 0, noted: 0 };
                    ensure!(self.large.insert(file, open).is_none(), "a file begins twice");
                }
                Record::Data { file, offset, chunks: own } => {
                    let open = self.large.get_mut(&file).context(NOT_BEGUN)?;
                    let length = want(&mut wanted, &chunks, &open.file, offset, &own);
                    open.covered = open.covered.saturating_add(length);
                    open.noted += own.len();
                    self.quota.bytes(length, &open.file.entry)?;
                }
                Record::End { file, size, mode, mtime } => {
                    let OpenFile { file, covered, .. } = self.large.remove(&file).context(NOT_BEGUN)?;
                    self.quota.bytes(size.saturating_sub(covered), &file.entry)?;
                    file.set_end(FileEnd { size, mode, mtime });
                    steps.push(Step::Settle(file));
                }
                Record::Void { file } => {
                    let open = self.large.get_mut(&file).context(NOT_BEGUN)?;
                    open.voids += 1;
                    ensure!(open.voids <= VOIDS, "a file's content is void {VOIDS} times and more");
                    self.quota.give_back(std::mem::take(&mut open.covered));
                    open.forget().await;
                    steps.push(Step::Restart(open.file.clone()));
                }
                Record::Gone { file } => {
                    let mut open = self.large.remove(&file).context(NOT_BEGUN)?;
                    open.forget().await;
                    steps.push(Step::Drop(open.file));
                }
            }
        }
        self.large.values_mut().for_each(|open| open.noted = 0);
        ensure!(end.is_some() || !is_empty, "a part of the manifest is empty");
        if let Some(end) = end {
            ensure!(self.large.is_empty(), "a file has no end");
            self.warnings = Some(end.warnings);
        }
        let (sink, busy) = (self.sink.clone(), self.progress.busy());
        let blocks = on_thread(move |stop| {
            let _busy = busy;
            for step in steps {
                stop.check()?;
                step.take(&*sink)?;
            }
            absent(wanted, &blocks, &chunks, &*sink)
        })
        .await?;
        let fetches = fetches(blocks, &packs);
        self.progress.found(fetches.iter().map(Fetch::content).sum());
        for fetch in &fetches {
            self.quota.fetch(u64::from(fetch.end() - fetch.start()))?;
        }
        Ok(fetches)
    }

    /// The record, if the sink receives its entry.
    fn chosen(&mut self, record: Record) -> Option<Record> {
        match record {
            Record::Entry(entry) => self.sink.choose(entry).map(Record::Entry),
            Record::File { entry, chunks } => self.sink.choose(entry).map(|entry| Record::File { entry, chunks }),
            Record::Begin { file, entry } => {
                let chosen = self.sink.choose(entry);
                if chosen.is_none() {
                    self.passed.insert(file);
                }
                chosen.map(|entry| Record::Begin { file, entry })
            }
            Record::End { file, .. } | Record::Gone { file } if self.passed.remove(&file) => None,
            Record::Data { file, .. } | Record::Void { file } if self.passed.contains(&file) => None,
            record => Some(record),
        }
    }

    /// Checks an entry before its content is fetched.
    fn judge(&self, entry: &Entry) -> anyhow::Result<()> {
        self.sink.judge(entry).map_err(|why| refused(entry, why))
    }

    fn begin(&mut self, entry: Entry) -> anyhow::Result<Arc<Incoming>> {
        self.quota.entry(&entry)?;
        self.judge(&entry)?;
        self.files += 1;
        Ok(Incoming::new(entry, self.files - 1))
    }
}
