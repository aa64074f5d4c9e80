//! The operations of `CloudWatch` Logs.

use super::groups::Logs;
use super::{listing, reading, writing};
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
    const INVALID: &'static str = "InvalidParameterException";

    fn model() -> &'static Model {
        Model::logs()
    }
}
