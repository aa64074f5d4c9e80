//! A confusion matrix as a table; of one with many classes, the most frequent mistakes. Pure.

use super::html::Html;
use super::model::ConfusionMatrix;
use super::parts::{LONGEST_NAME, short};
use crate::base::human::human_number;
use crate::base::plain;

/// Most classes of a table; it has as many cells as the square.
const MOST_CLASSES: usize = 20;
/// Most mistakes of a matrix that is too large for a table.
const MOST_MISTAKES: usize = 20;
/// Classes of the style for shades, from nothing to a whole row.
const SHADES: [&str; 8] = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"];

/// Adds the matrix.
pub(super) fn matrix(html: &mut Html, matrix: &ConfusionMatrix) {
    if matrix.classes.len() > MOST_CLASSES {
        return mistakes(html, matrix);
    }
    html.raw("<p class=\"soft\">Rows are the true classes, columns the predicted ones. The stronger the colour of a field, the larger its part of the row.</p>\n");
    html.raw("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion matrix\"><table class=\"matrix\"><thead><tr><th>true \\ predicted</th>");
    for class in &matrix.classes {
        html.element("<th scope=\"col\">", &short(class), "</th>");
    }
    html.raw("<th>right</th></tr></thead><tbody>\n");
    for (number, (class, row)) in matrix.classes.iter().zip(&matrix.counts).enumerate() {
        let sum: f64 = row.iter().sum();
        html.element("<tr><th scope=\"row\">", &short(class), "</th>");
        for count in row {
            html.raw("<td class=\"").raw(shade(*count, sum)).element("\">", &human_number(*count), "</td>");
        }
        let right = row.get(number).filter(|_| sum > 0.0).map_or("-".to_owned(), |count| percent(*count / sum));
        html.element("<td class=\"soft\">", &right, "</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

/// The most frequent mistakes.
fn mistakes(html: &mut Html, matrix: &ConfusionMatrix) {
    let mut found: Vec<(f64, &str, &str)> = Vec::new();
    for (row, (truth, counts)) in matrix.classes.iter().zip(&matrix.counts).enumerate() {
        for (column, (predicted, count)) in matrix.classes.iter().zip(counts).enumerate() {
            if row != column && *count > 0.0 {
                found.push((*count, truth, predicted));
            }
        }
    }
    found.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let text = format!("The matrix has {} classes. These mistakes are the most frequent ones:", matrix.classes.len());
    html.element("<p class=\"soft\">", &text, "</p>\n");
    html.raw("<table><thead><tr><th>True class</th><th>Predicted</th><th>Times</th></tr></thead><tbody>\n");
    for (count, truth, predicted) in found.into_iter().take(MOST_MISTAKES) {
        html.element("<tr><th>", &short(truth), "</th>").element("<td>", &short(predicted), "</td>");
        html.element("<td>", &human_number(count), "</td></tr>\n");
    }
    html.raw("</tbody></table>\n");
}

fn shade(count: f64, sum: f64) -> &'static str {
    let share = if sum > 0.0 { (count / sum).clamp(0.0, 1.0) } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number from 0 to 7")]
    let number = (share * 7.0).ceil() as usize;
    SHADES.get(number).copied().unwrap_or("h0")
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

impl ConfusionMatrix {
    /// A matrix of numbers that are not negative, with a name for each class. `None` for other forms.
    pub fn new(classes: Vec<String>, counts: Vec<Vec<f64>>) -> Option<Self> {
        let is_count = |count: &f64| (0.0..=1e15).contains(count);
        let is_whole = counts.iter().all(|row| row.len() == classes.len() && row.iter().all(is_count));
        let classes: Vec<String> = classes.into_iter().map(|class| plain::line(&class, LONGEST_NAME)).collect();
        (is_whole && !classes.is_empty() && counts.len() == classes.len()).then_some(Self { classes, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(classes: usize) -> String {
        let names = (0..classes).map(|number| format!("class {number}")).collect();
        let row = |number: usize| (0..classes).map(|column| if column == number { 9.0 } else { 1.0 }).collect();
        let mut html = Html::default();
        matrix(&mut html, &ConfusionMatrix::new(names, (0..classes).map(row).collect()).unwrap());
        html.finish()
    }

    #[test]
    fn a_field_is_as_strong_as_its_part_of_the_row() {
        let small = text(2);
        assert!(
            small.contains("<td class=\"h7\">9</td><td class=\"h1\">1</td><td class=\"soft\">90 %</td>"),
            "{small}"
        );
        assert_eq!([(0.0, 0.0), (1.0, 1.0), (0.1, 10.0)].map(|(count, sum)| shade(count, sum)), ["h0", "h7", "h1"]);
    }

    #[test]
    fn many_classes_are_told_by_their_mistakes() {
        let large = text(1000);
        assert!(large.contains("The matrix has 1000 classes") && large.len() < 4000, "{}", large.len());
    }

    #[test]
    fn what_is_no_matrix_of_counts_is_refused() {
        let classes = || vec!["a".to_owned(), "b".to_owned()];
        for counts in [
            vec![vec![1.0, 2.0]],
            vec![vec![1.0], vec![2.0]],
            vec![vec![1.0, -1.0], vec![0.0, 0.0]],
            vec![vec![f64::NAN, 0.0]; 2],
        ] {
            assert_eq!(ConfusionMatrix::new(classes(), counts), None);
        }
        assert_eq!(ConfusionMatrix::new(Vec::new(), Vec::new()), None);
    }
}
