//! All mistakes of an operator's file, each with its line. Pure.
//!
//! The stages stop at the first mistake. Here the key with the mistake is taken out and the rest is judged again, until nothing is left to say.

use toml::de::DeTable;

use crate::base::failure::Failure;
use crate::config::key_lines::{KeyStep, line, line_of, locate};
use crate::config::operator_file;

/// Most mistakes of one file that are told.
const MOST: usize = 100;

/// One mistake.
#[derive(Debug)]
pub struct FileMistake {
    /// From 1. `None`: the key is missing, or no single line is wrong.
    pub line: Option<usize>,
    pub failure: Failure,
}

/// The mistakes of a file, in the order of its lines; those without a line come last.
pub fn all(text: &str) -> Vec<FileMistake> {
    let (_, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return errors.iter().take(MOST).map(|error| not_toml(text, error)).collect();
    }
    let Ok(mut table) = text.parse::<toml::Table>() else { return Vec::new() };
    let (mut faults, mut seen): (Vec<FileMistake>, Vec<String>) = (Vec::new(), Vec::new());
    while faults.len() < MOST {
        let Err(failure) = operator_file::parse_table(&table) else { break };
        let names: Vec<_> = failure.message().split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let Some(first) = names.first().cloned() else {
            faults.push(FileMistake { line: None, failure });
            break;
        };
        let path = names.iter().find_map(|name| locate(&table, name));
        // A key that was taken out for its mistake may be one that a file must have.
        if seen.contains(&first) {
            break;
        }
        faults.push(FileMistake { line: path.as_ref().and_then(|path| line_of(text, path)), failure });
        let is_changed = match &path {
            Some(path) => take_out(&mut table, path),
            None => put_in(&mut table, &first),
        };
        if !is_changed {
            break;
        }
        seen.push(first);
    }
    faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
    faults
}

fn not_toml(text: &str, error: &toml::de::Error) -> FileMistake {
    let failure = Failure::system(format!("this is not TOML: {}", error.message()))
        .hint("write text in double quotes, numbers without, and each key once in its section");
    FileMistake { line: Some(error.span().map_or(1, |span| line(text, span.start))), failure }
}

/// Takes a value out; one that every file must have becomes another. `false`: nothing was changed.
fn take_out(table: &mut toml::Table, path: &[KeyStep]) -> bool {
    let Some((KeyStep::Key(last), above)) = path.split_last() else { return false };
    let is = |at: usize, name: &str| path.get(at) == Some(&KeyStep::Key(name.to_owned()));
    if path.len() == 1 && (is(0, "storage") || is(0, "job")) {
        return put_in(table, last);
    }
    let stand_in = match above {
        [_] if is(0, "storage") && last == "bucket" => Some("a-bucket".to_owned()),
        [_, KeyStep::Index(index)] if is(0, "rules") && last == "name" => Some(format!("rule {index}")),
        _ => None,
    };
    let mut at = table;
    let mut steps = above.iter();
    while let Some(step) = steps.next() {
        let KeyStep::Key(name) = step else { return false };
        at = match (at.get_mut(name), steps.clone().next()) {
            (Some(toml::Value::Table(below)), _) => below,
            (Some(toml::Value::Array(items)), Some(KeyStep::Index(index))) => {
                steps.next();
                match items.get_mut(*index) {
                    Some(toml::Value::Table(below)) => below,
                    _ => return false,
                }
            }
            _ => return false,
        };
    }
    match stand_in {
        Some(text) => at.insert(last.clone(), text.clone().into()) != Some(text.into()),
        None => at.remove(last).is_some(),
    }
}

/// Puts in what every file must have.
fn put_in(table: &mut toml::Table, key: &str) -> bool {
    let bucket = || toml::Table::from_iter([("bucket".to_owned(), "a-bucket".into())]);
    match key {
        "storage" | "storage.bucket" => {
            table.insert("storage".to_owned(), bucket().into()).is_none_or(|before| before != bucket().into())
        }
        "job" => {
            table.insert("job".to_owned(), toml::Table::new().into()).is_none_or(|before| before.as_table().is_none())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(Option<usize>, String)> {
        all(text).into_iter().map(|fault| (fault.line, fault.failure.message().to_owned())).collect()
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "[aws]\nregion = \"eu-west-1a\"\nregoin = \"x\"\n[storage]\nbucket = \"s3://b\"\nprefix = \"/\"\n[job]\n\
                    instance_count = \"two\"\nsecurity_group_ids = [\"sg-1\"]\n[limits]\nlease_seconds = 1\n[metrics]\nfile = \"x\"\n\
                    [[rules]]\nname = \"\"\n[rules.match]\nprojects = [\"x\"]\n[[rules]]\nname = \"b\"\n[rules.allow]\nmax_cost = 3.0\ninstance_types = []\n";
        let lines: Vec<_> = told(text).into_iter().map(|(line, _)| line).collect();
        let expected = [2, 3, 5, 6, 8, 9, 11, 13, 15, 21, 22];
        assert_eq!(lines, expected.map(Some), "{:#?}", told(text));
    }

    #[test]
    fn a_sound_file_has_none_and_a_missing_key_has_no_line() {
        assert_eq!(told("[storage]\nbucket = \"b\"\n[job]\n"), []);
        let told = told("[trace]\nlive_copy = 3\n");
        let messages: Vec<_> = told.iter().map(|(line, message)| (*line, message.split(':').next().unwrap())).collect();
        assert_eq!(messages, [(Some(2), "`trace.live_copy`"), (None, "`storage`"), (None, "`job`")]);
    }

    #[test]
    fn each_line_that_is_no_toml_is_told() {
        let told = told("[storage\nbucket = b\n[job]\nx = 1 2\n");
        assert!(
            told.len() > 1 && told.iter().all(|(line, text)| line.is_some() && text.contains("not TOML")),
            "{told:?}"
        );
    }
}
