//! Foundations that know no AWS, no GitLab and no stage.

pub mod arn;
pub mod clock;
pub mod exit_codes;
pub mod failure;
pub mod names;
pub mod node;
pub mod plain;
pub mod process;
pub mod signals;
pub mod stream;
pub mod worker;
