//! The job log on its way from the container to the driver: frames, their reader, and the removal of secrets.
//!
//! Pure: bytes in, lines out and back. Nothing here reads a file, a clock or the network.
//!
//! - [`frame`]: the agent's side, bytes to log lines.
//! - [`decode`]: the driver's side, log lines from two unreliable sources back to the same bytes.
//! - [`interleave`]: the driver's side, output of several nodes in one trace.
//! - [`mask`]: values of masked variables become `[MASKED]` before they leave the container.

pub mod decode;
pub mod frame;
pub mod interleave;
pub mod mask;

pub use decode::{FrameDecoder, Line, TraceError, frame_start};
pub use frame::{End, FrameEncoder};
pub use interleave::{Interleaver, Piece};
pub use mask::Masker;
