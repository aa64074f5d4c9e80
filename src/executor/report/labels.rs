//! Names of others as they are shown: short, in one line, and no two alike. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::parts::LONGEST_NAME;
use crate::base::plain;

/// Bytes of a long name's end that stay: labels of a metric differ there.
const END: usize = 36;
/// Between the front and the end of a long name.
const GAP: &str = "...";

/// Each name in one line of at most about `LONGEST_NAME` bytes, in the order of the names. A long one keeps its front and its end; those
/// that are still alike are numbered: `auc (2)`.
pub fn labels<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let (mut taken, mut numbers) = (BTreeSet::new(), BTreeMap::new());
    let mut label = |name: &str| {
        let short = shortened(name);
        let mut label = short.clone();
        while !taken.insert(key(&label)) {
            let number = numbers.entry(short.clone()).or_insert(1_u32);
            *number += 1;
            label = format!("{short} ({number})");
        }
        label
    };
    names.into_iter().map(&mut label).collect()
}

fn shortened(name: &str) -> String {
    let line = plain::line(name, usize::MAX);
    if line.len() <= LONGEST_NAME {
        return line;
    }
    let front = line.floor_char_boundary(LONGEST_NAME - END - GAP.len());
    let end = line.ceil_char_boundary(line.len() - END);
    format!("{}{GAP}{}", line.get(..front).unwrap_or_default(), line.get(end..).unwrap_or_default())
}

/// The label as the note has it, which replaces some characters.
fn key(label: &str) -> String {
    label.replace('`', "'").replace('|', "¦").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_shown_alike() {
        let long = |end: &str| {
            format!("auc{{dataset=\"validation-2026-11-29\",segment=\"customers_in_germany_without_contract_{end}\"}}")
        };
        let names = [
            long("a"),
            long("b"),
            format!("{}x{}", "a".repeat(90), "b".repeat(90)),
            format!("{}y{}", "a".repeat(90), "b".repeat(90)),
        ];
        let shown =
            labels(names.iter().map(String::as_str).chain(["f1", "same\nname", "same; name", "a|b", "a¦b", "f1"]));
        assert!(shown.iter().all(|label| label.len() <= LONGEST_NAME + 4 && !label.contains('\n')), "{shown:?}");
        assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), 10, "{shown:?}");
        assert_eq!(
            shown[0], "auc{dataset=\"validation-2026-11-29\",segme...mers_in_germany_without_contract_a\"}",
            "{shown:?}"
        );
        assert_eq!(shown[4..], ["f1", "same; name", "same; name (2)", "a|b", "a¦b (2)", "f1 (2)"]);
        assert_eq!(labels(["ü".repeat(100).as_str()])[0].chars().filter(|letter| *letter == 'ü').count(), 38);
    }

    #[test]
    fn many_names_alike_are_numbered_in_time() {
        let shown = labels(std::iter::repeat_n("x", 100_000));
        assert_eq!((shown[0].as_str(), shown[99_999].as_str()), ("x", "x (100000)"));
    }
}
