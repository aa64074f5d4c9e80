//! Tests of selections on a small tree in memory; the integration tests compare selections with the runner's helper.

use test_case::test_case;

use super::*;
use crate::base::node::NodeId;

fn tree() -> TreeView<'static> {
    let nodes = [
        ("a", Node::Other),
        ("d", Node::Directory),
        ("d/x.txt", Node::Other),
        ("d/e", Node::Directory),
        ("d/e/y.txt", Node::Other),
        ("latest", Node::Link(b"runs/42")),
        ("runs", Node::Directory),
        ("runs/42", Node::Directory),
        ("runs/42/m.bin", Node::Other),
        ("report", Node::Link(b"latest/m.bin")),
    ];
    TreeView::new(b"/builds/p", nodes.map(|(path, node)| (path.as_bytes(), node)))
}

fn rule(include: &[&str], exclude: &[&str]) -> Rule {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Rule { include: owned(include), exclude: owned(exclude), ..Rule::default() }
}

fn wanted(rules: &[Rule], assigned: &str) -> Vec<String> {
    let wanted = Selection { rules: rules.to_vec(), ..Selection::default() };
    let wanted = wanted.wanted(tree(), assigned.as_bytes(), Effort::Container);
    let mut paths: Vec<_> = tree().paths().filter(|path| wanted.wants(path)).map(<[u8]>::to_vec).collect();
    paths.sort();
    paths.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
}

#[test_case(&["d"], &[], &["d", "d/e", "d/e/y.txt", "d/x.txt"]; "a directory with all it holds")]
#[test_case(&["d"], &["d"], &["d/e", "d/e/y.txt", "d/x.txt"]; "an excluded directory is not what it holds")]
#[test_case(&["d"], &["d/**"], &[]; "an excluded directory with all it holds")]
#[test_case(&["d"], &["**/*.txt"], &["d", "d/e"]; "excluded at any depth")]
#[test_case(&["d/*"], &["/builds/p/d/e/y.txt"], &["d/e", "d/x.txt"]; "excluded by an absolute path")]
#[test_case(&["a", "d/e"], &["[", "a"], &["d/e", "d/e/y.txt"]; "a malformed exclude is passed over")]
#[test_case(&["a", "d/e"], &["../q", "a"], &["a", "d/e", "d/e/y.txt"]; "an exclude outside ends the search")]
#[test_case(&["a"], &["$X", "a"], &["a"]; "an exclude that is not known ends it, too")]
#[test_case(&["[", "a{", "", "../q", "a"], &[], &["a"]; "what is malformed, empty or outside selects nothing")]
#[test_case(&["latest/m.bin"], &[], &["latest", "runs/42/m.bin"]; "through a link")]
#[test_case(&["latest/*"], &["runs/**"], &["latest", "runs/42/m.bin"]; "excluded by name and not by place")]
#[test_case(&["latest/*"], &["latest/**"], &["latest"]; "excluded by name")]
#[test_case(&["*/m.bin"], &[], &[]; "not through a link under a star")]
#[test_case(&["report"], &[], &["latest", "report"]; "a link and not what it leads to")]
fn a_rule_selects(include: &[&str], exclude: &[&str], expected: &[&str]) {
    assert_eq!(wanted(&[rule(include, exclude)], ""), expected);
}

/// The files of another node are those of a folder of the project: no path selects them that does not lead into it.
#[test_case(&["d", "a"], &[], &[]; "the first node's files")]
#[test_case(&["algo-2"], &["algo-2/[!d]*", "algo-2/runs/**", "algo-2/d/e/**"], &["d", "d/x.txt"]; "the folder")]
#[test_case(&["algo-*/d/e"], &[], &["d/e", "d/e/y.txt"]; "a folder in every node's")]
#[test_case(&["/builds/p/algo-2/latest/*"], &[], &["latest", "runs/42/m.bin"]; "absolute, through a link")]
#[test_case(&["**/*.txt"], &["algo-2/d/*.txt"], &["d/e/y.txt"]; "at any depth")]
#[test_case(&["*/a", "algo-3"], &[], &["a"]; "one name of many")]
fn another_nodes_tree_is_a_folder(include: &[&str], exclude: &[&str], expected: &[&str]) {
    let rules = vec![rule(include, exclude)];
    let of_node = Selection { rules, every_node: true, ..Selection::default() }.of_node(NodeId::at(1));
    let wanted = of_node.wanted(tree(), b"", Effort::Container);
    let mut paths: Vec<_> = tree().paths().filter(|path| wanted.wants(path)).map(<[u8]>::to_vec).collect();
    paths.sort();
    assert!(paths.iter().map(|path| std::str::from_utf8(path).unwrap()).eq(expected.iter().copied()), "{paths:?}");
}

#[test]
fn an_exclude_holds_for_its_own_rule() {
    assert_eq!(wanted(&[rule(&["d"], &["d/**"]), rule(&["d/*.txt"], &[])], ""), ["d/x.txt"]);
}

#[test]
fn untracked_files_are_all_but_the_excluded() {
    let rule = Rule { untracked: true, ..rule(&["d/e"], &["d/**", "latest", "runs/**"]) };
    assert_eq!(wanted(&[rule], ""), ["a", "report"]);
    let untracked = Rule { untracked: true, ..Rule::default() };
    assert_eq!(wanted(&[untracked], "").len(), tree().paths().count());
}

#[test]
fn a_raw_report_is_read_through_its_link() {
    let rule = Rule { follow: true, ..rule(&["report"], &[]) };
    assert_eq!(wanted(&[rule], ""), ["latest", "report", "runs/42/m.bin"]);
}

#[test]
fn a_value_counts_while_the_job_assigns_no_other() {
    let all = tree().paths().count();
    let rule = rule(&["$OUT"], &[]);
    assert_eq!(wanted(std::slice::from_ref(&rule), "").len(), all, "an unknown value");
    let rule = rule.with_values(&|_| Some("d/e".to_owned()));
    assert_eq!(wanted(std::slice::from_ref(&rule), "ELSE=1\n"), ["d/e", "d/e/y.txt"]);
    assert_eq!(wanted(&[rule], "ELSE=1\n  OUT=a\n").len(), all);
}

#[test]
fn what_would_take_too_long_wants_everything() {
    let all = tree().paths().count();
    let alternatives = format!("{}x", "{a,b}".repeat(64));
    assert_eq!(wanted(&[rule(&[&alternatives], &[])], "").len(), all);
    assert_eq!(wanted(&[rule(&[&"{".repeat(100_000)], &[])], "").len(), all);
    assert_eq!(wanted(&[rule(&["a"], &[&"{a,a}".repeat(100_000)])], ""), ["a"]);
}
