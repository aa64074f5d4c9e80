//! Values of AWS Secrets Manager for jobs and commands: how a job names one, what is taken of its content, how it is read.
//!
//! A value is held in memory alone. No error, log line or `Debug` contains one.

mod json_parts;
mod reading;
mod reference;
mod selection;

pub use reading::{Reader, SecretRequest, read};
pub use reference::{FORM, SecretReference};
pub use selection::SecretValue;
