//! Finds the entries for a job's path in a [`TreeView`], exactly as GitLab Runner's helper finds them on disk.
//!
//! The helper makes the path relative to the project, globs it with `doublestar` and walks the results. It follows links before the
//! first wildcard and none in the results of a wildcard. The order of the steps is that of the library, because its handling of
//! escapes, of slashes in alternatives and of consecutive alternatives depends on it. No I/O.

use std::collections::BTreeSet;

use super::pattern;
use super::pattern::{Budget, PatternError, comma, is_valid, matches, unescaped};
use super::tree_view::{Node, TreeView};

const WILD: &[u8] = b"*?[{";
const SPECIAL: &[u8] = b"*?[]{}";

/// One glob search.
#[derive(Debug)]
pub(crate) struct Glob<'v, 'a> {
    view: &'v TreeView<'a>,
    budget: &'v Budget,
    /// The directory that the found names are relative to.
    base: Vec<u8>,
    /// Each alternative also searches the directories that earlier alternatives found.
    hands_on: bool,
    /// The followed links.
    links: &'v mut BTreeSet<Vec<u8>>,
}

/// Returns the names, relative to the tree, that match `pattern` (from [`relative`]). Adds the links on the way to `links`.
pub(crate) fn find(
    view: &TreeView<'_>,
    pattern: &[u8],
    budget: &Budget,
    links: &mut BTreeSet<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, PatternError> {
    if pattern::is_deep(pattern) {
        return Err(PatternError::TooMuch);
    }
    let pattern = clean(pattern);
    let (base, rest) = before_wild(&pattern);
    if matches!(rest, b"" | b"." | b"..") {
        let name = if is_valid(&pattern) { unescape(&pattern) } else { return Err(PatternError::Malformed) };
        return Ok(view.resolve(&name, false, links).map(|_| name).into_iter().collect());
    }
    if !is_valid(rest) {
        return Err(PatternError::Malformed);
    }
    let mut found = Vec::new();
    let mut glob = Glob { view, budget, base, hands_on: !has_early_stars(rest), links };
    glob.find(rest, &mut found, true)?;
    Ok(found.iter().map(|name| joined(&glob.base, name)).collect())
}

impl<'a> Glob<'_, 'a> {
    /// With `last`, found entries need not be directories.
    fn find(&mut self, pattern: &[u8], found: &mut Vec<Vec<u8>>, last: bool) -> Result<(), PatternError> {
        self.budget.spend(pattern.len() + 1)?;
        let Some((first_wild, _)) = unescaped(pattern).find(|(_, byte)| WILD.contains(byte)) else {
            let name = unescape(pattern);
            if self.look(name.strip_suffix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(&name)).is_some() {
                found.push(name);
            }
            return Ok(());
        };
        let mut cut = last_of(pattern, b"/}");
        if let Some(close) = cut.filter(|&at| pattern.get(at) == Some(&b'}')) {
            match opening(&pattern[..close]) {
                Some(open) => return self.alternatives(pattern, open, close, found, last),
                None => cut = last_of(&pattern[..close], b"/"),
            }
        }
        let Some(cut) = cut else { return self.in_directory(b".", pattern, found, last) };
        let (directory, name) = (&pattern[..cut], &pattern[cut + 1..]);
        if cut <= first_wild {
            return self.in_directory(&unescape(directory), name, found, last);
        }
        let mut directories = if self.hands_on { found.clone() } else { Vec::new() };
        self.find(directory, &mut directories, false)?;
        for directory in directories {
            self.in_directory(&directory, name, found, last)?;
        }
        Ok(())
    }

    fn alternatives(
        &mut self,
        pattern: &[u8],
        open: usize,
        close: usize,
        found: &mut Vec<Vec<u8>>,
        last: bool,
    ) -> Result<(), PatternError> {
        let mut directories = vec![Vec::new()];
        let mut start = 0;
        if let Some(cut) = last_of(&pattern[..open], b"/}").filter(|&at| pattern.get(at) == Some(&b'/')) {
            start = cut + 1;
            directories = if self.hands_on { found.clone() } else { Vec::new() };
            self.find(&pattern[..cut], &mut directories, false)?;
        }
        for directory in directories {
            let mut before = Vec::new();
            if !matches!(directory.as_slice(), b"" | b".") {
                before = escape(&directory);
                before.push(b'/');
            }
            let mut choice = open + 1;
            // `<`: an empty alternative at the end is ignored.
            while choice < close {
                let end = comma(&pattern[choice..close]).map_or(close, |length| choice + length);
                let one = [&before, &pattern[start..open], &pattern[choice..end], &pattern[close + 1..]].concat();
                self.find(&one, found, last)?;
                choice = end + 1;
            }
        }
        Ok(())
    }

    fn in_directory(
        &mut self,
        directory: &[u8],
        name: &[u8],
        found: &mut Vec<Vec<u8>>,
        last: bool,
    ) -> Result<(), PatternError> {
        if name.is_empty() {
            if let Some((_, Node::Directory)) = self.look(directory) {
                found.push(directory.to_vec());
            }
            return Ok(());
        }
        if name == b"**" {
            return self.below(directory, found, last);
        }
        for (entry, node) in self.list(directory)? {
            if matches(name, &entry, false, self.budget)? && (last || node == Node::Directory) {
                found.push(joined(directory, &entry));
            }
        }
        Ok(())
    }

    /// Adds the directory and everything below it.
    fn below(&mut self, directory: &[u8], found: &mut Vec<Vec<u8>>, last: bool) -> Result<(), PatternError> {
        let mut waiting = vec![directory.to_vec()];
        while let Some(directory) = waiting.pop() {
            if !matches!(self.look(&directory), Some((_, Node::Directory))) {
                continue;
            }
            for (entry, node) in self.list(&directory)? {
                match node {
                    Node::Directory => waiting.push(joined(&directory, &entry)),
                    Node::Link(_) | Node::Other if last => found.push(joined(&directory, &entry)),
                    Node::Link(_) | Node::Other => {}
                }
            }
            found.push(directory);
        }
        Ok(())
    }

    fn list(&mut self, directory: &[u8]) -> Result<Vec<(Vec<u8>, Node<'a>)>, PatternError> {
        let Some((path, Node::Directory)) = self.look(directory) else { return Ok(Vec::new()) };
        let names = self.view.list(&path);
        self.budget.spend(names.len())?;
        Ok(names.into_iter().map(|(name, node)| (name.to_vec(), node)).collect())
    }

    /// The entry after following all links. As in the library, only plain relative paths in UTF-8 exist.
    fn look(&mut self, name: &[u8]) -> Option<(Vec<u8>, Node<'a>)> {
        let plain = name == b"." || name.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
        if !plain || std::str::from_utf8(name).is_err() {
            return None;
        }
        self.view.resolve(&joined(&self.base, name), true, self.links)
    }
}

/// The job's path relative to the project, as the helper computes it; `None` when it leads out of the project.
pub(crate) fn relative(project: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    if !path.is_empty() && clean(path) == clean(project) {
        return Some(b".".to_vec());
    }
    let (base, rest) =
        if path.iter().any(|byte| WILD.contains(byte)) { before_wild(path) } else { (path.to_vec(), &[][..]) };
    let base = below(project, &base)?;
    Some(joined(&base, rest))
}

/// The path relative to the project, without looking at links; `None` when it leads out of the project.
pub(crate) fn below(project: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let absolute = if path.starts_with(b"/") { clean(path) } else { clean(&[project, b"/", path].concat()) };
    let project = clean(project);
    let project = project.strip_suffix(b"/").unwrap_or(&project);
    match absolute.strip_prefix(project)? {
        [] | [b'/'] => Some(b".".to_vec()),
        [b'/', rest @ ..] => Some(rest.to_vec()),
        _ => None,
    }
}

/// Normalizes the path without looking at links: removes `.`, empty components, and `..` after a name.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if names.last().is_some_and(|last| *last != b"..") => {
                names.pop();
            }
            b".." if rooted => {}
            _ => names.push(name),
        }
    }
    let names = names.join(&b'/');
    match (rooted, names.is_empty()) {
        (true, _) => [b"/", names.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => names,
    }
}

pub(crate) fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { clean(name) } else { clean(&[directory, b"/", name].concat()) }
}

/// Splits the pattern into the directories before the first wildcard, unescaped, and the rest.
fn before_wild(pattern: &[u8]) -> (Vec<u8>, &[u8]) {
    let slash =
        unescaped(pattern).take_while(|(_, byte)| !WILD.contains(byte)).filter(|&(_, byte)| byte == b'/').last();
    match slash {
        None => (b".".to_vec(), pattern),
        Some((0, _)) => (b"/".to_vec(), &pattern[1..]),
        Some((at, _)) => (unescape(&pattern[..at]), &pattern[at + 1..]),
    }
}

/// The position of the last of these bytes without a backslash right before it.
fn last_of(pattern: &[u8], bytes: &[u8]) -> Option<usize> {
    (0..pattern.len()).rev().find(|&at| bytes.contains(&pattern[at]) && !follows_backslash(pattern, at))
}

/// The position of the matching `{` in the text before a `}`.
fn opening(before: &[u8]) -> Option<usize> {
    let mut depth = 1usize;
    (0..before.len()).rev().find(|&at| {
        match before[at] {
            b'}' if !follows_backslash(before, at) => depth += 1,
            b'{' if !follows_backslash(before, at) => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

fn follows_backslash(pattern: &[u8], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| pattern.get(before)) == Some(&b'\\')
}

/// True when the pattern has two stars anywhere but at its very end.
fn has_early_stars(pattern: &[u8]) -> bool {
    let most = pattern.len().saturating_sub(3);
    unescaped(pattern).take_while(|&(at, _)| at < most).any(|(at, _)| pattern[at..].starts_with(b"**"))
}

/// Removes backslashes before special characters; others stay.
fn unescape(pattern: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let [byte, after @ ..] = rest {
        match after {
            [special, after @ ..] if *byte == b'\\' && SPECIAL.contains(special) => {
                plain.push(*special);
                rest = after;
            }
            _ => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    plain
}

fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        if SPECIAL.contains(byte) {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}
