//! Checks that each public type of the product has a name of its own, except those on the list.

use std::collections::BTreeMap;

use regex::Regex;

use super::{Source, sources};

/// Type names that are defined more than once: the modules that define them (a module twice when it has two), and the reason. An
/// entry that is no longer needed comes off this list.
const SHARED_NAMES: &[(&str, &[&str], &str)] = &[
    ("LogEvent", &["emulator", "executor::cloud"], "an event of CloudWatch Logs, in two packages that share no code"),
    ("Principal", &["emulator", "executor::iam"], "a caller of AWS, in two packages that share no code"),
];

/// The module that a file of `src` belongs to: its package, and within the executor the folder too.
fn module(source: &Source) -> String {
    let mut parts = source.name.split(['/', '.']);
    match parts.next().unwrap_or_default() {
        "executor" => format!("executor::{}", parts.next().unwrap_or_default()),
        "main" | "cli" | "wiring" | "build" => "sagemaker-executor".to_owned(),
        package => package.to_owned(),
    }
}

/// The types that are visible outside their file, with the modules that define them.
fn public_types(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let public = Regex::new(r"(?m)^\s*pub(?:\([a-z]+\))? (?:struct|enum|trait|type) (\w+)").unwrap();
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for found in public.captures_iter(&source.code()) {
            types.entry(found[1].to_owned()).or_default().push(module(source));
        }
    }
    types
}

#[test]
fn one_name_one_meaning() {
    let shared: BTreeMap<String, Vec<String>> =
        public_types(&sources("src")).into_iter().filter(|(_, modules)| modules.len() > 1).collect();
    let listed: BTreeMap<&str, &[&str]> = SHARED_NAMES.iter().map(|(name, modules, _)| (*name, *modules)).collect();
    assert_eq!(listed.len(), SHARED_NAMES.len(), "a name stands twice on the list");
    let mut wrong = Vec::new();
    for (name, modules) in &shared {
        if listed.get(name.as_str()).is_none_or(|listed| modules != listed) {
            wrong.push(format!("`{name}` is defined in {}: rename all but one", modules.join(", ")));
        }
    }
    for (name, _, reason) in SHARED_NAMES {
        if !shared.contains_key(*name) {
            wrong.push(format!("`{name}` is defined once now: take it off the list"));
        }
        assert!(!reason.is_empty(), "`{name}` has no reason");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_public_types_of_the_product_count() {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let types = public_types(&[
        source("main.rs", "pub struct A;\nstruct Private;\n// pub struct Comment;\n"),
        source(
            "executor/logs/plan.rs",
            "    pub(super) enum A {}\npub type B = u8;\n\n#[cfg(test)]\nmod tests {\n    pub struct C;\n}\n",
        ),
        source("emulator/store/tests.rs", "pub struct D;\n"),
    ]);
    let modules = ["sagemaker-executor", "executor::logs"].map(str::to_owned).to_vec();
    assert_eq!(types["A"], modules);
    assert_eq!(types.keys().collect::<Vec<_>>(), ["A", "B"]);
}
