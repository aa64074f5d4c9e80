//! Configuration: the environment, the operator's file, and the policy that combines both with a job.

pub mod env;
pub mod policy;
pub mod settings;
