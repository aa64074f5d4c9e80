//! Places of the keys and values in the text of a manifest, and its syntax errors. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::finding::ManifestFinding;

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

/// The manifest's text with the place of each key.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By path; of an entry of an object the place of its key, of an entry of a list that of its value.
    known: BTreeMap<String, Place>,
}

/// Reads the text.
///
/// # Errors
/// Each mistake: the first one of the syntax, or all keys that an object has twice.
pub(super) fn parse(text: &str) -> Result<(Value, Places), Vec<ManifestFinding>> {
    let value = serde_json::from_str(text).map_err(|error| vec![wrong_syntax(text, &error)])?;
    let start = Place { line: 1, column: 1 };
    let mut scan = Scan { text, at: 0, told: (0, start), places: Places::default(), doubled: Vec::new() };
    scan.value("");
    if scan.doubled.is_empty() { Ok((value, scan.places)) } else { Err(scan.doubled) }
}

fn wrong_syntax(text: &str, error: &serde_json::Error) -> ManifestFinding {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let before = line.get(..error.column().saturating_sub(1)).unwrap_or(line);
    let rest = line.get(before.len()..).unwrap_or_default();
    let hint = if rest.starts_with(['/', '#']) {
        "; JSON has no comments: remove them"
    } else if said.contains("trailing comma") {
        "; remove the comma before the closing bracket"
    } else {
        ""
    };
    let message = format!("the file is not JSON: {said}{hint}");
    ManifestFinding { line: error.line(), column: before.chars().count() + 1, key: String::new(), message }
}

/// The path of an entry. A name with a dot, and an empty one, is in quotes.
pub(crate) fn join(path: &str, name: &str) -> String {
    let name = if name.is_empty() || name.contains(['.', '"']) { format!("{name:?}") } else { name.to_owned() };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

impl Places {
    /// A finding at the key, or at the nearest object around it that is in the text.
    pub(super) fn finding(&self, key: &str, message: impl Into<String>) -> ManifestFinding {
        let near = key.get(..self.known_part(key)).and_then(|near| self.known.get(near));
        let Place { line, column } = near.copied().unwrap_or(Place { line: 1, column: 1 });
        ManifestFinding { line, column, key: key.to_owned(), message: message.into() }
    }

    /// The length of the longest part of the path that is in the text: the whole, or an object around it.
    pub(super) fn known_part(&self, key: &str) -> usize {
        let mut near = key;
        while !near.is_empty() && !self.known.contains_key(near) {
            near = near.rfind('.').and_then(|end| near.get(..end)).unwrap_or_default();
        }
        near.len()
    }
}

/// Walks text that is known to be JSON.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// The last position whose place was asked, from which the next one is counted.
    told: (usize, Place),
    places: Places,
    doubled: Vec<ManifestFinding>,
}

impl<'a> Scan<'a> {
    fn value(&mut self, path: &str) {
        match self.next() {
            Some('{') => self.entries(path, '}'),
            Some('[') => self.entries(path, ']'),
            Some('"') => drop(self.string()),
            _ => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                self.at += rest.find([',', '}', ']', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
            }
        }
    }

    /// The entries of an object or a list, up to the bracket that ends it.
    fn entries(&mut self, path: &str, end: char) {
        self.at += 1;
        let mut number = 0_usize;
        while let Some(next) = self.next() {
            if next == end {
                self.at += 1;
                return;
            }
            if next == ',' {
                self.at += 1;
                continue;
            }
            let place = self.place();
            let name = if end == ']' { number.to_string() } else { self.key() };
            number += 1;
            let path = join(path, &name);
            if self.places.known.insert(path.clone(), place).is_some() {
                let message = "the key is there twice in one object: remove one of them".to_owned();
                self.doubled.push(ManifestFinding {
                    line: place.line,
                    column: place.column,
                    key: path.clone(),
                    message,
                });
            }
            self.value(&path);
        }
    }

    /// The key of an entry, with its colon.
    fn key(&mut self) -> String {
        let key = serde_json::from_str(self.string()).unwrap_or_default();
        if self.next() == Some(':') {
            self.at += 1;
        }
        key
    }

    /// The text of a string, with its quotes.
    fn string(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let mut is_escaped = true;
        let end = rest.bytes().position(|byte| {
            let ends = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        });
        let string = rest.get(..=end.unwrap_or(0)).unwrap_or(rest);
        self.at += string.len().max(1);
        string
    }

    /// The next character that is no blank.
    fn next(&mut self) -> Option<char> {
        let rest = self.text.get(self.at..)?;
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at += blanks;
        rest.get(blanks..)?.chars().next()
    }

    fn place(&mut self) -> Place {
        let (from, mut place) = self.told;
        for character in self.text.get(from..self.at).unwrap_or_default().chars() {
            place = match character {
                '\n' => Place { line: place.line + 1, column: 1 },
                _ => Place { column: place.column + 1, ..place },
            };
        }
        self.told = (self.at, place);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, key: &str) -> (usize, usize) {
        let (_, places) = parse(text).unwrap();
        let finding = places.finding(key, "");
        (finding.line, finding.column)
    }

    #[test]
    fn every_key_and_entry_has_its_place() {
        let text = "{\r\n  \"a\": {\"b\\u0063\" : [1, \"x\\\\\", {\"ä\": \"]\\\"\", \"d\": null}]},\n\t\"e\": -1.5e3}";
        assert_eq!(at(text, "a"), (2, 3));
        assert_eq!(at(text, "a.bc"), (2, 9));
        assert_eq!(at(text, "a.bc.1"), (2, 25));
        assert_eq!(at(text, "a.bc.2.d"), (2, 45));
        assert_eq!(at(text, "e"), (3, 2));
        assert_eq!(at(text, "a.missing.key"), (2, 3), "the object around it");
        assert_eq!(at(text, "missing"), (1, 1));
        assert_eq!(at("{\"a.b\": 1, \"a\": {\"b\": 2}}", "a.b"), (1, 18));
    }

    #[test]
    fn keys_that_are_there_twice_are_told_together() {
        assert_eq!(at("{\"\": {\"a\": 1}, \"a\": 2}", "a"), (1, 16), "an empty key has a path of its own");
        let findings = parse("{\"a\": 1,\n \"b\": {\"c\": 1, \"c\": 2},\n \"a\": 2}").unwrap_err();
        let told: Vec<_> = findings.iter().map(|one| (one.line, one.column, one.key.as_str())).collect();
        assert_eq!(told, [(2, 16, "b.c"), (3, 2, "a")]);
    }

    #[test]
    fn a_deep_file_is_an_error() {
        let findings = parse(&"[".repeat(1000)).unwrap_err();
        assert!(findings[0].message.contains("recursion limit"), "{findings:?}");
    }
}
