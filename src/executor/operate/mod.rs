//! Commands that an operator types.

pub mod sweep;
pub mod try_job;
