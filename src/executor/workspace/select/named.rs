//! Tells a definition that names a file from one that takes every file.

use std::os::unix::ffi::OsStrExt as _;

use super::selection::Effort;
use super::tree_view::{Node, TreeView};
use crate::protocol::project::{Rule, Selection, Trees};

/// A name that no definition has.
const OTHER: &str = "sagemaker-executor.other";

/// `true` when a rule selects the file at the top of the project by a path or a pattern, and not every file there is.
pub fn is_named(rules: &[Rule], trees: &Trees, name: &str) -> bool {
    let nodes = [name, OTHER].map(|name| (name.as_bytes(), Node::Other));
    let view = || TreeView::new(trees.project.as_os_str().as_bytes(), nodes);
    rules.iter().any(|rule| {
        let wanted = Selection { rules: vec![rule.clone()], ..Selection::default() }.wanted(view(), b"", Effort::Host);
        wanted.wants(name.as_bytes()) && !wanted.wants(OTHER.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("x.env" => true; "by name")]
    #[test_case("./x.env" => true; "from here")]
    #[test_case("/builds/p/x.env" => true; "absolute")]
    #[test_case("*.env" => true; "by its ending")]
    #[test_case("**/*.env" => true; "at any depth")]
    #[test_case("x.*" => true; "by its stem")]
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
