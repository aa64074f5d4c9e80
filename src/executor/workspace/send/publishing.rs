//! Tells the receiver what is stored: findings of the reading threads become parts of the manifest once their chunks are in the
//! store.

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

/// Findings that wait for their turn.
pub(crate) const FINDINGS: usize = 1024;
/// A part is stored when it has become so large, or when it is so old: a receiver may be waiting for it.
const PART: usize = 2 << 20;
const PART_AGE: Duration = Duration::from_millis(250);

/// Tells of files once all their chunks are stored. Files may overtake each other; what is told of one large file may not.
pub(crate) struct Publisher<'a> {
    store: &'a dyn ObjectStore,
    route: &'a TransferKeys,
    packer: &'a Packer,
    progress: &'a TransferProgress,
    draft: PartBuilder,
    /// When the draft got its first record.
    began: Option<tokio::time::Instant>,
    parts: u32,
    /// What waits for a block to be stored, by block.
    waiting: HashMap<u32, Vec<Finding>>,
    large: HashMap<u32, HeldFile>,
    /// Nothing more is found.
    end: Option<TransferEnd>,
    summary: Summary,
}

/// A large file that has begun.
#[derive(Default)]
struct HeldFile {
    /// Data that waits for blocks.
    waiting: usize,
    /// What may be told only after that, in order.
    held: VecDeque<Finding>,
}

impl<'a> Publisher<'a> {
    pub(super) fn new(
        store: &'a dyn ObjectStore,
        route: &'a TransferKeys,
        packer: &'a Packer,
        progress: &'a TransferProgress,
    ) -> Self {
        let (draft, waiting, large, summary) = Default::default();
        Self { store, route, packer, progress, draft, began: None, parts: 0, waiting, large, end: None, summary }
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
                // When it ends without a last word, the reading failed and says itself why.
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

    /// Takes up what was found.
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

    /// A block that this waited for is stored.
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

    /// Tells what may be told of a large file: data as it comes, anything else once all data before it was told.
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

    /// Tells of it, or notes it with a block that is not stored yet; returns which.
    fn record_or_wait(&mut self, found: Finding) -> anyhow::Result<bool> {
        let missing = match &found {
            // The last ones first: they are stored last, so what waits is looked at once or twice.
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
        let body = Bytes::from(draft.part.encode()?);
        anyhow::ensure!(body.len() <= PART_MOST, "a part of the manifest grew to {} bytes", body.len());
        let key = self.route.part(self.parts);
        self.parts += 1;
        persist(|| self.store.put(&key, body.to_vec())).await?;
        self.progress.sent(body.len());
        Ok(())
    }
}
