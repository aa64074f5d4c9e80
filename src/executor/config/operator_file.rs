//! Reads the operator's file and checks it. Each error names the key or the path, and what to change.

use std::io::ErrorKind;
use std::path::Path;

use serde_path_to_error::Segment;

use crate::base::failure::Failure;
use crate::config::check::{self, Refusal};
use crate::config::key_lines::{KeyStep, locate};
use crate::config::settings::{DEFAULT_PATH, Settings};

/// Reads and checks the file.
pub fn load(path: &Path) -> anyhow::Result<Settings> {
    let text = read(path)?;
    parse(&text).map_err(|failure| {
        Failure::system(format!("the operator's file {} is not usable", path.display())).caused_by(failure).into()
    })
}

/// Reads and checks the file's text.
///
/// # Errors
/// Names the line that is not TOML, or the key to change.
pub fn parse(text: &str) -> Result<Settings, Failure> {
    parse_text(text).map_err(|misfit| misfit.failure)
}

/// A mistake, and the way to its key, which the file may not have.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) path: Vec<KeyStep>,
    pub(super) failure: Failure,
}

/// As [`parse`], with the way to the key.
pub(super) fn parse_text(text: &str) -> Result<Settings, Misfit> {
    let not_toml = |error: toml::de::Error| Misfit { path: Vec::new(), failure: wrong_syntax(text, &error) };
    let deserializer = toml::Deserializer::parse(text).map_err(not_toml)?;
    if let Ok(table) = text.parse() {
        refuse_lists(&table)?;
    }
    let settings: Settings = serde_path_to_error::deserialize(deserializer)
        .map_err(|error| misshapen(error.path(), error.inner().message()))?;
    let values = toml::from_str(text).map_err(not_toml)?;
    judge(settings, &values)
}

/// Checks the file as a table, from which keys may have been taken.
pub(super) fn parse_table(table: &toml::Table) -> Result<Settings, Misfit> {
    refuse_lists(table)?;
    let settings: Settings = serde_path_to_error::deserialize(toml::Value::Table(table.clone()))
        .map_err(|error| misshapen(error.path(), error.inner().message()))?;
    judge(settings, table)
}

fn judge(settings: Settings, values: &toml::Table) -> Result<Settings, Misfit> {
    let located = |Refusal { key, failure }: Refusal| Misfit { path: way_to(values, &key, &failure), failure };
    check::check(&settings).map_err(located)?;
    check::check_samples(values, settings.aws.endpoint_url.is_some()).map_err(located)?;
    Ok(settings)
}

/// The way to the key of a refusal. The file may have another key of the message instead, as of two that belong together.
fn way_to(values: &toml::Table, key: &str, failure: &Failure) -> Vec<KeyStep> {
    let mut others = failure.message().split('`').skip(1).step_by(2);
    let found = locate(values, key).or_else(|| others.find_map(|name| locate(values, name)));
    // The nearest table or list above it.
    let above = || key.rmatch_indices(['.', '[']).find_map(|(at, _)| locate(values, key.get(..at)?));
    found.or_else(above).unwrap_or_default()
}

/// Sections that are tables.
const SECTIONS: [&str; 13] = [
    "aws", "storage", "job", "runner", "limits", "trace", "results", "audit", "log", "metrics", "sandbox", "secrets",
    "iam",
];

/// Refuses a list in place of a table: serde would take its values for those of the keys, in an order that nobody knows.
fn refuse_lists(file: &toml::Table) -> Result<(), Misfit> {
    for section in SECTIONS {
        refuse_list(file.get(section), vec![KeyStep::Key(section.to_owned())])?;
    }
    let secrets = file.get("secrets").and_then(|secrets| secrets.get("allow"));
    let key = |name: &str| KeyStep::Key(name.to_owned());
    for (entries, place) in [(file.get("rules"), vec![key("rules")]), (secrets, vec![key("secrets"), key("allow")])] {
        for (index, entry) in entries.and_then(toml::Value::as_array).into_iter().flatten().enumerate() {
            let path = |names: &[&str]| {
                let steps = place.iter().cloned().chain([KeyStep::Index(index)]);
                steps.chain(names.iter().map(|name| key(name))).collect::<Vec<_>>()
            };
            refuse_list(Some(entry), path(&[]))?;
            refuse_list(entry.get("match"), path(&["match"]))?;
            refuse_list(entry.get("allow"), path(&["allow"]))?;
        }
    }
    Ok(())
}

fn refuse_list(value: Option<&toml::Value>, path: Vec<KeyStep>) -> Result<(), Misfit> {
    if !value.is_some_and(toml::Value::is_array) {
        return Ok(());
    }
    let name = words(&path);
    let failure = Failure::system(format!("`{name}`: invalid type: a list, expected a table"))
        .hint("write a section with single brackets, as in `[job]`; `docs/CONFIG.md` lists every key with its section and its type");
    Err(Misfit { path, failure })
}

/// `rules[1].match`.
fn words(path: &[KeyStep]) -> String {
    path.iter().fold(String::new(), |words, step| match step {
        KeyStep::Key(name) if words.is_empty() => name.clone(),
        KeyStep::Key(name) => format!("{words}.{name}"),
        KeyStep::Index(index) => format!("{words}[{index}]"),
    })
}

/// A key that is unknown or missing, or whose value has the wrong type.
fn misshapen(path: &serde_path_to_error::Path, reason: &str) -> Misfit {
    let mut steps: Vec<KeyStep> = path
        .iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(KeyStep::Key(key.clone())),
            Segment::Seq { index } => Some(KeyStep::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect();
    if steps.is_empty() || reason.starts_with("missing field") {
        steps.extend(reason.split('`').nth(1).map(|name| KeyStep::Key(name.to_owned())));
    }
    Misfit { path: steps, failure: wrong_shape(&path.to_string(), reason) }
}

/// Reads the file's text.
///
/// # Errors
/// A failure with a hint that names the file.
pub fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::system(format!("failed to read the operator's file {}", path.display()))
            .hint(unreadable(path, error.kind()))
            .caused_by(error)
    })
}

/// Hint for a file that cannot be read.
pub fn unreadable(path: &Path, kind: ErrorKind) -> String {
    if path.is_relative() {
        // The runner starts its drivers in a temporary folder.
        return "give `--config` an absolute path in all four `*_args` of `config.toml`".to_owned();
    }
    match kind {
        ErrorKind::PermissionDenied => {
            "let the user that GitLab Runner runs as read the file and enter the folders above it".to_owned()
        }
        ErrorKind::IsADirectory => "name the file in it with `--config`".to_owned(),
        ErrorKind::InvalidData => "save the file as UTF-8 text".to_owned(),
        _ => "create it from `runner-config/sagemaker-executor.toml`, readable by the runner's user, or name another with `--config`"
            .to_owned(),
    }
}

fn wrong_syntax(text: &str, error: &toml::de::Error) -> Failure {
    let line = error.span().map_or(0, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
    Failure::system(format!("line {line} is not TOML: {}", error.message()))
        .hint("write text in double quotes, numbers without, and each key once in its section")
}

/// Failure for a key that is unknown or missing, or whose value has the wrong type.
fn wrong_shape(path: &str, reason: &str) -> Failure {
    let quoted: Vec<&str> = reason.split('`').skip(1).step_by(2).collect();
    let name = quoted.first().copied().unwrap_or_default();
    let (section, key) = match path {
        "." => (None, name.to_owned()),
        path if reason.starts_with("missing field") => (Some(path), format!("{path}.{name}")),
        path => (path.rsplit_once('.').map(|(section, _)| section), path.to_owned()),
    };
    // A value that is meant for the containers may be a secret.
    let mut words = if key.starts_with("job.environment.") { without_value(reason) } else { reason.to_owned() };
    for (rust, plain) in TYPES {
        words = words.replace(rust, plain);
    }
    // Serde names the type of a section.
    if let Some((start, _)) = words.split_once("expected struct ") {
        words = format!("{start}expected a table");
    }
    let failure = Failure::system(format!("`{key}`: {words}"));
    if reason.starts_with("missing field") {
        let example = if name == "storage" { "storage.bucket" } else { &key };
        return failure
            .hint(format!("set `{example}` in the operator's file; `docs/CONFIG.md` says what belongs there"));
    }
    if RUNNERS_KEYS.contains(&key.as_str()) {
        let change =
            "this is GitLab Runner's own `config.toml`; `--config` in its `*_args` must name the operator's file";
        return failure.hint(format!("{change}, such as {DEFAULT_PATH}"));
    }
    let known =
        quoted.get(1..).unwrap_or_default().iter().max_by(|a, b| likeness(name, a).total_cmp(&likeness(name, b)));
    let failure = match known.filter(|known| reason.starts_with("unknown field") && likeness(name, known) > ALIKE) {
        Some(known) => {
            let section = section.map(|section| format!("{section}.")).unwrap_or_default();
            failure.hint(format!("did you mean `{section}{known}`?"))
        }
        None => failure,
    };
    failure.hint("`docs/CONFIG.md` lists every key with its section and its type")
}

/// `invalid type: integer, expected a string` for ``invalid type: integer `1`, expected a string``.
fn without_value(reason: &str) -> String {
    match (reason.find([' ', ':']), reason.rfind(", expected ")) {
        (Some(_), Some(end)) => {
            let (before, expected) = reason.split_at(end);
            let kind = before.split(['`', '"']).next().unwrap_or_default().trim_end();
            format!("{kind}{expected}")
        }
        _ => "the value does not fit".to_owned(),
    }
}

/// Likeness from which on a name may be a misspelling of another.
const ALIKE: f64 = 0.8;

fn likeness(name: &str, known: &str) -> f64 {
    strsim::jaro_winkler(name, known)
}

/// Plain names for the types in serde's messages.
const TYPES: [(&str, &str); 5] = [
    ("expected u32", "expected a whole number"),
    ("expected u64", "expected a whole number"),
    ("expected f64", "expected a number"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected a table"),
];

/// Top-level keys of the runner's `config.toml`.
const RUNNERS_KEYS: [&str; 7] =
    ["concurrent", "check_interval", "log_level", "log_format", "shutdown_timeout", "session_server", "runners"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_no_table() {
        let base = "[storage]\nbucket = \"b\"\n[job]\n";
        for (text, key) in [
            (format!("limits = []\n{base}"), "`limits`"),
            (format!("sandbox = [false]\n{base}"), "`sandbox`"),
            ("[storage]\nbucket = \"b\"\n[[job]]\nimage = \"x\"\n".to_owned(), "`job`"),
            (format!("{base}[[rules]]\nname = \"a\"\nallow = []\n"), "`rules[0].allow`"),
            (format!("{base}[secrets]\nallow = [[[], []]]\n"), "`secrets.allow[0]`"),
        ] {
            let message = parse(&text).unwrap_err().message().to_owned();
            assert!(message.contains(key) && message.contains("expected a table"), "{text}: {message}");
        }
        let schema: serde_json::Value = serde_json::from_str(crate::config::schema::SCHEMA).unwrap();
        let sections = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| !["rules", "prices"].contains(&name.as_str()));
        let mut known = SECTIONS.to_vec();
        known.sort_unstable();
        assert_eq!(sections.collect::<Vec<_>>(), known);
    }

    #[test]
    fn a_value_of_the_environment_is_not_told() {
        for value in ["4711", "[\"s3cret\"]", "true", "4.5"] {
            let text = format!("[storage]\nbucket = \"b\"\n[job]\n[job.environment]\nA = {value}\n");
            let message = parse(&text).unwrap_err().message().to_owned();
            assert!(message.contains("job.environment.A") && message.contains("expected a string"), "{message}");
            assert!(!message.contains(value.trim_matches(['[', ']'])), "{message}");
        }
    }

    #[test]
    fn mistakes_name_their_key() {
        for (text, key) in [
            ("[storage]\nbucket = \"b\"\n[job]\nrole = \"x\"\n", "unknown field `role`"),
            ("[storage]\nbucket = 3\n[job]\n", "`storage.bucket`"),
            ("[job]\n", "missing field `storage`"),
            ("[storage]\nbucket = \"b\"\n[job]\ninstance_count = \"two\"\n", "`job.instance_count`"),
            ("[storage]\nbucket = \"b\"\n[job]\nsubnets = [\"s\"]\n", "`job.subnets`"),
            ("[storage]\nbucket = \"b\"\n[job]\n[runner]\nbuilds_dir = \"x\"\n", "`runner.builds_dir`"),
            (
                "[storage]\nbucket = \"b\"\n[job]\n[trace]\nlog_requests_per_second = 0\n",
                "`trace.log_requests_per_second`",
            ),
            (
                "[storage]\nbucket = \"b\"\n[job]\n[trace]\nlog_requests_per_second = nan\n",
                "`trace.log_requests_per_second`",
            ),
            ("[storage\n", "line 1"),
        ] {
            let error = crate::base::failure::render(&parse(text).unwrap_err().into());
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
