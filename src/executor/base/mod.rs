//! Foundations without knowledge of AWS, GitLab or stages.

pub mod arn;
pub mod backoff;
pub mod clock;
pub mod descent;
pub mod destination;
pub mod exit_codes;
pub mod failure;
pub mod files;
pub mod human;
pub mod metric;
pub mod names;
pub mod node;
pub mod plain;
pub mod policy_statement;
pub mod privacy;
pub mod process;
pub mod removal;
pub mod role_trust;
pub mod seal;
pub mod series;
pub mod signals;
pub mod stream;
pub mod trusted_roots;
pub mod worker;
