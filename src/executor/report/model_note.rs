//! The note of a merge request about a model: Markdown, in which texts of others are code and never markup. Pure.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::labels::labels;
use super::model::{EndpointFigures, MetricRow, ModelReport, ModelVerdict, PlannedDeployment};
use super::parts::{LONGEST_NAME, LONGEST_TEXT};
use super::spark;
use super::words::{change, shown, state, value};
use crate::base::human::human_number;
use crate::base::plain;

/// Most metrics and checks of a note; the page has more.
const MOST_METRICS: usize = 40;
const MOST_LINES: usize = 10;
/// Versions in a row of bars.
const MOST_BARS: usize = 16;
/// Upper bound of a note in bytes; GitLab takes a million characters.
const MOST_BYTES: usize = 60_000;

/// How a note of this name begins: nobody sees it, and the next run finds the note by it. Two names have two beginnings: a name that
/// cannot be in it as it is has its hash besides.
pub fn note_marker(name: &str) -> String {
    let clean: String =
        name.chars().take(100).map(|c| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '_' }).collect();
    let hash = if clean == name {
        String::new()
    } else {
        Sha256::digest(name).iter().take(16).fold(" ".to_owned(), |mut hash, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hash, "{byte:02x}");
            hash
        })
    };
    format!("<!-- sagemaker-executor report {clean}{hash} -->")
}

/// The hidden line with the number of the pipeline that wrote the note.
const PIPELINE: &str = "<!-- pipeline ";

/// The number of the pipeline that wrote a note.
pub fn note_pipeline(body: &str) -> Option<u64> {
    body.lines().nth(1)?.strip_prefix(PIPELINE)?.strip_suffix(" -->")?.parse().ok()
}

/// The whole note.
pub fn model_note(report: &ModelReport, marker: &str, pipeline: Option<u64>) -> String {
    let mut rows = MOST_METRICS;
    loop {
        let text = note(report, marker, pipeline, rows);
        if text.len() <= MOST_BYTES || rows == 0 {
            return text;
        }
        rows /= 2;
    }
}

fn note(report: &ModelReport, marker: &str, pipeline: Option<u64>, rows: usize) -> String {
    let mut text = format!("{marker}\n{PIPELINE}{} -->\n", pipeline.unwrap_or(0));
    let sign = match report.verdict {
        ModelVerdict::Passed => "✅ ",
        ModelVerdict::Failed => "❌ ",
        ModelVerdict::NotJudged => "",
    };
    let mut line = |content: String| {
        text.push_str(&content);
        text.push('\n');
    };
    let verdict = if report.has_metrics { format!(" {}", report.verdict.words()) } else { String::new() };
    line(format!("### {sign}Model {}{verdict}\n", code(&report.title)));
    line(format!("{}\n", code(&report.place)));
    if let Some(plan) = &report.plan {
        line(planned(plan));
    }
    if report.has_metrics {
        line(format!("{}\n", code(&report.comparison)));
    }
    if !report.metrics.is_empty() {
        line(table(report, rows));
    }
    tests_of_endpoints(&report.endpoints).into_iter().for_each(&mut line);
    for (name, fact) in &report.facts {
        line(format!("- {name}: {}", code(fact)));
    }
    for training in report.trainings.iter().take(MOST_LINES) {
        for (name, fact) in &training.facts {
            line(format!("- {name}: {}", code(fact)));
        }
    }
    more(report.trainings.len(), MOST_LINES, "training jobs").into_iter().for_each(&mut line);
    let links: Vec<_> = report.links.iter().map(|link| format!("[{}](<{}>)", link.name, link.url())).collect();
    if !links.is_empty() {
        line(format!("\n{}", links.join(" · ")));
    }
    text
}

/// The line of a list that says how many are left out, when it has more than `most`.
fn more(all: usize, most: usize, things: &str) -> Option<String> {
    (all > most).then(|| format!("- {} more {things}", all - most))
}

/// A line for each test, failed ones first.
fn tests_of_endpoints(endpoints: &[EndpointFigures]) -> Vec<String> {
    let (passed, failed): (Vec<_>, Vec<_>) = endpoints.iter().partition(|endpoint| endpoint.has_passed);
    let line = |endpoint: &&EndpointFigures| {
        let word = if endpoint.has_passed { "✓ passes" } else { "✗ does not pass" };
        let times: Vec<_> =
            endpoint.latencies.iter().map(|(name, time)| format!("{name} {} ms", human_number(*time))).collect();
        let times = if times.is_empty() { String::new() } else { format!(": {}", times.join(", ")) };
        format!("- Endpoint {} {word} its test{times}", code(&endpoint.name))
    };
    let mut lines: Vec<String> = failed.iter().chain(&passed).take(MOST_LINES).map(line).collect();
    lines.extend(more(failed.len(), MOST_LINES, "endpoints do not pass their test"));
    lines.extend(more(passed.len(), MOST_LINES.saturating_sub(failed.len()), "endpoints pass their test"));
    lines
}

fn planned(plan: &PlannedDeployment) -> String {
    let word = if plan.has_changes { "changes what is in service" } else { "changes nothing" };
    let mut text = format!("- The planned deployment to {} {word}\n", code(&plan.endpoint));
    for refusal in plan.refusals.iter().take(MOST_LINES) {
        let _ = writeln!(text, "  - ✗ refused: {}", code(refusal));
    }
    if let Some(more) = more(plan.refusals.len(), MOST_LINES, "refusals") {
        let _ = writeln!(text, "  {more}");
    }
    for (name, fact) in &plan.facts {
        let _ = writeln!(text, "  - {name}: {}", code(fact));
    }
    text
}

fn table(report: &ModelReport, most: usize) -> String {
    let has_history = report.metrics.iter().any(|row| !row.history.is_empty());
    let mut columns = vec!["Metric", "Value", "Bar"];
    if report.has_baseline {
        columns.extend(["Earlier", "Change"]);
    }
    columns.push("Result");
    if has_history {
        columns.push("Versions");
    }
    let mut text = format!("| {} |\n|{}\n", columns.join(" | "), " --- |".repeat(columns.len()));
    let names = labels(report.metrics.iter().map(|row| row.name.as_str()));
    for (row, name) in report.metrics.iter().zip(&names).take(most) {
        let mut cells = vec![code_name(name), code(&value(row)), bars(row)];
        if report.has_baseline {
            cells.extend([
                row.baseline.as_deref().map_or("-".to_owned(), |value| code(&shown(value))),
                change(row.change),
            ]);
        }
        let reason = row.reason.as_deref().map_or(String::new(), |reason| format!(": {}", code(reason)));
        cells.push(format!("{}{reason}", state(row.state)));
        if has_history {
            cells.push(history(row));
        }
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let left_out = report.left_out + report.metrics.len().saturating_sub(most);
    if left_out > 0 {
        let _ = write!(text, "\n{left_out} more metrics are in the files.\n");
    }
    text
}

fn bars(row: &MetricRow) -> String {
    if row.bars.is_empty() { "-".to_owned() } else { code(&row.bars.join("; ")) }
}

fn history(row: &MetricRow) -> String {
    let values = row.history.iter().map(|point| point.value).chain(row.number);
    let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    let from = values.len().saturating_sub(MOST_BARS);
    let bars = spark::bars_of(values.get(from..).unwrap_or_default());
    if bars.is_empty() { "-".to_owned() } else { bars }
}

/// Text of others as a code span, in which GitLab looks for no markup, mention, reference or command. It stays one line and one cell.
fn code(text: &str) -> String {
    span(text, LONGEST_TEXT)
}

fn code_name(text: &str) -> String {
    // A label has a number behind at times.
    span(text, LONGEST_NAME + 20)
}

fn span(text: &str, most: usize) -> String {
    // A code span has no escapes; a cell of a table ends at a bar even there.
    let clean =
        plain::line(text, most).replace('`', "'").replace('|', "¦").replace(['\t', '\u{2028}', '\u{2029}'], " ");
    let clean = clean.trim();
    if clean.is_empty() { "-".to_owned() } else { format!("`{clean}`") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{HistoryPoint, MetricChange, MetricState, ReportLink};

    fn row(name: &str) -> MetricRow {
        MetricRow {
            name: name.to_owned(),
            value: Some("0.9777777777777777".to_owned()),
            number: Some(0.977_777_777_777_777_7),
            bars: vec![">= 0.9".to_owned()],
            baseline: Some("0.96".to_owned()),
            change: Some(MetricChange { difference: 0.017_777, is_better: Some(true) }),
            state: MetricState::Passed,
            reason: None,
            history: [0.9, 0.95, 0.96]
                .iter()
                .zip(1..)
                .map(|(value, version)| HistoryPoint { version, value: *value, is_approved: true })
                .collect(),
        }
    }

    fn report(rows: Vec<MetricRow>) -> ModelReport {
        ModelReport {
            title: "wine".to_owned(),
            place: "ml/wine at 0123abcd, pipeline 12".to_owned(),
            has_metrics: true,
            verdict: ModelVerdict::Passed,
            comparison: "Compared with version 3, approved".to_owned(),
            has_baseline: true,
            metrics: rows,
            links: ReportLink::new("Job", "https://gitlab.example.com/ml/wine/-/jobs/1").into_iter().collect(),
            ..ModelReport::default()
        }
    }

    #[test]
    fn the_form_of_a_note() {
        let missing = MetricRow {
            value: None,
            number: None,
            change: None,
            baseline: None,
            state: MetricState::Failed,
            reason: Some("no file has this metric".to_owned()),
            history: Vec::new(),
            ..row("f1")
        };
        let text = model_note(&report(vec![row("accuracy"), missing]), &note_marker("wine"), Some(12));
        insta::assert_snapshot!(text, @r"
        <!-- sagemaker-executor report wine -->
        <!-- pipeline 12 -->
        ### ✅ Model `wine` passes the gate

        `ml/wine at 0123abcd, pipeline 12`

        `Compared with version 3, approved`

        | Metric | Value | Bar | Earlier | Change | Result | Versions |
        | --- | --- | --- | --- | --- | --- | --- |
        | `accuracy` | `0.9778` | `>= 0.9` | `0.96` | ↑ 0.0178, better | ✓ passed | ▁▅▆█ |
        | `f1` | `no number` | `>= 0.9` | - | - | ✗ failed: `no file has this metric` | - |


        [Job](<https://gitlab.example.com/ml/wine/-/jobs/1>)
        ");
    }

    #[test]
    fn texts_of_others_are_never_markup() {
        let hostile = "a|b`<img src=x onerror=1>`\n/approve\n@all #1 !2 [x](javascript:1) --> \u{202e}$`x`$";
        let rows = vec![MetricRow { bars: vec![hostile.to_owned()], reason: Some(hostile.to_owned()), ..row(hostile) }];
        let content = ModelReport {
            title: hostile.to_owned(),
            comparison: hostile.to_owned(),
            facts: vec![("Package", hostile.to_owned())],
            ..report(rows)
        };
        let marker = note_marker(hostile);
        assert!(marker.ends_with(" -->") && marker.matches("--").count() == 2, "{marker}");
        let text = model_note(&content, &marker, None);
        for line in text.lines().skip(2) {
            assert!(!line.starts_with('/'), "{line}");
            // Between two of these signs is code.
            let outside: String = line.split('`').step_by(2).collect();
            for sign in ["<img", "@", "](javascript", "-->", "#1", "/approve"] {
                assert!(!outside.contains(sign), "{line}");
            }
        }
        let table = text.lines().find(|line| line.starts_with("| `a¦b")).unwrap();
        assert_eq!(table.matches('|').count(), 8, "{table}");
    }

    #[test]
    fn a_note_is_bounded() {
        let long = "&".repeat(5000);
        let rows = (0..5000).map(|number| MetricRow {
            reason: Some(long.clone()),
            bars: vec![long.clone(); 50],
            ..row(&format!("{number}{long}"))
        });
        let text = model_note(&report(rows.collect()), &note_marker(&long), None);
        assert!(text.len() <= MOST_BYTES && text.contains("more metrics are in the files"), "{}", text.len());
    }

    #[test]
    fn each_name_has_its_own_marker() {
        let long = "x".repeat(100);
        let names = [
            "a b",
            "a_b",
            "模型甲",
            "数据乙",
            "___",
            &format!("{long}1"),
            &format!("{long}2"),
            &long,
            "wine-eu",
            "wine_eu",
        ];
        let markers: std::collections::BTreeSet<_> = names.iter().map(|name| note_marker(name)).collect();
        assert_eq!(markers.len(), names.len(), "{markers:?}");
        assert_eq!(note_marker("a_b"), "<!-- sagemaker-executor report a_b -->");
    }

    #[test]
    fn what_failed_comes_first_and_what_is_left_out_is_told() {
        let endpoint = |name: &str, has_passed| EndpointFigures {
            name: name.to_owned(),
            has_passed,
            ..EndpointFigures::default()
        };
        let mut endpoints = vec![endpoint("good", true); 12];
        endpoints.push(endpoint("bad", false));
        let plan = PlannedDeployment {
            endpoint: "wine".to_owned(),
            facts: vec![("Package", "stable-1.zip".to_owned())],
            refusals: vec!["no approval".to_owned(); 15],
            ..PlannedDeployment::default()
        };
        let content = ModelReport { endpoints, plan: Some(plan), ..ModelReport::default() };
        let text = model_note(&content, &note_marker("wine"), None);
        let (refused, good) = ("  - ✗ refused: `no approval`\n", "- Endpoint `good` ✓ passes its test\n");
        assert_eq!((text.matches(refused).count(), text.matches(good).count()), (10, 9), "{text}");
        insta::assert_snapshot!(text.replace(refused, "").replace(good, ""), @"
        <!-- sagemaker-executor report wine -->
        <!-- pipeline 0 -->
        ### Model -

        -

        - The planned deployment to `wine` changes nothing
          - 5 more refusals
          - Package: `stable-1.zip`

        - Endpoint `bad` ✗ does not pass its test
        - 3 more endpoints pass their test
        ");
    }

    #[test]
    fn the_pipeline_of_a_note_is_read_again() {
        let text = model_note(&report(Vec::new()), &note_marker("wine"), Some(4711));
        assert_eq!(note_pipeline(&text), Some(4711));
        assert_eq!([note_pipeline("x"), note_pipeline("x\n<!-- pipeline x -->")], [None, None]);
    }
}
