//! Tells a definition that names a file from one that takes every file.

use std::os::unix::ffi::OsStrExt as _;

use super::selection::Effort;
use super::tree_view::{Node, TreeView};
use crate::protocol::project::{Rule, Selection, Trees};

/// A name that no definition has.
const OTHER: &str = "executor.other";

/// Characters of patterns.
const PATTERN: &[char] = &['*', '?', '[', '{', '\\'];

/// `true` when a rule selects the file at the top of the project by its path, or by a pattern that begins with the name's first word:
/// others, such as `*.json`, mean the job's own files.
pub fn is_named(rules: &[Rule], trees: &Trees, name: &str) -> bool {
    let nodes = [name, OTHER].map(|name| (name.as_bytes(), Node::Other));
    let view = || TreeView::new(trees.project.as_os_str().as_bytes(), nodes);
    rules.iter().any(|rule| {
        let mut rule = Rule { untracked: false, ..rule.clone() };
        rule.include.retain(|path| begins_with_name(path, name));
        let wanted = Selection { rules: vec![rule], ..Selection::default() }.wanted(view(), b"", Effort::Host);
        wanted.wants(name.as_bytes()) && !wanted.wants(OTHER.as_bytes())
    })
}

fn begins_with_name(path: &str, name: &str) -> bool {
    let first_word = name.split(['.', '-']).next().unwrap_or(name);
    let last_part = path.rsplit('/').next().unwrap_or(path);
    let plain = last_part.split(PATTERN).next().unwrap_or(last_part);
    !path.contains(PATTERN) || plain.starts_with(first_word)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("x.env" => true; "by name")]
    #[test_case("./x.env" => true; "from here")]
    #[test_case("/builds/p/x.env" => true; "absolute")]
    #[test_case("*.env" => false; "by its ending")]
    #[test_case("**/*.env" => false; "at any depth")]
    #[test_case("x.*" => true; "by its stem")]
    #[test_case("x*" => true; "by its first word")]
    #[test_case("?.env" => false; "by its length")]
    #[test_case("*" => false; "every file")]
    #[test_case("." => false; "the project")]
    #[test_case("$X" => false; "a value that is not known")]
    #[test_case("out/x.env" => false; "elsewhere")]
    fn a_file_is_named(path: &str) -> bool {
        let trees = Trees { project: "/builds/p".into(), tmp: "/builds/p.tmp".into(), host: None };
        let rule = |include: &str| Rule { include: vec![include.to_owned()], ..Rule::default() };
        let excluded = Rule { exclude: vec!["*.env".to_owned()], ..rule("x.env") };
        assert!(!is_named(&[excluded], &trees, "x.env"));
        is_named(&[rule("other"), rule(path)], &trees, "x.env")
    }
}
