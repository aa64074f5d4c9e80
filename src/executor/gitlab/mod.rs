//! The GitLab job and the runner's build stages; GitLab's API as a port.

pub mod api;
mod payload;
mod stage;

pub use payload::*;
pub use stage::{BuildStage, Placement};
