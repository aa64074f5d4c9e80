//! Reads the operator's file and checks it. Each error names the key or the path, and what to change.

use std::io::ErrorKind;
use std::path::Path;

use crate::base::failure::Failure;
use crate::config::check;
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
    let deserializer = toml::Deserializer::parse(text).map_err(|error| wrong_syntax(text, &error))?;
    let settings: Settings = serde_path_to_error::deserialize(deserializer)
        .map_err(|error| wrong_shape(&error.path().to_string(), error.inner().message()))?;
    let values = toml::from_str(text).map_err(|error| wrong_syntax(text, &error))?;
    judge(settings, &values)
}

/// Checks the file as a table, from which keys may have been taken.
pub(super) fn parse_table(table: &toml::Table) -> Result<Settings, Failure> {
    let settings: Settings = serde_path_to_error::deserialize(toml::Value::Table(table.clone()))
        .map_err(|error| wrong_shape(&error.path().to_string(), error.inner().message()))?;
    judge(settings, table)
}

fn judge(settings: Settings, values: &toml::Table) -> Result<Settings, Failure> {
    check::check(&settings)?;
    check::check_samples(values, settings.aws.endpoint_url.is_some())?;
    Ok(settings)
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
fn unreadable(path: &Path, kind: ErrorKind) -> String {
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
    let mut words = reason.to_owned();
    for (rust, plain) in TYPES {
        words = words.replace(rust, plain);
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
