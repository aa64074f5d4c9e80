//! Publishes the manifest: findings of the reading threads go into its parts once their chunks are in the store.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::source::{Finding, ScanEvent};
use crate::cloud::ObjectStore;
use crate::protocol::keys::TransferKeys;
use crate::workspace::manifest::{PART_MOST, PartBuilder, Record, TransferEnd};
use crate::workspace::store::Packer;
use crate::workspace::summary::Summary;
use crate::workspace::task::{TransferProgress, persist};

/// Capacity of the queue of findings.
pub(crate) const FINDINGS: usize = 1024;
/// A part is stored at this size or this age: a receiver may be waiting for it.
const PART: usize = 2 << 20;
const PART_AGE: Duration = Duration::from_millis(250);

/// Publishes files once all their chunks are stored. Files may overtake each other; records of one large file may not.
pub(crate) struct Publisher<'a> {
    store: &'a dyn ObjectStore,
    keys: &'a TransferKeys,
    packer: &'a Packer,
    progress: &'a TransferProgress,
    draft: PartBuilder,
    /// When the draft got its first record.
    began: Option<tokio::time::Instant>,
    parts: u32,
    /// Findings that wait for a block to be stored, by block.
    waiting: HashMap<u32, Vec<Finding>>,
    large: HashMap<u32, HeldFile>,
    /// Set after the last finding.
    end: Option<TransferEnd>,
    summary: Summary,
}

/// A large file that has begun.
#[derive(Default)]
struct HeldFile {
    /// Number of data findings that wait for blocks.
    waiting: usize,
    /// Findings to publish after those, in order.
    held: VecDeque<Finding>,
}

impl<'a> Publisher<'a> {
    pub(super) fn new(
        store: &'a dyn ObjectStore,
        keys: &'a TransferKeys,
        packer: &'a Packer,
        progress: &'a TransferProgress,
    ) -> Self {
        let (draft, waiting, large, summary) = Default::default();
        Self { store, keys, packer, progress, draft, began: None, parts: 0, waiting, large, end: None, summary }
    }

    pub(super) async fn run(
        mut self,
        mut found: mpsc::Receiver<ScanEvent>,
        mut stored: mpsc::UnboundedReceiver<Vec<u32>>,
    ) -> anyhow::Result<Summary> {
        let (mut batch, mut ready) = (Vec::new(), Vec::new());
        let mut has_all = false;
        loop {
            let due = self.began.map(|began| began + PART_AGE);
            tokio::select! {
                // A channel that ends without `Done` means that reading failed; it returns the error itself.
                count = found.recv_many(&mut batch, FINDINGS), if !has_all => has_all = count == 0,
                Some(blocks) = stored.recv() => {
                    for block in blocks {
                        ready.extend(self.waiting.remove(&block).into_iter().flatten());
                    }
                    for found in ready.drain(..) {
                        self.waited(found)?;
                        self.store_large_part().await?;
                    }
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                    self.store_part().await?;
                }
                else => std::future::pending().await,
            }
            for found in batch.drain(..) {
                self.take(found)?;
                self.store_large_part().await?;
            }
            if self.end.is_some() && self.waiting.is_empty() {
                self.draft.part.end = self.end.take();
                self.store_part().await?;
                return Ok(self.summary);
            }
        }
    }

    /// Takes an event of the reading threads.
    fn take(&mut self, event: ScanEvent) -> anyhow::Result<()> {
        let finding = match event {
            ScanEvent::Found(finding) => finding,
            ScanEvent::Done(warnings) => {
                self.summary.warnings = warnings.lines();
                self.end = Some(TransferEnd { warnings: self.summary.warnings.clone() });
                return Ok(());
            }
        };
        match finding {
            Record::Data { file, .. } | Record::End { file, .. } | Record::Void { file } | Record::Gone { file } => {
                self.large.entry(file).or_default().held.push_back(finding);
                self.go_on(file)
            }
            Record::Entry(_) | Record::File { .. } | Record::Begin { .. } => self.record_or_wait(finding).map(drop),
        }
    }

    /// Takes a finding whose block was stored.
    fn waited(&mut self, found: Finding) -> anyhow::Result<()> {
        let file = if let Record::Data { file, .. } = &found { Some(*file) } else { None };
        let is_placed = self.record_or_wait(found)?;
        if let Some(file) = file
            && is_placed
        {
            if let Some(large) = self.large.get_mut(&file) {
                large.waiting -= 1;
            }
            self.go_on(file)?;
        }
        Ok(())
    }

    /// Publishes the held findings of a large file: data at once, others after all data before them.
    fn go_on(&mut self, file: u32) -> anyhow::Result<()> {
        while let Some(large) = self.large.get_mut(&file)
            && let Some(found) = large.held.pop_front()
        {
            let is_data = matches!(found, Record::Data { .. });
            if !is_data && large.waiting > 0 {
                large.held.push_front(found);
                return Ok(());
            }
            if matches!(found, Record::End { .. } | Record::Gone { .. }) {
                self.large.remove(&file);
            }
            if !self.record_or_wait(found)?
                && let Some(large) = self.large.get_mut(&file)
            {
                large.waiting += 1;
            }
        }
        Ok(())
    }

    /// Publishes a finding and returns true, or lets it wait for a block that is not stored yet.
    fn record_or_wait(&mut self, found: Finding) -> anyhow::Result<bool> {
        let missing = match &found {
            // From the end: the last blocks are stored last, so a finding waits once or twice.
            Record::File { chunks, .. } | Record::Data { chunks, .. } => {
                chunks.iter().rev().map(|chunk| chunk.block).find(|block| self.packer.find(*block).is_none())
            }
            _ => None,
        };
        match missing {
            Some(block) => self.waiting.entry(block).or_default().push(found),
            None => self.publish(found)?,
        }
        Ok(missing.is_none())
    }

    async fn store_large_part(&mut self) -> anyhow::Result<()> {
        if self.draft.weight() >= PART { self.store_part().await } else { Ok(()) }
    }

    fn publish(&mut self, finding: Finding) -> anyhow::Result<()> {
        match &finding {
            Record::Entry(entry) => self.summary.count(entry),
            Record::File { entry, .. } => {
                self.summary.count(entry);
                self.summary.bytes += entry.size;
                self.progress.read(entry.size);
            }
            Record::Data { chunks, .. } => self.progress.read(chunks.iter().map(|chunk| u64::from(chunk.length)).sum()),
            Record::End { size, .. } => {
                self.summary.files += 1;
                self.summary.bytes += size;
            }
            Record::Begin { .. } | Record::Void { .. } | Record::Gone { .. } => {}
        }
        let record = finding.with_chunks(|chunk| {
            let place = self.packer.find(chunk.block).context("a block is in no pack")?;
            Ok(self.draft.chunk(&chunk, || place))
        })?;
        self.began.get_or_insert_with(tokio::time::Instant::now);
        self.draft.record(record);
        Ok(())
    }

    async fn store_part(&mut self) -> anyhow::Result<()> {
        let draft = std::mem::take(&mut self.draft);
        self.began = None;
        if draft.is_empty() && draft.part.end.is_none() {
            return Ok(());
        }
        let body = Bytes::from(draft.part.encode(&self.keys.seal, self.keys.label(self.parts))?);
        anyhow::ensure!(body.len() <= PART_MOST, "a part of the manifest grew to {} bytes", body.len());
        let key = self.keys.part(self.parts);
        self.parts += 1;
        persist(|| self.store.put(&key, body.to_vec())).await?;
        self.progress.sent(body.len());
        Ok(())
    }
}
