//! Compares the documentation and the operator's files with the code: keys, defaults, variables, permissions, commands,
//! links, the glossary.

mod book;
mod container;
mod emulator;
mod errors;
mod explain;
mod install;
pub(crate) mod jobs;
mod lifecycle;
mod observability;
pub(crate) mod packages;
mod policies;
mod releases;
mod statements;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use executor::base::exit_codes::TABLE;
use executor::base::failure::render;
use executor::config::job_variables::JOB_VARIABLES;
use executor::config::operator_file;
use executor::config::settings::{self, Settings};
use regex::Regex;

const OPERATOR_FILE: &str = "runner-config/sagemaker-executor.toml";
/// Keys of the example that have no default; all its other keys have the default value.
const EXAMPLE_ONLY: [&str; 3] = ["aws.region", "storage.bucket", "job.role_arn"];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of all tables, as cells; heads and rulers included.
fn rows(markdown: &str) -> Vec<Vec<String>> {
    let row = |line: &str| -> Option<Vec<String>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
    };
    markdown.lines().filter_map(row).collect()
}

/// The keys of `Settings`, from its error about an unknown key.
fn known_keys() -> BTreeSet<String> {
    let fields = |text: &str| -> Vec<String> {
        let error = toml::from_str::<Settings>(text).expect_err("the key does not exist").message().to_owned();
        let (_, expected) = error.split_once("expected ").unwrap_or_else(|| panic!("no list of fields in: {error}"));
        let name = Regex::new("`([a-z0-9_]+)`").unwrap();
        name.captures_iter(expected).map(|found| found[1].to_owned()).collect()
    };
    let sections = fields("no_such_key = 1");
    assert!(sections.len() > 3, "{sections:?}");
    let below = |header: &str, section: &str| {
        let keys = fields(&format!("{header}\nno_such_key = 1"));
        keys.into_iter().map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
    };
    let keys = |section: &String| match section.as_str() {
        // The keys are the operator's own.
        "prices" => Vec::new(),
        "rules" => {
            let tables = ["match", "allow"].map(|table| format!("rules.{table}"));
            let inner = tables.iter().flat_map(|table| below(&format!("[[rules]]\nname = \"x\"\n[{table}]"), table));
            let outer = below("[[rules]]", section).into_iter().filter(|key| !tables.contains(key));
            outer.chain(inner).collect()
        }
        _ => below(&format!("[{section}]"), section),
    };
    sections.iter().flat_map(keys).collect()
}

/// The operator's file with every commented key active.
fn all_active(text: &str) -> String {
    let key = Regex::new(r"(?m)^# ([a-z0-9_]+ = )").unwrap();
    key.replace_all(text, "$1").into_owned()
}

/// `section.key` with the value as it is written.
fn written_values(text: &str) -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut values = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            values.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    values
}

#[test]
fn the_table_of_job_variables_is_that_of_the_code() {
    let rows = rows(&read("docs/CONFIG.md"));
    let of_a_job =
        |row: &&Vec<String>| row[0].starts_with("`SAGEMAKER_") && !row[0].starts_with("`SAGEMAKER_EXECUTOR_");
    let documented: Vec<_> = rows.iter().filter(of_a_job).cloned().collect();
    let key = |policy: Option<&str>| policy.map_or("–".to_owned(), |key| format!("`{key}`"));
    let expected: Vec<Vec<String>> = JOB_VARIABLES
        .iter()
        .map(|variable| {
            vec![
                format!("`{}`", variable.name),
                variable.kind.to_owned(),
                variable.meaning.to_owned(),
                variable.default.to_owned(),
                key(variable.policy),
                format!("`{}`", variable.example),
            ]
        })
        .collect();
    assert_eq!(documented, expected);
    let (known, named) = (known_keys(), Regex::new("`(job\\.[a-z_]+)`").unwrap());
    for variable in JOB_VARIABLES {
        assert!(variable.policy.is_none_or(|key| known.contains(&format!("rules.allow.{key}"))), "{}", variable.name);
        for found in named.captures_iter(variable.default) {
            assert!(known.contains(&found[1]), "{}: {}", variable.name, &found[1]);
        }
    }
}

#[test]
fn every_key_is_documented_with_its_default() {
    let rows = rows(&read("docs/CONFIG.md"));
    let key = Regex::new(r"^`([a-z_]+(?:\.[a-z_]+)+)`$").unwrap();
    let documented: BTreeMap<String, String> =
        rows.iter().filter_map(|row| Some((key.captures(&row[0])?[1].to_owned(), row.get(2)?.clone()))).collect();
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), known_keys());
    for (key, value) in written_values(&read(OPERATOR_FILE)) {
        if !EXAMPLE_ONLY.contains(&key.as_str()) && !key.starts_with("rules.") {
            assert_eq!(documented[&key], format!("`{value}`"), "the default of {key}");
        }
    }
}

#[test]
fn the_operators_example_holds_every_key_and_the_real_defaults() {
    let text = read(OPERATOR_FILE);
    let complete = all_active(&text);
    toml::from_str::<Settings>(&complete).expect("every commented key can be used as it stands");
    assert_eq!(written_values(&complete).into_keys().collect::<BTreeSet<_>>(), known_keys());

    let mut loaded: Settings = toml::from_str(&text).expect("the example has every key it needs");
    assert_eq!(std::mem::take(&mut loaded.rules).len(), 1, "without a rule no job could choose an instance type");
    let values = written_values(&text);
    let mut minimal = toml::Table::new();
    for name in EXAMPLE_ONLY {
        let (section, key) = name.split_once('.').unwrap();
        let value = toml::from_str::<toml::Table>(&format!("{key} = {}", values[name])).unwrap();
        let section = minimal.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().unwrap().extend(value);
    }
    let minimal = toml::to_string(&minimal).unwrap();
    let minimal: Settings = toml::from_str(&minimal).unwrap();
    assert_eq!(format!("{loaded:#?}"), format!("{minimal:#?}"));
}

/// The sample's first lines and the README name the same keys; as shipped the file is refused for those whose sample value can be told.
#[test]
fn the_sample_and_the_readme_agree_on_what_must_be_changed() {
    let (sample, readme) = (read(OPERATOR_FILE), read("README.md"));
    let key = Regex::new("`([a-z]+\\.[a-z_]+)`").unwrap();
    let keys = |line: Option<&str>| -> BTreeSet<String> {
        key.captures_iter(line.expect("a line names them")).map(|found| found[1].to_owned()).collect()
    };
    let named = keys(sample.lines().find(|line| line.contains("must be changed")));
    assert_eq!(named, BTreeSet::from(EXAMPLE_ONLY.map(str::to_owned)));
    assert_eq!(
        named,
        keys(readme.lines().find(|line| line.starts_with("3. Copy `runner-config/sagemaker-executor.toml`")))
    );
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        let path = folder.path().join("operator.toml");
        std::fs::write(&path, text).unwrap();
        operator_file::load(&path).map_err(|error| render(&error))
    };
    assert!(load(&sample).unwrap_err().contains("`storage.bucket` still has the sample's value"));
    let with_bucket = sample.replace("example-ci-sagemaker", "ci-bucket");
    assert!(load(&with_bucket).unwrap_err().contains("`job.role_arn` still has the sample's value"));
    load(&with_bucket.replace("123456789012:role/ci-training", "210987654321:role/ci-training")).unwrap();
}

#[test]
fn usable_operator_files_are_accepted() {
    for path in files("tests/fixtures/operator-files/valid") {
        if let Err(error) = operator_file::load(&path) {
            panic!("{}: {}", path.display(), render(&error));
        }
    }
}

/// The first line of each file is a comment with what the error must say.
#[test]
fn unusable_operator_files_are_refused_with_a_reason() {
    for path in files("tests/fixtures/operator-files/invalid") {
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# ").expect("the first line says what is expected");
        let error = operator_file::load(&path).expect_err(&format!("{} is refused", path.display()));
        let text = render(&error);
        assert!(text.contains(expected), "{}: expected `{expected}` in:\n{text}", path.display());
        assert!(text.contains(path.to_str().unwrap()), "the file is named: {text}");
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 2, "{folder} holds too few files to prove anything");
    files
}

#[test]
fn the_runners_configuration_names_our_calls() {
    let config: toml::Table = toml::from_str(&read("runner-config/config.toml")).unwrap();
    let runner = &config["runners"][0];
    assert_eq!(runner["executor"].as_str(), Some("custom"));
    let custom = &runner["custom"];
    for stage in ["config", "prepare", "run", "cleanup"] {
        assert!(custom[&format!("{stage}_exec")].as_str().unwrap().ends_with("/sagemaker-executor"), "{stage}");
        let arguments: Vec<_> =
            custom[&format!("{stage}_args")].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        assert_eq!(arguments, ["--config", settings::DEFAULT_PATH, stage]);
    }
    let seconds = |value: &toml::Value| value.as_integer().unwrap();
    let graceful = seconds(&custom["graceful_kill_timeout"]);
    // After a job timeout the runner waits 300 s for a stage and then cleans up beside it.
    assert!(graceful + seconds(&custom["force_kill_timeout"]) < 300);
    assert!(seconds(&config["shutdown_timeout"]) > graceful);
    let loaded: Settings = toml::from_str(&read(OPERATOR_FILE)).unwrap();
    assert!(i64::try_from(loaded.limits.cancel_grace_seconds).unwrap() < graceful);
    assert_eq!(runner["shell"].as_str(), Some(loaded.runner.shell.as_str()));
    assert_eq!(runner["feature_flags"]["FF_POSIXLY_CORRECT_ESCAPES"].as_bool(), Some(false));
}

#[test]
fn the_bucket_rules_spare_running_jobs() {
    let rules: serde_json::Value = serde_json::from_str(&read("runner-config/bucket-lifecycle.json")).unwrap();
    let mut prefixes = BTreeSet::new();
    let mut of_versions = Vec::new();
    for rule in rules["Rules"].as_array().unwrap() {
        let prefix = rule["Filter"]["Prefix"].as_str().unwrap().to_owned();
        if let Some(days) = rule["NoncurrentVersionExpiration"]["NoncurrentDays"].as_u64() {
            assert_eq!(rule["Expiration"]["ExpiredObjectDeleteMarker"], true, "{rule}");
            of_versions.push((prefix, days));
            continue;
        }
        // A training job runs 28 days at most. It reads the project once, when it starts, and senders count on what is younger
        // than 7 days.
        let least = if prefix.ends_with("/projects/") { 7 } else { 28 };
        assert!(rule["Expiration"]["Days"].as_u64().unwrap() > least, "{rule}");
        prefixes.insert(prefix);
    }
    let prefix = toml::from_str::<Settings>(&read(OPERATOR_FILE)).unwrap().storage.prefix;
    assert_eq!(
        prefixes,
        BTreeSet::from(["agents", "output", "projects", "sessions"].map(|part| format!("{prefix}/{part}/")))
    );
    assert_eq!(of_versions, [(format!("{prefix}/"), 1)]);
}

#[test]
fn the_commands_of_the_readme_exist() {
    let readme = read("README.md");
    let command = Regex::new(r"(?m)^(\.ci/[a-z]+)( .*)?$").unwrap();
    let commands: BTreeSet<_> = command.captures_iter(&readme).map(|found| found[1].to_owned()).collect();
    assert_eq!(commands, BTreeSet::from([".ci/demo", ".ci/setup", ".ci/test"].map(str::to_owned)));
    for name in [".ci/advisories", ".ci/compiler", ".ci/demo", ".ci/python", ".ci/setup", ".ci/test", ".ci/run"] {
        let mode = std::fs::metadata(root().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} is executable");
    }
    assert!(read(".ci/run").ends_with("exec .ci/test\n"), "CI runs what the README tells");
    let script = Regex::new(r"try -- sh (\S+)").unwrap();
    let script = &script.captures(&readme).expect("the README tries a script")[1];
    assert!(root().join(script).is_file(), "{script}");
}

#[test]
fn links_between_the_files_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#:\s]+)(#[^)]*)?\)").unwrap();
    let mut pages = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for path in files("docs") {
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    let mut dead = Vec::new();
    let mut seen = BTreeSet::new();
    for page in &pages {
        let folder = root().join(page);
        let folder = folder.parent().unwrap();
        for found in link.captures_iter(&read(page.to_str().unwrap())) {
            let target = folder.join(&found[1]);
            match target.canonicalize() {
                Ok(path) => drop(seen.insert(path)),
                Err(_) => dead.push(format!("{}: {}", page.display(), &found[1])),
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
    for page in &pages[2..] {
        assert!(seen.contains(&root().join(page).canonicalize().unwrap()), "no page leads to {}", page.display());
    }
}

/// Files that the documentation names in backquotes exist.
#[test]
fn files_that_are_named_exist() {
    let name = Regex::new(r"`((?:src|tests|docs|runner-config|ci-templates|\.ci)/[A-Za-z0-9_./-]+)`").unwrap();
    let mut missing = Vec::new();
    let pages = files("docs").into_iter().chain([root().join("README.md"), root().join("CHANGELOG.md")]);
    for page in pages.filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        for found in name.captures_iter(&text) {
            if !root().join(&found[1]).exists() {
                missing.push(format!("{}: {}", page.display(), &found[1]));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_exit_codes_of_commands_are_those_of_the_code() {
    let text = read("docs/EXIT-CODES.md");
    let section = text.split("## Commands typed by hand").nth(1).unwrap();
    let rows: Vec<String> = section.lines().filter(|line| line.starts_with("| ")).skip(2).map(str::to_owned).collect();
    let code: Vec<String> = TABLE.iter().map(|(code, meaning)| format!("| {code} | {meaning} |")).collect();
    assert_eq!(rows, code);
}

/// The names of an enum's variants, as they stand in its source.
fn variants(source: &str, name: &str) -> Vec<String> {
    let (_, body) = source.split_once(&format!("pub enum {name}")).unwrap_or_else(|| panic!("no enum {name}"));
    let (body, _) = body.split_once("\n}\n").expect("an enum has an end");
    let variant = Regex::new(r"(?m)^    ([A-Z]\w+)").unwrap();
    variant.captures_iter(body).map(|found| found[1].to_owned()).collect()
}

#[test]
fn the_states_and_events_of_a_session_are_those_of_the_code() {
    let source =
        ["state", "event", "current_run"].map(|name| read(&format!("src/executor/session/{name}.rs"))).concat();
    let rows = rows(&read("docs/ARCHITECTURE.md"));
    for part in ["Creation", "RunStep", "ResultsState"] {
        let row = rows.iter().find(|row| row[0].starts_with(&format!("`{part}`"))).unwrap_or_else(|| panic!("{part}"));
        let states: Vec<_> = variants(&source, part).iter().map(|name| format!("`{name}`")).collect();
        assert_eq!(row[1], states.join(", "), "{part}");
    }
    let (_, saved) = source.split_once("pub fn saved").expect("each event tells how soon it is saved");
    let arm = Regex::new(r"((?:[\s|]*Self::\w+(?: \{ \.\. \}|\(_\))?)+) => Saved::(\w+)").unwrap();
    let event = Regex::new(r"Self::(\w+)").unwrap();
    let mut coded = BTreeMap::new();
    for found in arm.captures_iter(saved) {
        for name in event.captures_iter(&found[1]) {
            coded.insert(name[1].to_owned(), found[2].to_owned());
        }
    }
    let plain = |cell: &str| cell.trim_matches('`').to_owned();
    let of_event = |row: &&Vec<String>| row.len() == 3 && ["`Later`", "`Now`", "`ForGood`"].contains(&row[2].as_str());
    let documented: Vec<_> = rows.iter().filter(of_event).map(|row| (plain(&row[0]), plain(&row[2]))).collect();
    let names: Vec<_> = documented.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, variants(&source, "SessionEvent"));
    assert_eq!(documented.into_iter().collect::<BTreeMap<_, _>>(), coded);
}

/// Each word leads to a file that defines the name beside it, or whose header has the word.
#[test]
fn the_words_of_the_glossary_lead_to_the_code() {
    let page = read("docs/ARCHITECTURE.md");
    let (_, glossary) = page.split_once("\n## Glossary\n").expect("there is a glossary");
    let rows = rows(glossary.split("\n## ").next().unwrap());
    let place = Regex::new(r"^(?:`(\w+)` in )?`([^`]+)`$").unwrap();
    let mut wrong = Vec::new();
    for row in rows.iter().skip(2) {
        let found = place.captures(&row[2]).unwrap_or_else(|| panic!("no file for {row:?}"));
        let Ok(text) = std::fs::read_to_string(root().join(&found[2])) else {
            wrong.push(format!("{}: there is no {}", row[0], &found[2]));
            continue;
        };
        let holds = if let Some(name) = found.get(1) {
            let item =
                Regex::new(&format!(r"\b(?:struct|enum|trait|type|fn|const|static) {}\b", name.as_str())).unwrap();
            item.is_match(&text)
        } else {
            let header: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
            header.join("\n").to_lowercase().contains(&row[0].to_lowercase())
        };
        if !holds {
            wrong.push(format!("{}: {} neither defines it nor heads it", row[0], &row[2]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let words: Vec<_> = rows.iter().skip(2).map(|row| row[0].to_lowercase()).collect();
    assert!(words.len() >= 30 && words.is_sorted(), "{words:?}");
}
