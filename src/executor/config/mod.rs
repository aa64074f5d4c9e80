//! What was set: the environment, the operator file, and the policy that joins both with a job.

pub mod env;
pub mod policy;
pub mod settings;
