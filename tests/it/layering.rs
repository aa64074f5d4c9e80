//! Holds the layout: which module may use which, who may speak to AWS, to the environment and to people, and that no
//! file is forgotten, headless or too long. Reads sources as text; knows nothing of types.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// Each module with the modules that it may use; the same table stands in words in `docs/ARCHITECTURE.md`.
const DIRECTION: &[(&str, &[&str])] = &[
    ("failure", &[]),
    ("signals", &[]),
    ("process", &["failure"]),
    ("names", &[]),
    ("env", &["failure"]),
    ("plain", &[]),
    ("ui", &["failure", "plain"]),
    ("job", &["failure"]),
    ("settings", &["cloud", "env", "failure"]),
    ("policy", &["env", "failure", "job", "settings"]),
    ("cloud", &["failure", "plain"]),
    ("reader", &["cloud", "failure"]),
    ("trace", &["failure"]),
    ("workspace", &["cloud", "failure", "names"]),
    ("mailbox", &["workspace"]),
    ("agent", &["cloud", "env", "failure", "mailbox", "process", "signals", "trace", "workspace"]),
    (
        "session",
        &[
            "agent",
            "cloud",
            "env",
            "failure",
            "job",
            "mailbox",
            "plain",
            "policy",
            "reader",
            "settings",
            "signals",
            "trace",
            "ui",
            "workspace",
        ],
    ),
    (
        "stages",
        &[
            "cloud",
            "env",
            "failure",
            "job",
            "mailbox",
            "names",
            "policy",
            "process",
            "session",
            "settings",
            "signals",
            "ui",
            "workspace",
        ],
    ),
    ("emulator", &["failure"]),
    ("operate", &["cloud", "emulator", "env", "failure", "process", "session", "settings", "signals", "ui"]),
    ("cli", &["emulator", "operate", "settings"]),
];

/// Places that may name the AWS adapter; everybody else has a port.
const USES_THE_ADAPTER: &[&str] =
    &["agent/mod.rs", "cloud/mod.rs", "operate/sweep.rs", "stages/cleanup.rs", "stages/prepare.rs", "stages/run.rs"];
/// Calls of `std::env` outside `env.rs` that read no variable, with their files.
const ENVIRONMENT_EXCEPTIONS: &[(&str, &str)] =
    &[("operate/try_job.rs", "current_dir"), ("agent/exec.rs", "split_paths")];
/// Files besides `ui.rs` that own a standard stream: the container's log takes frames, the emulator tells its address.
const STREAM_EXCEPTIONS: &[(&str, &str)] =
    &[("agent/streams.rs", "stdout"), ("agent/streams.rs", "stderr"), ("emulator/mod.rs", "stdout")];
/// A file is split before it reaches this.
const MAX_LINES: usize = 800;

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

    fn module(&self) -> &str {
        self.name.split(['/', '.']).next().unwrap_or_default()
    }

    /// Holds nothing but tests.
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
    assert!(found.len() > 5, "no sources below {}", root.display());
    found
}

/// The modules that follow `crate::`, alone or as the first level of a group.
fn used_modules(code: &str) -> BTreeSet<String> {
    let start = Regex::new(r"\bcrate::(\{)?").unwrap();
    let name = Regex::new(r"^\s*([a-z_0-9]+)").unwrap();
    let mut modules = BTreeSet::new();
    let mut add = |text: &str| modules.extend(name.captures(text).map(|found| found[1].to_owned()));
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
    let code = "use crate::{cloud::{self, Cloud}, env,\n failure};\nlet x = crate::ui::line(crate::VERSION);";
    let expected = ["cloud", "env", "failure", "ui"].map(str::to_owned);
    assert_eq!(used_modules(code), BTreeSet::from(expected));
}

#[test]
fn modules_use_each_other_in_one_direction() {
    let table: BTreeMap<&str, &[&str]> = DIRECTION.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources("src") {
        let module = source.module();
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let Some(allowed) = table.get(module) else {
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

#[test]
fn the_table_of_directions_has_no_circle() {
    // A module is done when all that it may use is done; `settings` takes plain types of the ports.
    let mut left: BTreeMap<&str, &[&str]> = DIRECTION.iter().copied().collect();
    while !left.is_empty() {
        let names: BTreeSet<&str> = left.keys().copied().collect();
        let before = left.len();
        left.retain(|_, uses| uses.iter().any(|used| names.contains(used)));
        assert!(left.len() < before, "a circle among {names:?}");
    }
}

#[test]
fn only_the_adapter_names_the_sdk() {
    let sdk = Regex::new(r"\baws_[a-z_]+(::|\b)").unwrap();
    let names_adapter = Regex::new(r"\bcloud::aws\b|\baws::(connect|object_store)\b").unwrap();
    let mut wrong = Vec::new();
    for source in sources("src") {
        let code = source.code();
        if !source.name.starts_with("cloud/aws/")
            && let Some(found) = sdk.find(&code)
        {
            wrong.push(format!("{}: {}", source.name, found.as_str()));
        }
        let inside = source.name.starts_with("cloud/aws/") || USES_THE_ADAPTER.contains(&source.name.as_str());
        if !inside && names_adapter.is_match(&code) {
            wrong.push(format!("{}: takes the adapter where a port should do", source.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_env_reads_the_environment() {
    let call = Regex::new(r"\bstd::env::([a-z_]+)|\benv::(vars|vars_os|var|var_os|set_var|remove_var|args)\(").unwrap();
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.name != "env.rs" && !source.is_test()) {
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
fn only_ui_writes_to_people() {
    let print = Regex::new(r"\b(e?print(?:ln)?|dbg)!\s*[(\[{]|\bio::(stdout|stderr)\s*\(").unwrap();
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.module() != "ui" && !source.is_test()) {
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
            if lines > MAX_LINES {
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
    for root in ["src", "tests/it"] {
        let all = sources(root);
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

/// The folder of a module's parent and the module's name; `None` for the roots.
fn place(path: &Path) -> Option<(PathBuf, String)> {
    let folder = path.parent()?;
    match path.file_stem()?.to_str()? {
        "lib" | "main" if folder.as_os_str().is_empty() => None,
        "mod" => Some((folder.parent()?.to_owned(), folder.file_name()?.to_str()?.to_owned())),
        stem => Some((folder.to_owned(), stem.to_owned())),
    }
}
