//! What an operator types.

pub mod emulator;
pub mod sweep;
pub mod try_job;
