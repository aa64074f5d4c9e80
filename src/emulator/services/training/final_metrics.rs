//! The last values of a job's metrics, which the service reads from the events of its log.

use regex::Regex;
use serde_json::{Value, json};

use crate::event::InputLogEvent;
use crate::protocol::{epoch_seconds, text};

/// A value, and when it was logged.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FinalMetric {
    name: String,
    /// The service keeps no more digits.
    value: f32,
    at_ms: u64,
}

impl FinalMetric {
    /// The member of `FinalMetricDataList`.
    pub(super) fn shown(&self) -> Value {
        json!({"MetricName": self.name, "Value": self.value, "Timestamp": epoch_seconds(self.at_ms)})
    }

    /// Takes the place of the earlier value of its name.
    pub(super) fn add_to(self, all: &mut Vec<Self>) {
        match all.iter_mut().find(|other| other.name == self.name) {
            Some(other) => *other = self,
            None => all.push(self),
        }
    }
}

/// The metrics that a request defines.
#[derive(Debug, Default)]
pub(super) struct MetricFinder(Vec<(String, Regex)>);

impl MetricFinder {
    /// A definition whose expression is none finds nothing.
    pub(super) fn of(request: &Value) -> Self {
        let all = request.pointer("/AlgorithmSpecification/MetricDefinitions").and_then(Value::as_array);
        let one = |metric: &Value| Some((text(metric, "Name")?.to_owned(), Regex::new(text(metric, "Regex")?).ok()?));
        Self(all.into_iter().flatten().filter_map(one).collect())
    }

    /// The values in an event, in order.
    pub(super) fn find(&self, event: &InputLogEvent) -> Vec<FinalMetric> {
        let values = |(name, regex): &(String, Regex)| {
            let numbers =
                regex.captures_iter(&event.message).filter_map(|found| found.get(1)?.as_str().trim().parse().ok());
            let of_name = |value| FinalMetric { name: name.clone(), value, at_ms: event.timestamp };
            numbers.map(of_name).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(values).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_each_metric_is_kept() {
        let definitions = json!([
            {"Name": "loss", "Regex": "loss=([0-9.]+)"}, {"Name": "acc", "Regex": "acc: (\\S+)"}, {"Name": "x", "Regex": "("}
        ]);
        let finder = MetricFinder::of(&json!({"AlgorithmSpecification": {"MetricDefinitions": definitions}}));
        let mut all = Vec::new();
        for (at, message) in
            [(1000, "loss=0.5 loss=0.25"), (2000, "acc: 0.5"), (3000, "acc: none loss=0.125"), (4000, "x")]
        {
            let event = InputLogEvent { timestamp: at, message: message.to_owned() };
            for metric in finder.find(&event) {
                metric.add_to(&mut all);
            }
        }
        let shown: Vec<_> = all.iter().map(FinalMetric::shown).collect();
        assert_eq!(
            json!(shown),
            json!([
                {"MetricName": "loss", "Value": 0.125, "Timestamp": epoch_seconds(3000)},
                {"MetricName": "acc", "Value": 0.5, "Timestamp": epoch_seconds(2000)}
            ])
        );
        assert_eq!(MetricFinder::of(&json!({})).find(&InputLogEvent { timestamp: 1, message: "loss=1".into() }), []);
    }
}
