//! The sender's threads: one walks the trees (see `walking`), others read files, cut them into chunks and pass the chunks to the packer.
//!
//! Several threads read ranges of a large file. Each file's state is compared before and after reading; a file that changed is read
//! again, a few times.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::source::{
    ChangePolicy, LargeFile, PUBLISHER_ENDED, RUN, ScanEvent, SendContext, SendJob, Work, open, visibility,
};
use super::walking::Walk;
use crate::workspace::manifest::{Entry, Record, Tree};
use crate::workspace::path::shown;
use crate::workspace::store::{Cutter, Located, Packer, ThreadBlocks, Visibility, is_zero};
use crate::workspace::task::{Stop, TransferProgress};
use crate::workspace::tree::{FileStat, StateId, Walker};

/// Most attempts to read a file that changes meanwhile.
const TRIES: u32 = 4;
/// More threads do not help with one disk and network, and each may hold a pack of 8 MiB.
const MOST_THREADS: usize = 4;

/// Reads all entries of a job; returns when everything was passed on. Blocks.
pub(crate) fn read(
    job: SendJob,
    packer: &Packer,
    found: &mpsc::Sender<ScanEvent>,
    progress: &TransferProgress,
    stop: &Stop,
) -> anyhow::Result<()> {
    let SendJob { roots, source, on_change, mut warnings, files } = job;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let (give, take) = sync_channel(2 * threads);
    let take = Arc::new(Mutex::new(take));
    let shared = SendContext {
        roots: &roots,
        packer,
        files: &files,
        found,
        stop,
        progress,
        on_change,
        warnings: Mutex::default(),
        error: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            // The last reader drops the queue, so the walk never waits for readers that have ended.
            let (take, shared) = (take.clone(), &shared);
            scope.spawn(move || {
                let ended = Reader::new(shared).run(&take);
                shared.note(ended);
            });
        }
        drop(take);
        let walked = Walk::new(&shared, give).run(source, &mut warnings);
        shared.note(walked);
    });
    if let Some(error) = shared.error.into_inner() {
        return Err(error);
    }
    stop.check()?;
    packer.close()?;
    warnings.append(shared.warnings.into_inner());
    found.blocking_send(ScanEvent::Done(warnings)).ok().context(PUBLISHER_ENDED)
}

/// A reading thread.
struct Reader<'a> {
    shared: &'a SendContext<'a>,
    cutter: Cutter,
    blocks: ThreadBlocks,
    project: Option<Walker>,
    tmp: Option<Walker>,
}

impl<'a> Reader<'a> {
    fn new(shared: &'a SendContext<'a>) -> Self {
        let walker = |tree| shared.roots.get(tree).map(Walker::reading);
        let (project, tmp) = (walker(Tree::Project), walker(Tree::Tmp));
        Self { shared, cutter: Cutter::default(), blocks: ThreadBlocks::default(), project, tmp }
    }

    fn run(mut self, work: &Mutex<Receiver<Work>>) -> anyhow::Result<()> {
        loop {
            let next = work.lock().recv();
            match next {
                Ok(Work::Files(entries)) => entries.into_iter().try_for_each(|entry| self.file(entry))?,
                Ok(Work::Range { large, from, to }) => self.read_range(&large, from, to)?,
                Err(_) => return self.shared.packer.close_blocks(&mut self.blocks),
            }
        }
    }

    fn open(&mut self, entry: &Entry) -> anyhow::Result<Option<(File, FileStat)>> {
        self.shared.stop.check()?;
        let walker = match entry.tree {
            Tree::Project => &mut self.project,
            Tree::Tmp => &mut self.tmp,
        };
        open(self.shared, walker.as_mut().context("the temporary directory does not exist")?, entry)
    }

    /// Passes the chunks of `from..to` to `sink` in runs without gaps, each with the offset of its first chunk. For large files, zeros make
    /// no chunks, and runs are short. Returns the end of the file if it is below `to`, else `to`.
    fn cut(
        &mut self,
        (file, visibility): (&File, Visibility),
        (from, to): (u64, u64),
        is_large: bool,
        mut sink: impl FnMut(u64, Vec<Located>) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let (shared, blocks) = (self.shared, &mut self.blocks);
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
                run.push(shared.packer.put(blocks, visibility, chunk)?);
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
            let Some((file, before)) = self.open(&entry)? else {
                self.shared.warn_gone(&entry);
                return Ok(());
            };
            let id = before.state(&entry.path);
            // Appended data is ignored, or reading a busy log would never end.
            let mut chunks = Vec::new();
            let take = |_, run| {
                chunks = run;
                Ok(())
            };
            let reached = self
                .cut((&file, visibility(&entry)), (0, before.size), false, take)
                .with_context(|| unreadable(&entry))?;
            let after = state(&file).with_context(|| unreadable(&entry))?;
            let is_steady = reached == before.size && before == after;
            if is_steady || left == 0 {
                if !is_steady {
                    self.report_change(&entry)?;
                }
                if is_steady {
                    self.note(&entry, id, [(0, chunks.as_slice())]);
                }
                let entry = Entry { size: reached, mode: self.shared.mode(after.mode), mtime: after.mtime, ..entry };
                return self.shared.emit(Record::File { entry, chunks });
            }
        }
        Ok(())
    }

    /// Reads one range; the thread that reads the last one checks that the file did not change.
    fn read_range(&mut self, large: &LargeFile, from: u64, to: u64) -> anyhow::Result<()> {
        let opened = self.open(&large.entry)?;
        let is_whole = match &opened {
            Some((file, before)) => *before == large.before && self.send(large, file, from, to)? == to,
            // The file may exist again for another range.
            None => false,
        };
        if !is_whole {
            large.is_torn.store(true, Ordering::Release);
        }
        if large.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        if let Some((file, _)) = &opened
            && !large.is_torn.load(Ordering::Acquire)
        {
            let after = state(file).with_context(|| unreadable(&large.entry))?;
            if after == large.before {
                return self.end_steady(large, large.state, after);
            }
        }
        for left in (0..TRIES - 1).rev() {
            self.shared.emit(Record::Void { file: large.file })?;
            large.told.lock().clear();
            let Some((file, before)) = self.open(&large.entry)? else {
                self.shared.warn_gone(&large.entry);
                return self.shared.emit(Record::Gone { file: large.file });
            };
            let id = before.state(&large.entry.path);
            let reached = self.send(large, &file, 0, before.size)?;
            let after = state(&file).with_context(|| unreadable(&large.entry))?;
            if reached == before.size && before == after {
                return self.end_steady(large, id, after);
            }
            if left == 0 {
                self.report_change(&large.entry)?;
                return self.end(large, reached, after);
            }
        }
        Ok(())
    }

    fn send(&mut self, large: &LargeFile, file: &File, from: u64, to: u64) -> anyhow::Result<u64> {
        let shared = self.shared;
        let tell = |offset, chunks: Vec<Located>| {
            if large.is_noted {
                large.told.lock().insert(offset, chunks.clone());
            }
            shared.emit(Record::Data { file: large.file, offset, chunks })
        };
        self.cut((file, visibility(&large.entry)), (from, to), true, tell).with_context(|| unreadable(&large.entry))
    }

    fn end_steady(&self, large: &LargeFile, id: Option<StateId>, now: FileStat) -> anyhow::Result<()> {
        if large.is_noted {
            let told = std::mem::take(&mut *large.told.lock());
            self.note(&large.entry, id, told.iter().map(|(offset, chunks)| (*offset, chunks.as_slice())));
        }
        self.end(large, now.size, now)
    }

    /// Remembers the file's chunks, so that the next transfer need not read it.
    fn note<'l>(
        &self,
        entry: &Entry,
        id: Option<StateId>,
        runs: impl IntoIterator<Item = (u64, &'l [Located]), IntoIter: Clone>,
    ) {
        if let Some(id) = id
            && visibility(entry) == Visibility::Project
        {
            self.shared.files.note(id, runs);
        }
    }

    fn end(&self, large: &LargeFile, size: u64, now: FileStat) -> anyhow::Result<()> {
        let (mode, mtime) = (self.shared.mode(now.mode), now.mtime);
        self.shared.emit(Record::End { file: large.file, size, mode, mtime })
    }

    /// Fails or warns, by the policy, about a file that keeps changing.
    fn report_change(&self, entry: &Entry) -> anyhow::Result<()> {
        match self.shared.on_change {
            ChangePolicy::Keep => self.shared.warn(format!("changed while it was read: {}", shown(&entry.path))),
            ChangePolicy::Refuse => bail!(
                "failed to read {}: it changes while it is read; is a process of an earlier stage still running?",
                shown(&entry.path)
            ),
        }
        Ok(())
    }
}

fn state(file: &File) -> anyhow::Result<FileStat> {
    FileStat::of(&rustix::fs::fstat(file)?).context("it became something else than a file")
}

fn unreadable(entry: &Entry) -> String {
    format!("failed to read {}", shown(&entry.path))
}
