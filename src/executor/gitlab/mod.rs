//! The GitLab job and the runner's build stages.

mod payload;
mod stage;

pub use payload::*;
pub use stage::{BuildStage, Placement};
