//! The page about a model: one file for reviewers, without a script, and nothing in it is fetched.

use super::curve::{Curve, Unit};
use super::html::Html;
use super::labels::labels;
use super::matrix::matrix;
use super::model::{
    EndpointFigures, MetricRow, MetricState, ModelReport, ModelVerdict, PAGE_LINK, PlannedDeployment, TrainingFigures,
};
use super::parts::{STYLE, charts_of, more, phases, points_of_each, sentence, short};
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
    trainings: usize,
    /// Steps and differences of a plan; of its refusals.
    steps: usize,
    refusals: usize,
}

const FULL: PageBounds = PageBounds {
    metrics: 60,
    curves: 12,
    curve_bytes: 90_000,
    versions: 9,
    endpoints: 4,
    checks: 12,
    trainings: 3,
    steps: 40,
    refusals: 40,
};

impl PageBounds {
    fn halved(self) -> Self {
        Self {
            metrics: self.metrics / 2,
            curves: self.curves / 2,
            curve_bytes: self.curve_bytes / 2,
            versions: self.versions / 2,
            endpoints: self.endpoints,
            trainings: self.trainings,
            refusals: self.refusals,
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
    // Who has a plan before him decides about it.
    if let Some(plan) = &report.plan {
        self::plan(&mut html, plan, bounds);
    }
    metrics(&mut html, report, bounds.metrics);
    if let Some(content) = &report.matrix {
        html.raw("<h2>Confusion matrix</h2>\n");
        matrix(&mut html, content);
    }
    curves(&mut html, report, bounds);
    history(&mut html, report, bounds.versions);
    tests_of_endpoints(&mut html, report, bounds);
    for training in report.trainings.iter().take(bounds.trainings) {
        self::training(&mut html, training);
    }
    more(&mut html, report.trainings.len(), bounds.trainings, "training jobs are in the files");
    html.raw("<footer><p class=\"soft\">Written by sagemaker-executor report.</p></footer>\n</main></body></html>\n");
    html.finish()
}

fn head(html: &mut Html, report: &ModelReport) {
    html.element("<h1>", &short(&report.title), "</h1>\n");
    html.element("<p class=\"soft\">", &sentence(&report.place), "</p>\n");
    if report.has_metrics {
        html.raw("<p class=\"verdict ").raw(match report.verdict {
            ModelVerdict::Passed => "good\">✓ ",
            ModelVerdict::Failed => "bad\">✗ ",
            ModelVerdict::NotJudged => "\">",
        });
        html.raw("The model ").element("", report.verdict.words(), "</p>\n");
        html.element("<p class=\"soft\">", &sentence(&report.comparison), "</p>\n");
    }
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
    if !report.has_metrics {
        return;
    }
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
    for (row, name) in report.metrics.iter().zip(names(report)).take(most) {
        metric(html, row, &name, report.has_baseline);
    }
    html.raw("</tbody></table>\n");
    more(html, report.metrics.len() + report.left_out, most.min(report.metrics.len()), "metrics are in the files");
}

/// The names of the metrics as they are shown.
fn names(report: &ModelReport) -> Vec<String> {
    labels(report.metrics.iter().map(|row| row.name.as_str()))
}

fn metric(html: &mut Html, row: &MetricRow, name: &str, has_baseline: bool) {
    html.element("<tr><th>", name, "</th>");
    html.element("<td data-name=\"Value\" class=\"n\">", &value(row), "</td>");
    if row.bars.is_empty() {
        html.raw("<td class=\"none\">-</td>");
    } else {
        html.element("<td data-name=\"Bar\">", &sentence(&row.bars.join("; ")), "</td>");
    }
    if has_baseline {
        match &row.baseline {
            Some(baseline) => html.element("<td data-name=\"Earlier\" class=\"n\">", &shown(baseline), "</td>"),
            None => html.raw("<td class=\"none\">-</td>"),
        };
        html.raw("<td data-name=\"Change\"");
        html.raw(match row.change.map(|change| change.is_better) {
            Some(Some(true)) => " class=\"n good\">",
            Some(Some(false)) => " class=\"n bad\">",
            Some(None) => " class=\"n\">",
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
        html.raw("</span>").element("<span class=\"soft reason\">", &sentence(reason), "");
    }
    html.raw("</span></td></tr>\n");
}

fn curves(html: &mut Html, report: &ModelReport, bounds: PageBounds) {
    let shown: Vec<_> = report.curves.iter().take(bounds.curves).collect();
    if shown.is_empty() {
        return;
    }
    html.raw("<h2>Learning curves</h2>\n");
    let names = labels(shown.iter().map(|curve| curve.name.as_str()));
    let drawn: Vec<Curve<'_>> = (shown.iter().zip(&names))
        .map(|(curve, name)| Curve { name, unit: Unit::Plain, across: curve.across, series: &curve.series })
        .collect();
    charts_of(html, &drawn, points_of_each(bounds.curve_bytes, drawn.len()));
    more(html, report.curves.len(), bounds.curves, "curves are in the files");
}

fn history(html: &mut Html, report: &ModelReport, most: usize) {
    let named = report.metrics.iter().zip(names(report));
    let drawn: Vec<_> =
        named.filter_map(|(row, name)| Some((row, name, versions::drawing(&row.history, row.number)?))).collect();
    if drawn.is_empty() {
        return;
    }
    html.raw("<h2>Versions in the registry</h2>\n");
    html.raw("<p class=\"soft\">Filled points are approved versions; the last point is this model.</p>\n<div class=\"charts\">\n");
    for (row, name, drawing) in drawn.iter().take(most) {
        let note = row.bars.join("; ");
        html.raw("<figure role=\"img\" aria-label=\"").text(name).raw(" over versions\"><figcaption>");
        html.element("<h3>", name, "</h3>");
        html.element("<span class=\"soft\">", &sentence(&note), "</span></figcaption>");
        html.add(drawing).raw("</figure>\n");
    }
    html.raw("</div>\n");
    more(html, drawn.len(), most, "metrics have values in earlier versions");
}

/// Failed tests come first.
fn tests_of_endpoints(html: &mut Html, report: &ModelReport, bounds: PageBounds) {
    let (passed, failed): (Vec<_>, Vec<_>) = report.endpoints.iter().partition(|endpoint| endpoint.has_passed);
    for endpoint in failed.iter().chain(&passed).take(bounds.endpoints) {
        test(html, endpoint, bounds.checks);
    }
    let more_failed = failed.len().saturating_sub(bounds.endpoints);
    if more_failed > 0 {
        let text = format!("✗ {more_failed} more endpoints do not pass their test.");
        html.element("<p class=\"bad\">", &text, "</p>\n");
    }
    more(html, passed.len(), bounds.endpoints.saturating_sub(failed.len()), "endpoints pass their test");
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
            "n good\">✓ passed"
        } else {
            "n bad\">✗ failed"
        });
        html.raw(if check.reason.is_empty() {
            "</td><td class=\"none\">"
        } else {
            "</td><td data-name=\"Reason\" class=\"t\">"
        });
        html.element("", &sentence(&check.reason), "</td></tr>\n");
    }
    html.raw("</tbody></table>\n");
    more(html, endpoint.checks.len(), most, "checks are in the file");
}

fn training(html: &mut Html, training: &TrainingFigures) {
    html.raw("<h2>Training job</h2>\n");
    tiles(html, &training.facts);
    if !training.phases.is_empty() {
        html.raw("<h3>Phases</h3>\n");
        phases(html, &training.phases);
    }
}

fn plan(html: &mut Html, plan: &PlannedDeployment, bounds: PageBounds) {
    let most = bounds.steps;
    html.raw("<h2>Planned deployment to ").element("", &short(&plan.endpoint), "</h2>\n");
    html.raw(if plan.has_changes {
        "<p>The deployment changes what is in service.</p>\n"
    } else {
        "<p>The deployment changes nothing.</p>\n"
    });
    for refusal in plan.refusals.iter().take(bounds.refusals) {
        html.element("<p class=\"bad\">✗ Refused: ", &sentence(refusal), "</p>\n");
    }
    more(html, plan.refusals.len(), bounds.refusals, "refusals are in the plan");
    tiles(html, &plan.facts);
    if !plan.differences.is_empty() {
        html.raw("<table class=\"stack\"><thead><tr><th>Setting</th><th>In service</th><th>Planned</th></tr></thead><tbody>\n");
        for (key, from, to) in plan.differences.iter().take(most) {
            html.element("<tr><th>", &short(key), "</th>");
            html.element("<td data-name=\"In service\" class=\"t\">", &sentence(from), "</td>");
            html.element("<td data-name=\"Planned\" class=\"t\">", &sentence(to), "</td></tr>\n");
        }
        html.raw("</tbody></table>\n");
        more(html, plan.differences.len(), most, "differences are in the plan");
    }
    if !plan.steps.is_empty() {
        html.raw("<table class=\"stack\"><thead><tr><th>Step</th><th>Of</th></tr></thead><tbody>\n");
        for (action, what) in plan.steps.iter().take(most) {
            html.element("<tr><th>", &short(action), "</th>");
            html.element("<td class=\"t\">", &sentence(what), "</td></tr>\n");
        }
        html.raw("</tbody></table>\n");
        more(html, plan.steps.len(), most, "steps are in the plan");
    }
}

#[cfg(test)]
mod tests;
