//! Numbers and changes of metrics in words.

use super::model::{MetricChange, MetricRow, MetricState};
use super::parts::cut;
use crate::base::human::human_number;

/// Longest value that is shown as its file has it.
const SHORT: usize = 8;
/// Longest value that is no number of a double: a line of a phone has room for it.
const LONGEST: usize = 24;

/// A value as people read it; what is cut has four significant digits at least.
pub(super) fn shown(written: &str) -> String {
    match written.parse::<f64>() {
        Ok(number) if written.len() > SHORT && number.is_finite() => human_number(number),
        _ => cut(written, LONGEST),
    }
}

/// `0.978`, or the reason why there is no value.
pub(super) fn value(row: &MetricRow) -> String {
    row.value.as_deref().map_or("no number".to_owned(), shown)
}

/// `↑ 0.01, better`: the direction and the judgement in words, so that no colour is needed.
pub fn change(change: Option<MetricChange>) -> String {
    let Some(MetricChange { difference, is_better }) = change else { return "-".to_owned() };
    if difference == 0.0 {
        return "= same".to_owned();
    }
    let arrow = if difference > 0.0 { '↑' } else { '↓' };
    let word = match is_better {
        Some(true) => ", better",
        Some(false) => ", worse",
        None => "",
    };
    format!("{arrow} {}{word}", human_number(difference.abs()))
}

/// The state of a metric in a word.
pub fn state(state: MetricState) -> &'static str {
    match state {
        MetricState::Passed => "✓ passed",
        MetricState::Failed => "✗ failed",
        MetricState::Skipped => "skipped",
        MetricState::Free => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_without_colour() {
        let of = |difference, is_better| change(Some(MetricChange { difference, is_better }));
        assert_eq!(of(0.0178, Some(true)), "↑ 0.0178, better");
        assert_eq!(of(-0.5, Some(true)), "↓ 0.5, better");
        assert_eq!(of(-0.5, Some(false)), "↓ 0.5, worse");
        assert_eq!(of(2.0, None), "↑ 2");
        assert_eq!((of(0.0, None), change(None)), ("= same".to_owned(), "-".to_owned()));
    }

    #[test]
    fn long_numbers_are_cut_and_short_ones_stay() {
        assert_eq!(
            ["0.80", "0.9777777777777777", "1e-12", "123456789012"].map(shown),
            ["0.80", "0.9778", "1e-12", "1.235e11"]
        );
        assert_eq!(shown(&"9".repeat(400)), format!("{}...", "9".repeat(24)));
    }
}
