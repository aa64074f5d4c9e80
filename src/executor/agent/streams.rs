//! The container's log, which the agent has for itself: whatever else is written to its stdout or stderr passes through it.
//!
//! A log driver that blocks delays nobody here: lines wait in a [`Spool`] for the one thread that writes them. This module
//! knows no frames; it never writes a message of its own.

use std::fs::File;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::foreign_output::ForeignOutput;
use super::pipe::enlarge;
use super::place;
use super::pump::give_way;
use super::spool::{Read, Spool};

/// How long the last lines may take to be written: SageMaker leaves a stopped container 120 s for all.
const LAST_LINES: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 256 << 10;

/// The streams while the agent holds them; dropped, they are what they were before, and the last lines are written.
#[derive(Debug)]
pub(super) struct Streams {
    log: Arc<Spool>,
    foreign: Arc<ForeignOutput>,
    before: (OwnedFd, OwnedFd),
    /// Closed to end the thread that reads the pipe.
    stop: Option<PipeWriter>,
    forward: Option<JoinHandle<()>>,
}

impl Streams {
    /// Puts a pipe in the place of stdout and stderr. The log itself is no longer inherited by anybody.
    pub(super) fn take_over() -> anyhow::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned().context("failed to duplicate stdout")?;
        let stderr = io::stderr().as_fd().try_clone_to_owned().context("failed to duplicate stderr")?;
        let log = Arc::new(place::spool());
        let target = stdout.try_clone().context("failed to duplicate stdout")?;
        let lines = log.clone();
        spawn("log", move || write_lines(&lines, &mut File::from(target)))?;
        let (reader, writer) = io::pipe().context("failed to create a pipe")?;
        enlarge(&reader);
        let foreign = Arc::new(ForeignOutput::new(reader, log.clone()).context("failed to set up a pipe")?);
        let (stopped, stop) = io::pipe().context("failed to create a pipe")?;
        let others = foreign.clone();
        let forward = spawn("other writers", move || others.forward(&stopped))?;
        rustix::stdio::dup2_stdout(&writer).context("failed to replace stdout")?;
        rustix::stdio::dup2_stderr(&writer).context("failed to replace stderr")?;
        Ok(Self { log, foreign, before: (stdout, stderr), stop: Some(stop), forward: Some(forward) })
    }

    /// The container's log. Each write is of whole lines.
    pub(super) fn log(&self) -> Arc<Spool> {
        self.log.clone()
    }

    pub(super) fn foreign(&self) -> Arc<ForeignOutput> {
        self.foreign.clone()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // Fails for a number that is no descriptor only.
        let _ = rustix::stdio::dup2_stdout(&self.before.0);
        let _ = rustix::stdio::dup2_stderr(&self.before.1);
        drop(self.stop.take());
        if let Some(forward) = self.forward.take() {
            let _ = forward.join();
        }
        self.log.wait_done(Instant::now() + LAST_LINES);
    }
}

pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).context("failed to start a thread")
}

/// Writes what the spool holds, to its end. A log that can no longer be written to is no reason to stop: the copy
/// has the frames.
fn write_lines(spool: &Spool, log: &mut File) {
    give_way();
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(Read::Bytes(count)) = spool.read(&mut buffer, None) {
        if log.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            break;
        }
    }
    spool.abandon();
}
