//! The final values of metrics as files: for GitLab's metrics report, and as JSON for programs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::curve::Curve;

const SCHEMA: &str = "sagemaker-executor/metrics/1";
/// Most points of a metric's curve in the file of JSON.
const CURVE_POINTS: usize = 60;
/// How every file of JSON begins, by which an earlier one is known.
pub const METRICS_JSON_START: &str = "{\n  \"schema\": \"sagemaker-executor/metrics/1\",\n";
/// The same of a file of text.
pub const METRICS_TEXT_START: &str = "# HELP ";

/// The file of JSON; `docs/JOBS.md` has the form.
#[derive(Debug, Serialize)]
struct MetricsFile<'a> {
    schema: &'a str,
    training_job: &'a str,
    metrics: Map<String, Value>,
    details: Map<String, Value>,
    machine: Map<String, Value>,
}

/// The content of the files.
#[derive(Debug, Clone, Copy)]
pub struct FinalValues<'a> {
    pub training_job: &'a str,
    pub metrics: &'a [Curve<'a>],
    /// With the names that messages have.
    pub machine: &'a [(&'static str, Curve<'a>)],
}

/// The last value of each metric in the text format of `artifacts:reports:metrics`, which has `NaN`, `+Inf` and `-Inf`.
pub fn open_metrics(metrics: &[Curve<'_>]) -> String {
    let (mut text, mut names) = (String::new(), BTreeSet::new());
    for Curve { name, series, .. } in metrics {
        let mut clean = clean_name(name);
        while !names.insert(clean.clone()) {
            clean.push('_');
        }
        let value = series.last().map_or("NaN".to_owned(), number_text);
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "# HELP {clean} Last value of {name} in the output of the job, read by sagemaker-executor");
        let _ = writeln!(text, "# TYPE {clean} gauge\n{clean} {value}");
    }
    text + "# EOF\n"
}

fn number_text(value: f64) -> String {
    match value.abs() {
        f64::INFINITY => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        size if size >= 1e16 => format!("{value:e}"),
        _ => value.to_string(),
    }
}

/// A number, and the text `NaN`, `+Inf` or `-Inf`, which JSON has no number for.
fn json_number(value: Option<f64>) -> Value {
    match value {
        Some(value) if !value.is_finite() => json!(number_text(value)),
        value => json!(value),
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`.
fn clean_name(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' }).collect();
    if clean.starts_with(|c: char| c.is_ascii_digit()) { format!("_{clean}") } else { clean }
}

/// The last values under `metrics`, and more about each under `details` and `machine`.
pub fn values_json(values: &FinalValues<'_>) -> String {
    let mut last = Map::new();
    let mut details = Map::new();
    for Curve { name, series, .. } in values.metrics {
        last.insert((*name).to_owned(), json_number(series.last()));
        let (first, min, max) = (series.first(), series.min(), series.max());
        let detail = json!({"first": first, "last": json_number(series.last()), "min": min, "max": max, "values": series.count(), "curve": series.thinned(CURVE_POINTS)});
        details.insert((*name).to_owned(), detail);
    }
    let of_machine = |(name, curve): &(&str, Curve<'_>)| {
        ((*name).to_owned(), json!({"mean": curve.series.mean(), "max": curve.series.max()}))
    };
    let machine = values.machine.iter().map(of_machine).collect();
    let file = MetricsFile { schema: SCHEMA, training_job: values.training_job, metrics: last, details, machine };
    serde_json::to_string_pretty(&file).expect("names and numbers") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::series::Series;
    use crate::report::curve::{Across, Unit};

    fn series(values: &[f64]) -> Series {
        let mut series = Series::default();
        (0..).zip(values).for_each(|(at, value)| series.push(at, *value));
        series
    }

    #[test]
    fn names_are_cleaned_and_stay_apart() {
        let series = [
            series(&[0.5, 0.25]),
            series(&[f64::NAN]),
            series(&[1e-9]),
            series(&[1e300]),
            series(&[0.5, f64::NEG_INFINITY]),
        ];
        let names = ["val/loss", "val-loss", "1st:acc", "large", "low"];
        let curves: Vec<_> = names
            .iter()
            .zip(&series)
            .map(|(name, series)| Curve { name, unit: Unit::Plain, across: Across::Time, series })
            .collect();
        insta::assert_snapshot!(open_metrics(&curves), @"
        # HELP val_loss Last value of val/loss in the output of the job, read by sagemaker-executor
        # TYPE val_loss gauge
        val_loss 0.25
        # HELP val_loss_ Last value of val-loss in the output of the job, read by sagemaker-executor
        # TYPE val_loss_ gauge
        val_loss_ NaN
        # HELP _1st:acc Last value of 1st:acc in the output of the job, read by sagemaker-executor
        # TYPE _1st:acc gauge
        _1st:acc 0.000000001
        # HELP large Last value of large in the output of the job, read by sagemaker-executor
        # TYPE large gauge
        large 1e300
        # HELP low Last value of low in the output of the job, read by sagemaker-executor
        # TYPE low gauge
        low -Inf
        # EOF
        ");
        let machine = [("cpu", curves[0])];
        let values = FinalValues { training_job: "gitlab-1-2-abcdef12", metrics: &curves[..2], machine: &machine };
        assert!(values_json(&values).starts_with(METRICS_JSON_START));
        insta::assert_snapshot!(values_json(&values), @r#"
        {
          "schema": "sagemaker-executor/metrics/1",
          "training_job": "gitlab-1-2-abcdef12",
          "metrics": {
            "val-loss": "NaN",
            "val/loss": 0.25
          },
          "details": {
            "val-loss": {
              "curve": [],
              "first": null,
              "last": "NaN",
              "max": null,
              "min": null,
              "values": 0
            },
            "val/loss": {
              "curve": [
                [
                  0,
                  1,
                  0.5,
                  0.5,
                  0.5
                ],
                [
                  1,
                  1,
                  0.25,
                  0.25,
                  0.25
                ]
              ],
              "first": 0.5,
              "last": 0.25,
              "max": 0.5,
              "min": 0.25,
              "values": 2
            }
          },
          "machine": {
            "cpu": {
              "max": 0.5,
              "mean": 0.375
            }
          }
        }
        "#);
    }
}
