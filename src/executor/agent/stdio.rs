//! Captures the agent's stdout and stderr: the agent alone writes to the container's log, and output of other writers passes
//! through it.
//!
//! A log driver that blocks delays only the thread that writes: lines wait in an [`OutputSpool`]. This module knows no frames and
//! never logs.

use std::fs::File;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::foreign_output::ForeignOutput;
use super::pipe::enlarge;
use super::pump::lower_priority;
use super::spool::{OutputSpool, Read};
use super::volume;

/// Time limit for writing the last lines: SageMaker grants a stopped container 120 s in total.
const LAST_LINES: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 256 << 10;

/// The captured streams. Dropped, it writes the last lines and restores stdout and stderr.
#[derive(Debug)]
pub(super) struct CapturedStdio {
    log: Arc<OutputSpool>,
    foreign: Arc<ForeignOutput>,
    before: (OwnedFd, OwnedFd),
    /// Closed to end the thread that reads the other writers' pipe.
    stop: Option<PipeWriter>,
    forward: Option<JoinHandle<()>>,
}

impl CapturedStdio {
    /// Replaces stdout and stderr by a pipe. Child processes no longer inherit the log itself.
    pub(super) fn take_over() -> anyhow::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned().context("failed to duplicate stdout")?;
        let stderr = io::stderr().as_fd().try_clone_to_owned().context("failed to duplicate stderr")?;
        let log = Arc::new(volume::spool());
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

    /// The container's log. Write whole lines only.
    pub(super) fn log(&self) -> Arc<OutputSpool> {
        self.log.clone()
    }

    pub(super) fn foreign(&self) -> Arc<ForeignOutput> {
        self.foreign.clone()
    }
}

impl Drop for CapturedStdio {
    fn drop(&mut self) {
        // Can fail for an invalid descriptor only.
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

/// Writes the spool to the log until its end. A log that fails does not stop the agent: the copy has the frames.
fn write_lines(spool: &OutputSpool, log: &mut File) {
    lower_priority();
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(Read::Bytes(count)) = spool.read(&mut buffer, None) {
        if log.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            break;
        }
    }
    spool.abandon();
}
