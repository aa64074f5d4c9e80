//! Encodes the script's output as frames, decodes them on the driver, and masks secrets. Pure: no files, no clock, no network.
//!
//! - [`frame`]: on the agent, bytes to log lines.
//! - [`decode`]: on the driver, log lines from two unreliable sources back to the same bytes.
//! - [`interleave`]: on the driver, output of several nodes to one trace.
//! - [`mask`]: on the agent, replaces the values of masked variables by `[MASKED]`.

pub mod decode;
pub mod frame;
pub mod interleave;
pub mod mask;

pub use decode::{FrameDecoder, Line, TraceError, frame_start};
pub use frame::{EndFrame, FrameEncoder};
pub use interleave::{Interleaver, Piece};
pub use mask::Masker;
