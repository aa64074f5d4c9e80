//! The capacity of a pipe.

use std::io::PipeReader;

/// Wanted capacity: what a script can write without waiting.
const PIPE_BYTES: usize = 1 << 20;

/// Raises the capacity of a pipe, so that its writers wait less. A user's limit may forbid it; then it stays as it is.
pub(super) fn enlarge(pipe: &PipeReader) {
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES) {
        tracing::debug!(%error, "failed to enlarge a pipe");
    }
}
