//! Output of other writers to the container's log: a library that opens `/proc/1/fd/1`, the agent's own messages, a panic.
//!
//! One thread always reads their pipe. Between runs it writes whole lines to the log; during a run the run's pump takes the text
//! and frames it, so that it reaches the driver as fast as the script's output. The thread never waits for long and never logs:
//! its message would come back through the same pipe.

use std::io::{self, PipeReader, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::spool::OutputSpool;

/// Upper bound of the text that waits for the pump of a run.
const PENDING_BYTES: usize = 256 << 10;
/// Wait for a busy pump, with the pipe full, before text is dropped.
const PATIENCE: Duration = Duration::from_secs(2);
/// Wait for the end of a line, between runs.
const LINE_PATIENCE: Duration = Duration::from_secs(1);
/// Longer lines are split, between runs.
const LINE_BYTES: usize = 12 << 10;
const READ_BYTES: usize = 64 << 10;
/// Limit of the reads at the end of a run and of the agent, for a writer that never pauses.
const LAST_READS: usize = 64;

/// The pipe of the other writers, and the text read from it.
#[derive(Debug)]
pub(super) struct ForeignOutput {
    pipe: PipeReader,
    log: Arc<OutputSpool>,
    state: Mutex<State>,
    /// Signals that the pump has taken the pending text.
    taken: Condvar,
    patience: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// The spool of the current run; its reader is the pump.
    run: Option<Arc<OutputSpool>>,
    /// During a run the text for the pump, else a line without an end.
    pending: Vec<u8>,
    since: Option<Instant>,
    /// Bytes dropped because the pump was too slow.
    dropped: u64,
    is_dropping: bool,
    has_ended: bool,
}

impl ForeignOutput {
    /// `pipe` is the reading end of the other writers' pipe; `log` is the container's log.
    pub(super) fn new(pipe: PipeReader, log: Arc<OutputSpool>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe, log, state: Mutex::default(), taken: Condvar::new(), patience: PATIENCE })
    }

    /// Reads until `stop` is closed and the pipe is empty, or until the last writer is gone.
    pub(super) fn forward(&self, stop: &PipeReader) {
        let mut buffer = vec![0; READ_BYTES];
        let mut last_reads = LAST_READS;
        loop {
            let timeout =
                self.state.lock().since.map(|since| (since + LINE_PATIENCE).saturating_duration_since(Instant::now()));
            let timeout = timeout.map(|left| Timespec::try_from(left).unwrap_or_default());
            let mut fds = [PollFd::new(&self.pipe, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let [has_text, is_stopping] = fds.map(|fd| !fd.revents().is_empty());
            let mut state = self.with_room();
            if has_text {
                self.read(&mut state, &mut buffer);
            }
            let is_late = state.since.is_some_and(|since| since.elapsed() >= LINE_PATIENCE);
            last_reads -= usize::from(is_stopping);
            let is_over = state.has_ended || (is_stopping && (!has_text || last_reads == 0));
            if state.run.is_none() && (is_late || is_over) {
                self.pass_on(&mut state, true);
            }
            if is_over {
                return;
            }
        }
    }

    /// Starts a run: text now waits for [`take`](Self::take), and the reader of `spool` is woken when there is some.
    pub(super) fn begin(&self, spool: Arc<OutputSpool>) {
        let mut state = self.state.lock();
        state.since = None;
        if !state.pending.is_empty() {
            spool.wake();
        }
        state.run = Some(spool);
    }

    /// Takes the text that arrived since the last call.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        let mut text = std::mem::take(&mut state.pending);
        let dropped = std::mem::take(&mut state.dropped);
        state.is_dropping = false;
        drop(state);
        self.taken.notify_all();
        if dropped > 0 {
            if !text.is_empty() && !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            let note = format!("({dropped} bytes are left out here: they came faster than they could be passed on)\n");
            text.extend_from_slice(note.as_bytes());
        }
        text
    }

    /// Ends the run and takes the rest of its text, including what is still in the pipe. Later text belongs to no run.
    pub(super) fn end(&self) -> Vec<u8> {
        let mut buffer = vec![0; READ_BYTES];
        let mut state = self.state.lock();
        for _ in 0..LAST_READS {
            let before = state.pending.len();
            // Bounded by the number of reads.
            state.is_dropping = false;
            if !self.read(&mut state, &mut buffer) || state.pending.len() == before {
                break;
            }
        }
        state.run = None;
        drop(state);
        self.take()
    }

    /// Ends the run of a pump that failed: the text goes to the log.
    pub(super) fn give_up(&self) {
        let mut state = self.state.lock();
        if state.run.take().is_some() {
            self.pass_on(&mut state, true);
        }
    }

    /// Waits once, for [`patience`](Self::patience), until there is room; after that, text is dropped until there is.
    fn with_room(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let until = Instant::now() + self.patience;
        while state.run.is_some() && state.pending.len() >= PENDING_BYTES && !state.is_dropping {
            if Instant::now() >= until {
                state.is_dropping = true;
                break;
            }
            self.taken.wait_until(&mut state, until);
        }
        state
    }

    /// Reads once, without waiting; returns false when there was nothing. Holds the lock, so that [`end`](Self::end) misses nothing.
    fn read(&self, state: &mut State, buffer: &mut [u8]) -> bool {
        let count = match (&self.pipe).read(buffer) {
            Ok(0) => {
                state.has_ended = true;
                return false;
            }
            Ok(count) => count,
            Err(_) => return false,
        };
        let text = buffer.get(..count).unwrap_or_default();
        if state.is_dropping {
            state.dropped += count as u64;
            return true;
        }
        state.pending.extend_from_slice(text);
        match &state.run {
            Some(spool) => spool.wake(),
            None => self.pass_on(state, false),
        }
        true
    }

    /// Writes whole lines to the log, and the rest when `is_end` or when it is long. A frame always starts on a new line.
    fn pass_on(&self, state: &mut State, is_end: bool) {
        let whole = state.pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = state.pending.split_off(whole);
        let mut lines = std::mem::replace(&mut state.pending, rest);
        if !state.pending.is_empty() && (is_end || state.pending.len() >= LINE_BYTES) {
            lines.append(&mut state.pending);
            lines.push(b'\n');
        }
        state.since = (!state.pending.is_empty()).then(Instant::now);
        // No room means that the log is blocked for good. A warning would go to the same log.
        let _ = self.log.offer(&lines);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Write as _};
    use std::thread::JoinHandle;

    use super::super::spool::Read;
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Another writer, the log, and what reads the writer's pipe.
    struct Scene {
        writer: PipeWriter,
        foreign: Arc<ForeignOutput>,
        log: Arc<OutputSpool>,
        stop: PipeWriter,
        thread: JoinHandle<()>,
    }

    fn scene(patience: Duration) -> Scene {
        let (reader, writer) = io::pipe().unwrap();
        let (stopped, stop) = io::pipe().unwrap();
        let log = Arc::new(OutputSpool::new(None, 0));
        let foreign = Arc::new(ForeignOutput { patience, ..ForeignOutput::new(reader, log.clone()).unwrap() });
        let others = foreign.clone();
        let thread = std::thread::spawn(move || others.forward(&stopped));
        Scene { writer, foreign, log, stop, thread }
    }

    fn read(spool: &OutputSpool) -> String {
        let mut buffer = [0; 1000];
        match spool.read(&mut buffer, Some(Instant::now() + LONG)).unwrap() {
            Read::Bytes(count) => String::from_utf8(buffer[..count].to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn woken(spool: &OutputSpool) {
        assert_eq!(spool.read(&mut [0; 1], Some(Instant::now() + LONG)).unwrap(), Read::Woken);
    }

    #[test]
    fn lines_go_to_the_log_between_runs_and_to_the_pump_during_one() {
        let mut scene = scene(LONG);
        scene.writer.write_all(b"before\nhalf").unwrap();
        assert_eq!(read(&scene.log), "before\n");
        let run = Arc::new(OutputSpool::new(None, 0));
        scene.foreign.begin(run.clone());
        woken(&run);
        scene.writer.write_all(b" a line\nduring").unwrap();
        woken(&run);
        assert_eq!(scene.foreign.take(), b"half a line\nduring");
        scene.writer.write_all(b" it").unwrap();
        // Complete, in whatever order the two threads read the pipe.
        assert_eq!(scene.foreign.end(), b" it");
        scene.writer.write_all(b"after\nthe end").unwrap();
        assert_eq!(read(&scene.log), "after\n");
        let reader = std::thread::spawn(move || read(&scene.log));
        drop(scene.stop);
        scene.thread.join().unwrap();
        assert_eq!(reader.join().unwrap(), "the end\n");
    }

    #[test]
    fn a_pump_that_takes_nothing_does_not_block_the_writer() {
        let mut scene = scene(Duration::from_millis(10));
        let run = Arc::new(OutputSpool::new(None, 0));
        scene.foreign.begin(run.clone());
        let line = [b'x'; 1000];
        for _ in 0..2000 {
            scene.writer.write_all(&line).unwrap();
        }
        drop(scene.writer);
        scene.thread.join().unwrap();
        let text = String::from_utf8(scene.foreign.end()).unwrap();
        let kept = text.bytes().filter(|byte| *byte == b'x').count();
        assert!(kept < PENDING_BYTES + READ_BYTES, "{kept}");
        assert!(text.ends_with(&format!(
            "({} bytes are left out here: they came faster than they could be passed on)\n",
            2_000_000 - kept
        )));
    }

    #[test]
    fn a_pump_that_fails_leaves_the_text_to_the_log() {
        let mut scene = scene(LONG);
        let run = Arc::new(OutputSpool::new(None, 0));
        scene.foreign.begin(run.clone());
        scene.writer.write_all(b"text").unwrap();
        woken(&run);
        scene.foreign.give_up();
        assert_eq!(read(&scene.log), "text\n");
        drop(scene.writer);
        scene.thread.join().unwrap();
    }
}
