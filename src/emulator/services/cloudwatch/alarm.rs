//! The life of one alarm: its definition, its state, and the changes of both.
//!
//! Pure: the time is a parameter.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::evaluation::{AlarmRule, AlarmStateValue};
use super::key::AlarmKey;
use super::metrics::{MetricKey, MetricSeries};
use crate::protocol::{epoch_seconds, text};

/// Changes that are kept.
const MOST_CHANGES: usize = 1000;
/// Evaluations that are made up for after a long time without a look.
const MOST_LATE: u64 = 1000;

/// An alarm on one metric.
#[derive(Debug)]
pub(super) struct Alarm {
    /// The members of the request that Describe shows.
    pub(super) definition: Map<String, Value>,
    pub(super) rule: AlarmRule,
    pub(super) metric: MetricKey,
    configured_ms: u64,
    state: AlarmStateValue,
    reason: String,
    reason_data: Option<String>,
    updated_ms: u64,
    transitioned_ms: u64,
    /// Time of the last evaluation.
    evaluated_ms: u64,
    pub(super) changes: Vec<AlarmChange>,
}

/// An entry of the history.
#[derive(Debug, Clone)]
pub(super) struct AlarmChange {
    pub(super) at_ms: u64,
    pub(super) kind: &'static str,
    pub(super) summary: String,
    pub(super) data: String,
}

impl Alarm {
    pub(super) fn new(definition: Map<String, Value>, rule: AlarmRule, metric: MetricKey, now_ms: u64) -> Self {
        let mut alarm = Self {
            definition,
            rule,
            metric,
            configured_ms: now_ms,
            state: AlarmStateValue::InsufficientData,
            reason: "Unchecked: Initial alarm creation".to_owned(),
            reason_data: None,
            updated_ms: now_ms,
            transitioned_ms: now_ms,
            evaluated_ms: now_ms,
            changes: Vec::new(),
        };
        alarm.note(
            "ConfigurationUpdate",
            now_ms,
            format!("Alarm \"{}\" created", alarm.name()),
            &json!({"type": "Create"}),
        );
        alarm
    }

    fn name(&self) -> &str {
        self.definition.get("AlarmName").and_then(Value::as_str).unwrap_or_default()
    }

    /// Replaces the definition; the state stays.
    pub(super) fn redefine(&mut self, definition: Map<String, Value>, rule: AlarmRule, metric: MetricKey, now_ms: u64) {
        self.definition = definition;
        self.rule = rule;
        self.metric = metric;
        self.configured_ms = now_ms;
        self.note(
            "ConfigurationUpdate",
            now_ms,
            format!("Alarm \"{}\" updated", self.name()),
            &json!({"type": "Update"}),
        );
    }

    pub(super) fn is_on(&self) -> bool {
        self.state == AlarmStateValue::Alarm
    }

    /// Sets the state until the next evaluation.
    pub(super) fn set(&mut self, state: AlarmStateValue, reason: String, data: Option<String>, now_ms: u64) {
        self.evaluated_ms = now_ms;
        self.change(state, reason, data, now_ms);
    }

    /// Evaluates the alarm at each time at which CloudWatch does, up to now.
    pub(super) fn evaluate(&mut self, metrics: &BTreeMap<MetricKey, MetricSeries>, now_ms: u64, scale: f64) {
        let period_ms = scaled(self.rule.period, scale);
        // Every minute, or every period when that is shorter.
        let interval_ms = scaled(self.rule.period.min(60), scale);
        let oldest = now_ms.saturating_sub(interval_ms.saturating_mul(MOST_LATE));
        self.evaluated_ms = self.evaluated_ms.max(oldest);
        while self.evaluated_ms.saturating_add(interval_ms) <= now_ms {
            self.evaluated_ms += interval_ms;
            let at_ms = self.evaluated_ms;
            let points = self.points(metrics.get(&self.metric), at_ms, period_ms);
            let Some(state) = self.rule.state(&points).filter(|state| *state != self.state) else { continue };
            let recent: Vec<f64> = points.iter().rev().flatten().copied().take(self.rule.periods).collect();
            let data = json!({
                "version": "1.0", "queryDate": rfc3339(at_ms), "period": self.rule.period, "recentDatapoints": recent,
                "threshold": self.rule.threshold,
            });
            self.change(state, self.rule.reason(&points, state), Some(data.to_string()), at_ms);
        }
    }

    /// The data points of the periods before a time, the oldest first.
    fn points(&self, series: Option<&MetricSeries>, at_ms: u64, period_ms: u64) -> Vec<Option<f64>> {
        let unit = self.definition.get("Unit").and_then(Value::as_str);
        let fetched = u64::try_from(self.rule.fetched()).unwrap_or(u64::MAX);
        let point = |number: u64| {
            let end_ms = at_ms.saturating_sub(number.saturating_mul(period_ms));
            let samples = series?.between(unit, end_ms.saturating_sub(period_ms), end_ms);
            self.rule.statistic.of(&samples)
        };
        (0..fetched).rev().map(point).collect()
    }

    fn change(&mut self, state: AlarmStateValue, reason: String, data: Option<String>, at_ms: u64) {
        let old = std::mem::replace(&mut self.state, state);
        self.reason = reason;
        self.reason_data = data;
        self.updated_ms = at_ms;
        if old == state {
            return;
        }
        self.transitioned_ms = at_ms;
        let shown = |state: AlarmStateValue, reason: &str| json!({"stateValue": state.text(), "stateReason": reason});
        let data = json!({"version": "1.0", "oldState": shown(old, ""), "newState": shown(state, &self.reason)});
        self.note("StateUpdate", at_ms, format!("Alarm updated from {} to {}", old.text(), state.text()), &data);
    }

    fn note(&mut self, kind: &'static str, at_ms: u64, summary: String, data: &Value) {
        self.changes.push(AlarmChange { at_ms, kind, summary, data: data.to_string() });
        if self.changes.len() > MOST_CHANGES {
            self.changes.remove(0);
        }
    }

    /// As `DescribeAlarms` shows it.
    pub(super) fn shown(&self, key: &AlarmKey) -> Value {
        let mut shown = Value::Object(self.definition.clone());
        for (name, value) in [
            ("AlarmArn", json!(key.arn())),
            ("AlarmConfigurationUpdatedTimestamp", epoch_seconds(self.configured_ms)),
            ("StateValue", json!(self.state.text())),
            ("StateReason", json!(self.reason)),
            ("StateUpdatedTimestamp", epoch_seconds(self.updated_ms)),
            ("StateTransitionedTimestamp", epoch_seconds(self.transitioned_ms)),
        ] {
            shown[name] = value;
        }
        if let Some(data) = &self.reason_data {
            shown["StateReasonData"] = json!(data);
        }
        if text(&shown, "ActionsEnabled").is_none() && shown["ActionsEnabled"].is_null() {
            shown["ActionsEnabled"] = json!(true);
        }
        shown
    }
}

/// Seconds in milliseconds, scaled.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "at most a week"
)]
fn scaled(seconds: u64, scale: f64) -> u64 {
    ((seconds as f64 * 1000.0 * scale) as u64).max(1)
}

/// A time as CloudWatch writes it into `StateReasonData`.
pub(super) fn rfc3339(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::metrics::MetricSample;
    use super::*;

    /// An alarm on one error in a minute, in a world of 1 ms a second.
    fn alarm(missing: &str) -> (Alarm, BTreeMap<MetricKey, MetricSeries>) {
        let definition = json!({
            "AlarmName": "errors", "Namespace": "N", "MetricName": "M", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1,
            "Threshold": 0, "ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": missing,
        });
        let metric = MetricKey::of(&definition, None, "1", "r");
        let rule = AlarmRule::parse(&definition).unwrap();
        let members = definition.as_object().unwrap().clone();
        (Alarm::new(members, rule, metric, 1000), BTreeMap::new())
    }

    fn put(metrics: &mut BTreeMap<MetricKey, MetricSeries>, alarm: &Alarm, at_ms: u64, value: f64) {
        metrics.entry(alarm.metric.clone()).or_default().add("None", MetricSample::of(at_ms, value, 1.0));
    }

    #[test]
    fn an_alarm_goes_on_and_off_with_its_metric() {
        let (mut alarm, mut metrics) = alarm("notBreaching");
        alarm.evaluate(&metrics, 1059, 0.001);
        assert_eq!(alarm.state, AlarmStateValue::InsufficientData, "not before the first minute");
        alarm.evaluate(&metrics, 1060, 0.001);
        assert_eq!(alarm.state, AlarmStateValue::Ok);
        put(&mut metrics, &alarm, 1070, 2.0);
        alarm.evaluate(&metrics, 1119, 0.001);
        assert!(!alarm.is_on());
        // One look makes up for all evaluations: on after a minute, off when the extra periods have no data either.
        alarm.evaluate(&metrics, 1500, 0.001);
        assert_eq!(alarm.state, AlarmStateValue::Ok);
        let summaries: Vec<_> = alarm.changes.iter().map(|one| (one.at_ms, one.summary.as_str())).collect();
        assert_eq!(
            summaries,
            [
                (1000, "Alarm \"errors\" created"),
                (1060, "Alarm updated from INSUFFICIENT_DATA to OK"),
                (1120, "Alarm updated from OK to ALARM"),
                (1300, "Alarm updated from ALARM to OK"),
            ]
        );
    }

    #[test]
    fn a_state_that_is_set_stays_until_the_next_evaluation() {
        let (mut alarm, metrics) = alarm("notBreaching");
        alarm.set(AlarmStateValue::Alarm, "by hand".to_owned(), None, 1030);
        alarm.evaluate(&metrics, 1089, 0.001);
        assert!(alarm.is_on());
        alarm.evaluate(&metrics, 1090, 0.001);
        assert!(!alarm.is_on());
    }

    #[test]
    fn a_metric_of_another_unit_is_no_data() {
        let (mut alarm, mut metrics) = alarm("missing");
        alarm.definition.insert("Unit".to_owned(), json!("Count"));
        put(&mut metrics, &alarm, 1010, 2.0);
        alarm.evaluate(&metrics, 1060, 0.001);
        assert_eq!(alarm.state, AlarmStateValue::InsufficientData);
    }
}
