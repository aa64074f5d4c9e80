//! `CloudWatch` Logs: groups, streams, events that become visible late, pages and tokens.
//!
//! Tokens move by timestamp, as on the real service: a reader misses an event that becomes visible before its position.
//! `ingest.rs` makes events from a container's bytes.

mod groups;
mod ingest;
mod listing;
mod reading;
mod stream;
#[cfg(test)]
mod tests;
mod writing;

pub(crate) use self::groups::{JOB_GROUP, Logs};
pub(crate) use self::ingest::Ingest;

use crate::model::Model;
use crate::service::{JsonService, Operation};

impl JsonService for Logs {
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("GetLogEvents", reading::get),
        ("FilterLogEvents", reading::filter),
        ("DescribeLogStreams", listing::describe_streams),
        ("DescribeLogGroups", listing::describe_groups),
        ("CreateLogGroup", writing::create_group),
        ("DeleteLogGroup", writing::delete_group),
        ("CreateLogStream", writing::create_stream),
        ("DeleteLogStream", writing::delete_stream),
        ("PutLogEvents", writing::put),
    ];
    const SIGNING_NAME: &'static str = "logs";
    const INVALID: &'static str = "InvalidParameterException";

    fn model() -> &'static Model {
        Model::logs()
    }
}
