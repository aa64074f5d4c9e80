//! Which paths later host stages read: artifact, report and cache paths, with the meaning GitLab Runner's helper gives them.
//!
//! The helper globs each path (doublestar: `**`, `*`, `?`, `[..]`, `{a,b}`), then walks what was found. Here the same
//! patterns are held against names: an entry is wanted when the entry, or a directory above it, matches. What the
//! helper takes is always included; where a pattern cannot be understood, everything is.

use serde::{Deserialize, Serialize};

use super::entry::split;

/// More alternatives than this in one pattern are not spelt out; the pattern then wants everything.
const MOST_ALTERNATIVES: usize = 1024;

/// What later host stages read. Paths as in the job, variables already expanded; relative to the project directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Files, directories (with all they hold) and patterns. One that still holds `$` wants everything.
    pub include: Vec<String>,
    /// Left to the stage that reads the files: what it excludes may come back, unused.
    pub exclude: Vec<String>,
    /// Files that git does not track: everything that changed.
    pub untracked: bool,
    /// Everything that changed.
    pub everything: bool,
}

/// A selection made ready to be held against names.
#[derive(Debug)]
pub(super) struct Compiled {
    everything: bool,
    patterns: Vec<Vec<Step>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// `**`: any number of directories.
    Any,
    /// One component, in pieces.
    Name(Vec<Piece>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// `*`
    Star,
    /// `?`
    One,
    Literal(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Selection {
    /// `project` is the absolute project directory, `link` gives the target of a path in it that is a link.
    pub(super) fn compile(&self, project: &[u8], link: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> Compiled {
        let mut compiled = Compiled { everything: self.everything || self.untracked, patterns: Vec::new() };
        for pattern in &self.include {
            if compiled.everything {
                break;
            }
            compiled.add(pattern, project, link);
        }
        compiled
    }
}

impl Compiled {
    fn add(&mut self, pattern: &str, project: &[u8], link: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) {
        let spelt_out = if pattern.contains('$') { None } else { alternatives(pattern) };
        let Some(spelt_out) = spelt_out else {
            self.everything = true;
            return;
        };
        for pattern in spelt_out {
            let Some(names) = inside(&pattern, project) else { continue };
            let Some(steps) = names.iter().map(|name| step(name)).collect::<Option<Vec<_>>>() else {
                self.everything = true;
                return;
            };
            self.through_links(steps, project, link);
        }
    }

    /// The helper follows links in the part before the first wildcard, so what they point to is wanted under its own
    /// name as well, and each link too.
    fn through_links(&mut self, steps: Vec<Step>, project: &[u8], link: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) {
        let mut waiting = vec![steps];
        for _ in 0..40 {
            let Some(steps) = waiting.pop() else { return };
            let mut path = Vec::new();
            for (at, step) in steps.iter().enumerate().take(steps.len().saturating_sub(1)) {
                let Some(name) = step.literal() else { break };
                path = super::entry::join(&path, name.as_bytes());
                let Some(target) = link(&path) else { continue };
                self.patterns.push(steps[..=at].to_vec());
                let absolute = if target.starts_with(b"/") {
                    target
                } else {
                    [project, b"/", split(&path).0, b"/", &target].concat()
                };
                if let Some(names) = String::from_utf8(absolute).ok().and_then(|target| inside(&target, project)) {
                    let literal = names.iter().map(|name| Step::Name(name.chars().map(Piece::Literal).collect()));
                    waiting.push(literal.chain(steps[at + 1..].iter().cloned()).collect());
                }
                break;
            }
            self.patterns.push(steps);
        }
    }

    /// Whether the entry or a directory above it is wanted.
    pub(super) fn wants(&self, path: &[u8]) -> bool {
        if self.everything {
            return true;
        }
        if self.patterns.is_empty() {
            return false;
        }
        // As the helper's own matcher does, bytes that are no UTF-8 count as one unknown character each.
        let names: Vec<Vec<char>> = path.split(|&byte| byte == b'/').map(characters).collect();
        self.patterns.iter().any(|pattern| (0..=names.len()).any(|depth| matches(pattern, &names[..depth])))
    }
}

impl Step {
    fn literal(&self) -> Option<String> {
        match self {
            Step::Any => None,
            Step::Name(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Literal(character) => Some(*character),
                    Piece::Star | Piece::One | Piece::Class { .. } => None,
                })
                .collect(),
        }
    }
}

fn characters(name: &[u8]) -> Vec<char> {
    let mut characters = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        characters.extend(chunk.valid().chars());
        characters.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    characters
}

/// The pattern's components relative to the project, `.` and `..` resolved by name; `None` when it leaves the project
/// or is empty. The project itself is no component at all.
fn inside(pattern: &str, project: &[u8]) -> Option<Vec<String>> {
    if pattern.is_empty() {
        return None;
    }
    let project: Vec<&str> = std::str::from_utf8(project).ok()?.split('/').filter(|name| !name.is_empty()).collect();
    let mut names: Vec<&str> = if pattern.starts_with('/') { Vec::new() } else { project.clone() };
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            _ => names.push(name),
        }
    }
    let relative = names.strip_prefix(project.as_slice())?;
    Some(relative.iter().map(|name| (*name).to_owned()).collect())
}

/// Spells out `{a,b}`, nested ones too. `None` when a brace is not closed or there are too many.
fn alternatives(pattern: &str) -> Option<Vec<String>> {
    let mut done = Vec::new();
    let mut waiting = vec![pattern.to_owned()];
    while let Some(pattern) = waiting.pop() {
        if done.len() + waiting.len() > MOST_ALTERNATIVES {
            return None;
        }
        let Some(open) = first_brace(&pattern) else {
            done.push(pattern);
            continue;
        };
        let (before, rest) = (&pattern[..open], &pattern[open + 1..]);
        let mut depth = 0usize;
        let mut start = 0;
        let mut choices = Vec::new();
        let mut close = None;
        let mut escaped = false;
        for (at, character) in rest.char_indices() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '{' => depth += 1,
                '}' if depth == 0 => {
                    choices.push(&rest[start..at]);
                    close = Some(at);
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    choices.push(&rest[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        let after = &rest[close? + 1..];
        waiting.extend(choices.iter().rev().map(|choice| format!("{before}{choice}{after}")));
    }
    Some(done)
}

/// The first brace that is neither escaped nor in a class.
fn first_brace(pattern: &str) -> Option<usize> {
    let mut escaped = false;
    let mut class = false;
    for (at, character) in pattern.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' if !class => class = true,
            ']' => class = false,
            '{' if !class => return Some(at),
            _ => {}
        }
    }
    None
}

/// One component of a pattern; `None` when it is malformed.
fn step(name: &str) -> Option<Step> {
    if name == "**" {
        return Some(Step::Any);
    }
    let mut pieces = Vec::new();
    let mut rest = name.chars().peekable();
    while let Some(character) = rest.next() {
        pieces.push(match character {
            '*' if pieces.last() == Some(&Piece::Star) => continue,
            '*' => Piece::Star,
            '?' => Piece::One,
            '\\' => Piece::Literal(rest.next()?),
            '[' => {
                let negated = rest.next_if(|next| matches!(next, '!' | '^')).is_some();
                let mut ranges = Vec::new();
                loop {
                    let low = match rest.next()? {
                        ']' if !ranges.is_empty() => break,
                        '\\' => rest.next()?,
                        ']' | '-' => return None,
                        low => low,
                    };
                    let high = match rest.next_if_eq(&'-') {
                        None => low,
                        Some(_) => match rest.next()? {
                            '\\' => rest.next()?,
                            ']' | '-' => return None,
                            high => high,
                        },
                    };
                    ranges.push((low, high));
                }
                Piece::Class { negated, ranges }
            }
            literal => Piece::Literal(literal),
        });
    }
    Some(Step::Name(pieces))
}

/// Goes back to the last star only, so the cost is at most the product of the lengths.
fn wildcard<P, N>(pattern: &[P], names: &[N], any: impl Fn(&P) -> bool, one: impl Fn(&P, &N) -> bool) -> bool {
    let (mut at, mut name) = (0, 0);
    let mut star = None;
    while name < names.len() {
        match pattern.get(at) {
            Some(piece) if any(piece) => {
                star = Some((at, name));
                at += 1;
            }
            Some(piece) if one(piece, &names[name]) => {
                at += 1;
                name += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    name = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(any)
}

fn matches(pattern: &[Step], names: &[Vec<char>]) -> bool {
    wildcard(
        pattern,
        names,
        |step| *step == Step::Any,
        |step, name| match step {
            Step::Any => true,
            Step::Name(pieces) => {
                wildcard(pieces, name, |piece| *piece == Piece::Star, |piece, name| is_one(piece, *name))
            }
        },
    )
}

fn is_one(piece: &Piece, character: char) -> bool {
    match piece {
        Piece::Star | Piece::One => true,
        Piece::Literal(literal) => *literal == character,
        Piece::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn wants(pattern: &str, path: &str) -> bool {
        let selection = Selection { include: vec![pattern.to_owned()], ..Selection::default() };
        let mut link = |path: &[u8]| (path == b"latest").then(|| b"runs/42".to_vec());
        selection.compile(b"/builds/p", &mut link).wants(path.as_bytes())
    }

    #[test_case("model", "model", true)]
    #[test_case("model", "model/a/b", true; "a directory with all it holds")]
    #[test_case("model/", "model/a", true; "trailing slash")]
    #[test_case("./model", "model/a", true; "dot slash")]
    #[test_case("model", "models/a", false)]
    #[test_case("model", "x/model", false; "anchored at the project")]
    #[test_case("*.txt", "a.txt", true)]
    #[test_case("*.txt", ".txt", true; "a star takes nothing and hidden files")]
    #[test_case("*.txt", "d/a.txt", false; "a star stays in its directory")]
    #[test_case("**/*.txt", "a.txt", true; "two stars take no directory")]
    #[test_case("**/*.txt", "d/e/a.txt", true; "two stars take several")]
    #[test_case("d/**", "d/e/f", true)]
    #[test_case("d/**", "d", true; "two stars take the directory itself")]
    #[test_case("d/**/z", "d/x/y/z/inside", true)]
    #[test_case("d/**/z", "e/z", false)]
    #[test_case("d**", "dx", true; "two stars in a name are one")]
    #[test_case("d**", "e/dx", false; "two stars in a name stay in their directory")]
    #[test_case("a?c", "abc", true)]
    #[test_case("a?c", "a\u{e9}c", true; "a question mark takes one character")]
    #[test_case("a?c", "ac", false)]
    #[test_case("[a-c]x", "bx", true)]
    #[test_case("[!a-c]x", "bx", false)]
    #[test_case("[^a-c]x", "dx", true)]
    #[test_case("{a,b{c,d}}/x", "bd/x", true; "nested alternatives")]
    #[test_case("{a,b}/x", "c/x", false)]
    #[test_case("{out/*.bin,log}", "out/m.bin", true; "a slash in alternatives")]
    #[test_case("x{,.gz}", "x", true; "an empty alternative")]
    #[test_case("\\*", "*", true; "escaped")]
    #[test_case("\\*", "a", false; "escaped is no star")]
    #[test_case("/builds/p/out", "out/x", true; "absolute")]
    #[test_case("/builds/p", "any/thing", true; "the project itself, absolute")]
    #[test_case(".", "any/thing", true; "the project itself")]
    #[test_case("/builds/q/out", "out/x", false; "absolute elsewhere")]
    #[test_case("/builds/pp", "p", false; "absolute with the same beginning")]
    #[test_case("../p/out", "out/x", true; "out and in again")]
    #[test_case("../q", "q", false; "out")]
    #[test_case("a/../../..", "a", false; "out by the back door")]
    #[test_case("a/../b", "b", true)]
    #[test_case("out/$NAME", "any", true; "not expanded")]
    #[test_case("a[", "any", true; "malformed class")]
    #[test_case("a{b", "any", true; "malformed alternatives")]
    #[test_case("", "any", false; "empty")]
    #[test_case("latest/m.bin", "runs/42/m.bin", true; "through a link")]
    #[test_case("latest/*.bin", "runs/42/m.bin", true; "through a link, then a star")]
    #[test_case("latest/m.bin", "latest", true; "the link itself")]
    #[test_case("latest", "runs/42/m.bin", false; "a link as the last name is not followed")]
    #[test_case("*/m.bin", "runs/42/m.bin", false; "a link under a star is not followed")]
    fn patterns_mean_what_they_mean_to_the_runner(pattern: &str, path: &str, expected: bool) {
        assert_eq!(wants(pattern, path), expected);
    }

    #[test]
    fn nothing_is_wanted_by_default_and_untracked_wants_everything() {
        assert!(!Selection::default().compile(b"/p", &mut |_| None).wants(b"x"));
        let untracked = Selection { untracked: true, ..Selection::default() };
        assert!(untracked.compile(b"/p", &mut |_| None).wants(b"x"));
    }

    #[test]
    fn many_alternatives_do_not_explode() {
        assert!(wants(&"{a,b}".repeat(40), "x"));
    }
}
