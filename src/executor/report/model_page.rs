//! The page about a model: one file for reviewers, without a script, and nothing in it is fetched.

use super::curve::{Curve, Unit};
use super::html::Html;
use super::matrix::matrix;
use super::model::{
    EndpointFigures, MetricRow, MetricState, ModelReport, ModelVerdict, PAGE_LINK, PlannedDeployment, TrainingFigures,
};
use super::parts::{STYLE, charts_of, phases, points_of_each, sentence, short};
use super::versions;
use super::words::{change, shown, state, value};
use crate::base::human::human_number;

/// How every page begins.
const MODEL_PAGE_START: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"generator\" content=\"sagemaker-executor report\">";
/// Forbids a browser all but the styles inside.
const POLICY: &str =
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">";
const MODEL_STYLE: &str = include_str!("model.css");
/// Upper bound of a page in bytes.
const MOST_BYTES: usize = 290_000;

/// Most of each that a page shows.
#[derive(Debug, Clone, Copy)]
struct PageBounds {
    metrics: usize,
    curves: usize,
    /// Bytes of all learning curves together.
    curve_bytes: usize,
    versions: usize,
    endpoints: usize,
    checks: usize,
    steps: usize,
}

const FULL: PageBounds =
    PageBounds { metrics: 60, curves: 12, curve_bytes: 90_000, versions: 9, endpoints: 4, checks: 12, steps: 40 };

impl PageBounds {
    fn halved(self) -> Self {
        Self {
            metrics: self.metrics / 2,
            curves: self.curves / 2,
            curve_bytes: self.curve_bytes / 2,
            versions: self.versions / 2,
            endpoints: self.endpoints,
            checks: self.checks / 2,
            steps: self.steps / 2,
        }
    }
}

/// The whole page as one file of less than 300 KB. Names and sentences at their longest make lists shorter.
pub fn model_page(report: &ModelReport) -> String {
    let mut bounds = FULL;
    loop {
        let text = page(report, bounds);
        if text.len() <= MOST_BYTES || bounds.metrics == 0 {
            return text;
        }
        bounds = bounds.halved();
    }
}

fn page(report: &ModelReport, bounds: PageBounds) -> String {
    let mut html = Html::default();
    html.raw(MODEL_PAGE_START).raw(POLICY);
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    html.text(&short(&report.title)).raw("</title>\n<style>\n").raw(STYLE).raw(MODEL_STYLE);
    html.raw("</style></head>\n<body><main>\n");
    head(&mut html, report);
    metrics(&mut html, report, bounds.metrics);
    if let Some(content) = &report.matrix {
        html.raw("<h2>Confusion matrix</h2>\n");
        matrix(&mut html, content);
    }
    curves(&mut html, report, bounds);
    history(&mut html, report, bounds.versions);
    for endpoint in report.endpoints.iter().take(bounds.endpoints) {
        test(&mut html, endpoint, bounds.checks);
    }
    if let Some(training) = &report.training {
        self::training(&mut html, training);
    }
    if let Some(plan) = &report.plan {
        self::plan(&mut html, plan, bounds.steps);
    }
    html.raw("<footer><p class=\"soft\">Written by sagemaker-executor report.</p></footer>\n</main></body></html>\n");
    html.finish()
}

fn head(html: &mut Html, report: &ModelReport) {
    html.element("<h1>", &short(&report.title), "</h1>\n");
    html.element("<p class=\"soft\">", &sentence(&report.place), "</p>\n");
    html.raw("<p class=\"verdict ").raw(match report.verdict {
        ModelVerdict::Passed => "good\">✓ ",
        ModelVerdict::Failed => "bad\">✗ ",
        ModelVerdict::NotJudged => "\">",
    });
    html.raw("The model ").element("", report.verdict.words(), "</p>\n");
    html.element("<p class=\"soft\">", &sentence(&report.comparison), "</p>\n");
    let links: Vec<_> = report.links.iter().filter(|link| link.name != PAGE_LINK).collect();
    if !links.is_empty() {
        html.raw("<p class=\"links\">");
        for link in links {
            html.raw("<a rel=\"noreferrer\" href=\"").text(link.url()).raw("\">").element("", link.name, "</a> ");
        }
        html.raw("</p>\n");
    }
    tiles(html, &report.facts);
}

fn tiles(html: &mut Html, facts: &[(&'static str, String)]) {
    if facts.is_empty() {
        return;
    }
    html.raw("<dl class=\"tiles\">\n");
    for (name, text) in facts {
        html.element("<div><dt>", name, "</dt>").element("<dd>", &sentence(text), "</dd></div>\n");
    }
    html.raw("</dl>\n");
}

fn metrics(html: &mut Html, report: &ModelReport, most: usize) {
    html.raw("<h2>Metrics</h2>\n");
    if report.metrics.is_empty() {
        html.raw("<p class=\"soft\">The files have no metric.</p>\n");
        return;
    }
    html.raw("<table class=\"stack\"><thead><tr><th>Metric</th><th>Value</th><th>Bar</th>");
    if report.has_baseline {
        html.raw("<th>Earlier</th><th>Change</th>");
    }
    html.raw("<th>Result</th></tr></thead><tbody>\n");
    for row in report.metrics.iter().take(most) {
        metric(html, row, report.has_baseline);
    }
    html.raw("</tbody></table>\n");
    let left_out = report.left_out + report.metrics.len().saturating_sub(most);
    if left_out > 0 {
        html.element("<p class=\"soft\">", &format!("{left_out} more metrics are in the files."), "</p>\n");
    }
}

fn metric(html: &mut Html, row: &MetricRow, has_baseline: bool) {
    html.element("<tr><th>", &short(&row.name), "</th>");
    html.element("<td data-name=\"Value\">", &value(row), "</td>");
    if row.bars.is_empty() {
        html.raw("<td class=\"none\">-</td>");
    } else {
        html.element("<td data-name=\"Bar\">", &sentence(&row.bars.join("; ")), "</td>");
    }
    if has_baseline {
        match &row.baseline {
            Some(baseline) => html.element("<td data-name=\"Earlier\">", &shown(baseline), "</td>"),
            None => html.raw("<td class=\"none\">-</td>"),
        };
        html.raw("<td data-name=\"Change\"");
        html.raw(match row.change.map(|change| change.is_better) {
            Some(Some(true)) => " class=\"good\">",
            Some(Some(false)) => " class=\"bad\">",
            Some(None) => ">",
            None => " class=\"none\">",
        });
        html.element("", &change(row.change), "</td>");
    }
    html.raw("<td data-name=\"Result\"");
    html.raw(match row.state {
        MetricState::Passed => " class=\"good\">",
        MetricState::Failed => " class=\"bad\">",
        MetricState::Skipped => ">",
        MetricState::Free => " class=\"none\">",
    });
    html.raw("<span>").text(state(row.state));
    if let Some(reason) = &row.reason {
        html.raw("<br>").element("<span class=\"soft\">", &sentence(reason), "</span>");
    }
    html.raw("</span></td></tr>\n");
}

fn curves(html: &mut Html, report: &ModelReport, bounds: PageBounds) {
    let shown: Vec<_> = report.curves.iter().take(bounds.curves).collect();
    if shown.is_empty() {
        return;
    }
    html.raw("<h2>Learning curves</h2>\n");
    let names: Vec<String> = shown.iter().map(|curve| short(&curve.name)).collect();
    let drawn: Vec<Curve<'_>> = (shown.iter().zip(&names))
        .map(|(curve, name)| Curve { name, unit: Unit::Plain, across: curve.across, series: &curve.series })
        .collect();
    charts_of(html, &drawn, points_of_each(bounds.curve_bytes, drawn.len()));
    if report.curves.len() > bounds.curves {
        let text = format!("{} more curves are in the files.", report.curves.len() - bounds.curves);
        html.element("<p class=\"soft\">", &text, "</p>\n");
    }
}

fn history(html: &mut Html, report: &ModelReport, most: usize) {
    let drawn: Vec<_> = (report.metrics.iter())
        .filter_map(|row| Some((row, versions::drawing(&row.history, row.number)?)))
        .take(most)
        .collect();
    if drawn.is_empty() {
        return;
    }
    html.raw("<h2>Versions in the registry</h2>\n");
    html.raw("<p class=\"soft\">Filled points are approved versions; the last point is this model.</p>\n<div class=\"charts\">\n");
    for (row, drawing) in drawn {
        let note = row.bars.join("; ");
        html.raw("<figure role=\"img\" aria-label=\"").text(&short(&row.name)).raw(" over versions\"><figcaption>");
        html.element("<h3>", &short(&row.name), "</h3>");
        html.element("<span class=\"soft\">", &sentence(&note), "</span></figcaption>");
        html.add(&drawing).raw("</figure>\n");
    }
    html.raw("</div>\n");
}

fn test(html: &mut Html, endpoint: &EndpointFigures, most: usize) {
    html.raw("<h2>Test of the endpoint ").element("", &short(&endpoint.name), "</h2>\n");
    html.raw(if endpoint.has_passed {
        "<p class=\"good\">✓ The endpoint passes its test</p>\n"
    } else {
        "<p class=\"bad\">✗ The endpoint does not pass its test</p>\n"
    });
    tiles(html, &endpoint.facts);
    let longest = endpoint.latencies.iter().map(|(_, time)| *time).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    if !endpoint.latencies.is_empty() {
        html.raw(
            "<table class=\"bars\"><thead><tr><th>Time of an answer</th><th>ms</th><th></th></tr></thead><tbody>\n",
        );
    }
    for (name, time) in &endpoint.latencies {
        html.element("<tr><th>", name, "</th>").element("<td>", &human_number(*time), "</td>");
        let width = format!("{:.2}", (time / longest * 100.0).clamp(0.5, 100.0));
        html.raw("<td><svg viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\"><rect height=\"6\" x=\"0\" width=\"");
        html.element("", &width, "\"/></svg></td></tr>\n");
    }
    if !endpoint.latencies.is_empty() {
        html.raw("</tbody></table>\n");
    }
    if endpoint.checks.is_empty() {
        return;
    }
    html.raw("<table class=\"stack\"><thead><tr><th>Check</th><th>Result</th><th>Reason</th></tr></thead><tbody>\n");
    for check in endpoint.checks.iter().take(most) {
        html.element("<tr><th>", &short(&check.name), "</th>");
        html.raw("<td data-name=\"Result\" class=\"").raw(if check.has_passed {
            "good\">✓ passed"
        } else {
            "bad\">✗ failed"
        });
        html.raw(if check.reason.is_empty() { "</td><td class=\"none\">" } else { "</td><td data-name=\"Reason\">" });
        html.element("", &sentence(&check.reason), "</td></tr>\n");
    }
    html.raw("</tbody></table>\n");
    if endpoint.checks.len() > most {
        let text = format!("{} more checks are in the file.", endpoint.checks.len() - most);
        html.element("<p class=\"soft\">", &text, "</p>\n");
    }
}

fn training(html: &mut Html, training: &TrainingFigures) {
    html.raw("<h2>Training job</h2>\n");
    tiles(html, &training.facts);
    if !training.phases.is_empty() {
        html.raw("<h3>Phases</h3>\n");
        phases(html, &training.phases);
    }
}

fn plan(html: &mut Html, plan: &PlannedDeployment, most: usize) {
    html.raw("<h2>Planned deployment to ").element("", &short(&plan.endpoint), "</h2>\n");
    html.raw(if plan.has_changes {
        "<p>The deployment changes what is in service.</p>\n"
    } else {
        "<p>The deployment changes nothing.</p>\n"
    });
    for refusal in plan.refusals.iter().take(most) {
        html.element("<p class=\"bad\">✗ Refused: ", &sentence(refusal), "</p>\n");
    }
    tiles(html, &plan.facts);
    if !plan.differences.is_empty() {
        html.raw("<table class=\"stack\"><thead><tr><th>Setting</th><th>In service</th><th>Planned</th></tr></thead><tbody>\n");
        for (key, from, to) in plan.differences.iter().take(most) {
            html.element("<tr><th>", &short(key), "</th>");
            html.element("<td data-name=\"In service\">", &sentence(from), "</td>");
            html.element("<td data-name=\"Planned\">", &sentence(to), "</td></tr>\n");
        }
        html.raw("</tbody></table>\n");
    }
    if !plan.steps.is_empty() {
        html.raw("<table><thead><tr><th>Step</th><th>Of</th></tr></thead><tbody>\n");
        for (action, what) in plan.steps.iter().take(most) {
            html.element("<tr><th>", &short(action), "</th>").element("<td>", &sentence(what), "</td></tr>\n");
        }
        html.raw("</tbody></table>\n");
    }
}

#[cfg(test)]
mod tests {
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
            verdict: ModelVerdict::Failed,
            comparison: text(),
            has_baseline: true,
            facts: fact(),
            links: ReportLink::new("Job", "https://gitlab.example.com/x?a=1&b=2").into_iter().collect(),
            metrics: vec![row; many],
            left_out: 7,
            curves: vec![LearningCurve { name: text(), across: Across::Steps, series }; many],
            matrix: ConfusionMatrix::new(vec![text(); classes], vec![vec![1e14; classes]; classes]),
            training: Some(TrainingFigures {
                facts: fact(),
                phases: vec![JobPhase { name: text(), from: 0, seconds: 9 }; 100],
            }),
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
        let page = model_page(&ModelReport { title: "wine".to_owned(), ..ModelReport::default() });
        assert!(page.contains("The files have no metric.") && page.contains("has no bars to reach"));
        assert!(!page.contains("<h2>Learning") && !page.contains("<figure"), "{page}");
    }
}
