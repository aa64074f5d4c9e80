//! A byte queue on disk between a fast writer and a slow reader.
//!
//! An unnamed file holds the bytes that were written and not read. It is truncated when the reader has caught up, and parts that were
//! read are freed meanwhile. Writers never wait below the limit; above it, or on a full disk, they wait for the reader. No byte is lost
//! while there is a reader.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use rustix::fs::FallocateFlags;

/// A file up to this length is reused without truncation when it is empty.
const KEEP: u64 = 1 << 20;
/// Size of the parts that are freed while the reader is behind.
const GIVE_BACK: u64 = 8 << 20;

/// The queue. One thread reads; several may write, each call atomic.
#[derive(Debug)]
pub(super) struct OutputSpool {
    /// `None`: each write waits in memory for the reader.
    file: Option<File>,
    limit: u64,
    /// The file system can free parts of a file. If it cannot, the limit bounds the file's length instead of its content.
    can_give_back: AtomicBool,
    state: Mutex<State>,
    /// Signals the reader: bytes, a wake-up or the end.
    arrived: Condvar,
    /// Signals writers that wait for room, and `wait_done`.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The file's content is `read..written`; everything before `given_back` is freed.
    given_back: u64,
    read: u64,
    written: u64,
    /// A writer is writing behind `written`.
    is_writing: bool,
    /// Bytes that did not fit on the disk; they follow the file's content.
    overflow: Vec<u8>,
    is_woken: bool,
    is_closed: bool,
    reader: Reader,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Reader {
    #[default]
    Busy,
    /// It has processed all that it read.
    Idle,
    Gone,
}

impl State {
    fn is_empty(&self) -> bool {
        self.read == self.written && self.overflow.is_empty()
    }
}

/// Result of [`OutputSpool::read`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Number of bytes, at least one.
    Bytes(usize),
    /// No bytes before the time limit.
    Idle,
    /// The reader was [woken](OutputSpool::wake).
    Woken,
    /// Closed and fully read.
    End,
}

impl OutputSpool {
    /// Holds up to `limit` bytes in `file`, which must be empty and used by nothing else.
    pub(super) fn new(file: Option<File>, limit: u64) -> Self {
        let limit = if file.is_some() { limit } else { 0 };
        Self {
            file,
            limit,
            can_give_back: AtomicBool::new(true),
            state: Mutex::default(),
            arrived: Condvar::new(),
            freed: Condvar::new(),
        }
    }

    /// Appends the bytes; waits while there is no room. After [`abandon`](Self::abandon) they are dropped.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.put(bytes, true);
    }

    /// Appends the bytes if there is room; returns false, without waiting, if there is none.
    #[must_use]
    pub(super) fn offer(&self, bytes: &[u8]) -> bool {
        self.put(bytes, false)
    }

    /// Ends the queue: the reader gets the remaining bytes, then [`Read::End`].
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_all();
    }

    /// Ends reading: present and future bytes are dropped.
    pub(super) fn abandon(&self) {
        self.state.lock().reader = Reader::Gone;
        self.freed.notify_all();
    }

    /// Makes the reader return [`Read::Woken`].
    pub(super) fn wake(&self) {
        self.state.lock().is_woken = true;
        self.arrived.notify_all();
    }

    /// Reads into the beginning of `buffer`; waits for the first byte until the given moment, or for ever. The call also says that the
    /// reader has processed the bytes of earlier calls.
    pub(super) fn read(&self, buffer: &mut [u8], until: Option<Instant>) -> io::Result<Read> {
        let mut state = self.state.lock();
        loop {
            if state.read < state.written {
                drop(state);
                return self.read_file(buffer).map(Read::Bytes);
            }
            if !state.overflow.is_empty() {
                let count = state.overflow.len().min(buffer.len());
                for (to, from) in buffer.iter_mut().zip(state.overflow.drain(..count)) {
                    *to = from;
                }
                self.freed.notify_all();
                return Ok(Read::Bytes(count));
            }
            // Checked before the wake-up, so that constant wake-ups cannot put off the end.
            if state.is_closed {
                return Ok(Read::End);
            }
            if state.is_woken {
                state.is_woken = false;
                return Ok(Read::Woken);
            }
            if state.reader == Reader::Busy {
                state.reader = Reader::Idle;
            }
            self.freed.notify_all();
            match until {
                None => self.arrived.wait(&mut state),
                Some(until) if Instant::now() >= until => return Ok(Read::Idle),
                Some(until) => drop(self.arrived.wait_until(&mut state, until)),
            }
        }
    }

    /// Waits until the reader has processed everything; returns false after the time limit.
    pub(super) fn wait_done(&self, until: Instant) -> bool {
        let mut state = self.state.lock();
        while state.reader == Reader::Busy || (state.reader == Reader::Idle && (!state.is_empty() || state.is_writing))
        {
            if Instant::now() >= until {
                return false;
            }
            self.freed.wait_until(&mut state, until);
        }
        true
    }

    fn put(&self, bytes: &[u8], may_wait: bool) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let length = bytes.len() as u64;
        let mut state = self.state.lock();
        while state.reader != Reader::Gone {
            let has_room = state.written - state.given_back + length <= self.limit;
            if !state.is_writing && state.overflow.is_empty() && (has_room || state.is_empty()) {
                break;
            }
            if !state.is_writing && !may_wait {
                return false;
            }
            self.freed.wait(&mut state);
        }
        if state.reader == Reader::Gone {
            return true;
        }
        state.is_writing = true;
        state.reader = Reader::Busy;
        let at = state.written;
        drop(state);
        let stored = self.file.as_ref().filter(|_| self.limit > 0).map(|file| file.write_all_at(bytes, at));
        let mut state = self.state.lock();
        state.is_writing = false;
        if let Some(Ok(())) = stored {
            state.written += length;
        } else {
            // Room was checked above, so after a failed write the bytes may wait in memory.
            state.overflow.extend_from_slice(bytes);
        }
        drop(state);
        self.arrived.notify_all();
        self.freed.notify_all();
        true
    }

    fn read_file(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = &self.file else { return Ok(0) };
        let (at, length) = {
            let state = self.state.lock();
            (state.read, state.written - state.read)
        };
        let count = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..count).unwrap_or_default();
        file.read_exact_at(part, at)?;
        let mut state = self.state.lock();
        state.read += count as u64;
        if state.read == state.written && !state.is_writing {
            if state.written > KEEP {
                rustix::fs::ftruncate(file, 0)?;
            }
            (state.given_back, state.read, state.written) = (0, 0, 0);
        } else if state.read - state.given_back >= GIVE_BACK && self.can_give_back.load(Ordering::Relaxed) {
            let (from, to) = (state.given_back, state.read);
            drop(state);
            let punched =
                rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, to - from);
            state = self.state.lock();
            match punched {
                Ok(()) => state.given_back = to,
                Err(_) => self.can_give_back.store(false, Ordering::Relaxed),
            }
        }
        drop(state);
        self.freed.notify_all();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn on_disk(limit: u64) -> OutputSpool {
        OutputSpool::new(Some(tempfile::tempfile().unwrap()), limit)
    }

    fn read_all(spool: &OutputSpool, size: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = vec![0; size];
        while let Read::Bytes(count) = spool.read(&mut buffer, Some(Instant::now() + LONG)).unwrap() {
            all.extend_from_slice(&buffer[..count]);
        }
        all
    }

    fn bytes(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at * 31 + seed * 7 + at / 251) % 256).unwrap()).collect()
    }

    #[test]
    fn what_goes_in_comes_out_whatever_the_room() {
        let pieces: Vec<Vec<u8>> = (0..300).map(|number| bytes(number * 37 % 5000 + 1, number)).collect();
        let full = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let spools =
            [on_disk(u64::MAX), on_disk(9000), OutputSpool::new(None, u64::MAX), OutputSpool::new(Some(full), 1 << 20)];
        for spool in spools {
            let spool = Arc::new(spool);
            let writer = spool.clone();
            let written = pieces.clone();
            let thread = std::thread::spawn(move || {
                for piece in &written {
                    writer.write(piece);
                }
                writer.close();
            });
            assert!(read_all(&spool, 777) == pieces.concat());
            thread.join().unwrap();
        }
    }

    #[test]
    fn the_file_is_cut_when_the_reader_has_caught_up_and_punched_before() {
        use std::os::unix::fs::MetadataExt as _;
        let spool = on_disk(u64::MAX);
        let blocks = |spool: &OutputSpool| spool.file.as_ref().unwrap().metadata().unwrap().blocks() * 512;
        for number in 0..20 {
            spool.write(&bytes(1 << 20, number));
        }
        assert!(blocks(&spool) >= 20 << 20);
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..10 {
            assert_eq!(spool.read(&mut buffer, None).unwrap(), Read::Bytes(1 << 20));
        }
        assert!(blocks(&spool) < 16 << 20, "{}", blocks(&spool));
        for _ in 0..10 {
            spool.read(&mut buffer, None).unwrap();
        }
        assert_eq!(spool.file.as_ref().unwrap().metadata().unwrap().len(), 0);
        // Little output does not let the file grow.
        for number in 0..100 {
            spool.write(&bytes(1 << 18, number));
            spool.read(&mut buffer, None).unwrap();
        }
        assert!(spool.file.as_ref().unwrap().metadata().unwrap().len() <= KEEP);
    }

    #[test]
    fn without_room_an_offer_is_refused_and_after_the_reader_went_everything_is_dropped() {
        let spool = on_disk(10);
        assert!(spool.offer(b"123456789"));
        assert!(!spool.offer(b"ab"));
        assert!(!spool.wait_done(Instant::now()));
        spool.abandon();
        spool.write(&bytes(100, 1));
        assert!(spool.offer(b"ab"));
        assert!(spool.wait_done(Instant::now() + LONG));
    }

    #[test]
    fn a_reader_is_woken_by_a_kick_and_by_time() {
        let spool = on_disk(10);
        spool.wake();
        assert_eq!(spool.read(&mut [0; 4], None).unwrap(), Read::Woken);
        assert_eq!(spool.read(&mut [0; 4], Some(Instant::now())).unwrap(), Read::Idle);
        spool.write(b"x");
        spool.close();
        spool.wake();
        assert_eq!(spool.read(&mut [0; 4], None).unwrap(), Read::Bytes(1));
        assert_eq!(spool.read(&mut [0; 4], None).unwrap(), Read::End, "kicks do not put off the end");
    }

    #[test]
    fn done_means_that_the_reader_came_back() {
        let spool = Arc::new(on_disk(1000));
        spool.write(b"line\n");
        let mut buffer = [0; 10];
        assert_eq!(spool.read(&mut buffer, None).unwrap(), Read::Bytes(5));
        assert!(!spool.wait_done(Instant::now()), "it may still be at work on what it took");
        spool.read(&mut buffer, Some(Instant::now())).unwrap();
        assert!(spool.wait_done(Instant::now() + LONG));
    }
}
