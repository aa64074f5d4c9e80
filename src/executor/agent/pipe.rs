//! How much a pipe holds.

use std::io::PipeReader;

/// What a pipe holds where the system lets it: so much a script writes in one go.
const PIPE_BYTES: usize = 1 << 20;

/// Gives a pipe more room, so that its writers wait less; where the limit for users is lower it stays as it is.
pub(super) fn enlarge(pipe: &PipeReader) {
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES) {
        tracing::debug!(%error, "failed to enlarge a pipe");
    }
}
