//! The metrics of a model for GitLab's metrics report. Pure.

use std::fmt::Write as _;

use super::labels::labels;
use super::model::{ModelReport, ModelVerdict};

/// Most metrics of the file: GitLab shows a row for each in the merge request.
const MOST_METRICS: usize = 100;

/// The verdict, each value, and each change against the earlier model, in the text format of `artifacts:reports:metrics`.
pub fn model_values(report: &ModelReport) -> String {
    let mut text = String::new();
    if report.verdict != ModelVerdict::NotJudged {
        let passes = u8::from(report.verdict == ModelVerdict::Passed);
        let _ = write!(text, "# TYPE gate_passed gauge\ngate_passed {passes}\n");
    }
    let names = labels(report.metrics.iter().map(|row| row.name.as_str()));
    let rows = || names.iter().map(|name| quoted(name)).zip(&report.metrics).take(MOST_METRICS);
    text.push_str("# TYPE model_metric gauge\n");
    for (name, row) in rows() {
        if let (Some(number), Some(value)) = (row.number, &row.value)
            && number.is_finite()
        {
            let _ = writeln!(text, "model_metric{{metric=\"{name}\"}} {value}");
        }
    }
    if report.has_baseline {
        text.push_str("# TYPE model_metric_change gauge\n");
    }
    for (name, row) in rows() {
        if let Some(change) = row.change.filter(|change| change.difference.is_finite()) {
            let _ = writeln!(text, "model_metric_change{{metric=\"{name}\"}} {}", change.difference);
        }
    }
    if !report.endpoints.is_empty() {
        text.push_str("# TYPE endpoint_latency_ms gauge\n");
    }
    let endpoints = labels(report.endpoints.iter().map(|endpoint| endpoint.name.as_str()));
    for (endpoint, name) in report.endpoints.iter().zip(&endpoints) {
        for (figure, time) in endpoint.latencies.iter().filter(|(_, time)| time.is_finite()) {
            let name = quoted(name);
            let _ = writeln!(text, "endpoint_latency_ms{{endpoint=\"{name}\",figure=\"{figure}\"}} {time}");
        }
    }
    text + "# EOF\n"
}

/// The value of a label.
fn quoted(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{EndpointFigures, MetricChange, MetricRow, MetricState};

    #[test]
    fn the_form_of_the_file() {
        let row = |name: &str, number: Option<f64>| MetricRow {
            name: name.to_owned(),
            value: number.map(|number| number.to_string()),
            number,
            bars: Vec::new(),
            baseline: None,
            change: number.map(|number| MetricChange { difference: number - 1.0, is_better: None }),
            state: MetricState::Free,
            reason: None,
            history: Vec::new(),
        };
        let report = ModelReport {
            verdict: ModelVerdict::Failed,
            has_baseline: true,
            metrics: vec![
                row("f1", Some(0.75)),
                row("a\"b\n\\", Some(2.0)),
                row("nan", None),
                row("same\nname", Some(3.0)),
                row("same; name", Some(4.0)),
            ],
            endpoints: vec![
                EndpointFigures {
                    name: "wine".to_owned(),
                    latencies: vec![("p95", 12.5)],
                    ..EndpointFigures::default()
                };
                2
            ],
            ..ModelReport::default()
        };
        insta::assert_snapshot!(model_values(&report), @r#"
        # TYPE gate_passed gauge
        gate_passed 0
        # TYPE model_metric gauge
        model_metric{metric="f1"} 0.75
        model_metric{metric="a\"b; \\"} 2
        model_metric{metric="same; name"} 3
        model_metric{metric="same; name (2)"} 4
        # TYPE model_metric_change gauge
        model_metric_change{metric="f1"} -0.25
        model_metric_change{metric="a\"b; \\"} 1
        model_metric_change{metric="same; name"} 2
        model_metric_change{metric="same; name (2)"} 3
        # TYPE endpoint_latency_ms gauge
        endpoint_latency_ms{endpoint="wine",figure="p95"} 12.5
        endpoint_latency_ms{endpoint="wine (2)",figure="p95"} 12.5
        # EOF
        "#);
    }
}
