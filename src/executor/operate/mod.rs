//! Commands that an operator types.

pub mod policy;
pub mod sweep;
pub mod try_job;
