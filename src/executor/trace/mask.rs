//! Replaces the values of masked variables in a byte stream, as GitLab Runner does with its own trace.
//!
//! The runner masks what it prints, but the log service and the object store receive the output earlier. The rules are the runner's:
//!
//! 1. Values are trimmed and searched one after the other, the longest first (of equal lengths the greater); each occurrence, from
//!    the left, becomes `[MASKED]`.
//! 2. Then the values of sensitive URL parameters are replaced, see [`url`].
//! 3. Then the text after the prefix of a token.
//!
//! Replaced text is not searched again. Matching is on exact bytes, so an encoded or split secret is not found.
//!
//! Differences from the runner: its result may depend on how the input was split into writes, and it may reorder bytes (when a value
//! begins before another one that was replaced); this one replaces what the runner replaces when it gets the whole input at once, or
//! more. The number of prefixes is not limited. The masker keeps only the beginning of a possible match, shorter than the longest
//! value.

mod masked_bytes;
mod scan;
mod search;
pub mod url;

use masked_bytes::MaskedBytes;
use scan::Scanner;
use search::{Search, SearchKind};

/// Replacement of a secret.
pub const MASK: &[u8] = b"[MASKED]";

/// Prefixes of GitLab's own tokens.
const TOKEN_PREFIXES: [&str; 14] = [
    "glpat-",
    "gloas-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glrtr-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "glsoat-",
    "glffct-",
    "_gitlab_session=",
    "gltok-",
];

/// Number of bytes after a possible match that all levels read, before the fast scan continues.
const CLOSE_LOOK: usize = 256;

/// Masks values, URL parameters and tokens in a stream.
pub struct Masker {
    /// Each level reads the output of the one before.
    levels: Vec<Level>,
    scanner: Scanner,
}

enum Level {
    Search(Search),
    Url(url::Parameters),
}

impl Masker {
    /// Masks values only. Empty and repeated values are ignored.
    pub fn new(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let values = unique(values);
        let scanner = Scanner::new(values.iter().cloned());
        let levels = values.into_iter().map(|value| Level::Search(Search::new(value, SearchKind::Value))).collect();
        Self { levels, scanner }
    }

    /// Masks values, then sensitive URL parameters, then tokens with one of GitLab's own prefixes or of the given ones.
    ///
    /// A token's prefix stays; the letters, digits and `-._=` after it become `[MASKED]`.
    pub fn with_prefixes(
        values: impl IntoIterator<Item = Vec<u8>>,
        prefixes: impl IntoIterator<Item = String>,
    ) -> Self {
        let values = unique(values);
        let own = TOKEN_PREFIXES.map(|prefix| prefix.as_bytes().to_vec());
        let prefixes = unique(prefixes.into_iter().map(String::into_bytes).chain(own));
        let parameters = url::BEGINNINGS.map(|byte| vec![byte]);
        let scanner = Scanner::new(values.iter().chain(&prefixes).chain(&parameters).cloned());
        let search = |kind| move |value| Level::Search(Search::new(value, kind));
        let mut levels: Vec<Level> = values.into_iter().map(search(SearchKind::Value)).collect();
        levels.push(Level::Url(url::Parameters::default()));
        levels.extend(prefixes.into_iter().map(search(SearchKind::Prefix)));
        Self { levels, scanner }
    }

    /// Appends the masked bytes to `out`; keeps back a possible beginning of a value at the end.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.levels.iter().all(Level::is_at_rest) {
                // No match begins before this point, so no level would change these bytes.
                let (plain, after) = rest.split_at(self.scanner.find(rest).min(rest.len()));
                out.extend_from_slice(plain);
                rest = after;
            }
            let (close, after) = rest.split_at(rest.len().min(CLOSE_LOOK));
            if !close.is_empty() {
                self.run(close, false, out);
            }
            rest = after;
        }
    }

    /// Appends the bytes that were kept back. Call it at the end of the stream.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        self.run(&[], true, out);
    }

    fn run(&mut self, bytes: &[u8], is_end: bool, out: &mut Vec<u8>) {
        let mut masked = MaskedBytes { bytes: bytes.to_vec(), masks: Vec::new() };
        for level in &mut self.levels {
            let mut next = MaskedBytes { bytes: Vec::with_capacity(masked.bytes.len()), masks: Vec::new() };
            level.pass(&masked, &mut next);
            if is_end {
                level.finish(&mut next);
            }
            masked = next;
        }
        let mut from = 0;
        for at in masked.masks {
            out.extend_from_slice(&masked.bytes[from..at]);
            out.extend_from_slice(MASK);
            from = at;
        }
        out.extend_from_slice(&masked.bytes[from..]);
    }
}

impl std::fmt::Debug for Masker {
    /// Counts only: the values are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masker").field("levels", &self.levels.len()).finish_non_exhaustive()
    }
}

impl Level {
    fn pass(&mut self, input: &MaskedBytes, output: &mut MaskedBytes) {
        let mut from = 0;
        for &at in &input.masks {
            self.read(&input.bytes[from..at], output);
            match self {
                Level::Search(search) => search.pass_mask(output),
                Level::Url(parameters) => parameters.pass_mask(output),
            }
            from = at;
        }
        self.read(&input.bytes[from..], output);
    }

    fn read(&mut self, bytes: &[u8], output: &mut MaskedBytes) {
        match self {
            Level::Search(search) => search.read(bytes, output),
            Level::Url(parameters) => parameters.read(bytes, output),
        }
    }

    fn finish(&mut self, output: &mut MaskedBytes) {
        match self {
            Level::Search(search) => search.finish(output),
            Level::Url(parameters) => parameters.finish(output),
        }
    }

    /// True when the level keeps nothing back and is in its initial state.
    fn is_at_rest(&self) -> bool {
        match self {
            Level::Search(search) => search.is_at_rest(),
            Level::Url(parameters) => parameters.is_at_rest(),
        }
    }
}

/// Trims the values, drops empty and repeated ones, and sorts them in the order of the search.
fn unique(values: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> =
        values.into_iter().map(|value| trimmed(&value)).filter(|value| !value.is_empty()).collect();
    values.sort_by(|one, other| (other.len(), other).cmp(&(one.len(), one)));
    values.dedup();
    values
}

/// Trims white space: Unicode's if the value is UTF-8, else ASCII's.
fn trimmed(value: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(value) {
        Ok(text) => text.trim().as_bytes().to_vec(),
        Err(_) => value.trim_ascii().to_vec(),
    }
}

#[cfg(test)]
mod tests;
