//! The receiver: takes the parts of a manifest as they come, fetches the blocks they name, and hands checked content to a
//! [`Sink`].
//!
//! It works while the sender does. Every chunk is held against its hash before a byte of it is used. What a container
//! claims is bounded here; whether a path may be written is judged elsewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use tokio::sync::Semaphore;

use super::artifacts::refused;
use super::chunk::ChunkHash;
use super::entry::{Entry, Instant, shown};
use super::pack::{PackName, open_block};
use super::part::{Part, PartBlock, PartChunk, Record};
use super::{
    AllSent, Damaged, Limits, MissingPacks, Progress, Route, Stop, StopOnDrop, on_thread, persist, too_large, too_many,
};
use crate::base::failure::Failure;
use crate::cloud::ObjectStore;

/// Fetches at a time, and the largest; so much memory it costs, about twice.
const FETCHES: usize = 8;
const FETCH: u32 = 4 << 20;
/// Blocks this close to each other are fetched together with what lies between them.
const GAP: u32 = 256 << 10;
/// A transfer may fetch so many bytes more than its content has.
const FETCH_SLACK: u64 = 1 << 30;
/// Most bytes of paths and targets of a transfer that is not trusted: they are held in memory until all are judged.
const NAMES: u64 = 128 << 20;
/// So often a large file's content may be void.
const VOIDS: u32 = 8;
/// How often a part that is not there yet is looked for.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Takes what comes. Called from several threads at a time; a file's number tells its calls from others'.
pub(super) trait Sink: Send + Sync + 'static {
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

/// What a finished file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileEnd {
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: Instant,
}

/// How far a sink is with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Announced,
    /// It is there, content is missing.
    Made,
    Finished,
}

/// A file on its way.
pub(super) struct Incoming {
    pub(super) entry: Entry,
    /// Counted over all files of the transfer, from 0.
    pub(super) number: u64,
    state: Mutex<State>,
    /// How often its content was void.
    generation: AtomicU32,
    /// Writes to come, and one more until the end is known.
    pending: AtomicUsize,
    end: Mutex<Option<FileEnd>>,
}

impl Incoming {
    fn new(entry: Entry, number: u64) -> Arc<Self> {
        let (state, end) = (Mutex::new(State::Announced), Mutex::new(None));
        let generation = AtomicU32::new(0);
        Arc::new(Self { entry, number, state, generation, pending: AtomicUsize::new(1), end })
    }

    /// The end, for the one who writes what is missing last.
    pub(super) fn end_after_this(&self) -> Option<FileEnd> {
        let is_last = self.pending.load(Ordering::Acquire) == 1;
        is_last.then(|| *self.end.lock().unwrap_or_else(PoisonError::into_inner)).flatten()
    }

    /// How far the sink is; held while it makes or finishes the file.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_end(&self, end: FileEnd) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// One write, or the end, has come; the last one finishes the file.
    fn settle(&self, sink: &impl Sink) -> anyhow::Result<()> {
        if self.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let end = *self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = end.context("it has no end").and_then(|end| sink.finish(self, &end));
        finished.with_context(|| format!("failed to write {}", shown(&self.entry.path)))
    }
}

/// A chunk of a file that is to be written.
struct Target {
    file: Arc<Incoming>,
    offset: u64,
    /// How often the file's content was void before.
    generation: u32,
}

/// A block with what is wanted of it.
struct Block {
    at: u32,
    stored: u32,
    raw: u32,
    /// Chunks (hash, place in the block, length), each with its targets.
    chunks: Vec<(ChunkHash, u32, u32, Vec<Target>)>,
}

/// One fetch: neighboring blocks of one pack.
struct Fetch {
    pack: PackName,
    blocks: Vec<Block>,
}

impl Fetch {
    fn start(&self) -> u32 {
        self.blocks.first().map_or(0, |block| block.at)
    }

    /// Bytes that will be written.
    fn content(&self) -> u64 {
        let chunks = self.blocks.iter().flat_map(|block| &block.chunks);
        chunks.map(|(_, _, length, targets)| u64::from(*length) * targets.len() as u64).sum()
    }

    fn end(&self) -> u32 {
        self.blocks.last().map_or(0, |block| block.at + block.stored)
    }
}

/// Receives a whole transfer; returns the sender's warnings. Once it has returned, with an error too, nothing is written any
/// more: `sink` must be held by nobody else.
pub(super) async fn fetch<S: Sink>(
    store: &dyn ObjectStore,
    route: &Route,
    all_sent: &AllSent,
    limits: &Limits,
    sink: &Arc<S>,
    progress: &Arc<Progress>,
) -> anyhow::Result<Vec<String>> {
    let stop = Stop::default();
    let _guard = StopOnDrop(stop.clone());
    let intake = Intake {
        store,
        route,
        all_sent,
        sink: sink.clone(),
        progress,
        next: 0,
        large: HashMap::new(),
        files: 0,
        room: Room {
            bytes: limits.max_bytes,
            entries: limits.max_files,
            fetched: limits.max_bytes.saturating_add(FETCH_SLACK),
            names: if *limits == Limits::none() { u64::MAX } else { NAMES },
            limits: limits.clone(),
        },
        warnings: None,
    };
    let warnings = Mutex::new(Vec::new());
    // More threads than processors stand in each other's way: a directory takes one new file at a time.
    let writers = std::thread::available_parallelism().map_or(1, usize::from).clamp(2, FETCHES);
    let writers = &Semaphore::new(writers);
    let fetches = stream::try_unfold(intake, |mut intake| async {
        if let Some(found) = intake.warnings.take() {
            *warnings.lock().unwrap_or_else(PoisonError::into_inner) = found;
            return Ok::<_, anyhow::Error>(None);
        }
        let part = intake.part().await?;
        let fetches = intake.plan(part).await?;
        Ok(Some((stream::iter(fetches.into_iter().map(anyhow::Ok)), intake)))
    });
    let outcome = fetches
        .try_flatten()
        .map_ok(|fetch| async {
            let bytes = get(store, route, &fetch, all_sent, progress).await?;
            let _writer = writers.acquire().await?;
            write(fetch, bytes, sink, &stop, progress).await
        })
        .try_buffer_unordered(FETCHES)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await;
    // After an error, threads end at their next check.
    stop.stop();
    while Arc::strong_count(sink) > 1 {
        tokio::time::sleep(FIRST_PAUSE).await;
    }
    outcome?;
    Ok(warnings.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The bytes of a fetch.
async fn get(
    store: &dyn ObjectStore,
    route: &Route,
    fetch: &Fetch,
    all_sent: &AllSent,
    progress: &Progress,
) -> anyhow::Result<Bytes> {
    let key = fetch.pack.key(route);
    let (start, length) = (fetch.start(), fetch.end() - fetch.start());
    let found = loop {
        match persist(|| store.get_range(&key, u64::from(start), u64::from(length))).await {
            Err(error) if error.kind.may_pass() && !all_sent.is_told() => {
                tracing::warn!(%error, "failed to fetch a part of a transfer");
            }
            found => break found?,
        }
    };
    let bytes = found.ok_or_else(|| MissingPacks { uri: store.uri(&key) })?;
    progress.sent(bytes.len());
    Ok(bytes)
}

async fn write<S: Sink>(
    fetch: Fetch,
    bytes: Bytes,
    sink: &Arc<S>,
    stop: &Stop,
    progress: &Arc<Progress>,
) -> anyhow::Result<()> {
    let (sink, stop, busy) = (sink.clone(), stop.clone(), progress.busy());
    let written = on_thread(move |_| {
        let _busy = busy;
        unpack(&fetch, &bytes, &*sink, &stop)
    })
    .await?;
    progress.read(written);
    Ok(())
}

/// Opens the blocks, checks the chunks and writes them. Returns the bytes written.
fn unpack<S: Sink>(fetch: &Fetch, bytes: &Bytes, sink: &S, stop: &Stop) -> anyhow::Result<u64> {
    let mut content = Vec::new();
    let mut written = 0;
    for block in &fetch.blocks {
        stop.check()?;
        let from = (block.at - fetch.start()) as usize;
        let stored = bytes.get(from..from + block.stored as usize);
        let is_open = stored.is_some_and(|stored| open_block(stored, block.raw, &mut content).is_ok());
        for (hash, at, length, targets) in &block.chunks {
            let chunk = content.get(*at as usize..).and_then(|rest| rest.get(..*length as usize));
            let Some(chunk) = chunk.filter(|chunk| is_open && ChunkHash::of(chunk) == *hash) else {
                return Err(Damaged { pack: fetch.pack.id.to_string(), chunk: hash.to_string() }.into());
            };
            for Target { file, offset, .. } in targets {
                stop.check()?;
                sink.write(file, *offset, chunk)
                    .with_context(|| format!("failed to write {}", shown(&file.entry.path)))?;
                file.settle(sink)?;
                written += u64::from(*length);
            }
        }
    }
    Ok(written)
}

/// What may still come.
struct Room {
    bytes: u64,
    entries: u64,
    fetched: u64,
    /// Bytes of paths and targets.
    names: u64,
    limits: Limits,
}

impl Room {
    fn bytes(&mut self, bytes: u64, entry: &Entry) -> anyhow::Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| too_large(entry, &self.limits))?;
        Ok(())
    }

    /// Content can ask for little and make us fetch much; whoever does that is stopped.
    fn fetch(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.fetched = self.fetched.checked_sub(bytes).context("the manifest asks for more than its content needs")?;
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| too_many(&self.limits))?;
        let name = (entry.path.len() + entry.target.len()) as u64;
        self.names =
            self.names.checked_sub(name).context("the names of the manifest have more than 128 MiB together")?;
        Ok(())
    }
}

/// A large file that has begun.
struct Begun {
    file: Arc<Incoming>,
    /// How much of it data covers.
    covered: u64,
    /// How often its content was void.
    voids: u32,
    /// Chunks of it that are noted and not planned yet: those of the part that is read.
    noted: usize,
}

/// What is done about a part's records before its content is fetched, in order.
enum Step {
    Entry(Entry),
    Settle(Arc<Incoming>),
    Restart(Arc<Incoming>),
    Drop(Arc<Incoming>),
}

/// What is wanted: by block, by chunk.
type Wanted = HashMap<u32, HashMap<u32, Vec<Target>>>;

/// Reads parts in order and turns them into fetches.
struct Intake<'a, S> {
    store: &'a dyn ObjectStore,
    route: &'a Route,
    all_sent: &'a AllSent,
    sink: Arc<S>,
    progress: &'a Arc<Progress>,
    next: u32,
    /// By the sender's number.
    large: HashMap<u32, Begun>,
    files: u64,
    room: Room,
    /// The sender's, once the last part was read.
    warnings: Option<Vec<String>>,
}

impl<S: Sink> Intake<'_, S> {
    async fn part(&mut self) -> anyhow::Result<Part> {
        let key = self.route.part(self.next);
        let mut pause = FIRST_PAUSE;
        let encoded = loop {
            // What was all there before it was looked for must be found.
            let is_all_sent = self.all_sent.is_told();
            match persist(|| self.store.get(&key)).await {
                Ok(Some(encoded)) => break encoded,
                // Whoever waits for the sender knows how long.
                Err(error) if error.kind.may_pass() && !is_all_sent => {
                    tracing::warn!(%error, "failed to look for the next part of a transfer");
                }
                Err(error) => return Err(error.into()),
                Ok(None) if is_all_sent => {
                    let text = format!("the object {} does not exist", self.store.uri(&key));
                    return Err(Failure::system(text)
                        .hint("check that no lifecycle rule of the bucket deletes objects of running jobs")
                        .into());
                }
                Ok(None) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 3 / 2).min(LAST_PAUSE);
        };
        self.next += 1;
        self.progress.sent(encoded.len());
        Part::decode(&encoded).with_context(|| format!("failed to read {}", self.store.uri(&key)))
    }

    /// Takes up a part's entries and tells what to fetch for its files.
    async fn plan(&mut self, part: Part) -> anyhow::Result<Vec<Fetch>> {
        let mut wanted = Wanted::new();
        let mut steps = Vec::new();
        let Part { packs, blocks, chunks, records, end } = part;
        let is_empty = records.is_empty();
        for record in records {
            match record {
                Record::Entry(entry) => {
                    self.room.entry(&entry)?;
                    self.judge(&entry)?;
                    steps.push(Step::Entry(entry));
                }
                Record::File { entry, chunks: own } => {
                    let end = FileEnd { size: entry.size, mode: entry.mode, mtime: entry.mtime };
                    let file = self.begin(entry)?;
                    self.room.bytes(end.size, &file.entry)?;
                    file.set_end(end);
                    want(&mut wanted, &chunks, &file, 0, &own);
                    steps.push(Step::Settle(file));
                }
                Record::Begin { file, entry } => {
                    let begun = Begun { file: self.begin(entry)?, covered: 0, voids: 0, noted: 0 };
                    ensure!(self.large.insert(file, begun).is_none(), "a file begins twice");
                }
                Record::Data { file, offset, chunks: own } => {
                    let begun = self.large.get_mut(&file).context(NOT_BEGUN)?;
                    let length = want(&mut wanted, &chunks, &begun.file, offset, &own);
                    begun.covered = begun.covered.saturating_add(length);
                    begun.noted += own.len();
                    self.room.bytes(length, &begun.file.entry)?;
                }
                Record::End { file, size, mode, mtime } => {
                    let Begun { file, covered, .. } = self.large.remove(&file).context(NOT_BEGUN)?;
                    self.room.bytes(size.saturating_sub(covered), &file.entry)?;
                    file.set_end(FileEnd { size, mode, mtime });
                    steps.push(Step::Settle(file));
                }
                Record::Void { file } => {
                    let begun = self.large.get_mut(&file).context(NOT_BEGUN)?;
                    begun.voids += 1;
                    ensure!(begun.voids <= VOIDS, "a file's content is void {VOIDS} times and more");
                    self.room.bytes = self.room.bytes.saturating_add(std::mem::take(&mut begun.covered));
                    begun.forget().await;
                    steps.push(Step::Restart(begun.file.clone()));
                }
                Record::Gone { file } => {
                    let mut begun = self.large.remove(&file).context(NOT_BEGUN)?;
                    begun.forget().await;
                    steps.push(Step::Drop(begun.file));
                }
            }
        }
        self.large.values_mut().for_each(|begun| begun.noted = 0);
        ensure!(end.is_some() || !is_empty, "a part of the manifest tells nothing");
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
            self.room.fetch(u64::from(fetch.end() - fetch.start()))?;
        }
        Ok(fetches)
    }

    /// What cannot be written anyway is not fetched first.
    fn judge(&self, entry: &Entry) -> anyhow::Result<()> {
        self.sink.judge(entry).map_err(|why| refused(entry, why))
    }

    fn begin(&mut self, entry: Entry) -> anyhow::Result<Arc<Incoming>> {
        self.room.entry(&entry)?;
        self.judge(&entry)?;
        self.files += 1;
        Ok(Incoming::new(entry, self.files - 1))
    }
}

const NOT_BEGUN: &str = "the manifest tells of a file that has not begun";

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

/// Notes chunks of a file from `offset` on; returns their length.
fn want(wanted: &mut Wanted, chunks: &[PartChunk], file: &Arc<Incoming>, offset: u64, own: &[u32]) -> u64 {
    let mut length = 0;
    for number in own {
        let Some(chunk) = chunks.get(*number as usize) else { continue };
        let generation = file.generation.load(Ordering::Acquire);
        let target = Target { file: file.clone(), offset: offset.saturating_add(length), generation };
        file.pending.fetch_add(1, Ordering::AcqRel);
        wanted.entry(chunk.block).or_default().entry(*number).or_default().push(target);
        length += u64::from(chunk.length);
    }
    length
}

impl Begun {
    /// What is noted of the file is of no use any more; waits until what is on its way has come.
    async fn forget(&mut self) {
        self.file.generation.fetch_add(1, Ordering::AcqRel);
        while self.file.pending.load(Ordering::Acquire) > 1 + self.noted {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }
}

/// What of it the sink has not, by block, with the pack's number.
fn absent(
    wanted: Wanted,
    blocks: &[PartBlock],
    chunks: &[PartChunk],
    sink: &impl Sink,
) -> anyhow::Result<Vec<(u32, Block)>> {
    let mut found = Vec::with_capacity(wanted.len());
    for (number, own) in wanted {
        let Some(block) = blocks.get(number as usize) else { continue };
        let mut left = Vec::with_capacity(own.len());
        for (number, mut targets) in own {
            let Some(chunk) = chunks.get(number as usize) else { continue };
            let mut here = Vec::new();
            targets.retain(|target| {
                if target.generation != target.file.generation.load(Ordering::Acquire) {
                    target.file.pending.fetch_sub(1, Ordering::AcqRel);
                    return false;
                }
                let has = sink.has(&target.file, target.offset, chunk.length, chunk.hash);
                if has {
                    here.push(target.file.clone());
                }
                !has
            });
            here.into_iter().try_for_each(|file| file.settle(sink))?;
            if !targets.is_empty() {
                left.push((chunk.hash, chunk.at, chunk.length, targets));
            }
        }
        if !left.is_empty() {
            left.sort_unstable_by_key(|(_, at, ..)| *at);
            found.push((block.pack, Block { at: block.at, stored: block.stored, raw: block.raw, chunks: left }));
        }
    }
    Ok(found)
}

/// Neighbors together.
fn fetches(mut blocks: Vec<(u32, Block)>, packs: &[PackName]) -> Vec<Fetch> {
    blocks.sort_unstable_by_key(|(pack, block)| (*pack, block.at));
    let mut fetches: Vec<Fetch> = Vec::new();
    for (pack, block) in blocks {
        let Some(pack) = packs.get(pack as usize).copied() else { continue };
        let end = block.at + block.stored;
        match fetches.last_mut() {
            Some(last)
                if last.pack == pack
                    && block.at >= last.end()
                    && block.at - last.end() <= GAP
                    && end - last.start() <= FETCH =>
            {
                last.blocks.push(block);
            }
            _ => fetches.push(Fetch { pack, blocks: vec![block] }),
        }
    }
    fetches
}
