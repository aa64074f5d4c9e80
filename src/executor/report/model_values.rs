//! The metrics of a model for GitLab's metrics report. Pure.

use std::fmt::Write as _;

use super::model::{ModelReport, ModelVerdict};
use super::parts::LONGEST_NAME;
use crate::base::plain;

/// Most metrics of the file: GitLab shows a row for each in the merge request.
const MOST_METRICS: usize = 100;

/// The verdict, each value, and each change against the earlier model, in the text format of `artifacts:reports:metrics`.
pub fn model_values(report: &ModelReport) -> String {
    let mut text = String::new();
    if report.verdict != ModelVerdict::NotJudged {
        let passes = u8::from(report.verdict == ModelVerdict::Passed);
        let _ = write!(text, "# TYPE gate_passed gauge\ngate_passed {passes}\n");
    }
    let rows = || report.metrics.iter().take(MOST_METRICS).map(|row| (label(&row.name), row));
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
    for endpoint in &report.endpoints {
        for (figure, time) in endpoint.latencies.iter().filter(|(_, time)| time.is_finite()) {
            let name = label(&endpoint.name);
            let _ = writeln!(text, "endpoint_latency_ms{{endpoint=\"{name}\",figure=\"{figure}\"}} {time}");
        }
    }
    text + "# EOF\n"
}

/// The value of a label, in one line.
fn label(name: &str) -> String {
    plain::line(name, LONGEST_NAME).replace('\\', "\\\\").replace('"', "\\\"")
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
            metrics: vec![row("f1", Some(0.75)), row("a\"b\n\\", Some(2.0)), row("nan", None)],
            endpoints: vec![EndpointFigures {
                name: "wine".to_owned(),
                latencies: vec![("p95", 12.5)],
                ..EndpointFigures::default()
            }],
            ..ModelReport::default()
        };
        insta::assert_snapshot!(model_values(&report), @r#"
        # TYPE gate_passed gauge
        gate_passed 0
        # TYPE model_metric gauge
        model_metric{metric="f1"} 0.75
        model_metric{metric="a\"b; \\"} 2
        # TYPE model_metric_change gauge
        model_metric_change{metric="f1"} -0.25
        model_metric_change{metric="a\"b; \\"} 1
        # TYPE endpoint_latency_ms gauge
        endpoint_latency_ms{endpoint="wine",figure="p95"} 12.5
        # EOF
        "#);
    }
}
