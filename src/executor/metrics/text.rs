//! The text form of metrics that Prometheus reads. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::catalog::{BUILD, METRICS, Metric, MetricForm, RUNNING};
use super::sample::{SeriesSums, Sums};

/// The whole file: each metric with its series; those without one have none. `running` is the number of jobs on this host.
pub(super) fn render(sums: &Sums, running: usize, shows_projects: bool) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let _ = writeln!(text, "# HELP {} {}", metric.name, metric.help);
        let form = match metric.form {
            MetricForm::Counter => "counter",
            MetricForm::Gauge => "gauge",
            MetricForm::Histogram(_) => "histogram",
        };
        let _ = writeln!(text, "# TYPE {} {form}", metric.name);
        for (labels, sample) in &shown(sums, metric, shows_projects) {
            write_series(&mut text, metric, labels, sample);
        }
        if metric.name == RUNNING.name {
            let _ = writeln!(text, "{} {running}", metric.name);
        }
        if metric.name == BUILD.name {
            let _ = writeln!(text, "{}{{{}}} 1", metric.name, pair("version", env!("CARGO_PKG_VERSION")));
        }
    }
    text
}

/// The series as they are shown. Those that differ in a hidden label alone are one: Prometheus refuses a file that has a series twice.
fn shown(sums: &Sums, metric: &Metric, shows_projects: bool) -> BTreeMap<Vec<String>, SeriesSums> {
    let hides = |name: &str| name == "project" && !shows_projects;
    let mut shown: BTreeMap<Vec<String>, SeriesSums> = BTreeMap::new();
    let series = sums.series(metric);
    let labels = |values: &[&str]| {
        let pairs = metric.labels.iter().zip(values).filter(|(name, _)| !hides(name));
        pairs.map(|(name, value)| pair(name, value)).collect::<Vec<_>>()
    };
    for values in zeros(metric, &series) {
        shown.entry(labels(&values)).or_default();
    }
    for (values, sample) in &series {
        shown.entry(labels(values)).or_default().merge(sample);
    }
    shown
}

/// The series that are there before their first event; a counter without labels is one.
fn zeros<'v>(metric: &Metric, series: &[(Vec<&'v str>, &SeriesSums)]) -> BTreeSet<Vec<&'v str>> {
    let mut zeros = BTreeSet::new();
    if metric.labels.is_empty() && metric.form == MetricForm::Counter {
        zeros.insert(Vec::new());
    }
    for known in metric.known {
        let with = |values: &[&'v str]| -> Vec<&'v str> {
            let value = |(at, known): (usize, &&'static str)| {
                if *known == "*" { values.get(at).copied().unwrap_or_default() } else { known }
            };
            known.iter().enumerate().map(value).collect()
        };
        zeros.extend(series.iter().map(|(values, _)| with(values)));
        // Before the first job there is no project.
        if known.iter().all(|value| *value != "*") || metric.labels.contains(&"project") {
            zeros.insert(with(&[]));
        }
    }
    zeros
}

fn write_series(text: &mut String, metric: &Metric, labels: &[String], sample: &SeriesSums) {
    let name = metric.name;
    let MetricForm::Histogram(bounds) = metric.form else {
        let _ = writeln!(text, "{name}{} {}", set(labels, None), sample.sum);
        return;
    };
    let mut count = 0;
    for (at, bound) in bounds.iter().enumerate() {
        count += sample.buckets.get(at).copied().unwrap_or_default();
        let _ = writeln!(text, "{name}_bucket{} {count}", set(labels, Some(&bound.to_string())));
    }
    let _ = writeln!(text, "{name}_bucket{} {}", set(labels, Some("+Inf")), sample.count.max(count));
    let _ = writeln!(text, "{name}_sum{} {}", set(labels, None), sample.sum);
    let _ = writeln!(text, "{name}_count{} {}", set(labels, None), sample.count.max(count));
}

fn set(labels: &[String], bound: Option<&str>) -> String {
    let bound = bound.map(|bound| pair("le", bound));
    let all: Vec<_> = labels.iter().cloned().chain(bound).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn pair(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalog::OPEN_LABELS;
    use crate::metrics::{API_CALLS, JOBS, QUEUE_SECONDS};

    #[test]
    fn the_form_is_that_of_prometheus() {
        let mut sums = Sums::default();
        sums.add(&JOBS, &["failed", "user", "g/\"p\\"], 2.0);
        sums.observe(&QUEUE_SECONDS, &[], 31.0);
        sums.add(&API_CALLS, &["S3", "GetObject", "ok"], 0.5);
        let text = render(&sums, 3, true);
        for line in [
            "# TYPE sagemaker_executor_jobs_total counter",
            r#"sagemaker_executor_jobs_total{result="failed",reason="user",project="g/\"p\\"} 2"#,
            r#"sagemaker_executor_queue_seconds_bucket{le="30"} 0"#,
            r#"sagemaker_executor_queue_seconds_bucket{le="60"} 1"#,
            r#"sagemaker_executor_queue_seconds_bucket{le="+Inf"} 1"#,
            "sagemaker_executor_queue_seconds_sum 31",
            "sagemaker_executor_queue_seconds_count 1",
            r#"sagemaker_executor_api_calls_total{service="S3",operation="GetObject",outcome="ok"} 0.5"#,
            "sagemaker_executor_output_bytes_total 0",
            "sagemaker_executor_jobs 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!render(&sums, 3, false).contains("project="));
    }

    /// As after `metrics.by_project` was true.
    #[test]
    fn series_of_hidden_labels_are_one() {
        let mut sums = Sums::default();
        for project in ["g/a", "g/b", ""] {
            sums.add(&JOBS, &["failed", "user", project], 2.0);
        }
        let text = render(&sums, 0, false);
        let line = r#"sagemaker_executor_jobs_total{result="failed",reason="user"} 6"#;
        assert!(text.lines().any(|found| found == line), "{text}");
        for text in [text, render(&sums, 0, true)] {
            let names: Vec<_> = text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
            let once: BTreeSet<_> = names.iter().collect();
            assert_eq!(once.len(), names.len(), "{text}");
        }
    }

    /// Without its zero the first event of a host is no increase for Prometheus.
    #[test]
    fn counters_have_their_zeros() {
        let mut sums = Sums::default();
        let text = render(&sums, 0, false);
        for line in [
            r#"sagemaker_executor_jobs_total{result="failed",reason="system"} 0"#,
            r#"sagemaker_executor_jobs_total{result="abandoned",reason="killed"} 0"#,
            r#"sagemaker_executor_sweeps_total{outcome="failed"} 0"#,
            r#"sagemaker_executor_orphans_ended_total{found_by="record"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("api_calls_total{"), "no operation is known yet");
        sums.add(&API_CALLS, &["S3", "GetObject", "ok"], 3.0);
        sums.add(&JOBS, &["failed", "system", "g/p"], 2.0);
        let text = render(&sums, 0, true);
        for line in [
            r#"sagemaker_executor_api_calls_total{service="S3",operation="GetObject",outcome="denied"} 0"#,
            r#"sagemaker_executor_jobs_total{result="abandoned",reason="killed",project="g/p"} 0"#,
            r#"sagemaker_executor_jobs_total{result="failed",reason="system",project="g/p"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn known_series_fit_their_labels() {
        for metric in METRICS {
            for known in metric.known {
                assert_eq!(known.len(), metric.labels.len(), "{}", metric.name);
                for (label, value) in metric.labels.iter().zip(*known) {
                    assert_eq!(OPEN_LABELS.contains(label), *value == "*", "{}: {label}", metric.name);
                }
            }
        }
    }

    #[test]
    fn names_have_their_unit_and_each_is_there_once() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        for metric in METRICS {
            let has_total = metric.name.ends_with("_total");
            assert_eq!(has_total, metric.form == MetricForm::Counter, "{}", metric.name);
            assert!(metric.name.starts_with("sagemaker_executor_") && metric.help.ends_with('.'), "{}", metric.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
