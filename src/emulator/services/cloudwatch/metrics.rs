//! Metrics with their samples, and the statistics of a stretch of time.
//!
//! Pure: times are parameters.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use crate::protocol::text;

/// Samples of one metric and unit that are kept; the oldest go first.
const MOST_SAMPLES: usize = 100_000;

/// A metric of an account and region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MetricKey {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) dimensions: BTreeMap<String, String>,
}

impl MetricKey {
    /// As a request names it: `Namespace`, `MetricName` and `Dimensions`.
    pub(super) fn of(request: &Value, namespace: Option<&str>, account: &str, region: &str) -> Self {
        let dimensions = request["Dimensions"].as_array().into_iter().flatten();
        let part = |one: &Value, name: &str| text(one, name).unwrap_or_default().to_owned();
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            namespace: namespace.map_or_else(|| part(request, "Namespace"), str::to_owned),
            name: part(request, "MetricName"),
            dimensions: dimensions.map(|one| (part(one, "Name"), part(one, "Value"))).collect(),
        }
    }

    /// As replies show it.
    pub(super) fn shown(&self) -> Value {
        let dimensions: Vec<_> =
            self.dimensions.iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect();
        json!({"Namespace": self.namespace, "MetricName": self.name, "Dimensions": dimensions})
    }
}

/// Values that came together: one, or those of a `StatisticSet`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MetricSample {
    pub(super) at_ms: u64,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl MetricSample {
    /// `count` times the same value.
    pub(super) fn of(at_ms: u64, value: f64, count: f64) -> Self {
        Self { at_ms, count, sum: value * count, least: value, most: value }
    }
}

/// The samples of one metric, by unit and in the order of their times.
#[derive(Debug, Default)]
pub(super) struct MetricSeries(BTreeMap<String, VecDeque<MetricSample>>);

impl MetricSeries {
    pub(super) fn add(&mut self, unit: &str, sample: MetricSample) {
        // A set of no samples.
        if sample.count <= 0.0 {
            return;
        }
        if !self.0.contains_key(unit) {
            self.0.insert(unit.to_owned(), VecDeque::new());
        }
        let Some(samples) = self.0.get_mut(unit) else { return };
        let at = samples.partition_point(|one| one.at_ms <= sample.at_ms);
        samples.insert(at, sample);
        if samples.len() > MOST_SAMPLES {
            samples.pop_front();
        }
    }

    /// The samples from `start_ms` until before `end_ms`, of one unit or of all.
    pub(super) fn between(&self, unit: Option<&str>, start_ms: u64, end_ms: u64) -> Vec<MetricSample> {
        let units = self.0.iter().filter(|(name, _)| unit.is_none_or(|unit| unit == *name));
        let within = units.flat_map(|(_, samples)| {
            let from = samples.partition_point(|one| one.at_ms < start_ms);
            samples.iter().skip(from).take_while(|one| one.at_ms < end_ms)
        });
        within.copied().collect()
    }

    /// The unit of the samples, when it is one.
    pub(super) fn unit(&self) -> &str {
        self.0.keys().next().filter(|_| self.0.len() == 1).map_or("None", String::as_str)
    }
}

/// How samples become one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Statistic {
    SampleCount,
    Average,
    Sum,
    Minimum,
    Maximum,
    /// From 0 to 100.
    Percentile(f64),
}

impl Statistic {
    /// Reads `Average` or `p99.9`; `None` for another word.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "SampleCount" => Self::SampleCount,
            "Average" => Self::Average,
            "Sum" => Self::Sum,
            "Minimum" => Self::Minimum,
            "Maximum" => Self::Maximum,
            _ => {
                let percent = word.strip_prefix('p')?.parse().ok()?;
                return (0.0..=100.0).contains(&percent).then_some(Self::Percentile(percent));
            }
        })
    }

    /// The number of these samples; `None` without any.
    pub(super) fn of(self, samples: &[MetricSample]) -> Option<f64> {
        let count: f64 = samples.iter().map(|one| one.count).sum();
        if count <= 0.0 {
            return None;
        }
        let sum = || samples.iter().map(|one| one.sum).sum::<f64>();
        Some(match self {
            Self::SampleCount => count,
            Self::Average => sum() / count,
            Self::Sum => sum(),
            Self::Minimum => samples.iter().map(|one| one.least).fold(f64::INFINITY, f64::min),
            Self::Maximum => samples.iter().map(|one| one.most).fold(f64::NEG_INFINITY, f64::max),
            Self::Percentile(percent) => percentile(samples, percent / 100.0 * count)?,
        })
    }
}

/// The value below or at which `wanted` of the counted values are; a statistic set counts as its average.
fn percentile(samples: &[MetricSample], wanted: f64) -> Option<f64> {
    let mut values: Vec<(f64, f64)> = samples.iter().map(|one| (one.sum / one.count, one.count)).collect();
    values.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut seen = 0.0;
    let reached = values.iter().find(|(_, count)| {
        seen += count;
        seen >= wanted
    });
    reached.or(values.last()).map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn series(values: &[(u64, f64)]) -> MetricSeries {
        let mut series = MetricSeries::default();
        for (at_ms, value) in values {
            series.add("Count", MetricSample::of(*at_ms, *value, 1.0));
        }
        series
    }

    #[test_case("SampleCount", 4.0)]
    #[test_case("Average", 4.0)]
    #[test_case("Sum", 16.0)]
    #[test_case("Minimum", 1.0)]
    #[test_case("Maximum", 9.0)]
    #[test_case("p50", 2.0)]
    #[test_case("p75", 4.0)]
    #[test_case("p99.9", 9.0)]
    #[test_case("p0", 1.0)]
    fn statistics_are_those_of_all_samples(word: &str, expected: f64) {
        let samples = series(&[(1, 9.0), (2, 1.0), (3, 2.0), (4, 4.0)]).between(None, 0, 10);
        assert_eq!(Statistic::parse(word).unwrap().of(&samples), Some(expected));
        assert_eq!(Statistic::parse(word).unwrap().of(&[]), None);
    }

    #[test]
    fn a_set_of_no_samples_counts_nowhere() {
        let empty = MetricSample { at_ms: 5, count: 0.0, sum: 0.0, least: -1.0, most: 99.0 };
        let mut series = series(&[(1, 9.0)]);
        series.add("Count", empty);
        let samples = series.between(None, 0, 10);
        for word in ["p0", "p50", "Minimum", "Maximum", "Average"] {
            assert_eq!(Statistic::parse(word).unwrap().of(&samples), Some(9.0), "{word}");
        }
    }

    #[test]
    fn other_words_are_no_statistics() {
        for word in ["p", "p101", "tm99", "IQM", "average"] {
            assert_eq!(Statistic::parse(word), None, "{word}");
        }
    }

    #[test]
    fn a_stretch_of_time_has_its_start_and_not_its_end_and_one_unit_alone() {
        let mut series = series(&[(10, 1.0), (30, 3.0), (20, 2.0)]);
        let values = |series: &MetricSeries, unit, start, end| -> Vec<f64> {
            series.between(unit, start, end).iter().map(|one| one.sum).collect()
        };
        assert_eq!(values(&series, None, 10, 30), [1.0, 2.0]);
        assert_eq!(series.unit(), "Count");
        series.add("None", MetricSample::of(25, 7.0, 1.0));
        assert_eq!(values(&series, Some("None"), 0, 99), [7.0]);
        assert_eq!((values(&series, Some("Bytes"), 0, 99).len(), series.unit()), (0, "None"));
    }
}
