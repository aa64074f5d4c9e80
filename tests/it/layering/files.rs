//! Checks the use of files by each other, read from the paths in the code: no circle of files, and one direction among the parts of
//! the workspace.
//!
//! A file uses another when a path in its code leads there: one that begins with `crate::`, `super::`, `self::` or with a module
//! that the file declares. It leads to the deepest module that is a file. To declare a module is not to use it.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::{PACKAGES, Source, assert_no_circle, package};

/// The parts of the workspace, with the parts that each may use. `mod`, the interface of them all, may use any, and no part uses it.
const WORKSPACE: &[(&str, &[&str])] = &[
    ("path", &[]),
    ("task", &[]),
    ("warnings", &["path"]),
    ("store", &["task"]),
    ("manifest", &["path", "store"]),
    ("summary", &["manifest"]),
    ("tree", &["manifest", "path", "task", "warnings"]),
    ("select", &["path", "warnings"]),
    ("listing", &["manifest", "path", "select", "task", "tree", "warnings"]),
    ("changed", &["listing", "manifest", "path", "select", "tree", "warnings"]),
    ("send", &["changed", "listing", "manifest", "path", "select", "store", "summary", "task", "tree", "warnings"]),
    ("receive", &["changed", "listing", "manifest", "path", "select", "store", "summary", "task", "tree", "warnings"]),
];

/// Circles that are still there, each with all its files. A circle that is gone comes off this list.
const CIRCLES: &[&[&str]] = &[];

/// Files by the modules that they are.
type Files = BTreeMap<Vec<String>, String>;

/// The module that a file is: none for the root, `session`, `spec` for `session/spec.rs`.
fn module(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// The paths of the code that begin at a module, as their names. A path with a group counts once for each item.
fn paths(code: &str) -> Vec<Vec<String>> {
    let declared = Regex::new(r"(?m)^(?:pub(?:\([a-z]+\))? )?mod (\w+);").unwrap();
    let mut starts = vec!["crate".to_owned(), "super".to_owned(), "self".to_owned()];
    starts.extend(declared.captures_iter(code).map(|found| found[1].to_owned()));
    let start = Regex::new(&format!(r"(?:^|[^\w:])((?:{})::)", starts.join("|"))).unwrap();
    let mut found = Vec::new();
    for captures in start.captures_iter(code) {
        read_path(&code[captures.get(1).unwrap().start()..], Vec::new(), &mut found);
    }
    found
}

fn read_path(mut text: &str, mut names: Vec<String>, found: &mut Vec<Vec<String>>) {
    loop {
        text = text.trim_start();
        if let Some(group) = text.strip_prefix('{') {
            for item in items(group) {
                read_path(item, names.clone(), found);
            }
            return;
        }
        let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
        names.push(text[..end].to_owned());
        match text[end..].strip_prefix("::") {
            Some(rest) => text = rest,
            None => break,
        }
    }
    found.push(names);
}

/// The items of a group, which goes on to the end of the text or to its closing brace.
fn items(group: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if letter == '}' && start == at + 1 {
            break;
        }
    }
    found.retain(|item| !item.trim().is_empty());
    found
}

/// The file to which a path of the module `own` leads.
fn target<'f>(path: &[String], own: &[String], files: &'f Files) -> Option<&'f str> {
    let mut at = match path.first()?.as_str() {
        "crate" => Vec::new(),
        _ => own.to_vec(),
    };
    for name in path {
        match name.as_str() {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            name => {
                at.push(name.to_owned());
                if !files.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
        }
    }
    files.get(&at).map(String::as_str)
}

/// The files that each file uses.
fn uses(sources: &[Source]) -> BTreeMap<&str, BTreeSet<String>> {
    let product = || sources.iter().filter(|source| !source.is_test());
    let files: Files = product().map(|source| (module(&source.name), source.name.clone())).collect();
    let used = |source: &Source| {
        let own = module(&source.name);
        let paths = paths(&source.code());
        let targets =
            paths.iter().filter_map(|path| target(path, &own, &files)).filter(|target| *target != source.name);
        targets.map(str::to_owned).collect()
    };
    product().map(|source| (source.name.as_str(), used(source))).collect()
}

/// Files that lead to each other, group by group.
fn circles(uses: &BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let reached = |from: &str| {
        let (mut found, mut left) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = left.pop() {
            left.extend(
                uses.get(file.as_str()).into_iter().flatten().filter(|next| found.insert((*next).clone())).cloned(),
            );
        }
        found
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = uses.keys().map(|file| (*file, reached(file))).collect();
    let in_circle = reached.iter().filter(|(file, all)| all.contains(**file));
    let circle = |(file, all): (&&str, &BTreeSet<String>)| {
        all.iter().filter(|other| reached[other.as_str()].contains(*file)).cloned().collect()
    };
    in_circle.map(circle).collect()
}

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

fn seen(sources: &[Source]) -> String {
    let line = |(file, used): (&&str, &BTreeSet<String>)| {
        format!("{file}: {}", used.iter().cloned().collect::<Vec<_>>().join(" "))
    };
    uses(sources).iter().map(line).collect::<Vec<_>>().join("; ")
}

#[test]
fn paths_lead_to_files() {
    let sources = [
        source("lib.rs", "pub mod a;\npub mod d;\npub use a::b::{self, Thing};\n"),
        source("a/mod.rs", "mod b;\nmod c;\nfn x() { c::run(std::c::y, super::d::Z) }\n"),
        source(
            "a/b.rs",
            "// super::c::no\nuse super::{c::{One, Two},\n c::Three};\nuse super::super::d;\n\n#[cfg(test)]\nmod tests {\n use crate::a::Other;\n}\n",
        ),
        source("a/c.rs", "fn x() -> self::Y { crate::d::deep::er() }\nuse std::crate_like::super_like;"),
        source("d.rs", "impl X for super::Y {}"),
    ];
    assert_eq!(
        seen(&sources),
        "a/b.rs: a/c.rs d.rs; a/c.rs: d.rs; a/mod.rs: a/c.rs d.rs; d.rs: lib.rs; lib.rs: a/b.rs"
    );
    let circle = ["a/b.rs", "a/c.rs", "d.rs", "lib.rs"].map(str::to_owned).to_vec();
    assert_eq!(circles(&uses(&sources)), BTreeSet::from([circle]));
}

#[test]
fn no_circle_of_files_but_those_on_the_list() {
    let mut found = BTreeSet::new();
    for root in PACKAGES {
        let in_src = |file: String| format!("{root}/{file}");
        let sources = package(root);
        found.extend(
            circles(&uses(&sources)).into_iter().map(|circle| circle.into_iter().map(in_src).collect::<Vec<_>>()),
        );
    }
    let listed: BTreeSet<Vec<String>> =
        CIRCLES.iter().map(|circle| circle.iter().map(|file| (*file).to_owned()).collect()).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "new circles of files: {new:#?}; to be taken off the list: {gone:#?}");
}

#[test]
fn rooms_of_the_workspace_use_each_other_in_one_direction() {
    assert_no_circle(WORKSPACE);
    let table: BTreeMap<&str, &[&str]> = WORKSPACE.iter().copied().collect();
    let room = |file: &str| {
        let inside = file.strip_prefix("workspace/")?;
        Some(inside.split(['/', '.']).next().unwrap_or_default().to_owned())
    };
    let mut wrong = Vec::new();
    let sources = package("src/executor");
    for (file, used) in uses(&sources) {
        let Some(own) = room(file).filter(|room| room != "mod") else { continue };
        let Some(allowed) = table.get(own.as_str()) else {
            wrong.push(format!("{file}: the room `{own}` is not in the table"));
            continue;
        };
        for other in used.iter().filter_map(|used| room(used)).filter(|other| *other != own) {
            if !allowed.contains(&other.as_str()) {
                wrong.push(format!("{file}: `{own}` may not use `{other}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
