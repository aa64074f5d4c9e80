//! Writing to streams whose reader may be slow, gone, or the reader of two of them.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// A pipe takes so many bytes whole or not at all (`PIPE_BUF`), so a kill cannot divide them.
pub const PIECE: usize = 4096;
/// How long one write waits for a reader of a non-blocking pipe before it counts as an error.
const FULL_PIPE_LIMIT: u32 = 60_000;
pub(super) const FULL_PIPE_PAUSE: Duration = Duration::from_millis(1);

/// The stream when it is a pipe.
pub(super) fn pipe(stream: BorrowedFd<'_>) -> Option<OwnedFd> {
    let status = rustix::fs::fstat(stream).ok()?;
    let is_pipe = rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Fifo;
    is_pipe.then(|| stream.try_clone_to_owned().ok())?
}

/// All of `bytes` and a flush; a reader that has gone sets `broken` and is no error.
pub(super) fn write_through(stream: &mut impl Write, broken: &mut bool, bytes: &[u8]) -> io::Result<()> {
    if *broken {
        return Ok(());
    }
    let result = write_all(stream, bytes).and_then(|()| retried(|| stream.flush()));
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            *broken = true;
            Ok(())
        }
        result => result,
    }
}

fn write_all(stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = retried(|| stream.write(bytes))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Once more after an interruption, and while the pipe is full: another process may have made it non-blocking.
fn retried<R>(mut write: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    let mut full = 0;
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && full < FULL_PIPE_LIMIT => {
                full += 1;
                std::thread::park_timeout(FULL_PIPE_PAUSE);
            }
            result => return result,
        }
    }
}
