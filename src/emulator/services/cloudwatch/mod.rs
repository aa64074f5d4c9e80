//! CloudWatch: metrics, and alarms that are evaluated on them.
//!
//! `metrics.rs` and `evaluation.rs` compute and know neither clock nor requests. `alarms.rs` and `data.rs` are the operations,
//! `alarm.rs` the life of one alarm. `wire.rs` speaks the three protocols of the service, CBOR by `cbor.rs` and the query protocol by
//! `query.rs`.

mod alarm;
mod alarms;
mod cbor;
mod data;
mod evaluation;
mod history;
mod metrics;
mod query;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use self::alarm::Alarm;
use self::metrics::{MetricKey, Sample, Series};
pub(crate) use self::wire::{CloudWatchWire, WireFormat, cbor_operation};
use crate::clock;
use crate::model::Model;
use crate::package_names::partition;
use crate::service::{JsonService, Operation};
use crate::shared::Shared;

/// The service, with all alarms and samples in memory.
pub(crate) struct CloudWatch {
    shared: Arc<Shared>,
    records: Mutex<CloudWatchRecords>,
}

#[derive(Default)]
struct CloudWatchRecords {
    metrics: BTreeMap<MetricKey, Series>,
    alarms: BTreeMap<AlarmKey, Alarm>,
}

/// An alarm by its name within an account and a region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AlarmKey {
    account: String,
    region: String,
    name: String,
}

impl AlarmKey {
    pub(crate) fn new(account: &str, region: &str, name: &str) -> Self {
        Self { account: account.to_owned(), region: region.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn arn(&self) -> String {
        let Self { account, region, name } = self;
        format!("arn:{}:cloudwatch:{region}:{account}:alarm:{name}", partition(region))
    }
}

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

impl CloudWatch {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), records: Mutex::default() }
    }

    /// Adds a value of a metric of AWS now.
    pub(crate) fn record(
        &self,
        (account, region): (&str, &str),
        namespace: &str,
        dimensions: &[(&str, &str)],
        values: &[(&str, f64, &str)],
    ) {
        let now_ms = clock::now_ms();
        let dimensions: BTreeMap<String, String> =
            dimensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut records = self.records.lock();
        for (name, value, unit) in values {
            let key = MetricKey {
                account: account.to_owned(),
                region: region.to_owned(),
                namespace: namespace.to_owned(),
                name: (*name).to_owned(),
                dimensions: dimensions.clone(),
            };
            records.metrics.entry(key).or_default().add(unit, Sample::of(now_ms, *value, 1.0));
        }
    }

    /// The first of these alarms that is on now.
    pub(crate) fn firing(&self, account: &str, region: &str, names: &[String]) -> Option<String> {
        let mut records = self.records.lock();
        self.evaluate(&mut records);
        let is_on =
            |name: &&String| records.alarms.get(&AlarmKey::new(account, region, name)).is_some_and(Alarm::is_on);
        names.iter().find(is_on).cloned()
    }

    /// The alarms of these that do not exist.
    pub(crate) fn absent(&self, account: &str, region: &str, names: &[String]) -> Vec<String> {
        let records = self.records.lock();
        let is_absent = |name: &&String| !records.alarms.contains_key(&AlarmKey::new(account, region, name));
        names.iter().filter(is_absent).cloned().collect()
    }

    /// Brings all alarms up to now.
    fn evaluate(&self, records: &mut CloudWatchRecords) {
        let (now_ms, scale) = (clock::now_ms(), self.shared.config.alarm_period_scale);
        let CloudWatchRecords { metrics, alarms } = records;
        for alarm in alarms.values_mut() {
            alarm.evaluate(metrics, now_ms, scale);
        }
    }
}
