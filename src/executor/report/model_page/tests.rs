//! The page of hostile, large and empty reports, and the form of its tables.

use super::*;
use crate::base::series::Series;
use crate::report::model::{ConfusionMatrix, EndpointCheck, HistoryPoint, LearningCurve, MetricChange, ReportLink};
use crate::report::{Across, JobPhase};

const HOSTILE: &str = "<script src=http://x>\"'&\u{202e}\u{7}</script>";

/// A report whose texts are markup, with so many things of each kind.
fn hostile(many: usize) -> ModelReport {
    let text = || HOSTILE.repeat(100);
    let mut series = Series::default();
    (0..many as u64 * 100).for_each(|at| series.push(at, f64::from(u32::try_from(at % 97).unwrap())));
    let row = MetricRow {
        name: text(),
        value: Some("1e308".to_owned()),
        number: Some(1e50),
        bars: vec![text(); 50],
        baseline: Some("-1e308".to_owned()),
        change: Some(MetricChange { difference: f64::INFINITY, is_better: Some(false) }),
        state: MetricState::Failed,
        reason: Some(text()),
        history: (1..=50)
            .map(|version| HistoryPoint { version, value: f64::from(version), is_approved: version % 2 > 0 })
            .collect(),
    };
    let fact = || vec![("Fact", text()); 8];
    let check = EndpointCheck { name: text(), has_passed: false, reason: text() };
    let endpoint = EndpointFigures {
        name: text(),
        has_passed: false,
        latencies: vec![("p50", 0.0), ("p95", 1e12), ("p99", f64::NAN)],
        facts: fact(),
        checks: vec![check; many],
    };
    let classes = 20;
    ModelReport {
        title: text(),
        place: text(),
        has_metrics: true,
        verdict: ModelVerdict::Failed,
        comparison: text(),
        has_baseline: true,
        facts: fact(),
        links: ReportLink::new("Job", "https://gitlab.example.com/x?a=1&b=2").into_iter().collect(),
        metrics: vec![row; many],
        left_out: 7,
        curves: vec![LearningCurve { name: text(), across: Across::Steps, series }; many],
        matrix: ConfusionMatrix::new(&vec![text(); classes], vec![vec![1e14; classes]; classes]),
        trainings: vec![
            TrainingFigures {
                facts: fact(),
                phases: vec![JobPhase { name: text(), from: 0, seconds: 9 }; 100],
            };
            many
        ],
        endpoints: vec![endpoint; many],
        plan: Some(PlannedDeployment {
            endpoint: text(),
            has_changes: true,
            facts: fact(),
            steps: vec![(text(), text()); many],
            differences: vec![(text(), text(), text()); many],
            refusals: vec![text(); many],
        }),
    }
}

#[test]
fn hostile_texts_are_no_markup_and_the_page_stays_small() {
    for many in [1, 3, 100] {
        let page = model_page(&hostile(many));
        assert!(page.len() < 300_000, "{many}: {} bytes", page.len());
        let found = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for word in ["<script", "url(", "@import", "src=\"", "onload", "\u{202e}", "\u{7}"] {
            assert!(!found.contains(word), "{many}: {word}");
        }
        assert_eq!(found.matches("href=").count(), 1);
        assert!(page.contains("default-src 'none'") && page.ends_with("</html>\n"));
    }
}

#[test]
fn a_report_without_anything_is_a_page_too() {
    let of = |has_metrics| model_page(&ModelReport { title: "wine".to_owned(), has_metrics, ..ModelReport::default() });
    let page = of(true);
    assert!(page.contains("The files have no metric.") && page.contains("has no bars to reach"));
    assert!(!page.contains("<h2>Learning") && !page.contains("<figure"), "{page}");
    let page = of(false);
    assert!(!page.contains("The model") && !page.contains("<h2>"), "{page}");
}

#[test]
fn what_is_left_out_is_told_and_what_failed_comes_first() {
    let endpoint =
        |name: &str, has_passed| EndpointFigures { name: name.to_owned(), has_passed, ..EndpointFigures::default() };
    let mut endpoints = vec![endpoint("first", true); 5];
    endpoints.push(endpoint("fifth", false));
    let page = model_page(&ModelReport { endpoints, ..ModelReport::default() });
    let failed = page.find("Test of the endpoint fifth").unwrap();
    assert!(failed < page.find("Test of the endpoint first").unwrap());
    assert!(page.contains("2 more endpoints pass their test."), "{page}");
    let page = model_page(&ModelReport { endpoints: vec![endpoint("x", false); 7], ..ModelReport::default() });
    assert!(page.contains("3 more endpoints do not pass their test.") && !page.contains("more endpoints pass"));
    let page = model_page(&hostile(100));
    for text in [
        "more metrics are in the files.",
        "more curves are in the files.",
        "more metrics have values in earlier versions.",
        "✗ 96 more endpoints do not pass their test.",
        "more checks are in the file.",
        "97 more training jobs are in the files.",
        "more differences are in the plan.",
        "more steps are in the plan.",
        "40 more phases.",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.contains("60 more refusals"), "the refusals are kept when the page is large");
}

/// A table whose rows are no cards on a phone, and that has no scroll bar of its own, makes the whole page wide.
#[test]
fn each_table_of_texts_fits_on_a_phone() {
    for page in [model_page(&hostile(3)), model_page(&ModelReport { matrix: many_classes(), ..hostile(1) })] {
        for table in page.split("<table").skip(1) {
            let is_known = ["stack", "bars", "matrix", "matrix small"].iter().any(|class| {
                table
                    .strip_prefix(" class=\"")
                    .and_then(|table| table.strip_prefix(class))
                    .is_some_and(|table| table.starts_with('"'))
            });
            assert!(is_known, "{}", table.get(..60).unwrap_or(table));
        }
    }
    assert!(MODEL_STYLE.contains(".stack td { overflow-wrap: anywhere;"));
    assert!(STYLE.contains("h2, p { overflow-wrap: anywhere; }"));
}

/// A number that goes on in the next line reads as another number.
#[test]
fn numbers_are_never_broken() {
    let page = model_page(&hostile(1));
    for name in ["Value", "Earlier", "Change"] {
        let start = format!("<td data-name=\"{name}\"");
        let cells = page.split(&start).skip(1);
        assert!(cells.clone().count() > 0 && cells.into_iter().all(|cell| cell.starts_with(" class=\"n")), "{name}");
    }
    assert!(MODEL_STYLE.contains(".stack td.n { overflow-wrap: normal; white-space: nowrap;"));
}

fn many_classes() -> Option<ConfusionMatrix> {
    ConfusionMatrix::new(&vec!["class".to_owned(); 30], vec![vec![1.0; 30]; 30])
}
