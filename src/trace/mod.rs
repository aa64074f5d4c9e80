//! The job log on its way from the container to the driver: frames, their reader, and the removal of secrets.
//!
//! Pure: bytes in, lines out and back. Nothing here reads a file, a clock or the network.
//!
//! - [`frame`]: the agent's side, bytes to log lines.
//! - [`decode`]: the driver's side, log lines from two unreliable sources back to the same bytes.
//! - [`label`]: the driver's side, lines of several nodes told apart.
//! - [`mask`]: values of masked variables become `[MASKED]` before they leave the container.

pub mod decode;
pub mod frame;
pub mod label;
pub mod mask;

pub use decode::{FrameDecoder, Line, TraceError};
pub use frame::{End, FrameEncoder};
pub use label::Labeler;
pub use mask::Masker;
