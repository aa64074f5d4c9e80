//! The page about a job.

use super::curve::Curve;
use super::html::Html;
use super::parts::{JobPhase, STYLE, charts_of, phases, points_of_each};
use super::spark::best;
use crate::base::human::human_number;

/// How every page begins, by which an earlier one is known.
pub const PAGE_START: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"generator\" content=\"sagemaker-executor\">";
/// Size that the drawings stay below together: the page of 40 metrics is under 300 KB.
const DRAWINGS_BYTES: usize = 220_000;

/// The content of the page.
#[derive(Debug, Clone, Copy)]
pub struct JobPage<'a> {
    /// Name of the job in GitLab.
    pub title: &'a str,
    /// Project, ref and pipeline.
    pub place: &'a str,
    pub outcome: &'a str,
    pub has_succeeded: bool,
    pub facts: &'a [(&'static str, String)],
    pub phases: &'a [JobPhase],
    /// The cost of the job, where it is known.
    pub price: Option<&'a str>,
    pub metrics: &'a [Curve<'a>],
    pub machine: &'a [Curve<'a>],
    /// The container was started again: the curves leave out the time between two starts.
    pub has_gaps: bool,
    /// A sentence about the use of the machine.
    pub remark: Option<&'a str>,
}

/// The whole page as one file.
pub fn page(content: &JobPage<'_>) -> String {
    let mut html = Html::default();
    html.raw(PAGE_START);
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    html.text(content.title).raw("</title>\n<style>\n").raw(STYLE).raw("</style></head>\n<body><main>\n");
    head(&mut html, content);
    let charts = content.metrics.len() + content.machine.len();
    let most = points_of_each(DRAWINGS_BYTES, charts);
    if !content.metrics.is_empty() {
        html.raw("<h2>Metrics</h2>\n");
        metrics(&mut html, content.metrics);
        charts_of(&mut html, content.metrics, most);
    }
    if content.has_gaps {
        html.raw("<p class=\"soft\">The container was started again. The curves leave out the time in which no container ran.</p>\n");
    }
    if !content.machine.is_empty() {
        html.raw("<h2>Use of the machine</h2>\n");
        if let Some(remark) = content.remark {
            html.element("<p>", remark, "</p>\n");
        }
        charts_of(&mut html, content.machine, most);
    }
    if !content.phases.is_empty() {
        html.raw("<h2>Phases</h2>\n");
        phases(&mut html, content.phases);
    }
    html.raw("<footer><p class=\"soft\">Written by sagemaker-executor at the end of the job.</p></footer>\n</main></body></html>\n");
    html.finish()
}

fn head(html: &mut Html, content: &JobPage<'_>) {
    html.element("<h1>", content.title, "</h1>\n").element(
        "<p class=\"soft\">",
        content.place,
        "</p>\n<dl class=\"tiles\">\n",
    );
    html.raw("<div><dt>Result</dt><dd class=\"").raw(if content.has_succeeded { "good" } else { "bad" });
    html.element("\">", content.outcome, "</dd></div>\n");
    for (name, value) in content.facts {
        html.element("<div><dt>", name, "</dt>").element("<dd>", value, "</dd></div>\n");
    }
    html.raw("</dl>\n");
    if let Some(price) = content.price {
        html.element("<p>", price, "</p>\n");
    }
}

fn metrics(html: &mut Html, curves: &[Curve<'_>]) {
    html.raw("<table><thead><tr><th>Metric</th><th>First</th><th>Last</th><th>Best</th></tr></thead><tbody>\n");
    for Curve { name, series, .. } in curves {
        let value = |value: Option<f64>| value.map_or("no number".to_owned(), human_number);
        let best = best(name, series);
        html.element("<tr><th>", name, "</th>");
        for text in [&value(series.first()), &value(series.last()), best.trim_start_matches("best ")] {
            html.element("<td>", text, "</td>");
        }
        html.raw("</tr>\n");
    }
    html.raw("</tbody></table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::series::Series;
    use crate::report::curve::{Across, Unit};

    fn wave(height: f64) -> Series {
        let mut series = Series::default();
        for at in 0..2000_u32 {
            let x = f64::from(at) / 100.0;
            series.push(u64::from(at) * 10_000, height * (1.2 + x.sin() + (x * 40.0).sin() / 5.0) / 2.5);
        }
        series
    }

    fn of(metrics: &[Curve<'_>], machine: &[Curve<'_>]) -> String {
        let phase = |name: &str, from, seconds| JobPhase { name: name.to_owned(), from, seconds };
        page(&JobPage {
            title: "train <model>",
            place: "ml/churn on main, pipeline 12, job 4711",
            outcome: "exit code 0 after 5 h 33 min",
            has_succeeded: true,
            facts: &[("Instance", "ml.g5.2xlarge x 1".to_owned()), ("Image", "train:2.4 & more".to_owned())],
            phases: &[phase("Provisioning", 0, 252), phase("Image and input", 252, 100), phase("Script", 352, 20_000)],
            price: Some("Billed 5 h 54 min of ml.g5.2xlarge, about $8.94 (list price of us-east-1)"),
            metrics,
            machine,
            has_gaps: machine.is_empty(),
            remark: Some("GPU under 10 % for 84 % of the time."),
        })
    }

    #[test]
    fn the_page_stands_alone_and_is_small() {
        let series = wave(100.0);
        let names: Vec<String> = (0..40).map(|number| format!("metric_{number}")).collect();
        let metrics: Vec<_> =
            names.iter().map(|name| Curve { name, unit: Unit::Plain, across: Across::Time, series: &series }).collect();
        let machine = [Curve { name: "CPU", unit: Unit::Percent, across: Across::Time, series: &series }; 7];
        let text = of(&metrics, &machine);
        assert!(text.len() < 300_000, "{} bytes", text.len());
        let one = of(&metrics[..2], &machine);
        for text in [&text, &one] {
            for word in ["<script", "http", "url(", "@import", "src=", "<model>", "javascript:", "onload"] {
                let found = text.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
                assert!(!found.contains(word), "{word}");
            }
        }
        assert!(one.contains("train &lt;model&gt;") && one.contains("train:2.4 &amp; more"));
        assert!(one.starts_with(PAGE_START));
        assert_eq!(one.matches("<figure").count(), 9);
    }

    #[test]
    fn without_measurements_there_is_a_page_too() {
        let text = of(&[], &[]);
        assert!(text.contains("The curves leave out the time"));
        assert!(!text.contains("<h2>Metrics") && text.contains("<h2>Phases"));
    }
}
