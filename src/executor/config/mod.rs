//! Configuration: the environment, the operator's file, and the policy that combines both with a job.

pub mod accelerators;
mod check;
pub mod env;
pub mod faults;
mod forms;
pub mod iam_patterns;
mod input_channels;
pub mod job_variables;
pub mod key_lines;
pub mod operator_file;
pub mod policy;
pub mod prices;
pub mod rules;
pub mod schema;
pub mod settings;
