//! Keys of an operator's file: where one is, by the words that errors have for it, and in which line. Pure.

use toml::de::{DeTable, DeValue};

/// One step from a table or list to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyStep {
    Key(String),
    Index(usize),
}

/// The way to a key: `storage.bucket`, `rules[1].name`, `rules.all projects.match.refs` (by a rule's name), `rules.allow.roles` (of any rule),
/// `prices.ml.m5.large` (a name with dots). `None`: the file has no such key.
pub(super) fn locate(table: &toml::Table, key: &str) -> Option<Vec<KeyStep>> {
    // The longest name first: one name may begin with another.
    let mut names: Vec<_> = table.keys().filter(|name| key.starts_with(name.as_str())).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names.into_iter().find_map(|name| {
        let rest = key.strip_prefix(name.as_str())?;
        let mut path = vec![KeyStep::Key(name.clone())];
        path.extend(locate_in(table.get(name)?, rest)?);
        Some(path)
    })
}

fn locate_in(value: &toml::Value, rest: &str) -> Option<Vec<KeyStep>> {
    if rest.is_empty() {
        return Some(Vec::new());
    }
    match value {
        toml::Value::Table(table) => locate(table, rest.strip_prefix('.')?),
        toml::Value::Array(items) => {
            let through = |index: usize, rest: &str| {
                let mut path = vec![KeyStep::Index(index)];
                path.extend(locate_in(items.get(index)?, rest)?);
                Some(path)
            };
            if let Some((index, rest)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                return through(index.parse().ok()?, rest);
            }
            let named = |(index, item): (usize, &toml::Value)| {
                let name = item.get("name")?.as_str()?;
                through(index, rest.strip_prefix('.')?.strip_prefix(name)?)
            };
            let any = || (0..items.len()).find_map(|index| through(index, rest));
            items.iter().enumerate().find_map(named).or_else(any)
        }
        _ => None,
    }
}

/// The lines of a file's keys. The file is read once.
pub(super) struct KeyLines<'t> {
    /// `None` for a file that is not TOML.
    document: Option<toml::Spanned<DeTable<'t>>>,
    ends: LineEnds,
}

impl<'t> KeyLines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { document: DeTable::parse(text).ok(), ends: LineEnds::of(text) }
    }

    /// The line of a key, from 1. `None`: the file has no such key.
    pub(super) fn line_of(&self, path: &[KeyStep]) -> Option<usize> {
        let (mut at, mut start) = (None, 0);
        let mut table = Some(self.document.as_ref()?.get_ref());
        for step in path {
            let value = match step {
                KeyStep::Key(name) => {
                    let (key, value) = table?.iter().find(|(key, _)| key.get_ref() == name.as_str())?;
                    start = key.span().start;
                    value
                }
                KeyStep::Index(index) => {
                    let value = list(at?)?.get(*index)?;
                    start = value.span().start;
                    value
                }
            };
            at = Some(value.get_ref());
            table = value.get_ref().as_table();
        }
        Some(self.ends.line(start))
    }
}

/// Where each line of a text ends.
struct LineEnds(Vec<usize>);

impl LineEnds {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|end| *end < at) + 1
    }
}

fn list<'v>(value: &'v DeValue<'v>) -> Option<&'v toml::de::DeArray<'v>> {
    value.as_array()
}

/// The line of a byte, from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Every value of a file that is no table, with its key as `config show` writes it and its line, in the order of names. Reads the file once.
pub fn values(text: &str) -> Vec<(String, toml::Value, usize)> {
    let (Ok(table), Ok(document)) = (text.parse::<toml::Table>(), DeTable::parse(text)) else { return Vec::new() };
    let mut all = Values { ends: LineEnds::of(text), found: Vec::new() };
    all.collect_table("", &table, document.get_ref());
    all.found.sort_by(|one, other| one.0.cmp(&other.0));
    all.found
}

struct Values {
    ends: LineEnds,
    found: Vec<(String, toml::Value, usize)>,
}

impl Values {
    fn collect_table(&mut self, above: &str, table: &toml::Table, document: &DeTable<'_>) {
        for (name, place) in document {
            let Some(value) = table.get(name.get_ref().as_ref()) else { continue };
            let key = if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
            self.collect(key, value, place.get_ref(), name.span().start);
        }
    }

    fn collect(&mut self, key: String, value: &toml::Value, place: &DeValue<'_>, start: usize) {
        match (value, place) {
            (toml::Value::Table(table), DeValue::Table(document)) if !table.is_empty() => {
                self.collect_table(&key, table, document);
            }
            (toml::Value::Array(items), DeValue::Array(places)) if items.iter().any(toml::Value::is_table) => {
                for (index, (item, place)) in items.iter().zip(places.iter()).enumerate() {
                    self.collect(format!("{key}[{index}]"), item, place.get_ref(), place.span().start);
                }
            }
            _ => {
                self.found.push((key, value.clone(), self.ends.line(start)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[storage]\nbucket = \"b\"\n\n[[rules]]\nname = \"a\"\n[[rules]]\nname = \"all of.them\"\n[rules.match]\n\
                        projects = [\"x\"]\n[rules.allow]\nroles = [\"r\"]\n\n[prices]\n\"ml.m5.large\" = 1.0\n";

    #[test]
    fn a_key_has_its_line_by_each_of_its_names() {
        let table: toml::Table = TEXT.parse().unwrap();
        let lines = KeyLines::of(TEXT);
        for (key, line) in [
            ("storage", Some(1)),
            ("storage.bucket", Some(2)),
            ("rules[0].name", Some(5)),
            ("rules[1].name", Some(7)),
            ("rules.all of.them.match.projects", Some(9)),
            ("rules.allow.roles", Some(11)),
            ("prices.ml.m5.large", Some(14)),
            ("storage.prefix", None),
            ("storag", None),
            ("rules[7].name", None),
            ("", None),
        ] {
            assert_eq!(locate(&table, key).and_then(|path| lines.line_of(&path)), line, "{key}");
        }
    }

    /// 1,500 rules took more than a minute when each value read the file again.
    #[test]
    fn a_long_file_is_read_once() {
        let rule = |index: usize| format!("[[rules]]\nname = \"r{index}\"\n[rules.allow]\nmax_cost = 1.0\n");
        let rules = (0..1500).fold(String::new(), |rules, index| rules + &rule(index));
        let found = values(&rules);
        assert_eq!(found.len(), 3000);
        for (key, _, line) in found.iter().step_by(500) {
            let index: usize = key.split(['[', ']']).nth(1).unwrap().parse().unwrap();
            assert_eq!(*line, index * 4 + if key.ends_with("name") { 2 } else { 4 }, "{key}");
        }
    }

    #[test]
    fn values_have_their_keys_and_lines() {
        let keys: Vec<_> = values(TEXT).into_iter().map(|(key, _, line)| (key, line)).collect();
        let expected = [
            ("prices.ml.m5.large", 14),
            ("rules[0].name", 5),
            ("rules[1].allow.roles", 11),
            ("rules[1].match.projects", 9),
            ("rules[1].name", 7),
            ("storage.bucket", 2),
        ];
        assert_eq!(keys, expected.map(|(key, line)| (key.to_owned(), line)));
    }
}
