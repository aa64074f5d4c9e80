//! The sender's threads: one walks the trees, others read files, cut them into chunks and give those to the depot.
//!
//! A large file is read in parts by several threads. Each file is looked at before and after it is read; one that changed
//! meanwhile is read again, a few times.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use rustix::fs::{FileType, SeekFrom};
use tokio::sync::mpsc;

use super::chunk::{Cutter, is_zero};
use super::depot::{Bench, Depot};
use super::entry::{Entry, Instant, Kind, Mark, Place, is_private_of_git, shown};
use super::pack::Audience;
use super::part::Located;
use super::tree::{Walker, is_absent};
use super::{Progress, Roots, Stop, Warnings};

/// How often a file that changes under the reader is read before the reader gives up.
const TRIES: u32 = 4;
/// Files up to this size are read by one thread, larger ones in stretches.
const LARGE: u64 = 8 << 20;
/// One thread's stretch of a large file. Its ends are chunks' ends, which a change in the file's middle does not move far.
const STRETCH: u64 = 64 << 20;
/// Smaller holes are read: zeros make no chunk anyway.
const SMALL_HOLE: u64 = 1 << 20;
/// File systems tell time in ticks of up to 10 ms: a file that changed within this time may change again without a trace.
const TICK: Duration = Duration::from_millis(20);
/// Small files are handed over together, so many bytes or so many files.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_FILES: usize = 256;
/// Most chunks of a large file that are told of at once: about 2 MiB, which travel while the rest is read.
const RUN: usize = 8;
/// More threads find no more work in a disk and a network, and each may hold a pack of 8 MiB.
const MOST_THREADS: usize = 4;

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

enum Work {
    Files(Vec<Entry>),
    Stretch { large: Arc<Large>, from: u64, to: u64 },
}

/// A large file that several threads read.
struct Large {
    file: u32,
    entry: Entry,
    before: Mark,
    /// Stretches that are still to be read.
    left: AtomicUsize,
    /// One of them ended early.
    is_short: AtomicBool,
}

/// What all threads share.
struct Shared<'a> {
    roots: &'a Roots,
    depot: &'a Depot,
    found: &'a mpsc::Sender<Found>,
    stop: &'a Stop,
    progress: &'a Progress,
    unsteady: Unsteady,
    warnings: Mutex<Warnings>,
    /// Why the threads were stopped.
    error: Mutex<Option<anyhow::Error>>,
}

/// Reads all of a job; returns when everything was handed over. Blocks.
pub(super) fn read(
    job: Job,
    depot: &Depot,
    found: &mpsc::Sender<Found>,
    progress: &Progress,
    stop: &Stop,
) -> anyhow::Result<()> {
    let Job { roots, source, unsteady, mut warnings } = job;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let (give, take) = sync_channel(2 * threads);
    let take = Arc::new(Mutex::new(take));
    let shared = Shared {
        roots: &roots,
        depot,
        found,
        stop,
        progress,
        unsteady,
        warnings: Mutex::default(),
        error: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            // The last reader that ends takes the queue with it, so the walk never waits for nobody.
            let (take, shared) = (take.clone(), &shared);
            scope.spawn(move || {
                let ended = Reader::new(shared).run(&take);
                shared.note(ended);
            });
        }
        drop(take);
        let walked = Walk { shared: &shared, give, batch: Vec::new(), bytes: 0, files: 0 }.run(source, &mut warnings);
        shared.note(walked);
    });
    if let Some(error) = shared.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    stop.check()?;
    depot.close()?;
    warnings.append(shared.warnings.into_inner().unwrap_or_else(PoisonError::into_inner));
    found.blocking_send(Found::Done { warnings }).ok().context(NOBODY)
}

const NOBODY: &str = "nobody takes what is sent";

impl Shared<'_> {
    /// The first error stops the others.
    fn note(&self, ended: anyhow::Result<()>) {
        if let Err(error) = ended {
            self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.stop.stop();
        }
    }

    fn tell(&self, found: Found) -> anyhow::Result<()> {
        self.found.blocking_send(found).ok().context(NOBODY)
    }

    /// What travels of a mode: set-id and sticky bits stay where the way leads back to a host.
    fn mode(&self, mode: u32) -> u32 {
        match self.unsteady {
            Unsteady::Refuse => mode,
            Unsteady::Keep => mode & 0o777,
        }
    }

    fn warn(&self, line: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).add(line);
    }
}

/// Goes through the trees and hands out work.
struct Walk<'a> {
    shared: &'a Shared<'a>,
    give: SyncSender<Work>,
    batch: Vec<Entry>,
    bytes: u64,
    /// Large files so far.
    files: u32,
}

impl Walk<'_> {
    fn run(mut self, source: Source, warnings: &mut Warnings) -> anyhow::Result<()> {
        match source {
            Source::Entries(entries) => entries.into_iter().try_for_each(|entry| self.take(entry))?,
            Source::Trees => {
                let shared = self.shared;
                for place in [Place::Project, Place::Tmp] {
                    let Some(root) = shared.roots.get(place) else { continue };
                    let mut walker = Walker::new(root);
                    let top = Mark::of(&rustix::fs::fstat(walker.directory(b"", false)?)?);
                    if let Some(mark) = top {
                        self.take(mark.entry(place, Vec::new(), Vec::new()))?;
                    }
                    walker.walk(place, b"", &|_| false, warnings, shared.stop, &mut |entry, _| self.take(entry))?;
                }
            }
        }
        self.hand_over()
    }

    fn take(&mut self, entry: Entry) -> anyhow::Result<()> {
        if entry.kind != Kind::File {
            return self.shared.tell(Found::Entry(entry));
        }
        self.shared.progress.found(entry.size);
        if entry.size > LARGE {
            return self.large(entry);
        }
        self.bytes += entry.size;
        self.batch.push(entry);
        if self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_FILES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> anyhow::Result<()> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { Ok(()) } else { self.give(Work::Files(batch)) }
    }

    fn give(&self, work: Work) -> anyhow::Result<()> {
        self.shared.stop.check()?;
        self.give.send(work).ok().context("the reading threads ended early")
    }

    fn large(&mut self, entry: Entry) -> anyhow::Result<()> {
        let Some((file, before)) = open(self.shared, &mut walker(self.shared, entry.place)?, &entry)? else {
            return Ok(());
        };
        let number = self.files;
        self.files += 1;
        let entry = Entry { mode: self.shared.mode(before.mode), size: before.size, mtime: before.mtime, ..entry };
        let mut stretches = Vec::new();
        for (start, end) in data(&file, before.size) {
            let mut from = start;
            while from < end {
                let to = (from + STRETCH).min(end);
                stretches.push((from, to));
                from = to;
            }
        }
        self.shared.tell(Found::Begin { file: number, entry: entry.clone() })?;
        if stretches.is_empty() {
            let (size, mode, mtime) = (before.size, entry.mode, entry.mtime);
            return self.shared.tell(Found::End { file: number, size, mode, mtime });
        }
        let large = Arc::new(Large {
            file: number,
            entry,
            before,
            left: AtomicUsize::new(stretches.len()),
            is_short: AtomicBool::new(false),
        });
        for (from, to) in stretches {
            self.give(Work::Stretch { large: large.clone(), from, to })?;
        }
        Ok(())
    }
}

/// The stretches of a file that are not holes; all of it where the file system does not tell.
fn data(file: &File, size: u64) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => {
                let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size).min(size);
                if end <= start {
                    return vec![(0, size)];
                }
                match found.last_mut() {
                    Some((_, last)) if start - *last <= SMALL_HOLE => *last = end,
                    _ => found.push((start, end)),
                }
                at = end;
            }
            // The rest is a hole.
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => return vec![(0, size)],
        }
    }
    found
}

fn walker(shared: &Shared<'_>, place: Place) -> anyhow::Result<Walker> {
    Ok(Walker::new(shared.roots.get(place).context("the temporary directory does not exist")?))
}

/// The file and its state; `None` when it is gone or no file any more and that is no error.
fn open(shared: &Shared<'_>, walker: &mut Walker, entry: &Entry) -> anyhow::Result<Option<(File, Mark)>> {
    let failed = || format!("failed to read {}", shown(&entry.path));
    let gone = || shared.warn(format!("skipped: {}: it vanished while it was read", shown(&entry.path)));
    let file = match walker.open_file(&entry.path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) && shared.unsteady == Unsteady::Keep => {
            gone();
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(failed),
    };
    let mut stat = rustix::fs::fstat(&file).with_context(failed)?;
    if is_fresh(&stat) {
        std::thread::park_timeout(TICK);
        stat = rustix::fs::fstat(&file).with_context(failed)?;
    }
    match Mark::of(&stat) {
        Some(mark) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(Some((file, mark))),
        _ if shared.unsteady == Unsteady::Keep => {
            gone();
            Ok(None)
        }
        _ => Err(anyhow::anyhow!("it became something else than a file")).with_context(failed),
    }
}

/// The file changed just now.
fn is_fresh(stat: &rustix::fs::Stat) -> bool {
    let changed =
        Duration::new(u64::try_from(stat.st_ctime).unwrap_or(0), u32::try_from(stat.st_ctime_nsec).unwrap_or(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.checked_sub(changed).is_none_or(|age| age < TICK)
}

/// A thread that reads.
struct Reader<'a> {
    shared: &'a Shared<'a>,
    cutter: Cutter,
    bench: Bench,
    project: Option<Walker>,
    tmp: Option<Walker>,
}

impl<'a> Reader<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        let walker = |place| shared.roots.get(place).map(Walker::new);
        let (project, tmp) = (walker(Place::Project), walker(Place::Tmp));
        Self { shared, cutter: Cutter::default(), bench: Bench::default(), project, tmp }
    }

    fn run(mut self, work: &Mutex<Receiver<Work>>) -> anyhow::Result<()> {
        loop {
            let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
            match next {
                Ok(Work::Files(entries)) => entries.into_iter().try_for_each(|entry| self.file(entry))?,
                Ok(Work::Stretch { large, from, to }) => self.stretch(&large, from, to)?,
                Err(_) => return self.shared.depot.close_blocks(&mut self.bench),
            }
        }
    }

    fn open(&mut self, entry: &Entry) -> anyhow::Result<Option<(File, Mark)>> {
        self.shared.stop.check()?;
        let walker = match entry.place {
            Place::Project => &mut self.project,
            Place::Tmp => &mut self.tmp,
        };
        open(self.shared, walker.as_mut().context("the temporary directory does not exist")?, entry)
    }

    /// Hands over the chunks of `from..to` in runs without gaps, each with the offset of its first; of large files all zeros
    /// make no chunk, and runs are short. Tells how far the file reached.
    fn cut(
        &mut self,
        (file, audience): (&File, Audience),
        (from, to): (u64, u64),
        is_large: bool,
        mut sink: impl FnMut(u64, Vec<Located>) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let (shared, bench) = (self.shared, &mut self.bench);
        let (mut start, mut end, mut run) = (from, from, Vec::new());
        let reached = self.cutter.cut(file, from, to, |at, chunk| {
            shared.stop.check()?;
            let is_hole = is_large && is_zero(chunk);
            if !run.is_empty() && (is_hole || at != end || (is_large && run.len() >= RUN)) {
                sink(start, std::mem::take(&mut run))?;
            }
            if !is_hole {
                if run.is_empty() {
                    start = at;
                }
                run.push(shared.depot.put(bench, audience, chunk)?);
                end = at + chunk.len() as u64;
            }
            Ok(())
        })?;
        if !run.is_empty() {
            sink(start, run)?;
        }
        Ok(reached)
    }

    fn file(&mut self, entry: Entry) -> anyhow::Result<()> {
        for left in (0..TRIES).rev() {
            let Some((file, before)) = self.open(&entry)? else { return Ok(()) };
            // What is appended meanwhile is not followed, or a busy log would never end.
            let mut chunks = Vec::new();
            let take = |_, run| {
                chunks = run;
                Ok(())
            };
            let reached = self
                .cut((&file, audience(&entry)), (0, before.size), false, take)
                .with_context(|| unreadable(&entry))?;
            let after = state(&file).with_context(|| unreadable(&entry))?;
            let is_steady = reached == before.size && before == after;
            if is_steady || left == 0 {
                if !is_steady {
                    self.unsteady(&entry)?;
                }
                let entry = Entry { size: reached, mode: self.shared.mode(after.mode), mtime: after.mtime, ..entry };
                return self.shared.tell(Found::File { entry, chunks });
            }
        }
        Ok(())
    }

    /// One stretch; whoever reads the last one looks whether the file is the same still.
    fn stretch(&mut self, large: &Large, from: u64, to: u64) -> anyhow::Result<()> {
        let Some((file, _)) = self.open(&large.entry)? else {
            if large.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.shared.tell(Found::Gone { file: large.file })?;
            }
            return Ok(());
        };
        if self.send(large, &file, from, to)? < to {
            large.is_short.store(true, Ordering::Release);
        }
        if large.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let mut after = state(&file).with_context(|| unreadable(&large.entry))?;
        if after == large.before && !large.is_short.load(Ordering::Acquire) {
            return self.end(large, after.size, after);
        }
        for left in (0..TRIES - 1).rev() {
            self.shared.tell(Found::Void { file: large.file })?;
            let Some((file, before)) = self.open(&large.entry)? else {
                return self.shared.tell(Found::Gone { file: large.file });
            };
            let reached = self.send(large, &file, 0, before.size)?;
            after = state(&file).with_context(|| unreadable(&large.entry))?;
            if reached == before.size && before == after {
                return self.end(large, reached, after);
            }
            if left == 0 {
                self.unsteady(&large.entry)?;
                return self.end(large, reached, after);
            }
        }
        Ok(())
    }

    fn send(&mut self, large: &Large, file: &File, from: u64, to: u64) -> anyhow::Result<u64> {
        let shared = self.shared;
        let tell = |offset, chunks| shared.tell(Found::Data { file: large.file, offset, chunks });
        self.cut((file, audience(&large.entry)), (from, to), true, tell).with_context(|| unreadable(&large.entry))
    }

    fn end(&self, large: &Large, size: u64, now: Mark) -> anyhow::Result<()> {
        let (mode, mtime) = (self.shared.mode(now.mode), now.mtime);
        self.shared.tell(Found::End { file: large.file, size, mode, mtime })
    }

    /// Fails, or warns, that the file does not come to rest.
    fn unsteady(&self, entry: &Entry) -> anyhow::Result<()> {
        match self.shared.unsteady {
            Unsteady::Keep => self.shared.warn(format!("changed while it was read: {}", shown(&entry.path))),
            Unsteady::Refuse => bail!(
                "failed to read {}: it changes while it is read; is a process of an earlier stage still running?",
                shown(&entry.path)
            ),
        }
        Ok(())
    }
}

/// File variables and git's credentials are the job's own, and no later job's, nor anybody's who may read the project's packs.
fn audience(entry: &Entry) -> Audience {
    if entry.place == Place::Tmp || is_private_of_git(&entry.path) { Audience::Session } else { Audience::Project }
}

fn state(file: &File) -> anyhow::Result<Mark> {
    Mark::of(&rustix::fs::fstat(file)?).context("it became something else than a file")
}

fn unreadable(entry: &Entry) -> String {
    format!("failed to read {}", shown(&entry.path))
}
