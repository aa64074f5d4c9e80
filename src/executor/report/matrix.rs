//! A confusion matrix as a table; of one with many classes, the most frequent mistakes. Pure.

use super::html::Html;
use super::labels::labels;
use super::model::ConfusionMatrix;
use super::parts::{more, short};
use crate::base::human::human_number;

/// Most classes of a table; it has as many cells as the square.
const MOST_CLASSES: usize = 20;
/// Most mistakes of a matrix that is too large for a table.
const MOST_MISTAKES: usize = 20;
/// Classes of the style for shades, from nothing to a whole row.
const SHADES: [&str; 8] = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"];

/// Adds the matrix.
pub(super) fn matrix(html: &mut Html, matrix: &ConfusionMatrix) {
    if matrix.classes.len() > MOST_CLASSES {
        let text = format!("The matrix has {} classes.", matrix.classes.len());
        html.element("<p class=\"soft\">", &text, "</p>\n");
        return mistakes(html, matrix);
    }
    let form = Form::of(matrix);
    html.raw("<p class=\"soft\">Rows are the true classes, columns the predicted ones");
    html.raw(if form.has_names { ". " } else { ", which have the numbers of the rows. " });
    html.raw("The stronger the colour of a field, the larger its part of the row.</p>\n");
    html.raw("<div class=\"wide").raw(if form.paper.is_none() { " screen" } else { "" });
    html.raw("\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion matrix\">");
    html.raw(match form.paper {
        Some(Paper::Small) => "<table class=\"matrix small\">",
        Some(Paper::Plain) | None => "<table class=\"matrix\">",
    });
    table(html, matrix, form.has_names);
    html.raw("</table></div>\n");
    if form.paper.is_none() {
        html.raw("<div class=\"paper\"><p class=\"soft\">The table is too wide for paper.</p>\n");
        mistakes(html, matrix);
        html.raw("</div>\n");
    }
}

fn table(html: &mut Html, matrix: &ConfusionMatrix, has_names: bool) {
    html.raw("<thead><tr><th>true \\ predicted</th>");
    for (number, class) in (1..).zip(&matrix.classes) {
        html.element("<th scope=\"col\">", &if has_names { short(class) } else { number_of(number) }, "</th>");
    }
    html.raw("<th>right</th></tr></thead><tbody>\n");
    for (number, (class, row)) in matrix.classes.iter().zip(&matrix.counts).enumerate() {
        let sum: f64 = row.iter().sum();
        let head = if has_names { short(class) } else { format!("{} {}", number_of(number + 1), short(class)) };
        html.element("<tr><th scope=\"row\">", &head, "</th>");
        for count in row {
            html.raw("<td class=\"").raw(shade(*count, sum)).element("\">", &human_number(*count), "</td>");
        }
        let right = row.get(number).filter(|_| sum > 0.0).map_or("-".to_owned(), |count| percent(*count, sum));
        html.element("<td class=\"soft\">", &right, "</td></tr>\n");
    }
    html.raw("</tbody>");
}

fn number_of(number: usize) -> String {
    number.to_string()
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
    if found.is_empty() {
        html.raw("<p class=\"soft\">There are no mistakes.</p>\n");
        return;
    }
    found.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    html.raw("<p class=\"soft\">The most frequent mistakes:</p>\n");
    html.raw(
        "<table class=\"stack\"><thead><tr><th>True class</th><th>Predicted</th><th>Times</th></tr></thead><tbody>\n",
    );
    for (count, truth, predicted) in found.iter().take(MOST_MISTAKES) {
        html.element("<tr><th>", &short(truth), "</th>");
        html.element("<td data-name=\"Predicted\">", &short(predicted), "</td>");
        html.element("<td data-name=\"Times\" class=\"n\">", &human_number(*count), "</td></tr>\n");
    }
    html.raw("</tbody></table>\n");
    more(html, found.len(), MOST_MISTAKES, "kinds of mistakes");
}

/// How a table of a matrix is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    /// The columns have the names of the classes, else their numbers.
    has_names: bool,
    /// `None` when paper is too narrow.
    paper: Option<Paper>,
}

/// Size of the letters on paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paper {
    Plain,
    Small,
}

/// Widths in pixels: of A4 and Letter without their margins; of a digit, and the room around a field, in both sizes of `model.css`.
const PAPER: usize = 690;
const PLAIN: (usize, usize) = (8, 13);
const SMALL: (usize, usize) = (6, 7);
/// Letters of the widest head of a row, as `model.css` bounds it, and of the last column.
const MOST_HEAD: usize = 20;
const RIGHT: usize = 6;

impl Form {
    fn of(matrix: &ConfusionMatrix) -> Self {
        let counts: Vec<usize> = (0..matrix.classes.len())
            .map(|column| {
                matrix.counts.iter().filter_map(move |row| row.get(column)).map(|count| human_number(*count).len())
            })
            .map(|widths| widths.max().unwrap_or(1).max(2))
            .collect();
        let names: Vec<usize> = matrix.classes.iter().map(|class| letters(class)).collect();
        let head = names.iter().copied().max().unwrap_or(0).clamp(16, MOST_HEAD);
        let fits = |columns: usize, (letter, room): (usize, usize)| {
            (columns + head + RIGHT) * letter + (counts.len() + 2) * room <= PAPER
        };
        let with_names = counts.iter().zip(&names).map(|(count, name)| *count.max(name)).sum();
        let with_numbers = counts.iter().sum();
        if fits(with_names, PLAIN) {
            Self { has_names: true, paper: Some(Paper::Plain) }
        } else if fits(with_numbers, PLAIN) {
            Self { has_names: false, paper: Some(Paper::Plain) }
        } else {
            Self { has_names: false, paper: fits(with_numbers, SMALL).then_some(Paper::Small) }
        }
    }
}

/// The width of a name in Latin letters; others are up to twice as wide.
fn letters(name: &str) -> usize {
    name.chars().map(|letter| if letter.is_ascii() { 1 } else { 2 }).sum()
}

fn shade(count: f64, sum: f64) -> &'static str {
    let share = if sum > 0.0 { (count / sum).clamp(0.0, 1.0) } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number from 0 to 7")]
    let number = (share * 7.0).ceil() as usize;
    SHADES.get(number).copied().unwrap_or("h0")
}

/// A share in percent, which is 100 and 0 for all and nothing alone.
fn percent(part: f64, whole: f64) -> String {
    let share = part / whole * 100.0;
    if part >= whole {
        "100 %".to_owned()
    } else if share >= 99.0 {
        format!("{:.1} %", ((share * 10.0).floor() / 10.0).min(99.9))
    } else if part > 0.0 && share < 1.0 {
        format!("{:.1} %", (share * 10.0).ceil() / 10.0)
    } else {
        format!("{share:.0} %")
    }
}

impl ConfusionMatrix {
    /// A matrix of numbers that are not negative, with a name for each class. `None` for other forms.
    pub fn new(classes: &[String], counts: Vec<Vec<f64>>) -> Option<Self> {
        let is_count = |count: &f64| (0.0..=1e15).contains(count);
        let is_whole = counts.iter().all(|row| row.len() == classes.len() && row.iter().all(is_count));
        let classes = labels(classes.iter().map(String::as_str));
        (is_whole && !classes.is_empty() && counts.len() == classes.len()).then_some(Self { classes, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(classes: usize) -> String {
        let names: Vec<String> = (0..classes).map(|number| format!("class {number}")).collect();
        let row = |number: usize| (0..classes).map(|column| if column == number { 9.0 } else { 1.0 }).collect();
        let mut html = Html::default();
        matrix(&mut html, &ConfusionMatrix::new(&names, (0..classes).map(row).collect()).unwrap());
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
        assert!(large.contains("The matrix has 1000 classes.") && large.len() < 4000, "{}", large.len());
        assert!(large.contains("998980 more kinds of mistakes."), "{large}");
    }

    #[test]
    fn a_table_fits_on_paper_or_is_told_by_its_mistakes() {
        let form = |classes: usize, name: &str, count: f64| {
            let names = vec![name.to_owned(); classes];
            let form = Form::of(&ConfusionMatrix { classes: names, counts: vec![vec![count; classes]; classes] });
            (form.has_names, form.paper)
        };
        assert_eq!(form(3, "great_white_shark", 1021.0), (true, Some(Paper::Plain)));
        assert_eq!(form(3, "大白鲨大白鲨大白鲨大白鲨大白鲨", 1021.0), (false, Some(Paper::Plain)));
        assert_eq!(form(15, "tench", 1021.0), (false, Some(Paper::Small)));
        assert_eq!(form(20, "tench", 1e6), (false, None));
        let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let mut html = Html::default();
        matrix(&mut html, &ConfusionMatrix::new(&names, vec![vec![1e6; 20]; 20]).unwrap());
        let page = html.finish();
        let table = page.find("<div class=\"wide screen\"").unwrap();
        let list = page.find("<div class=\"paper\">").unwrap();
        assert!(table < list && page.ends_with("</div>\n"), "{page}");
    }

    #[test]
    fn a_share_is_whole_only_when_it_is() {
        for (part, whole, text) in [
            (949.0, 952.0, "99.6 %"),
            (999_999.0, 1e6, "99.9 %"),
            (952.0, 952.0, "100 %"),
            (0.0, 9.0, "0 %"),
            (1.0, 1e9, "0.1 %"),
            (9.0, 10.0, "90 %"),
            (98.9, 100.0, "99 %"),
        ] {
            assert_eq!(percent(part, whole), text, "{part} of {whole}");
        }
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
            assert_eq!(ConfusionMatrix::new(&classes(), counts), None);
        }
        assert_eq!(ConfusionMatrix::new(&[], Vec::new()), None);
    }
}
