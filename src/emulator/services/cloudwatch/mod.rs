//! CloudWatch: metrics, and alarms that are evaluated on them.
//!
//! `metrics.rs` and `evaluation.rs` compute and know neither clock nor requests. `records.rs` holds what exists, `alarm.rs` the life of
//! one alarm; `alarms.rs`, `history.rs` and `data.rs` are the operations. `wire.rs` speaks the three protocols of the service, CBOR by
//! `cbor.rs` and the query protocol by `query.rs`.

mod alarm;
mod alarms;
mod cbor;
mod data;
mod evaluation;
mod history;
mod key;
mod metrics;
mod query;
mod records;
mod wire;

pub(crate) use self::key::AlarmKey;
pub(crate) use self::records::CloudWatch;
pub(crate) use self::wire::{CloudWatchWire, WireFormat, cbor_operation};
use crate::model::Model;
use crate::service::{JsonService, Operation};

impl JsonService for CloudWatch {
    const SIGNING_NAME: &'static str = "monitoring";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("PutMetricAlarm", alarms::put),
        ("DescribeAlarms", alarms::describe),
        ("DeleteAlarms", alarms::delete),
        ("SetAlarmState", alarms::set_state),
        ("DescribeAlarmHistory", history::describe),
        ("PutMetricData", data::put),
        ("GetMetricData", data::get),
        ("GetMetricStatistics", data::statistics),
        ("ListMetrics", data::list),
        ("ListTagsForResource", alarms::list_tags),
        ("TagResource", alarms::tag),
        ("UntagResource", alarms::untag),
    ];
    const INVALID: &'static str = "ValidationError";

    fn model() -> &'static Model {
        Model::cloudwatch()
    }
}
