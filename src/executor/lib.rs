//! Driver and agent of the custom executor: everything but the AWS adapter and the emulator.
//!
//! The map of the modules, with the direction in which they may use each other, stands in `docs/ARCHITECTURE.md`.

pub mod agent;
pub mod base;
pub mod boundary;
pub mod cloud;
pub mod config;
pub mod gitlab;
pub mod logs;
pub mod operate;
pub mod protocol;
pub mod session;
pub mod stages;
pub mod trace;
pub mod ui;
pub mod workspace;
