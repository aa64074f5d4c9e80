//! The sender: what the reading threads find goes into packs and parts of the manifest, and both into the store, all at the same
//! time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::depot::{Depot, Parcel};
use super::entry::Kind;
use super::known::Known;
use super::pack::{Audience, PackName};
use super::part::{Draft, End, Located, PART_MOST, Record};
use super::reading;
use super::source::{Found, Job};
use super::{Progress, Route, Stop, StopOnDrop, Summary, persist};
use crate::cloud::ObjectStore;

/// Packs that are sent at a time: enough for a long way to the store, and 8 MiB of memory each.
const UPLOADS: usize = 5;
/// Packs that wait for their turn.
const WAITING: usize = 1;
/// Findings that wait for their turn.
const FINDINGS: usize = 1024;
/// A part is stored when it has become so large, or when it is so old: a receiver may be waiting for it.
const PART: usize = 2 << 20;
const PART_AGE: Duration = Duration::from_millis(250);

/// Does the job; returns once the last part is stored.
pub(super) async fn send(
    store: &dyn ObjectStore,
    route: &Route,
    job: Job,
    mut known: Known,
    progress: &Arc<Progress>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let stop = Stop::default();
    let _guard = StopOnDrop(stop.clone());
    let (give_parcel, parcels) = mpsc::channel(WAITING);
    let (give_found, found) = mpsc::channel(FINDINGS);
    let (give_stored, stored) = mpsc::unbounded_channel();
    let depot = Arc::new(Depot::new(&known, give_parcel));
    known.forget_indexes();
    let known = &known;
    let reading = tokio::task::spawn_blocking({
        let (depot, progress) = (depot.clone(), progress.clone());
        move || reading::read(job, &depot, &give_found, &progress, &stop)
    });
    let reading = async { reading.await.context("the reading threads ended early")? };
    let uploading = async {
        let mut uploads = in_order(parcels)
            .map(|parcel: Parcel| async move {
                let key = PackName { id: parcel.pack.id, audience: parcel.audience }.key(route);
                // Somebody else may have stored the same just now. What expires soon is written anew.
                if known.is_old(parcel.pack.id) {
                    persist(|| store.put(&key, parcel.pack.bytes.to_vec())).await?;
                } else {
                    persist(|| store.put_if_absent(&key, parcel.pack.bytes.clone())).await?;
                }
                Ok::<_, anyhow::Error>(parcel)
            })
            .buffer_unordered(UPLOADS);
        while let Some(parcel) = uploads.next().await {
            let Parcel { number, pack, audience } = parcel?;
            progress.sent(pack.bytes.len());
            if audience == Audience::Project {
                known.remember(pack.id, &pack.encoded);
            }
            // The other side ends before this one only with an error.
            let _ = give_stored.send(depot.stored(number));
            depot.reuse(pack.bytes);
        }
        Ok(())
    };
    let publisher = Publisher {
        store,
        route,
        depot: &depot,
        progress,
        draft: Draft::default(),
        began: None,
        parts: 0,
        waiting: HashMap::new(),
        large: HashMap::new(),
        end: None,
        summary: Summary::default(),
    };
    let ((), (), mut summary) = tokio::try_join!(reading, uploading, publisher.run(found, stored))?;
    summary.sent = progress.transferred();
    summary.elapsed = started.elapsed();
    Ok(summary)
}

fn in_order<T>(mut receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// Tells of files once all their chunks are stored. Files may overtake each other; what is told of one large file may not.
struct Publisher<'a> {
    store: &'a dyn ObjectStore,
    route: &'a Route,
    depot: &'a Depot,
    progress: &'a Progress,
    draft: Draft,
    /// When the draft got its first record.
    began: Option<tokio::time::Instant>,
    parts: u32,
    /// What waits for a block to be stored, by block.
    waiting: HashMap<u32, Vec<Found>>,
    large: HashMap<u32, Large>,
    /// Nothing more is found.
    end: Option<End>,
    summary: Summary,
}

/// A large file that has begun.
#[derive(Default)]
struct Large {
    /// Data that waits for blocks.
    waiting: usize,
    /// What may be told only after that, in order.
    held: VecDeque<Found>,
}

impl Publisher<'_> {
    async fn run(
        mut self,
        mut found: mpsc::Receiver<Found>,
        mut stored: mpsc::UnboundedReceiver<Vec<u32>>,
    ) -> anyhow::Result<Summary> {
        let mut batch = Vec::new();
        let mut has_all = false;
        loop {
            let due = self.began.map(|began| began + PART_AGE);
            tokio::select! {
                // When it ends without a last word, the reading failed and says itself why.
                count = found.recv_many(&mut batch, FINDINGS), if !has_all => has_all = count == 0,
                Some(blocks) = stored.recv() => {
                    for block in blocks {
                        batch.extend(self.waiting.remove(&block).into_iter().flatten());
                    }
                    for found in batch.drain(..) {
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
    fn take(&mut self, found: Found) -> anyhow::Result<()> {
        match &found {
            Found::Done { warnings } => {
                self.summary.warnings = warnings.lines();
                self.end = Some(End { warnings: self.summary.warnings.clone() });
                Ok(())
            }
            Found::Data { file, .. } | Found::End { file, .. } | Found::Void { file } | Found::Gone { file } => {
                let file = *file;
                self.large.entry(file).or_default().held.push_back(found);
                self.go_on(file)
            }
            Found::Entry(_) | Found::File { .. } | Found::Begin { .. } => self.place(found).map(drop),
        }
    }

    /// A block that this waited for is stored.
    fn waited(&mut self, found: Found) -> anyhow::Result<()> {
        let file = if let Found::Data { file, .. } = &found { Some(*file) } else { None };
        let is_placed = self.place(found)?;
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
            let is_data = matches!(found, Found::Data { .. });
            if !is_data && large.waiting > 0 {
                large.held.push_front(found);
                return Ok(());
            }
            if matches!(found, Found::End { .. } | Found::Gone { .. }) {
                self.large.remove(&file);
            }
            if !self.place(found)?
                && let Some(large) = self.large.get_mut(&file)
            {
                large.waiting += 1;
            }
        }
        Ok(())
    }

    /// Tells of it, or notes it with a block that is not stored yet; returns which.
    fn place(&mut self, found: Found) -> anyhow::Result<bool> {
        let missing = match &found {
            // The last ones first: they are stored last, so what waits is looked at once or twice.
            Found::File { chunks, .. } | Found::Data { chunks, .. } => {
                chunks.iter().rev().map(|chunk| chunk.block).find(|block| self.depot.find(*block).is_none())
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

    fn publish(&mut self, found: Found) -> anyhow::Result<()> {
        let record = match found {
            Found::Entry(entry) => {
                match entry.kind {
                    Kind::Deleted => self.summary.deleted += 1,
                    Kind::Link => self.summary.files += 1,
                    Kind::File | Kind::Directory | Kind::Special => {}
                }
                Record::Entry(entry)
            }
            Found::File { entry, chunks } => {
                self.summary.files += 1;
                self.summary.bytes += entry.size;
                self.progress.read(entry.size);
                Record::File { chunks: self.chunks(&chunks)?, entry }
            }
            Found::Begin { file, entry } => Record::Begin { file, entry },
            Found::Data { file, offset, chunks } => {
                self.progress.read(chunks.iter().map(|chunk| u64::from(chunk.length)).sum());
                Record::Data { file, offset, chunks: self.chunks(&chunks)? }
            }
            Found::End { file, size, mode, mtime } => {
                self.summary.files += 1;
                self.summary.bytes += size;
                Record::End { file, size, mode, mtime }
            }
            Found::Void { file } => Record::Void { file },
            Found::Gone { file } => Record::Gone { file },
            Found::Done { .. } => return Ok(()),
        };
        self.began.get_or_insert_with(tokio::time::Instant::now);
        self.draft.record(record);
        Ok(())
    }

    fn chunks(&mut self, chunks: &[Located]) -> anyhow::Result<Vec<u32>> {
        let mut positions = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let place = self.depot.find(chunk.block).context("a block is in no pack")?;
            positions.push(self.draft.chunk(chunk, || place));
        }
        Ok(positions)
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
