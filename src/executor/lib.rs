//! Driver and agent of the custom executor, without the AWS adapter and the emulator.
//!
//! `docs/ARCHITECTURE.md` has the map of the modules, and the directions in which they may use each other.

pub mod agent;
pub mod base;
pub mod boundary;
pub mod cloud;
pub mod config;
pub mod gitlab;
pub mod iam;
pub mod lifecycle;
pub mod logs;
pub mod metrics;
pub mod operate;
pub mod protocol;
pub mod report;
pub mod sandbox;
pub mod secrets;
pub mod session;
pub mod stages;
pub mod telemetry;
pub mod trace;
pub mod ui;
pub mod workspace;
