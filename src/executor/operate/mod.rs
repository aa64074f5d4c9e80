//! Commands that an operator types.

pub mod doctor;
pub mod policy;
pub mod settings;
pub mod status;
pub mod sweep;
pub mod try_job;
