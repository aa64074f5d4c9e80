//! All alarms and samples, of every account and region.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::alarm::Alarm;
use super::key::AlarmKey;
use super::metrics::{MetricKey, MetricSample, MetricSeries};
use crate::clock;
use crate::shared::Shared;

/// The service, with all alarms and samples in memory.
pub(crate) struct CloudWatch {
    pub(super) shared: Arc<Shared>,
    pub(super) records: Mutex<CloudWatchRecords>,
}

#[derive(Default)]
pub(super) struct CloudWatchRecords {
    pub(super) metrics: BTreeMap<MetricKey, MetricSeries>,
    pub(super) alarms: BTreeMap<AlarmKey, Alarm>,
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
            records.metrics.entry(key).or_default().add(unit, MetricSample::of(now_ms, *value, 1.0));
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
    pub(super) fn evaluate(&self, records: &mut CloudWatchRecords) {
        let (now_ms, scale) = (clock::now_ms(), self.shared.config.alarm_period_scale);
        let CloudWatchRecords { metrics, alarms } = records;
        for alarm in alarms.values_mut() {
            alarm.evaluate(metrics, now_ms, scale);
        }
    }
}
