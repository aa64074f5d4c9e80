//! Moves output from a script to the trace, in two threads.
//!
//! The drain copies the script's pipe into an [`OutputSpool`] as fast as the script writes, so the script never waits for the trace.
//! The pump reads the spool and sends the bytes through the [`Masker`], [`Redraws`] and the [`FrameEncoder`] to the sink: little output at
//! once, a backlog in large pieces. Neither knows scripts or orders.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::foreign_output::ForeignOutput;
use super::measure::MetricLines;
use super::redraws::Redraws;
use super::spool::{OutputSpool, Read};
use crate::trace::frame::complete_len;
use crate::trace::{FrameEncoder, Masker};

/// Size of one read from the pipe or the spool.
const READ_BYTES: usize = 256 << 10;
/// This much output is framed at once: about one full frame of ordinary text.
const FLUSH_BYTES: usize = 10 << 10;
/// Output without a line end waits this long for more.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// Output that ends with a whole line waits this long for more.
const FLUSH_LINE_AFTER: Duration = Duration::from_millis(10);
/// A foreign line waits this long for its end.
const FLUSH_FOREIGN_AFTER: Duration = Duration::from_secs(1);
/// Longer foreign lines are split.
const FOREIGN_LINE_BYTES: usize = 8 << 10;
/// Background processes may hold the pipe after the script's end: the output ends after this much silence ...
const LEFTOVER_IDLE: Duration = Duration::from_millis(500);
/// ... or after this much time.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(2);
/// Priority of the threads behind the drain, which the script does not wait for. On a busy machine they still run within
/// milliseconds.
const NICENESS: i32 = 15;

/// Receives whole frame lines in order, each with its newline. A call may block while the receiver is slow.
pub(super) trait FrameSink: Send {
    fn send(&mut self, lines: &[u8]) -> anyhow::Result<()>;
}

/// Copies `pipe` into the spool until the pipe ends, or until the script has exited (`exited` is closed) and its background processes
/// are silent. Then reads and drops their output for the rest of the agent's life, so that they neither block nor get SIGPIPE.
pub(super) fn drain(mut pipe: File, exited: &io::PipeReader, spool: &OutputSpool) {
    let closing = CloseOnDrop(spool);
    if let Err(error) = drain_until_silent(&mut pipe, exited, spool) {
        tracing::error!(%error, "failed to read the script's output");
    }
    drop(closing);
    // After an error there is nothing more to read.
    let _ = io::copy(&mut pipe, &mut io::sink());
}

/// Closes the spool when dropped.
pub(super) struct CloseOnDrop<'s>(pub(super) &'s OutputSpool);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn drain_until_silent(pipe: &mut File, exited: &io::PipeReader, spool: &OutputSpool) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut leftover: Option<Leftover> = None;
    loop {
        let timeout = leftover.as_ref().map(|leftover| leftover.idle.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|left| Timespec::try_from(left).unwrap_or_default());
        let (has_output, has_exited) = {
            let mut fds = [PollFd::new(pipe, PollFlags::IN), PollFd::new(exited, PollFlags::IN)];
            let watched = if leftover.is_none() { &mut fds[..] } else { &mut fds[..1] };
            match rustix::event::poll(watched, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                outcome => outcome?,
            };
            let [output, exit] = fds.map(|fd| !fd.revents().is_empty());
            (output, exit)
        };
        if has_output {
            let count = pipe.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            spool.write(buffer.get(..count).unwrap_or_default());
            if leftover.as_mut().is_some_and(|leftover| leftover.is_over_after(count)) {
                return Ok(());
            }
        } else if leftover.as_ref().is_some_and(|leftover| leftover.idle <= Instant::now()) {
            return Ok(());
        }
        if has_exited && leftover.is_none() {
            leftover = Some(Leftover::new(rustix::io::ioctl_fionread(pipe.as_fd())?));
        }
    }
}

/// Decides when to stop reading a pipe that background processes still hold.
struct Leftover {
    /// Bytes in the pipe at the script's end that were not read yet: they belong to its output.
    owed: u64,
    /// When to stop if no more arrives.
    idle: Instant,
    /// When to stop in any case, but not before `owed` is 0.
    limit: Instant,
}

impl Leftover {
    fn new(owed: u64) -> Self {
        let now = Instant::now();
        Self { owed, idle: now + LEFTOVER_IDLE, limit: now + LEFTOVER_LIMIT }
    }

    /// Counts a read; true when it was the last one.
    fn is_over_after(&mut self, count: usize) -> bool {
        self.owed = self.owed.saturating_sub(count as u64);
        let now = Instant::now();
        self.idle = now + LEFTOVER_IDLE;
        self.owed == 0 && now >= self.limit
    }
}

/// Lowers the priority of the calling thread, and of no other.
pub(super) fn lower_priority() {
    // Not needed for correctness.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Masks and frames the output of one run.
pub(super) struct Pump<S> {
    sink: S,
    sources: PumpInputs,
    encoder: FrameEncoder,
    script: Pending,
    others: Pending,
    metrics: MetricLines,
    frames: Vec<u8>,
}

/// Output that is masked, thinned and not framed yet.
struct Pending {
    masker: Masker,
    masked: Vec<u8>,
    redraws: Redraws,
    bytes: Vec<u8>,
    /// Arrival of the first byte.
    since: Option<Instant>,
}

impl Pending {
    fn new(masker: Masker, redraws: Redraws) -> Self {
        Self { masker, masked: Vec::new(), redraws, bytes: Vec::new(), since: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.masker.push(bytes, &mut self.masked);
        self.thin();
    }

    fn thin(&mut self) {
        let now = Instant::now();
        self.redraws.push(&self.masked, now, &mut self.bytes);
        self.redraws.pass(now, &mut self.bytes);
        self.masked.clear();
        if !self.bytes.is_empty() && self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// Takes what the masker and the redraws hold back, at the end of the output.
    fn finish(&mut self) {
        self.masker.flush(&mut self.masked);
        self.thin();
        self.redraws.finish(&mut self.bytes);
    }
}

impl<S: FrameSink> Pump<S> {
    /// `masker` is called for each of the two streams: the script's and the foreign one. Starts the run in `foreign`.
    pub(super) fn new(
        encoder: FrameEncoder,
        masker: impl Fn() -> Masker,
        redraws: Redraws,
        spool: Arc<OutputSpool>,
        foreign: Option<Arc<ForeignOutput>>,
        metrics: MetricLines,
        sink: S,
    ) -> Self {
        if let Some(foreign) = &foreign {
            foreign.begin(spool.clone());
        }
        let sources = PumpInputs { spool, foreign };
        let (script, others) = (Pending::new(masker(), redraws), Pending::new(masker(), Redraws::new(0)));
        Self { sink, sources, encoder, script, others, metrics, frames: Vec::new() }
    }

    /// Frames all output, then calls `code` with its size and writes the end frame; `None` means that there is no exit code and no end frame. Returns the
    /// sink with the size and the hash of the output.
    pub(super) fn run(mut self, code: impl FnOnce(u64) -> Option<i32>) -> anyhow::Result<(S, u64, String)> {
        lower_priority();
        self.until_closed().context("failed to deliver the output")?;
        let code = code(self.encoder.bytes());
        self.finish(code).context("failed to deliver the end of the output")?;
        Ok((self.sink, self.encoder.bytes(), self.encoder.hash()))
    }

    fn until_closed(&mut self) -> anyhow::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let until =
                [self.flush_at(), self.flush_foreign_at(), self.script.redraws.due()].into_iter().flatten().min();
            let read = self.sources.spool.read(&mut buffer, until).context("failed to read from a temporary file")?;
            let count = if let Read::Bytes(count) = read { count } else { 0 };
            let bytes = buffer.get(..count).unwrap_or_default();
            self.metrics.push(bytes);
            self.script.take(bytes);
            let is_due = self.flush_at().is_some_and(|at| at <= Instant::now());
            let is_first = self.encoder.bytes() == 0 && !self.script.bytes.is_empty();
            if is_due || is_first || self.script.bytes.len() >= FLUSH_BYTES {
                self.flush()?;
            }
            self.read_foreign()?;
            if self.flush_foreign_at().is_some_and(|at| at <= Instant::now()) {
                self.frame_foreign(true);
            }
            self.send()?;
            if read == Read::End {
                // Not at the end of the run, which waits while a failed container is kept.
                return self.finish_script();
            }
        }
    }

    fn flush_at(&self) -> Option<Instant> {
        let since = self.script.since?;
        Some(since + if self.script.bytes.ends_with(b"\n") { FLUSH_LINE_AFTER } else { FLUSH_AFTER })
    }

    fn flush_foreign_at(&self) -> Option<Instant> {
        Some(self.others.since? + FLUSH_FOREIGN_AFTER)
    }

    /// Frames the pending output. An incomplete UTF-8 character is kept back once.
    fn flush(&mut self) -> anyhow::Result<()> {
        let pending = &mut self.script.bytes;
        let whole = match complete_len(pending) {
            0 => pending.len(),
            whole => whole,
        };
        self.encoder.encode(pending.get(..whole).unwrap_or_default(), &mut self.frames);
        pending.drain(..whole);
        self.script.since = (!self.script.bytes.is_empty()).then(Instant::now);
        self.send()
    }

    fn read_foreign(&mut self) -> anyhow::Result<()> {
        let Some(foreign) = &self.sources.foreign else { return Ok(()) };
        let text = foreign.take();
        if text.is_empty() {
            return Ok(());
        }
        self.others.take(&text);
        self.frame_foreign(false);
        self.send()
    }

    /// Frames whole foreign lines, and the rest when `is_end` or when it is long.
    fn frame_foreign(&mut self, is_end: bool) {
        let pending = &mut self.others.bytes;
        let mut done = 0;
        for line in pending.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n");
            if text.is_none() && !is_end && line.len() < FOREIGN_LINE_BYTES {
                break;
            }
            self.encoder.encode_foreign(text.unwrap_or(line), &mut self.frames);
            done += line.len();
        }
        pending.drain(..done);
        self.others.since = (!self.others.bytes.is_empty()).then(Instant::now);
    }

    /// Frames the remaining output of the script.
    fn finish_script(&mut self) -> anyhow::Result<()> {
        self.metrics.end();
        self.script.finish();
        self.encoder.encode(&self.script.bytes, &mut self.frames);
        self.script.bytes.clear();
        self.send()
    }

    /// Frames the remaining lines of other writers, and the end.
    fn finish(&mut self, code: Option<i32>) -> anyhow::Result<()> {
        if let Some(text) = self.sources.foreign.as_ref().map(|foreign| foreign.end()) {
            self.others.take(&text);
        }
        self.others.finish();
        self.frame_foreign(true);
        if let Some(code) = code {
            self.encoder.end(code, &mut self.frames);
        }
        self.send()
    }

    fn send(&mut self) -> anyhow::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        self.sink.send(&self.frames)?;
        self.frames.clear();
        Ok(())
    }
}

/// Sources of a pump. Dropped, it releases the writers, which would wait for the reader for ever.
struct PumpInputs {
    spool: Arc<OutputSpool>,
    foreign: Option<Arc<ForeignOutput>>,
}

impl Drop for PumpInputs {
    fn drop(&mut self) {
        self.spool.abandon();
        if let Some(foreign) = &self.foreign {
            // Text that was not framed goes to the log as it is.
            foreign.give_up();
        }
    }
}
