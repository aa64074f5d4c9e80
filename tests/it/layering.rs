//! Checks the layout of the code: which modules and packages may use each other, which files may read the environment or print,
//! and that no file is forgotten, too long or without a header. Reads sources as text.

mod files;
mod names;
mod partitions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// Each module of the executor with the modules that it may use; `docs/ARCHITECTURE.md` has the same table with reasons. The
/// modules of a shared folder are named one by one. The `Cargo.toml` of the packages hold what these may use.
const DIRECTION: &[(&str, &[&str])] = &[
    (
        "lifecycle",
        &[
            "base::arn",
            "base::backoff",
            "base::clock",
            "base::exit_codes",
            "base::failure",
            "base::files",
            "base::human",
            "base::plain",
            "base::process",
            "base::role_trust",
            "base::series",
            "base::signals",
            "boundary",
            "cloud",
            "config::env",
            "gitlab",
            "report",
            "secrets",
            "ui",
        ],
    ),
    ("base::failure", &[]),
    ("base::destination", &[]),
    ("base::exit_codes", &["base::failure"]),
    ("base::clock", &[]),
    ("base::descent", &[]),
    ("base::removal", &["base::descent"]),
    ("base::policy_statement", &[]),
    ("base::role_trust", &["base::policy_statement"]),
    ("base::signals", &[]),
    ("base::files", &[]),
    ("base::trusted_roots", &[]),
    ("base::privacy", &[]),
    ("base::process", &["base::failure"]),
    ("base::human", &[]),
    ("base::metric", &[]),
    ("base::series", &[]),
    ("base::names", &[]),
    ("base::plain", &[]),
    ("base::arn", &[]),
    ("base::backoff", &[]),
    ("base::node", &[]),
    ("base::stream", &["base::node"]),
    ("base::seal", &["base::node"]),
    ("base::worker", &[]),
    ("config::accelerators", &[]),
    ("config::env", &["base::failure", "config::job_variables"]),
    ("config::job_variables", &[]),
    ("config::prices", &[]),
    ("config::rules", &[]),
    ("config::iam_patterns", &[]),
    ("config::settings", &["base::destination", "cloud", "config::env", "config::iam_patterns", "config::rules"]),
    ("config::forms", &["base::arn"]),
    ("config::input_channels", &["cloud", "protocol"]),
    (
        "config::check",
        &[
            "base::arn",
            "base::failure",
            "base::plain",
            "cloud",
            "config::forms",
            "config::iam_patterns",
            "config::input_channels",
            "config::rules",
            "config::settings",
            "protocol",
        ],
    ),
    ("config::operator_file", &["base::failure", "config::check", "config::key_lines", "config::settings"]),
    ("config::key_lines", &[]),
    ("config::faults", &["base::failure", "config::key_lines", "config::operator_file"]),
    ("config::schema", &[]),
    ("metrics", &["base::files"]),
    ("telemetry", &["base::clock", "config::settings", "metrics", "session", "ui"]),
    (
        "config::policy",
        &[
            "base::failure",
            "base::metric",
            "base::names",
            "cloud",
            "config::forms",
            "config::input_channels",
            "config::job_variables",
            "config::prices",
            "config::rules",
            "config::settings",
            "gitlab",
            "protocol",
            "secrets",
        ],
    ),
    ("gitlab", &["base::failure", "cloud"]),
    ("secrets", &["base::arn", "base::failure", "base::plain", "cloud"]),
    ("ui", &["base::clock", "base::failure", "base::files", "base::human", "base::plain"]),
    ("cloud", &["base::clock", "base::failure", "base::metric", "base::plain"]),
    (
        "iam",
        &[
            "base::arn",
            "base::failure",
            "cloud",
            "config::iam_patterns",
            "config::policy",
            "config::rules",
            "config::settings",
            "protocol",
            "session",
        ],
    ),
    ("logs", &["base::clock", "base::failure", "base::files", "base::node", "base::stream", "base::worker", "cloud"]),
    ("boundary", &["base::exit_codes", "base::failure", "base::signals", "ui"]),
    ("trace", &["base::failure", "base::node", "base::seal"]),
    ("protocol", &["base::arn", "base::failure", "base::metric", "base::node", "base::seal", "base::series"]),
    ("report", &["base::human", "base::plain", "base::series"]),
    (
        "workspace",
        &[
            "base::backoff",
            "base::descent",
            "base::failure",
            "base::files",
            "base::human",
            "base::names",
            "base::removal",
            "base::seal",
            "cloud",
            "protocol",
        ],
    ),
    (
        "agent",
        &[
            "base::backoff",
            "base::clock",
            "base::descent",
            "base::failure",
            "base::metric",
            "base::node",
            "base::process",
            "base::seal",
            "base::series",
            "base::signals",
            "cloud",
            "config::env",
            "protocol",
            "trace",
            "workspace",
        ],
    ),
    (
        "session",
        &[
            "base::arn",
            "base::backoff",
            "base::clock",
            "base::failure",
            "base::files",
            "base::human",
            "base::metric",
            "base::node",
            "base::plain",
            "base::seal",
            "base::signals",
            "base::stream",
            "base::trusted_roots",
            "base::worker",
            "cloud",
            "config::accelerators",
            "config::env",
            "config::policy",
            "config::prices",
            "config::settings",
            "gitlab",
            "logs",
            "metrics",
            "protocol",
            "report",
            "trace",
            "ui",
            "workspace",
        ],
    ),
    (
        "sandbox",
        &[
            "base::descent",
            "base::destination",
            "base::failure",
            "base::plain",
            "base::process",
            "base::removal",
            "config::env",
            "config::settings",
            "ui",
        ],
    ),
    (
        "stages",
        &[
            "base::arn",
            "base::clock",
            "base::failure",
            "base::files",
            "base::human",
            "base::metric",
            "base::names",
            "base::node",
            "base::process",
            "base::signals",
            "base::stream",
            "boundary",
            "cloud",
            "config::accelerators",
            "config::env",
            "config::job_variables",
            "config::operator_file",
            "config::policy",
            "config::settings",
            "gitlab",
            "metrics",
            "protocol",
            "sandbox",
            "secrets",
            "session",
            "telemetry",
            "ui",
            "workspace",
        ],
    ),
    (
        "operate",
        &[
            "base::arn",
            "base::clock",
            "base::failure",
            "base::files",
            "base::human",
            "base::plain",
            "base::policy_statement",
            "base::process",
            "base::role_trust",
            "base::signals",
            "boundary",
            "cloud",
            "config::env",
            "config::faults",
            "config::job_variables",
            "config::key_lines",
            "config::operator_file",
            "config::policy",
            "config::prices",
            "config::rules",
            "config::schema",
            "config::settings",
            "gitlab",
            "iam",
            "metrics",
            "protocol",
            "sandbox",
            "session",
            "telemetry",
            "ui",
        ],
    ),
];

/// Folders whose modules are named one by one in the table of directions.
const SHARED_ROOMS: &[&str] = &["base", "config"];
/// The folders of the packages.
const PACKAGES: &[&str] = &["src", "src/aws", "src/emulator", "src/executor", "src/gitlab"];
/// Calls of `std::env` outside `config/env.rs` that read no variable of the host, with their files.
const ENVIRONMENT_EXCEPTIONS: &[(&str, &str)] = &[
    ("build.rs", "var"),
    ("wiring.rs", "args_os"),
    ("executor/operate/try_job.rs", "current_dir"),
    ("executor/agent/shell.rs", "split_paths"),
];
/// Files besides `ui.rs` that own a standard stream: the agent writes frames to the container's log, the emulator prints its address, and the
/// build script speaks with Cargo.
const STREAM_EXCEPTIONS: &[(&str, &str)] = &[
    ("build.rs", "println"),
    ("executor/agent/stdio.rs", "stdout"),
    ("executor/agent/stdio.rs", "stderr"),
    ("emulator/lib.rs", "stdout"),
];
/// Files besides `base/clock.rs` that read the time of day: the emulator has a clock of its own, and two files compare it with the
/// times that the kernel gives to files.
const CLOCK_EXCEPTIONS: &[&str] =
    &["emulator/clock.rs", "executor/workspace/tree/stat.rs", "executor/workspace/send/files_cache.rs"];
/// Most lines of a file below `src` and below `tests`; split it before. Files of unit tests count as those below `tests`.
const MAX_LINES: (usize, usize) = (500, 600);

struct Source {
    /// Relative to its root, as `session/mod.rs`.
    name: String,
    text: String,
}

impl Source {
    /// Without comments and without the unit tests, which stand last.
    fn code(&self) -> String {
        let code = self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The module of the executor that the file belongs to: `session`, `base::failure`.
    fn module(&self) -> String {
        let mut parts = self.name.split(['/', '.']);
        let room = parts.next().unwrap_or_default();
        match parts.next() {
            Some(module) if SHARED_ROOMS.contains(&room) => format!("{room}::{module}"),
            _ => room.to_owned(),
        }
    }

    /// Whether it holds only tests.
    fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }
}

fn sources(root: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push(Source { name, text: std::fs::read_to_string(&path).unwrap() });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() > 2, "no sources below {}", root.display());
    found
}

/// Of the root package its own files alone.
fn package(root: &str) -> Vec<Source> {
    let mut all = sources(root);
    if root == "src" {
        all.retain(|file| !file.name.contains('/'));
    }
    all
}

/// The modules that follow `crate::`, alone or as the first level of a group.
fn used_modules(code: &str) -> BTreeSet<String> {
    let start = Regex::new(r"\bcrate::(\{)?").unwrap();
    let name = Regex::new(r"^\s*([a-z_0-9]+)(?:::([a-z_0-9]+|\{))?").unwrap();
    let mut modules = BTreeSet::new();
    let mut add = |text: &str| {
        let Some(found) = name.captures(text) else { return };
        let room = &found[1];
        modules.insert(match found.get(2) {
            Some(module) if SHARED_ROOMS.contains(&room) => format!("{room}::{}", module.as_str()),
            _ => room.to_owned(),
        });
    };
    for found in start.captures_iter(code) {
        let rest = &code[found.get(0).unwrap().end()..];
        if found.get(1).is_none() {
            add(rest);
            continue;
        }
        let (mut depth, mut item) = (1, 0);
        for (at, character) in rest.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && character == ',') {
                add(&rest[item..at]);
                item = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    modules
}

#[test]
fn groups_of_modules_are_read() {
    let code =
        "use crate::{cloud::{self, Cloud}, config::env,\n base::{failure}};\nlet x = crate::ui::line(crate::VERSION);";
    let expected = ["cloud", "config::env", "base::{", "ui"].map(str::to_owned);
    assert_eq!(used_modules(code), BTreeSet::from(expected));
}

#[test]
fn modules_use_each_other_in_one_direction() {
    let table: BTreeMap<&str, &[&str]> = DIRECTION.iter().copied().collect();
    let mut wrong = Vec::new();
    // Unit tests may play any part, in a file of their own as at the end of a module.
    for source in sources("src/executor").into_iter().filter(|source| !source.is_test()) {
        let module = source.module();
        if ["lib", "base::mod", "config::mod"].contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!("{}: the module `{module}` is not in the table of directions", source.name));
            continue;
        };
        for used in used_modules(&source.code()) {
            if used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: `{module}` may not use `{used}`", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Cargo enforces the direction between packages; this checks their `Cargo.toml`.
#[test]
fn packages_depend_on_each_other_in_one_direction() {
    for (package, ours, aws_crates) in [
        ("executor", &[][..], false),
        ("emulator", &[], false),
        ("aws", &["executor"], true),
        ("gitlab", &["executor"], false),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(package).join("Cargo.toml");
        let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for (name, _) in
            ["dependencies", "dev-dependencies"].iter().filter_map(|kind| manifest.get(*kind)?.as_table()).flatten()
        {
            let package_of_ours =
                ["sagemaker-executor", "executor", "aws", "emulator", "gitlab"].contains(&name.as_str());
            assert!(!package_of_ours || ours.contains(&name.as_str()), "{package} may not depend on {name}");
            assert!(aws_crates || !name.starts_with("aws-"), "{package} may not depend on {name}");
            assert!(package == "gitlab" || name != "reqwest", "{package} may not depend on {name}");
        }
    }
}

#[test]
fn the_table_of_directions_has_no_circle() {
    assert_no_circle(DIRECTION);
}

/// A module is done when all that it may use is done; `settings` takes plain types of the ports.
fn assert_no_circle(table: &[(&str, &[&str])]) {
    let mut left: BTreeMap<&str, &[&str]> = table.iter().copied().collect();
    while !left.is_empty() {
        let names: BTreeSet<&str> = left.keys().copied().collect();
        let before = left.len();
        left.retain(|_, uses| uses.iter().any(|used| names.contains(used)));
        assert!(left.len() < before, "a circle among {names:?}");
    }
}

#[test]
fn only_env_reads_the_environment() {
    let call = Regex::new(r"\bstd::env::([a-z_]+)|\benv::(vars|vars_os|var|var_os|set_var|remove_var|args)\(").unwrap();
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.name != "executor/config/env.rs" && !source.is_test()) {
        for found in call.captures_iter(&source.code()) {
            let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
            let excepted = ENVIRONMENT_EXCEPTIONS.contains(&(source.name.as_str(), name)) || name == "consts";
            if !excepted {
                wrong.push(format!("{}: {}", source.name, &found[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_clock_reads_the_time_of_day() {
    let call = Regex::new(r"\bSystemTime::now\b|/proc/uptime").unwrap();
    let reads = |source: &Source| call.is_match(&source.code()) && !source.is_test();
    let read: Vec<_> = sources("src").into_iter().filter(reads).map(|source| source.name).collect();
    let mut expected = [&["executor/base/clock.rs"], CLOCK_EXCEPTIONS].concat();
    expected.sort_unstable();
    assert_eq!(read, expected);
}

#[test]
fn only_ui_writes_to_people() {
    let print = Regex::new(r"\b(e?print(?:ln)?|dbg)!\s*[(\[{]|\bio::(stdout|stderr)\s*\(").unwrap();
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| !source.name.starts_with("executor/ui/") && !source.is_test()) {
        for found in print.captures_iter(&source.code()) {
            let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
            if !STREAM_EXCEPTIONS.contains(&(source.name.as_str(), name)) {
                wrong.push(format!("{}: {}", source.name, &found[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    let mut wrong = Vec::new();
    for root in ["src", "tests"] {
        for source in sources(root) {
            if !source.text.starts_with("//! ") {
                wrong.push(format!("{root}/{}: does not open with `//! `", source.name));
            }
            let lines = source.text.lines().count();
            let most = if root == "tests" || source.is_test() { MAX_LINES.1 } else { MAX_LINES.0 };
            if lines > most {
                wrong.push(format!("{root}/{}: {lines} lines; split it", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file that no `mod` line names is not compiled, and its tests never run.
#[test]
fn no_file_is_forgotten() {
    let mut wrong = Vec::new();
    for root in PACKAGES.iter().chain(&["tests/it"]) {
        let all = package(root);
        let texts: BTreeMap<&str, &str> = all.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
        for source in &all {
            let path = Path::new(&source.name);
            let Some((folder, module)) = place(path) else { continue };
            let parents = if folder.as_os_str().is_empty() {
                vec![PathBuf::from("lib.rs"), PathBuf::from("main.rs")]
            } else {
                vec![folder.with_extension("rs"), folder.join("mod.rs")]
            };
            let declared = Regex::new(&format!(r"(?m)^\s*(pub(\([a-z]+\))? )?mod {module};")).unwrap();
            let known =
                parents.iter().filter_map(|parent| texts.get(parent.to_str()?)).any(|text| declared.is_match(text));
            if !known {
                wrong.push(format!("{root}/{}: no `mod {module};` in its parent", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The folder of a module's parent and the module's name; `None` for the roots, and for the build script.
fn place(path: &Path) -> Option<(PathBuf, String)> {
    let folder = path.parent()?;
    match path.file_stem()?.to_str()? {
        "lib" | "main" | "build" if folder.as_os_str().is_empty() => None,
        "mod" => Some((folder.parent()?.to_owned(), folder.file_name()?.to_str()?.to_owned())),
        stem => Some((folder.to_owned(), stem.to_owned())),
    }
}
