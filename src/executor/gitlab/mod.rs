//! What GitLab says of a job.

pub mod job;
