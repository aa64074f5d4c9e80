//! All mistakes of an operator's file, each with its line. Pure.
//!
//! The stages stop at the first mistake. Here the key with the mistake is taken out and the rest is judged again, until nothing is left to say.
//! Rules are judged one by one before that, since a file may have many.

use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::base::failure::Failure;
use crate::config::key_lines::{KeyLines, KeyStep, line};
use crate::config::operator_file::{self, Misfit};

/// Most mistakes of one file that are told.
const MOST: usize = 100;

/// One mistake.
#[derive(Debug)]
pub struct FileMistake {
    /// From 1: of the key, or of the section in which one is missing. `None`: no line is wrong.
    pub line: Option<usize>,
    pub failure: Failure,
}

/// The mistakes of a file, in the order of its lines; those without a line come last.
#[derive(Debug)]
pub struct FileMistakes {
    pub found: Vec<FileMistake>,
    pub rest: Rest,
}

/// Mistakes of a file besides those that are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    /// Those that are told may hide others.
    MayBeHidden,
    /// There are more, of which nobody knows how many: the search ended at the first of them.
    NotTold,
}

/// Finds the mistakes.
pub fn all(text: &str) -> FileMistakes {
    let (_, errors) = DeTable::parse_recoverable(text);
    let mut found: Vec<FileMistake> = errors.iter().take(MOST).map(|error| not_toml(text, error)).collect();
    let mut rest = if errors.len() > MOST { Rest::NotTold } else { Rest::MayBeHidden };
    if found.is_empty() {
        (found, rest) = if let Ok(table) = text.parse() {
            let mut search = Search::of(text);
            search.run(table);
            (search.found, search.rest)
        } else {
            // A number that is too large for a value of TOML.
            let lines = KeyLines::of(text);
            let misfit = operator_file::parse_text(text).err();
            (misfit.map(|misfit| told(&lines, misfit)).into_iter().collect(), Rest::MayBeHidden)
        };
    }
    found.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
    FileMistakes { found, rest }
}

fn told(lines: &KeyLines<'_>, Misfit { path, failure }: Misfit) -> FileMistake {
    // A key that is missing has the line of the section in which it is.
    let line = (1..=path.len()).rev().find_map(|length| lines.line_of(path.get(..length)?));
    FileMistake { line, failure }
}

/// The search for the mistakes of one file.
struct Search<'t> {
    lines: KeyLines<'t>,
    found: Vec<FileMistake>,
    /// Ways to what was changed for its mistake.
    mended: Vec<Vec<KeyStep>>,
    rest: Rest,
    /// Times that the whole file was judged. For a file of many rules each takes long.
    whole: usize,
}

impl<'t> Search<'t> {
    fn of(text: &'t str) -> Self {
        Self { lines: KeyLines::of(text), found: Vec::new(), mended: Vec::new(), rest: Rest::Nothing, whole: 0 }
    }

    fn run(&mut self, mut table: toml::Table) {
        let mut rules_are_judged = false;
        // Each turn takes something out of the table or puts in what is missing, so that there are few without a new mistake.
        for _ in 0..4 * MOST {
            self.whole += 1;
            let Err(misfit) = operator_file::parse_table(&table) else { return };
            let of_rule =
                matches!(misfit.path.as_slice(), [KeyStep::Key(name), KeyStep::Index(_), ..] if name == "rules");
            if of_rule && !rules_are_judged {
                rules_are_judged = true;
                self.judge_rules(&mut table);
            } else if !self.mend(&mut table, misfit) {
                break;
            }
            if self.rest == Rest::NotTold {
                return;
            }
        }
        self.rest = Rest::MayBeHidden;
    }

    /// Notes a mistake and changes the table, so that the next one shows. `false`: nothing was changed.
    fn mend(&mut self, table: &mut toml::Table, misfit: Misfit) -> bool {
        if self.found.len() == MOST {
            self.rest = Rest::NotTold;
            return false;
        }
        let path = misfit.path.clone();
        // One that is there because another key was taken out goes with its section.
        let is_new = !self.mended.contains(&path);
        let place = if is_new { path.as_slice() } else { path.split_last().map_or(&[][..], |(_, above)| above) };
        if is_new {
            self.found.push(told(&self.lines, misfit));
        }
        if hides_others(table, place, is_new) {
            self.rest = Rest::MayBeHidden;
        }
        let is_changed = match at(table, place) {
            Some(_) => take_out(table, place),
            None => put_in(table, place),
        };
        self.mended.push(path);
        is_changed
    }

    /// Finds the mistakes of each rule by itself, and with an earlier one of its name: a mistake costs no look at all other rules then. What
    /// depends on still more of the file is left.
    fn judge_rules(&mut self, table: &mut toml::Table) {
        let Some(count) = table.get("rules").and_then(toml::Value::as_array).map(Vec::len) else { return };
        let mut small = base_of(table);
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for index in 0..count {
            loop {
                let Some(rule) = rule(table, index) else { return };
                let name = rule.get("name").and_then(toml::Value::as_str);
                let earlier = name.and_then(|name| self::rule(table, *names.get(name)?));
                let rules: Vec<_> = earlier.into_iter().chain([rule]).cloned().collect();
                let own = rules.len() - 1;
                small.insert("rules".to_owned(), rules.into());
                let Err(misfit) = operator_file::parse_table(&small) else { break };
                let Some(misfit) = of_rule(misfit, own, index) else { break };
                if !self.mend(table, misfit) {
                    break;
                }
            }
            if self.rest == Rest::NotTold {
                return;
            }
            let name = rule(table, index).and_then(|rule| rule.get("name")?.as_str());
            names.extend(name.map(|name| (name.to_owned(), index)));
        }
    }
}

fn rule(table: &toml::Table, index: usize) -> Option<&toml::Value> {
    table.get("rules")?.as_array()?.get(index)
}

/// The sections that the values of a rule are compared with, or stand-ins for them where they have mistakes of their own.
fn base_of(table: &toml::Table) -> toml::Table {
    let section = |name: &str| Some((name.to_owned(), table.get(name)?.clone()));
    let job = ("job".to_owned(), toml::Table::new().into());
    let own: toml::Table = ["aws", "storage", "prices"].into_iter().filter_map(section).chain([job.clone()]).collect();
    if operator_file::parse_table(&own).is_ok() {
        return own;
    }
    let one = |key: &str, value: toml::Value| toml::Value::from(toml::Table::from_iter([(key.to_owned(), value)]));
    let mut base = toml::Table::from_iter([job, ("storage".to_owned(), one("bucket", "a-bucket".into()))]);
    if table.contains_key("prices") {
        base.insert("prices".to_owned(), one("ml.m5.large", 1.0.into()));
    }
    if table.get("aws").is_some_and(|aws| aws.get("endpoint_url").is_some()) {
        base.insert("aws".to_owned(), one("endpoint_url", "http://127.0.0.1:1".into()));
    }
    base
}

/// A mistake in the rule `own` of a small file, as one of the rule `index` of the whole file. `None`: it is not in the rule's own keys.
fn of_rule(misfit: Misfit, own: usize, index: usize) -> Option<Misfit> {
    let Misfit { mut path, failure } = misfit;
    let [KeyStep::Key(section), KeyStep::Index(at), _, ..] = path.as_mut_slice() else { return None };
    if section != "rules" || *at != own {
        return None;
    }
    *at = index;
    let moved = |text: &str| text.replace(&format!("`rules[{own}]"), &format!("`rules[{index}]"));
    let hints = failure.hints().iter().map(|hint| moved(hint));
    let failure = hints.fold(Failure::system(moved(failure.message())), Failure::hint);
    Some(Misfit { path, failure })
}

/// `true` when what is taken out for its mistake may hold others.
fn hides_others(table: &toml::Table, path: &[KeyStep], is_new: bool) -> bool {
    match path.split_last() {
        Some((KeyStep::Key(_), _)) => {
            at(table, path).and_then(toml::Value::as_table).is_some_and(|section| section.len() > usize::from(is_new))
        }
        Some((KeyStep::Index(_), list)) if list != [KeyStep::Key("rules".to_owned())] => {
            at(table, list).and_then(toml::Value::as_array).is_some_and(|items| items.len() > 1)
        }
        _ => false,
    }
}

fn at<'t>(table: &'t toml::Table, path: &[KeyStep]) -> Option<&'t toml::Value> {
    let (first, rest) = path.split_first()?;
    let KeyStep::Key(name) = first else { return None };
    rest.iter().try_fold(table.get(name)?, |value, step| match step {
        KeyStep::Key(name) => value.get(name),
        KeyStep::Index(index) => value.get(*index),
    })
}

fn at_mut<'t>(table: &'t mut toml::Table, path: &[KeyStep]) -> Option<&'t mut toml::Value> {
    let (first, rest) = path.split_first()?;
    let KeyStep::Key(name) = first else { return None };
    rest.iter().try_fold(table.get_mut(name)?, |value, step| match step {
        KeyStep::Key(name) => value.get_mut(name),
        KeyStep::Index(index) => value.get_mut(*index),
    })
}

fn not_toml(text: &str, error: &toml::de::Error) -> FileMistake {
    let failure = Failure::system(format!("this is not TOML: {}", error.message()))
        .hint("write text in double quotes, numbers without, and each key once in its section");
    FileMistake { line: Some(error.span().map_or(1, |span| line(text, span.start))), failure }
}

/// Takes a value out, or puts another in its place where one has to be. `false`: nothing was changed.
fn take_out(table: &mut toml::Table, path: &[KeyStep]) -> bool {
    let Some((last, above)) = path.split_last() else { return false };
    let of_rules = above.first() == Some(&KeyStep::Key("rules".to_owned()));
    match last {
        KeyStep::Index(index) if of_rules && above.len() == 1 => mend_rule(table, *index),
        // One item of a list: the list has no value for its place.
        KeyStep::Index(_) => take_out(table, above),
        KeyStep::Key(name) => {
            let before = at(table, path).cloned();
            let is_removed = match at_mut(table, above) {
                Some(toml::Value::Table(section)) => section.remove(name).is_some(),
                Some(_) => false,
                None => table.remove(name).is_some(),
            };
            // Without any price no limit of the costs can be judged.
            if above.first() == Some(&KeyStep::Key("prices".to_owned())) {
                let price = at_mut(table, above).and_then(toml::Value::as_table_mut);
                price.map(|prices| prices.entry("ml.m5.large").or_insert(toml::Value::Float(1.0)));
            }
            let is_put_in = put_in(table, path);
            is_removed && !(is_put_in && at(table, path) == before.as_ref())
        }
    }
}

/// A rule that is none becomes one, and one that is not reached is: those before it match few jobs from now on.
fn mend_rule(table: &mut toml::Table, index: usize) -> bool {
    let Some(rules) = table.get_mut("rules").and_then(toml::Value::as_array_mut) else { return false };
    let few = toml::Table::from_iter([("projects".to_owned(), vec![toml::Value::from("a/project")].into())]);
    match rules.get_mut(index) {
        Some(toml::Value::Table(_)) => {
            let mut is_changed = false;
            for rule in rules.iter_mut().take(index).filter_map(toml::Value::as_table_mut) {
                is_changed |= rule.insert("match".to_owned(), few.clone().into()) != Some(few.clone().into());
            }
            is_changed
        }
        Some(rule) => {
            *rule = toml::Table::from_iter([("name".to_owned(), stand_in_name(index))]).into();
            true
        }
        None => false,
    }
}

/// A name that no rule of a file has.
fn stand_in_name(index: usize) -> toml::Value {
    format!("the rule {index} of this file, which has no usable name").into()
}

/// Puts in what every file must have. `false`: the key is no such one.
fn put_in(table: &mut toml::Table, path: &[KeyStep]) -> bool {
    let names: Vec<_> =
        path.iter().map(|step| if let KeyStep::Key(name) = step { name.as_str() } else { "" }).collect();
    match (names.as_slice(), path) {
        (["storage"] | ["storage", "bucket"], _) => {
            let storage = table.entry("storage").or_insert_with(|| toml::Table::new().into());
            let Some(storage) = storage.as_table_mut() else { return false };
            storage.insert("bucket".to_owned(), "a-bucket".into()).is_none()
        }
        (["job"], _) => table.insert("job".to_owned(), toml::Table::new().into()).is_none(),
        (["rules", "", "name"], [_, KeyStep::Index(index), _]) => {
            let rules = table.get_mut("rules").and_then(|rules| rules.get_mut(*index));
            let Some(rule) = rules.and_then(toml::Value::as_table_mut) else { return false };
            rule.insert("name".to_owned(), stand_in_name(*index)).is_none()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(Option<usize>, String)> {
        all(text).found.into_iter().map(|fault| (fault.line, fault.failure.message().to_owned())).collect()
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

    /// Lines of the mistakes, and that no other is hidden.
    fn lines(rest: &str) -> Vec<Option<usize>> {
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n{rest}");
        let told = all(&text);
        assert_eq!(told.rest, Rest::Nothing, "{text}\n{told:#?}");
        told.found.iter().map(|fault| fault.line).collect()
    }

    #[test]
    fn one_mistake_hides_no_other() {
        let missing = told("[limits]\nlease_seconds = 1\n[[rules]]\n[[rules]]\n[[rules]]\nname = \"\"\n");
        let missing: Vec<_> = missing.into_iter().map(|(line, _)| line).collect();
        assert_eq!(missing, [2, 3, 4, 4, 5, 6].map(Some).into_iter().chain([None, None]).collect::<Vec<_>>());
        for (name, rest, expected) in [
            (
                "a tick in a name",
                "[[rules]]\nname = \"a`b\"\n[rules.allow]\ninstance_types = []\nmax_cost = -3.0\n",
                &[7, 8][..],
            ),
            ("a tick in a key", "\"a`b\" = 1\n\"c`d\" = 2\n[limits]\nlease_seconds = \"x\"\n", &[4, 5, 7]),
            (
                "one name",
                "[[rules]]\nname = \"a\"\n[rules.match]\nprojects = [\"p\"]\n[[rules]]\nname = \"a\"\n[rules.allow]\nroles = []\n",
                &[9, 11],
            ),
            (
                "a rule that is not reached",
                "[[rules]]\nname = \"a\"\n[[rules]]\nname = \"b\"\n[rules.allow]\nroles = []\n[[rules]]\nname = \"c\"\n[rules.allow]\nregions = []\n",
                &[6, 9, 10, 13],
            ),
            (
                "a name with a dot",
                "[[rules]]\nname = \"a\"\n[rules.allow]\ninstance_types = [\"ml.x\"]\n[[rules]]\nname = \"a.allow\"\n[rules.match]\nprojects = [\"/x\"]\n[rules.allow]\nroles = []\n",
                &[8, 11, 13],
            ),
            (
                "no type in two rules",
                "[[rules]]\nname = \"a\"\nfoo = 1\n[[rules]]\nname = \"b\"\nfoo = 1\n",
                &[6, 7, 9],
            ),
            (
                "a sample in the second rule",
                "[[rules]]\nname = \"a\"\n[rules.match]\nrefs = [\"x\"]\n[[rules]]\nname = \"b\"\n[rules.match]\nrefs = [\"CHANGEME\"]\n",
                &[11],
            ),
            (
                "prices",
                "[[rules]]\nname = \"a\"\n[rules.allow]\nmax_cost = 1.0\n[prices]\n\"ml.m5.large\" = -1.0\nfoo = 2.0\n",
                &[9, 10],
            ),
        ] {
            assert_eq!(
                lines(rest),
                expected.iter().map(|line| Some(*line)).collect::<Vec<_>>(),
                "{name}: {:#?}",
                told(&format!("[storage]\nbucket = \"b\"\n[job]\n{rest}"))
            );
        }
    }

    /// A whole number that TOML's values cannot hold stopped the table before any key was judged.
    #[test]
    fn a_number_that_is_too_large_has_its_line() {
        let text = "[storage]\nbucket = \"b\"\n[job]\n[limits]\nlease_seconds = 99999999999999999999999\n";
        let told = all(text);
        assert!(told.rest == Rest::MayBeHidden && told.found.len() == 1 && told.found[0].line == Some(5), "{told:#?}");
    }

    /// Rules with mistakes of several kinds, each in the line after its name or four lines below.
    fn many(rules: usize, every: usize) -> String {
        let mistakes = ["foo = 1", "max_jobs = 0", "max_jobs = \"x\"", "max_cost = -1.0"];
        (0..rules).fold(
            "[storage]\nbucket = \"b\"\n[job]\n[prices]\n\"ml.m5.large\" = 1.0\n".to_owned(),
            |text, index| {
                let mistake =
                    if index % every == 0 { mistakes[index / every % mistakes.len()] } else { "max_retries = 1" };
                text + &format!(
                    "[[rules]]\nname = \"r{index}\"\nmatch.projects = [\"g/p{index}\"]\n[rules.allow]\n{mistake}\n"
                )
            },
        )
    }

    /// Each mistake used to cost a look at all rules: 100 in 1,500 rules took a minute.
    #[test]
    fn a_mistake_of_a_rule_costs_no_look_at_the_others() {
        let text = many(300, 3);
        let mut search = Search::of(&text);
        search.run(text.parse().unwrap());
        let found: Vec<_> = search.found.iter().map(|fault| (fault.line, fault.failure.message())).collect();
        assert_eq!((found.len(), search.rest, search.whole), (100, Rest::Nothing, 2), "{found:#?}");
        for (number, (line, message)) in found.iter().enumerate() {
            let index = number * 3;
            assert_eq!(*line, Some(6 + index * 5 + 4), "{message}");
            let is_named =
                message.contains(&format!("rules[{index}].")) || message.contains(&format!("rules.r{index}."));
            assert!(is_named, "{message}");
        }
    }

    #[test]
    fn a_name_that_many_rules_have_costs_no_look_at_the_others() {
        let text = many(60, 100).replace("name = \"r1", "name = \"r\" #");
        let mut search = Search::of(&text);
        search.run(text.parse().unwrap());
        let lines: Vec<_> = search.found.iter().map(|fault| fault.line).collect();
        // Of the eleven rules the first has the name.
        let expected = [0].into_iter().chain(10..20).map(|index| Some(index * 5 + if index == 0 { 10 } else { 7 }));
        assert_eq!((lines, search.whole), (expected.collect(), 2), "{:#?}", search.found);
    }

    #[test]
    fn more_mistakes_than_are_told_are_said_to_be_there() {
        for (rules, rest) in [(100, Rest::Nothing), (101, Rest::NotTold)] {
            let told = all(&many(rules, 1));
            assert_eq!((told.found.len(), told.rest), (100, rest));
        }
        assert_eq!(all(&"x = y\n".repeat(101)).rest, Rest::NotTold);
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
