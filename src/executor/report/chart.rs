//! A curve as a drawing: SVG with fixed colours, which the style of the page replaces for light and dark.

use plotters::prelude::*;

use super::curve::{Across, Curve, Unit};
use super::html::Html;
use crate::base::human::{human_bytes, human_number};
use crate::base::series::Point;

/// Size in the units of the drawing, about pixels of a phone.
pub(super) const WIDTH: u32 = 380;
pub(super) const HEIGHT: u32 = 170;
/// Colours that the style replaces; `style.css` has the same.
pub(super) const LINE: RGBColor = RGBColor(1, 2, 3);
pub(super) const BAND: RGBColor = RGBColor(2, 3, 4);
pub(super) const AXIS: RGBColor = RGBColor(3, 4, 5);
pub(super) const GRID: RGBColor = RGBColor(4, 5, 6);

/// Draws the curve with at most `most` points: the mean as a line, and the range of merged values as a band. `None` without a number.
pub(super) fn chart(curve: &Curve<'_>, most: usize) -> Option<Html> {
    let points = curve.series.thinned(most);
    let mut svg = String::new();
    draw(&points, curve, &mut svg)?;
    Some(Html::drawing(without_noise(&svg)))
}

/// Shorter, and the same picture.
pub(super) fn without_noise(svg: &str) -> String {
    let start = svg.find("<svg").unwrap_or(0);
    svg.get(start..)
        .unwrap_or_default()
        .replace(" opacity=\"1\"", "")
        .replace(" stroke-width=\"1\"", "")
        .replace('\n', "")
}

fn draw(points: &[Point], curve: &Curve<'_>, svg: &mut String) -> Option<()> {
    let (first, last) = (points.first()?, points.last()?);
    let (unit, unit_name) = match curve.across {
        Across::Time => time_unit(last.at),
        Across::Steps => (1.0, ""),
    };
    let time = |point: &Point| milliseconds(point.at) / unit;
    let (from, to) = (time(first), time(last));
    let to = if to > from { to } else { from + 1.0 };
    let (low, high) = range(points, curve.unit);
    let (time_step, step) = ((to - from) / TICKS.0, (high - low) / TICKS.1);
    let area = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin_top(8)
        .margin_right(12)
        .x_label_area_size(24)
        .y_label_area_size(62)
        .build_cartesian_2d(from..to, low..high)
        .ok()?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .x_labels(4)
        .y_labels(5)
        .label_style(("sans-serif", 12, &AXIS))
        .x_label_formatter(&|at| format!("{} {unit_name}", tick(*at, time_step)).trim_end().to_owned())
        .y_label_formatter(&|value| {
            if curve.unit == Unit::Plain { tick(*value, step) } else { number(*value, curve.unit) }
        })
        .draw()
        .ok()?;
    if points.iter().any(|point| point.max > point.min) {
        let upper = points.iter().map(|point| (time(point), point.max.max(low).min(high)));
        let lower = points.iter().rev().map(|point| (time(point), point.min.max(low).min(high)));
        chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), BAND.filled())]).ok()?;
    }
    // The library takes no point outside of its axes.
    let means = points.iter().map(|point| (time(point), point.mean.max(low).min(high)));
    let end = curve.series.last().filter(|value| value.is_finite()).map(|value| (time(last), value.max(low).min(high)));
    chart.draw_series(LineSeries::new(means.chain(end), LINE.stroke_width(2))).ok()?;
    chart.draw_series(end.map(|end| Circle::new(end, 3, LINE.filled()))).ok()?;
    area.present().ok()
}

/// Fewest ticks of the axes, about.
const TICKS: (f64, f64) = (8.0, 10.0);

/// The number at a tick, with the digits that tell it from one that is `step` away.
pub(super) fn tick(value: f64, step: f64) -> String {
    let plain = human_number(value);
    if plain != human_number(value + step) && plain != human_number(value - step) {
        return plain;
    }
    let size = value.abs();
    if !(1e-4..1e7).contains(&size) {
        let digits = decimals(step / 10_f64.powf(size.log10().floor()));
        return format!("{value:.digits$e}");
    }
    format!("{value:.digits$}", digits = decimals(step))
}

/// Decimals of a number of this size: `0.03` has two.
fn decimals(step: f64) -> usize {
    (0..16)
        .find(|digits| step * 10_f64.powi(*digits) >= 1.0)
        .and_then(|digits| usize::try_from(digits).ok())
        .unwrap_or(16)
}

/// The unit of the horizontal axis, in milliseconds: the ticks are round numbers of it.
const TIME_UNITS: [(f64, &str); 4] = [(1e3, "s"), (6e4, "min"), (3.6e6, "h"), (8.64e7, "d")];

/// The largest unit of which the series lasts at least two.
fn time_unit(end: u64) -> (f64, &'static str) {
    let fits = |unit: &&(f64, &str)| milliseconds(end) >= 2.0 * unit.0;
    TIME_UNITS.iter().rev().find(fits).copied().unwrap_or((1e3, "s"))
}

fn milliseconds(at: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a job have less than 52 bits")]
    let at = at as f64;
    at
}

/// The range of the vertical axis, never empty.
fn range(points: &[Point], unit: Unit) -> (f64, f64) {
    let low = points.iter().map(|point| point.min).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.max).fold(f64::NEG_INFINITY, f64::max);
    match unit {
        Unit::Percent => (0.0, 100.0),
        Unit::BytesPerSecond => (0.0, high.clamp(1024.0, 1e15) * 1.05),
        Unit::Plain => with_room(low, high),
    }
}

/// A range with some room at both ends.
pub(super) fn with_room(low: f64, high: f64) -> (f64, f64) {
    // An axis whose ends have the same digits cannot be labelled.
    let size = low.abs().max(high.abs());
    let room = if high > low { ((high - low) * 0.05).max(size * 1e-6).max(1e-12) } else { size.max(1.0) * 0.5 };
    (low - room, high + room)
}

pub(super) fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Plain => human_number(value),
        Unit::Percent => format!("{value:.0} %"),
        Unit::BytesPerSecond => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is small and positive")]
            let bytes = value.max(0.0) as u64;
            format!("{}/s", human_bytes(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::series::Series;
    use crate::config::env::short_or_long;

    fn series(values: &[f64]) -> Series {
        let mut series = Series::default();
        (0..).zip(values).for_each(|(at, value)| series.push(at * 10_000, *value));
        series
    }

    #[track_caller]
    fn draws(values: &[f64]) {
        let series = series(values);
        for unit in [Unit::Plain, Unit::Percent, Unit::BytesPerSecond] {
            let Some(drawn) = chart(&Curve { name: "x", unit, across: Across::Time, series: &series }, 100) else {
                assert_eq!(series.count(), 0, "{values:?}");
                continue;
            };
            let svg = drawn.finish();
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?} {svg}");
        }
    }

    /// Ticks are as far apart as the library puts them, at least.
    #[test]
    fn neighbours_on_an_axis_have_different_labels() {
        for (from, step) in
            [(0.987_60, 1e-5), (2.000_1, 1e-4), (123_456.0, 0.1), (1e9, 20.0), (-3e-7, 1e-12), (0.0, 0.25)]
        {
            let labels: Vec<_> = (0..6).map(|number| tick(from + step * f64::from(number), step)).collect();
            let different: std::collections::BTreeSet<_> = labels.iter().collect();
            assert_eq!(different.len(), labels.len(), "{labels:?}");
        }
        assert_eq!((tick(0.987_61, 1e-5), tick(0.25, 0.25)), ("0.98761".to_owned(), "0.25".to_owned()));
    }

    #[test]
    fn the_line_ends_at_the_last_value() {
        let values: Vec<_> = (0..1000).map(|number| f64::from(number % 2)).collect();
        let series = series(&values);
        let svg = chart(&Curve { name: "x", unit: Unit::Plain, across: Across::Steps, series: &series }, 10)
            .unwrap()
            .finish();
        let circle = svg.split("<circle").nth(1).unwrap();
        let cy: f64 = circle.split("cy=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        assert!(cy < f64::from(HEIGHT) / 4.0, "{circle}");
    }

    #[test]
    fn odd_series_can_be_drawn() {
        let near = 1e15 + 0.125;
        for values in
            [&[1.0][..], &[0.0, 0.0], &[1e-12, 1e99, -1e99], &[f64::NAN], &[5e-324, 0.0], &[1e15, near], &[-1e100; 3]]
        {
            draws(values);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(short_or_long(50, 500)))]
        #[test]
        fn any_series_can_be_drawn(values in prop::collection::vec(any::<f64>(), 1..30), scale in -100..100_i32) {
            draws(&values);
            draws(&values.iter().map(|value| value.fract() * 10_f64.powi(scale)).collect::<Vec<_>>());
        }
    }
}
