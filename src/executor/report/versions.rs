//! A metric over the versions of a model, as a drawing. Pure.

use plotters::prelude::*;

use super::chart::{AXIS, GRID, HEIGHT, LINE, WIDTH, tick, with_room, without_noise};
use super::html::Html;
use super::model::HistoryPoint;

/// Larger numbers are not drawn: their sums would overflow.
const LARGEST: f64 = 1e100;

/// Draws the values of earlier versions, and `current` as the last point. Filled points are approved versions and the current model.
/// `None` without two numbers.
pub(super) fn drawing(history: &[HistoryPoint], current: Option<f64>) -> Option<Html> {
    let mut points: Vec<(String, f64, bool)> =
        history.iter().map(|point| (point.version.to_string(), point.value, point.is_approved)).collect();
    points.extend(current.map(|value| ("this".to_owned(), value, true)));
    points.retain(|(_, value, _)| value.abs() <= LARGEST);
    if points.len() < 2 {
        return None;
    }
    let mut svg = String::new();
    draw(&points, &mut svg)?;
    Some(Html::drawing(without_noise(&svg)))
}

fn draw(points: &[(String, f64, bool)], svg: &mut String) -> Option<()> {
    let values = || points.iter().map(|(_, value, _)| *value);
    let (low, high) = with_room(values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let last = place(points.len().saturating_sub(1));
    let area = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin_top(8)
        .margin_right(16)
        .x_label_area_size(24)
        .y_label_area_size(62)
        .build_cartesian_2d(-0.3..last + 0.3, low..high)
        .ok()?;
    let step = (high - low) / 10.0;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .x_labels(points.len().min(7))
        .y_labels(5)
        .label_style(("sans-serif", 12, &AXIS))
        .x_label_formatter(&|at| label(points, *at))
        .y_label_formatter(&|value| tick(*value, step))
        .draw()
        .ok()?;
    let places: Vec<_> = values().enumerate().map(|(at, value)| (place(at), value)).collect();
    chart.draw_series(LineSeries::new(places.iter().copied(), LINE.stroke_width(2))).ok()?;
    let style = |is_filled: bool| if is_filled { LINE.filled() } else { LINE.stroke_width(1) };
    let circles = places.iter().zip(points).map(|(place, (_, _, is_filled))| Circle::new(*place, 3, style(*is_filled)));
    chart.draw_series(circles).ok()?;
    area.present().ok()
}

/// The version at a place of the axis; nothing between two.
fn label(points: &[(String, f64, bool)], at: f64) -> String {
    let found = points.iter().enumerate().find(|(number, _)| (place(*number) - at).abs() < 1e-6);
    found.map_or(String::new(), |(_, (label, ..))| label.clone())
}

fn place(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(values: &[f64]) -> Vec<HistoryPoint> {
        (1..)
            .zip(values)
            .map(|(version, value)| HistoryPoint { version, value: *value, is_approved: version % 2 == 0 })
            .collect()
    }

    #[test]
    fn each_version_is_a_point_and_the_model_is_the_last_one() {
        let svg = drawing(&history(&[0.8, 0.85, 0.84]), Some(0.9)).unwrap().finish();
        assert_eq!(svg.matches("<circle").count(), 4);
        assert_eq!(svg.matches("fill=\"#010203\"").count(), 2, "{svg}");
        assert!(svg.contains("this"), "{svg}");
    }

    #[test]
    fn odd_numbers_are_left_out_and_one_point_is_no_drawing() {
        for (values, current) in [(&[][..], Some(1.0)), (&[1.0], None), (&[f64::NAN, f64::INFINITY, 1e300], Some(1.0))]
        {
            assert!(drawing(&history(values), current).is_none(), "{values:?}");
        }
        for values in [&[0.0, 0.0][..], &[-1e99, 1e99], &[5e-324, 0.0], &[1e15, 1e15 + 0.125]] {
            let svg = drawing(&history(values), Some(values[0])).unwrap().finish();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
