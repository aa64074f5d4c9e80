//! Paths that a job asks for, and a second reading of them, which is simpler than the program's and allows no less.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use executor::protocol::project::{Rule, Selection};

use super::super::choices::Choices;
use super::{Picture, Seen};

/// Parts of patterns: what the host has, what a liar sends, and wildcards.
const PARTS: [&str; 20] = [
    "good", "dir", "inside", "deep", "leaf", "sub", "kept", "empty", "run.sh", "new", "a", "b", ".git", "config",
    "HEAD", "*", "**", "d*", "?", "..",
];

pub(super) fn pattern(choices: &mut Choices) -> String {
    let parts = 1 + choices.byte() % 3;
    let parts: Vec<_> = (0..parts).map(|_| PARTS[usize::from(choices.byte()) % PARTS.len()]).collect();
    parts.join("/")
}

/// Each file that changed was asked for. Directories come with what is in them. A path that leads through a link asks for what the link leads
/// to, so with a link in the tree, besides the host's own, nothing is said.
pub(super) fn changes_were_asked_for(selection: &Selection, before: &Picture, after: &Picture) {
    let is_other_link = |(path, seen): (&PathBuf, &Seen)| seen.is_link() && !path.ends_with("project/out");
    if after.iter().any(is_other_link)
        || selection.rules.iter().flat_map(|rule| &rule.include).any(|path| path.contains(".."))
    {
        return;
    }
    for path in before.keys().chain(after.keys()) {
        let (old, new) = (before.get(path), after.get(path));
        let is_directory = |seen: Option<&Seen>| seen.is_none_or(|seen| seen.bytes.is_none());
        let Ok(below) = path.strip_prefix("host/project") else { continue };
        if old.map(Seen::content) == new.map(Seen::content) || is_directory(old) && is_directory(new) {
            continue;
        }
        let fits = |patterns: &[String], path: &Path| patterns.iter().any(|pattern| matches(pattern, path));
        let asks = |rule: &Rule| {
            // The runner's helper ignores its excludes from the first one that leads out of the project.
            let leads_out = rule.exclude.iter().position(|pattern| pattern.contains(".."));
            let excluded = &rule.exclude[..leads_out.unwrap_or(rule.exclude.len())];
            below.ancestors().any(|above| fits(&rule.include, above)) && !fits(excluded, below)
        };
        // What was there goes where something else takes the place of a directory above it.
        let is_replaced = new.is_none()
            && path.ancestors().skip(1).any(|above| after.get(above).is_some_and(|seen| seen.bytes.is_some()));
        assert!(
            is_replaced || selection.rules.iter().any(asks),
            "{} changed, and {:?} asks for something else",
            below.display(),
            selection.rules
        );
    }
}

/// `**` stands for any number of names, `*` for any characters of a name, `?` for one.
fn matches(pattern: &str, path: &Path) -> bool {
    let names: Vec<&[u8]> = path.components().map(|name| name.as_os_str().as_bytes()).collect();
    match_names(&pattern.split('/').collect::<Vec<_>>(), &names)
}

fn match_names(pattern: &[&str], names: &[&[u8]]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=names.len()).any(|skipped| match_names(rest, &names[skipped..])),
        (Some((part, rest)), Some((name, others))) => match_name(part.as_bytes(), name) && match_names(rest, others),
        _ => false,
    }
}

fn match_name(part: &[u8], name: &[u8]) -> bool {
    match (part.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skipped| match_name(rest, &name[skipped..])),
        (Some((b'?', rest)), Some((_, others))) => match_name(rest, others),
        (Some((byte, rest)), Some((other, others))) => byte == other && match_name(rest, others),
        _ => false,
    }
}
