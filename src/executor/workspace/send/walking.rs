//! The sender's first thread: walks the trees and distributes the files to read. A file whose chunks are known from its state is passed
//! on at once.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::SyncSender;

use anyhow::Context as _;
use parking_lot::Mutex;
use rustix::fs::SeekFrom;

use super::source::{LargeFile, RUN, SendContext, Source, Work, open, visibility};
use crate::workspace::manifest::{Entry, EntryKind, Record, Tree};
use crate::workspace::store::{Located, Visibility};
use crate::workspace::tree::{FileStat, Scope, Walker};
use crate::workspace::warnings::Warnings;

/// Files up to this size are read by one thread, larger ones in ranges by several.
const LARGE: u64 = 8 << 20;
/// Size of a range of a large file. Chunks end at its ends too, so a change within a range does not move chunks of the next.
const RANGE_BYTES: u64 = 64 << 20;
/// Smaller holes are read: zeros make no chunks anyway.
const SMALL_HOLE: u64 = 1 << 20;
/// Limits of a batch of small files.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_FILES: usize = 256;

/// Walks the trees and distributes work.
pub(crate) struct Walk<'a> {
    shared: &'a SendContext<'a>,
    give: SyncSender<Work>,
    batch: Vec<Entry>,
    bytes: u64,
    /// Large files so far.
    files: u32,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(shared: &'a SendContext<'a>, give: SyncSender<Work>) -> Self {
        Self { shared, give, batch: Vec::new(), bytes: 0, files: 0 }
    }

    pub(crate) fn run(mut self, source: Source, warnings: &mut Warnings) -> anyhow::Result<()> {
        match source {
            Source::Entries(entries) => entries.into_iter().try_for_each(|entry| self.take(entry))?,
            Source::Trees => {
                let shared = self.shared;
                for tree in [Tree::Project, Tree::Tmp] {
                    let Some(root) = shared.roots.get(tree) else { continue };
                    let mut walker = Walker::reading(root);
                    let top = FileStat::of(&rustix::fs::fstat(walker.directory(b"", false)?)?);
                    if let Some(stat) = top {
                        self.take(stat.entry(tree, Vec::new(), Vec::new()))?;
                    }
                    let scope = Scope { tree, top: b"", skip: &|_| false, stop: shared.stop };
                    walker.walk(&scope, warnings, &mut |entry, stat| self.scan_entry(entry, &stat))?;
                }
            }
        }
        self.hand_over()
    }

    /// Passes on a file whose chunks are known; takes any other entry.
    fn scan_entry(&mut self, entry: Entry, stat: &FileStat) -> anyhow::Result<()> {
        match self.recall(&entry, stat) {
            Some(runs) => self.emit_known(entry, runs),
            None => self.take(entry),
        }
    }

    /// The chunks of a file that is unchanged since the last transfer, if the store still has all of them.
    fn recall(&self, entry: &Entry, stat: &FileStat) -> Option<Vec<(u64, Vec<Located>)>> {
        if entry.kind != EntryKind::File || self.shared.files.is_empty() || visibility(entry) != Visibility::Project {
            return None;
        }
        let state = stat.state(&entry.path)?;
        let recalled = self.shared.files.recall(state)?;
        let runs: Vec<_> = recalled
            .into_iter()
            .map(|(offset, chunks)| Some((offset, self.shared.packer.locate(chunks)?)))
            .collect::<Option<_>>()?;
        is_sound(&runs, entry.size).then(|| {
            self.shared.files.keep(state, runs.iter().map(|(offset, chunks)| (*offset, chunks.as_slice())));
            runs
        })
    }

    fn emit_known(&mut self, entry: Entry, mut runs: Vec<(u64, Vec<Located>)>) -> anyhow::Result<()> {
        let shared = self.shared;
        shared.progress.found(entry.size);
        if entry.size <= LARGE {
            let chunks = runs.pop().map(|(_, chunks)| chunks).unwrap_or_default();
            return shared.emit(Record::File { entry, chunks });
        }
        let (file, size, mode, mtime) = (self.number(), entry.size, entry.mode, entry.mtime);
        shared.emit(Record::Begin { file, entry })?;
        for (mut offset, chunks) in runs {
            for chunks in chunks.chunks(RUN) {
                shared.emit(Record::Data { file, offset, chunks: chunks.to_vec() })?;
                offset += length(chunks);
            }
        }
        shared.emit(Record::End { file, size, mode, mtime })
    }

    /// The number of the next large file.
    fn number(&mut self) -> u32 {
        self.files += 1;
        self.files - 1
    }

    fn take(&mut self, entry: Entry) -> anyhow::Result<()> {
        if entry.kind != EntryKind::File {
            return self.shared.emit(Record::Entry(entry));
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
        let Some((file, before)) =
            open(self.shared, &mut Walker::reading(self.shared.roots.existing(entry.tree)?), &entry)?
        else {
            self.shared.warn_gone(&entry);
            return Ok(());
        };
        let state = before.state(&entry.path);
        let is_noted = visibility(&entry) == Visibility::Project && self.shared.files.takes(before.size);
        let number = self.number();
        let entry = Entry { mode: self.shared.mode(before.mode), size: before.size, mtime: before.mtime, ..entry };
        let mut ranges = Vec::new();
        for (start, end) in data(&file, before.size) {
            let mut from = start;
            while from < end {
                let to = (from + RANGE_BYTES).min(end);
                ranges.push((from, to));
                from = to;
            }
        }
        self.shared.emit(Record::Begin { file: number, entry: entry.clone() })?;
        if ranges.is_empty() {
            let (size, mode, mtime) = (before.size, entry.mode, entry.mtime);
            return self.shared.emit(Record::End { file: number, size, mode, mtime });
        }
        let large = Arc::new(LargeFile {
            file: number,
            entry,
            before,
            state,
            left: AtomicUsize::new(ranges.len()),
            is_torn: AtomicBool::new(false),
            is_noted,
            told: Mutex::default(),
        });
        for (from, to) in ranges {
            self.give(Work::Range { large: large.clone(), from, to })?;
        }
        Ok(())
    }
}

/// True when the runs are in order and within the file. Only a large file may have holes, and so several runs or none.
fn is_sound(runs: &[(u64, Vec<Located>)], size: u64) -> bool {
    let mut end = 0;
    let follows = |(offset, chunks): &(u64, Vec<Located>)| {
        let is_after = *offset >= end;
        end = offset.saturating_add(length(chunks));
        is_after && end <= size
    };
    let is_whole = || runs.len() <= 1 && runs.iter().map(|(_, chunks)| length(chunks)).sum::<u64>() == size;
    runs.iter().all(follows) && (size > LARGE || is_whole())
}

fn length(chunks: &[Located]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.length)).sum()
}

/// The ranges of a file that are not holes; the whole file where the file system does not support the query.
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
