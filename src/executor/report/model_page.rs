//! The page about a model: one file for reviewers, without a script, and nothing in it is fetched.

use super::curve::{Curve, Unit};
use super::html::Html;
use super::matrix::matrix;
use super::model::{
    EndpointFigures, MetricRow, MetricState, ModelReport, ModelVerdict, PlannedDeployment, TrainingFigures,
};
use super::parts::{STYLE, charts_of, phases, points_of_each, sentence, short};
use super::versions;
use super::words::{change, shown, state, value};
use crate::base::human::human_number;

/// How every page begins, by which an earlier one is known.
pub const MODEL_PAGE_START: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"generator\" content=\"sagemaker-executor report\">";
/// Forbids a browser all but the styles inside.
const POLICY: &str =
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">";
const MODEL_STYLE: &str = include_str!("model.css");
/// Most of each that are shown.
const MOST_METRICS: usize = 60;
const MOST_CURVES: usize = 12;
const MOST_VERSIONS: usize = 9;
const MOST_ENDPOINTS: usize = 4;
const MOST_CHECKS: usize = 12;
const MOST_STEPS: usize = 40;
/// Bytes of all learning curves together.
const CURVES_BYTES: usize = 90_000;

/// The whole page as one file of less than 300 KB.
pub fn model_page(report: &ModelReport) -> String {
    let mut html = Html::default();
    html.raw(MODEL_PAGE_START).raw(POLICY);
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    html.text(&short(&report.title)).raw("</title>\n<style>\n").raw(STYLE).raw(MODEL_STYLE);
    html.raw("</style></head>\n<body><main>\n");
    head(&mut html, report);
    metrics(&mut html, report);
    if let Some(content) = &report.matrix {
        html.raw("<h2>Confusion matrix</h2>\n");
        matrix(&mut html, content);
    }
    curves(&mut html, report);
    history(&mut html, report);
    for endpoint in report.endpoints.iter().take(MOST_ENDPOINTS) {
        test(&mut html, endpoint);
    }
    if let Some(training) = &report.training {
        self::training(&mut html, training);
    }
    if let Some(plan) = &report.plan {
        self::plan(&mut html, plan);
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
    if !report.links.is_empty() {
        html.raw("<p class=\"links\">");
        for link in &report.links {
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

fn metrics(html: &mut Html, report: &ModelReport) {
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
    for row in report.metrics.iter().take(MOST_METRICS) {
        metric(html, row, report.has_baseline);
    }
    html.raw("</tbody></table>\n");
    let left_out = report.left_out + report.metrics.len().saturating_sub(MOST_METRICS);
    if left_out > 0 {
        html.element("<p class=\"soft\">", &format!("{left_out} more metrics are in the files."), "</p>\n");
    }
}

fn metric(html: &mut Html, row: &MetricRow, has_baseline: bool) {
    html.element("<tr><th>", &short(&row.name), "</th>");
    html.element("<td data-name=\"Value\">", &value(row), "</td>");
    let bars = if row.bars.is_empty() { "-".to_owned() } else { row.bars.join("; ") };
    html.element("<td data-name=\"Bar\">", &sentence(&bars), "</td>");
    if has_baseline {
        let baseline = row.baseline.as_deref().map_or("-".to_owned(), shown);
        html.element("<td data-name=\"Earlier\">", &baseline, "</td>");
        html.raw("<td data-name=\"Change\"");
        html.raw(match row.change.and_then(|change| change.is_better) {
            Some(true) => " class=\"good\">",
            Some(false) => " class=\"bad\">",
            None => ">",
        });
        html.element("", &change(row.change), "</td>");
    }
    html.raw("<td data-name=\"Result\"");
    html.raw(match row.state {
        MetricState::Passed => " class=\"good\">",
        MetricState::Failed => " class=\"bad\">",
        MetricState::Skipped | MetricState::Free => ">",
    });
    html.raw("<span>").text(state(row.state));
    if let Some(reason) = &row.reason {
        html.raw("<br>").element("<span class=\"soft\">", &sentence(reason), "</span>");
    }
    html.raw("</span></td></tr>\n");
}

fn curves(html: &mut Html, report: &ModelReport) {
    let shown: Vec<_> = report.curves.iter().take(MOST_CURVES).collect();
    if shown.is_empty() {
        return;
    }
    html.raw("<h2>Learning curves</h2>\n");
    let names: Vec<String> = shown.iter().map(|curve| short(&curve.name)).collect();
    let drawn: Vec<Curve<'_>> = (shown.iter().zip(&names))
        .map(|(curve, name)| Curve { name, unit: Unit::Plain, across: curve.across, series: &curve.series })
        .collect();
    charts_of(html, &drawn, points_of_each(CURVES_BYTES, drawn.len()));
    if report.curves.len() > MOST_CURVES {
        let text = format!("{} more curves are in the files.", report.curves.len() - MOST_CURVES);
        html.element("<p class=\"soft\">", &text, "</p>\n");
    }
}

fn history(html: &mut Html, report: &ModelReport) {
    let drawn: Vec<_> = (report.metrics.iter())
        .filter_map(|row| Some((row, versions::drawing(&row.history, row.number)?)))
        .take(MOST_VERSIONS)
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

fn test(html: &mut Html, endpoint: &EndpointFigures) {
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
    for check in endpoint.checks.iter().take(MOST_CHECKS) {
        html.element("<tr><th>", &short(&check.name), "</th>");
        html.raw("<td data-name=\"Result\" class=\"").raw(if check.has_passed {
            "good\">✓ passed"
        } else {
            "bad\">✗ failed"
        });
        html.element("</td><td data-name=\"Reason\">", &sentence(&check.reason), "</td></tr>\n");
    }
    html.raw("</tbody></table>\n");
    if endpoint.checks.len() > MOST_CHECKS {
        let text = format!("{} more checks are in the file.", endpoint.checks.len() - MOST_CHECKS);
        html.element("<p class=\"soft\">", &text, "</p>\n");
    }
}

fn training(html: &mut Html, training: &TrainingFigures) {
    html.raw("<h2>Training job</h2>\n");
    tiles(html, &training.facts);
    if !training.phases.is_empty() {
        html.raw("<h3 class=\"gap\">Phases</h3>\n");
        phases(html, &training.phases);
    }
}

fn plan(html: &mut Html, plan: &PlannedDeployment) {
    html.raw("<h2>Planned deployment to ").element("", &short(&plan.endpoint), "</h2>\n");
    html.raw(if plan.has_changes {
        "<p>The deployment changes what is in service.</p>\n"
    } else {
        "<p>The deployment changes nothing.</p>\n"
    });
    for refusal in plan.refusals.iter().take(MOST_CHECKS) {
        html.element("<p class=\"bad\">✗ Refused: ", &sentence(refusal), "</p>\n");
    }
    tiles(html, &plan.facts);
    if !plan.differences.is_empty() {
        html.raw("<table class=\"stack\"><thead><tr><th>Setting</th><th>In service</th><th>Planned</th></tr></thead><tbody>\n");
        for (key, from, to) in plan.differences.iter().take(MOST_STEPS) {
            html.element("<tr><th>", &short(key), "</th>");
            html.element("<td data-name=\"In service\">", &sentence(from), "</td>");
            html.element("<td data-name=\"Planned\">", &sentence(to), "</td></tr>\n");
        }
        html.raw("</tbody></table>\n");
    }
    if !plan.steps.is_empty() {
        html.raw("<table><thead><tr><th>Step</th><th>Of</th></tr></thead><tbody>\n");
        for (action, what) in plan.steps.iter().take(MOST_STEPS) {
            html.element("<tr><th>", &short(action), "</th>").element("<td>", &sentence(what), "</td></tr>\n");
        }
        html.raw("</tbody></table>\n");
    }
}
