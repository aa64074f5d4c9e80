//! A metric in one line of the log.

use super::model::Better;
use crate::base::human::human_number;
use crate::base::series::Series;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Longest row of bars.
const WIDTH: usize = 24;
/// Words in the names of metrics of which the lowest value is the best, and the highest.
const LOWER_IS_BETTER: [&str; 12] =
    ["loss", "err", "error", "perplexity", "ppl", "mae", "mse", "rmse", "nll", "wer", "cer", "fid"];
const HIGHER_IS_BETTER: [&str; 15] = [
    "acc",
    "accuracy",
    "f1",
    "auc",
    "auroc",
    "precision",
    "recall",
    "bleu",
    "rouge",
    "iou",
    "miou",
    "map",
    "r2",
    "score",
    "reward",
];

/// The best value with its words; for a name that does not tell which is better, both extremes.
pub(super) fn best(name: &str, series: &Series) -> String {
    let number = |value: Option<f64>| value.map_or("none".to_owned(), human_number);
    let (low, high) = (number(series.min()), number(series.max()));
    match better(name) {
        Some(Better::Lower) => format!("best {low}"),
        Some(Better::Higher) => format!("best {high}"),
        None => format!("lowest {low}, highest {high}"),
    }
}

/// Which values are better, by the words of the metric's name.
pub fn better(name: &str) -> Option<Better> {
    let words = words(name);
    let is_any = |of: &[&str]| words.iter().any(|word| of.contains(&word.as_str()));
    match (is_any(&LOWER_IS_BETTER), is_any(&HIGHER_IS_BETTER)) {
        (true, false) => Some(Better::Lower),
        (false, true) => Some(Better::Higher),
        (true, true) | (false, false) => None,
    }
}

/// The words of a name in small letters, with and without digits at the end: `evalLoss/top5` has `evalloss`, `eval`, `loss`, `top5` and `top`.
fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in name.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut word = String::new();
        let mut after_small = false;
        for letter in part.chars() {
            if letter.is_ascii_uppercase() && after_small {
                words.push(std::mem::take(&mut word));
            }
            after_small = !letter.is_ascii_uppercase();
            word.push(letter);
        }
        words.extend([word, part.to_owned()]);
    }
    let with_digits = words.iter().map(|word| word.to_ascii_lowercase());
    with_digits.flat_map(|word| [word.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(), word]).collect()
}

/// `loss ▇▅▃▂▁ first 0.5, last 0.21, best 0.2`.
pub fn metric_line(name: &str, series: &Series) -> String {
    let last = series.last().map_or("none".to_owned(), human_number);
    let Some(first) = series.first() else { return format!("{name}: the output had no number for it, last {last}") };
    format!("{name} {} first {}, last {last}, {}", bars(series), human_number(first), best(name, series))
}

fn bars(series: &Series) -> String {
    let means: Vec<f64> = series.thinned(WIDTH).iter().map(|point| point.mean).collect();
    bars_of(&means)
}

/// A bar for each number.
pub(super) fn bars_of(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let height = |value: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number from 0 to 7")]
    let bar = |value: f64| BARS.get((height(value) * 7.0).round() as usize).copied().unwrap_or(' ');
    values.iter().map(|value| bar(*value)).collect()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn series(values: &[f64]) -> Series {
        let mut series = Series::default();
        (0..).zip(values).for_each(|(at, value)| series.push(at, *value));
        series
    }

    #[test_case("loss", &[0.5, 0.3, 0.2, 0.25] => "loss █▃▁▂ first 0.5, last 0.25, best 0.2"; "the lowest is the best")]
    #[test_case("val:accuracy", &[0.5, 0.9, 0.7] => "val:accuracy ▁█▄ first 0.5, last 0.7, best 0.9"; "the highest is the best")]
    #[test_case("lr", &[1.0, 2.0] => "lr ▁█ first 1, last 2, lowest 1, highest 2"; "nobody knows which is better")]
    #[test_case("loss", &[3.0] => "loss ▅ first 3, last 3, best 3"; "one value")]
    #[test_case("loss", &[3.0, f64::NAN] => "loss ▅ first 3, last NaN, best 3"; "no number at the end")]
    #[test_case("loss", &[f64::NAN] => "loss: the output had no number for it, last NaN"; "no number at all")]
    #[test_case("loss", &[3.0, f64::NEG_INFINITY] => "loss ▅ first 3, last -inf, best 3"; "an infinity")]
    #[test_case("loss", &[3.0, 1e300] => "loss ▅ first 3, last 1e300, best 3"; "a number too large for curves")]
    #[test_case("answer_f1", &[0.5, 0.9] => "answer_f1 ▁█ first 0.5, last 0.9, best 0.9"; "a word within a word")]
    #[test_case("evalLoss2", &[0.5, 0.9] => "evalLoss2 ▁█ first 0.5, last 0.9, best 0.5"; "words by case")]
    #[test_case("mAP50", &[0.5, 0.9] => "mAP50 ▁█ first 0.5, last 0.9, best 0.9"; "a word of both cases")]
    #[test_case("error-score", &[0.5, 0.9] => "error-score ▁█ first 0.5, last 0.9, lowest 0.5, highest 0.9"; "both words")]
    fn a_metric_is_one_line(name: &str, values: &[f64]) -> String {
        metric_line(name, &series(values))
    }

    #[test]
    fn a_long_series_stays_short() {
        let values: Vec<f64> = (0..10_000).map(f64::from).collect();
        let line = metric_line("step", &series(&values));
        assert!(line.starts_with("step ▁▁▂") && line.contains("█ first 0, last 9999"), "{line}");
        assert!(line.chars().filter(|c| BARS.contains(c)).count() <= WIDTH);
    }
}
