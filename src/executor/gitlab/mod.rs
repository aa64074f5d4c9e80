//! What GitLab and its runner say of a job.

mod payload;
mod stage;

pub use payload::*;
pub use stage::{BuildStage, Placement};
