//! `CloudWatch` Logs: groups, streams, events that become visible late, pages and tokens.
//!
//! Tokens walk by timestamp, as on the real service: an event that becomes visible behind a reader's position is passed
//! over. What a container's bytes become is decided in `ingest.rs`.

mod groups;
mod ingest;
mod listing;
mod operations;
mod reading;
mod stream;
#[cfg(test)]
mod tests;
mod writing;

pub(crate) use self::groups::{JOB_GROUP, Logs};
pub(crate) use self::ingest::Ingest;
