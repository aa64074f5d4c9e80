//! Parts of pages: style, drawings of curves, phases of a training job.

use std::time::Duration;

use super::chart::{chart, number};
use super::curve::{Curve, Unit};
use super::html::Html;
use crate::base::human::human_duration;

/// Style of every page.
pub(super) const STYLE: &str = include_str!("style.css");
/// Size of a drawing without its points, and of one point in its line and its band.
const DRAWING_BYTES: usize = 2_800;
const POINT_BYTES: usize = 30;
/// Most phases of a table.
const MOST_PHASES: usize = 60;
/// Most points of a drawing, which is 300 pixels wide on a phone, and the fewest that show a form.
const POINTS: (usize, usize) = (40, 300);

/// Longest name of a metric, a class or another thing that is shown, in bytes.
pub const LONGEST_NAME: usize = 80;
/// Longest sentence that is shown, in bytes.
pub const LONGEST_TEXT: usize = 300;

/// A phase of the training job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPhase {
    pub name: String,
    /// Seconds since the beginning of the first one.
    pub from: u64,
    pub seconds: u64,
}

/// Most points of each of so many drawings, so that all together have about so many bytes.
pub(super) fn points_of_each(bytes: usize, drawings: usize) -> usize {
    let most = (bytes / drawings.max(1)).saturating_sub(DRAWING_BYTES) / POINT_BYTES;
    most.clamp(POINTS.0, POINTS.1)
}

/// Draws each curve that has a number, with at most `most` points.
pub(super) fn charts_of(html: &mut Html, curves: &[Curve<'_>], most: usize) {
    html.raw("<div class=\"charts\">\n");
    for curve in curves {
        let Some(drawing) = chart(curve, most) else { continue };
        let note = note(curve);
        html.raw("<figure role=\"img\" aria-label=\"").text(curve.name).raw(": ").text(&note).raw("\"><figcaption>");
        html.element("<h3>", curve.name, "</h3>").element("<span class=\"soft\">", &note, "</span></figcaption>");
        html.add(&drawing).raw("</figure>\n");
    }
    html.raw("</div>\n");
}

fn note(curve: &Curve<'_>) -> String {
    let text = |value: Option<f64>| value.map_or("no number".to_owned(), |value| number(value, curve.unit));
    match curve.unit {
        Unit::Plain => format!("last {}", text(curve.series.last())),
        Unit::Percent | Unit::BytesPerSecond => {
            format!("mean {}, highest {}", text(curve.series.mean()), text(curve.series.max()))
        }
    }
}

/// A table with a bar for each phase.
pub(super) fn phases(html: &mut Html, phases: &[JobPhase]) {
    let whole = phases.iter().map(|phase| phase.from + phase.seconds).max().unwrap_or(0).max(1);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a job have less than 52 bits")]
    let percent = |seconds: u64| format!("{:.2}", seconds as f64 / whole as f64 * 100.0);
    html.raw("<table class=\"bars\"><thead><tr><th>Phase</th><th>Time</th><th></th></tr></thead><tbody>\n");
    for JobPhase { name, from, seconds } in phases.iter().take(MOST_PHASES) {
        html.element("<tr><th>", &short(name), "</th>").element(
            "<td>",
            &human_duration(Duration::from_secs(*seconds)),
            "</td>",
        );
        html.element(
            "<td><svg viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\"><rect height=\"6\" x=\"",
            &percent(*from),
            "\"",
        );
        html.element(" width=\"", &percent((*seconds).max(whole / 200)), "\"/></svg></td></tr>\n");
    }
    html.raw("</tbody></table>\n");
    more(html, phases.len(), MOST_PHASES, "phases");
}

/// Says how many things of a list are not on the page, when it has more than `most`.
pub(super) fn more(html: &mut Html, all: usize, most: usize, things: &str) {
    if all > most {
        html.element("<p class=\"soft\">", &format!("{} more {things}.", all - most), "</p>\n");
    }
}

/// A name of others, as long as a table takes it.
pub(super) fn short(name: &str) -> String {
    cut(name, LONGEST_NAME)
}

/// A sentence of others, as long as a page takes it.
pub(super) fn sentence(text: &str) -> String {
    cut(text, LONGEST_TEXT)
}

/// At most so many bytes of a text.
pub(super) fn cut(text: &str, most: usize) -> String {
    let kept = text.floor_char_boundary(most);
    match text.split_at_checked(kept) {
        Some((shown, rest)) if !rest.is_empty() => format!("{shown}..."),
        _ => text.to_owned(),
    }
}
