//! Properties of the lines of `gitlab_runner_env`, for any content: the body of a fuzz target, which an ordinary test also runs on the corpus.
//!
//! The reader of the lines is written a second time here, as bash has it.

use std::collections::BTreeMap;

use executor::base::names::{self, Reach};
use executor::workspace::lines_for_the_host;

/// Longest variable that Linux passes to a program, with the final NUL.
const LONGEST: usize = 128 * 1024;

/// What the host reads are lines of the container's own, each one a variable that it may set, or the name of one; and reading them again
/// changes nothing. Returns what the host reads.
pub(super) fn env_file(content: &[u8]) -> Vec<u8> {
    let (kept, warning) = lines_for_the_host(content).unwrap_or_else(|| (content.to_vec(), String::new()));
    assert!(warning.len() < 4096 && !warning.chars().any(char::is_control), "{warning:?}");
    let mut sent = content.split_inclusive(|byte| *byte == b'\n');
    for line in kept.split_inclusive(|byte| *byte == b'\n') {
        assert!(sent.any(|other| other == line), "{line:?} is not the container's, or in another place");
    }
    assert!(lines_for_the_host(&kept).is_none(), "a second look refuses more");
    for (name, value) in assigned(&kept) {
        assert_eq!(names::reach(&name), Reach::Anyone, "{name}");
        assert!(name.len() + value + 2 <= LONGEST, "no program could be started with {name}");
    }
    kept
}

/// The variables after bash's `while read -r line; do export "$line"; done`, with the lengths of their values. Panics where bash would fail,
/// or run a subscript.
fn assigned(content: &[u8]) -> BTreeMap<String, usize> {
    let mut variables = BTreeMap::new();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let line: Vec<u8> = line.iter().copied().filter(|byte| *byte != 0).collect();
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_matches([' ', '\t', '\n']);
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let (name, is_added) = match (name.strip_suffix('+'), value) {
            (Some(name), Some(_)) => (name, true),
            _ => (name, false),
        };
        let mut letters = name.bytes();
        let is_first = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        assert!(is_first && letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name:?} is no name");
        let before = variables.entry(name.to_owned()).or_insert(0);
        if let Some(value) = value {
            // In bytes as they came: a replacement for a byte that is no text is longer.
            *before = if is_added { *before } else { 0 } + value.chars().map(bytes_of).sum::<usize>();
        }
    }
    variables
}

/// At least one byte stands behind a replacement.
fn bytes_of(letter: char) -> usize {
    if letter == char::REPLACEMENT_CHARACTER { 1 } else { letter.len_utf8() }
}
