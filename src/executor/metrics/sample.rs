//! Sums of metrics, as they are added up and as they travel between processes. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalog::{METRICS, Metric, MetricForm, OPEN_LABELS};

/// Most series of one metric; further values of its open labels are counted as [`OTHER`], so that no job makes the file grow without end.
const MOST_SERIES: usize = 1000;
/// Room for the few series with [`OTHER`], which keep the values of all other labels.
const ROOM: usize = 200;
/// Value of a label for what has none of its own.
const OTHER: &str = "other";
/// Longest value of a label, in characters.
const LONGEST_LABEL: usize = 200;
/// Stands between the values of labels in a key.
const BETWEEN: char = '\u{1f}';

/// The values of one series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SeriesSums {
    /// The counter, or the sum of a histogram's values.
    pub(super) sum: f64,
    /// Number of a histogram's values, and of those in each bucket alone.
    #[serde(default)]
    pub(super) count: u64,
    #[serde(default)]
    pub(super) buckets: Vec<u64>,
}

impl SeriesSums {
    pub(super) fn merge(&mut self, other: &Self) {
        // A sum that is no number could not be read again.
        let sum = self.sum + other.sum;
        self.sum = if sum.is_finite() { sum } else { self.sum };
        self.count = self.count.saturating_add(other.count);
        // A version with other bounds wrote the older one: its buckets cannot be added.
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
    }
}

/// Sums by metric and by values of its labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums(BTreeMap<String, BTreeMap<String, SeriesSums>>);

impl Sums {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds to a counter. A value that is no finite number above zero changes nothing.
    pub fn add(&mut self, metric: &Metric, labels: &[&str], amount: f64) {
        if amount.is_finite() && amount > 0.0 {
            self.entry(metric.name, &key(metric, labels)).sum += amount;
        }
    }

    /// Adds one value to a histogram.
    pub fn observe(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        let MetricForm::Histogram(bounds) = metric.form else { return };
        if !value.is_finite() {
            return;
        }
        let sample = self.entry(metric.name, &key(metric, labels));
        sample.sum += value.max(0.0);
        sample.count += 1;
        sample.buckets.resize(bounds.len(), 0);
        if let Some(bucket) = bounds.iter().position(|bound| value <= *bound)
            && let Some(count) = sample.buckets.get_mut(bucket)
        {
            *count += 1;
        }
    }

    /// Adds all sums of another process.
    pub(super) fn merge(&mut self, other: &Self) {
        for (name, series) in &other.0 {
            for (key, sample) in series {
                self.entry(name, key).merge(sample);
            }
        }
    }

    /// The series of a metric, with the values of its labels.
    pub(super) fn series(&self, metric: &Metric) -> Vec<(Vec<&str>, &SeriesSums)> {
        let series = self.0.get(metric.name).into_iter().flatten();
        let with_labels = series.map(|(key, sample)| (values(key), sample));
        with_labels.filter(|(labels, _)| labels.len() == metric.labels.len()).collect()
    }

    fn entry(&mut self, name: &str, key: &str) -> &mut SeriesSums {
        let series = self.0.entry(name.to_owned()).or_default();
        let mut key = key.to_owned();
        if series.len() >= MOST_SERIES && !series.contains_key(&key) {
            key = other_key(name, &key, false);
            if series.len() >= MOST_SERIES + ROOM && !series.contains_key(&key) {
                key = other_key(name, &key, true);
            }
        }
        series.entry(key).or_default()
    }
}

/// The key with [`OTHER`] in its open labels, or in all.
fn other_key(name: &str, key: &str, is_for_all: bool) -> String {
    let labels = METRICS.iter().find(|metric| metric.name == name).map(|metric| metric.labels).unwrap_or_default();
    let value = |(at, value): (usize, &str)| {
        let is_open = labels.get(at).is_none_or(|label| OPEN_LABELS.contains(label));
        format!("{}=", if is_open || is_for_all { OTHER } else { value })
    };
    values(key).into_iter().enumerate().map(value).collect::<Vec<_>>().join("\u{1f}")
}

fn values(key: &str) -> Vec<&str> {
    if key.is_empty() {
        Vec::new()
    } else {
        key.split(BETWEEN).map(|value| value.strip_suffix('=').unwrap_or(value)).collect()
    }
}

/// The values of all labels. Each ends with `=`, so that one empty value is not the same as no label.
fn key(metric: &Metric, labels: &[&str]) -> String {
    let value = |at: usize| {
        let text = labels.get(at).copied().unwrap_or_default();
        let plain: String = text.chars().filter(|char| !char.is_control()).take(LONGEST_LABEL).collect();
        format!("{plain}=")
    };
    (0..metric.labels.len()).map(value).collect::<Vec<_>>().join("\u{1f}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{API_CALLS, JOBS, QUEUE_SECONDS};

    #[test]
    fn sums_of_processes_add_up() {
        let (mut one, mut other) = (Sums::default(), Sums::default());
        one.add(&JOBS, &["failed", "user", ""], 1.0);
        one.add(&JOBS, &["failed", "user", ""], f64::NAN);
        one.observe(&QUEUE_SECONDS, &[], 0.0);
        other.add(&JOBS, &["failed", "user", ""], 2.0);
        other.add(&JOBS, &["failed", "a\u{1f}\nb", ""], 1.0);
        for value in [0.5, 31.0, 1e9] {
            other.observe(&QUEUE_SECONDS, &[], value);
        }
        one.merge(&other);
        let jobs: Vec<_> = one.series(&JOBS).into_iter().map(|(labels, sample)| (labels, sample.sum)).collect();
        assert_eq!(jobs, [(vec!["failed", "ab", ""], 1.0), (vec!["failed", "user", ""], 3.0)]);
        let (labels, queue) = one.series(&QUEUE_SECONDS)[0].clone();
        assert_eq!((labels.len(), queue.count, queue.sum), (0, 4, 1e9 + 31.5));
        assert_eq!((queue.buckets[0], queue.buckets[3], queue.buckets.iter().sum::<u64>()), (2, 1, 3));
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Sums>(&text).unwrap(), one);
    }

    #[test]
    fn labels_of_others_do_not_grow_without_end() {
        let mut sums = Sums::default();
        for number in 0..2 * MOST_SERIES {
            sums.add(&API_CALLS, &["s", &number.to_string(), "ok"], 1.0);
        }
        let series = sums.series(&API_CALLS);
        assert_eq!(series.len(), MOST_SERIES + 1);
        let rest = series.iter().find(|(labels, _)| *labels == ["other", "other", "ok"]).unwrap();
        assert!((rest.1.sum - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn the_result_of_a_job_outlives_the_name_of_its_project() {
        let (mut sums, mut failed) = (Sums::default(), Sums::default());
        for number in 0..MOST_SERIES {
            sums.add(&JOBS, &["succeeded", "none", &format!("g/p{number}")], 1.0);
        }
        failed.add(&JOBS, &["failed", "system", "g/new"], 7.0);
        sums.merge(&failed);
        sums.add(&JOBS, &["canceled", "canceled", "g/new"], 1.0);
        let series = sums.series(&JOBS);
        let others: Vec<_> = series.iter().filter(|(labels, _)| labels[2] == "other").collect();
        let found: Vec<_> = others.iter().map(|(labels, sample)| (labels[0], labels[1], sample.sum)).collect();
        assert_eq!(found, [("canceled", "canceled", 1.0), ("failed", "system", 7.0)]);
        for number in 0..2 * MOST_SERIES {
            sums.add(&JOBS, &["failed", &number.to_string(), ""], 1.0);
        }
        assert!(sums.series(&JOBS).len() <= MOST_SERIES + ROOM + 1, "also from a damaged file");
    }
}
