//! Takes the values of masked variables out of a byte stream, as GitLab Runner does with its own trace.
//!
//! The runner masks only what it prints itself, but the log service and the object store see the output earlier. The rules
//! are the runner's:
//!
//! 1. Values are looked for without the white space around them, one after the other, the longest first (of equal ones the
//!    greater); each occurrence, from the left, becomes `[MASKED]`.
//! 2. Then the values of sensitive parameters of URLs, see [`url`].
//! 3. Then what follows the prefix of a token.
//!
//! What one of them has replaced is not looked at again. Matching is on exact bytes, so an encoded or divided secret passes.
//!
//! It differs from the runner where the runner's result depends on how the input was divided into writes, or where it
//! changes the order of bytes (a value that begins before another one that was replaced), and in that there is no
//! limit to the number of prefixes: what is replaced is what the runner replaces when it sees the whole input at once, or more.
//! Nothing is kept but the beginning of a possible match, which is always shorter than the longest value.

mod scan;
mod search;
mod stretch;
pub mod url;

use scan::Scanner;
use search::{Search, Wanted};
use stretch::Stretch;

/// What stands for a secret.
pub const MASK: &[u8] = b"[MASKED]";

/// Prefixes that GitLab gives its own tokens.
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

/// Behind a possible beginning so many bytes are looked at closely before the quick search goes on.
const CLOSE_LOOK: usize = 256;

/// Replaces values, parameters of URLs, and what follows the prefix of a token, in a stream.
pub struct Masker {
    /// Each level reads what the one before it left.
    levels: Vec<Level>,
    scanner: Scanner,
}

enum Level {
    Search(Search),
    Url(url::Parameters),
}

impl Masker {
    /// Looks for values alone. Empty ones are ignored and equal ones are looked for once.
    pub fn new(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let values = unique(values);
        let scanner = Scanner::new(values.iter().cloned());
        let levels = values.into_iter().map(|value| Level::Search(Search::new(value, Wanted::Value))).collect();
        Self { levels, scanner }
    }

    /// Looks for values, then for sensitive parameters of URLs, then for tokens by their prefix: GitLab's own prefixes and
    /// the given ones.
    ///
    /// The prefix of a token stays and the letters, digits and `-._=` after it become `[MASKED]`.
    pub fn with_prefixes(
        values: impl IntoIterator<Item = Vec<u8>>,
        prefixes: impl IntoIterator<Item = String>,
    ) -> Self {
        let values = unique(values);
        let own = TOKEN_PREFIXES.map(|prefix| prefix.as_bytes().to_vec());
        let prefixes = unique(prefixes.into_iter().map(String::into_bytes).chain(own));
        let parameters = url::BEGINNINGS.map(|byte| vec![byte]);
        let scanner = Scanner::new(values.iter().chain(&prefixes).chain(&parameters).cloned());
        let search = |wanted| move |value| Level::Search(Search::new(value, wanted));
        let mut levels: Vec<Level> = values.into_iter().map(search(Wanted::Value)).collect();
        levels.push(Level::Url(url::Parameters::default()));
        levels.extend(prefixes.into_iter().map(search(Wanted::Prefix)));
        Self { levels, scanner }
    }

    /// Appends to `out` what is safe to show; a possible beginning of a value at the end stays here.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.levels.iter().all(Level::is_at_rest) {
                // Nothing begins in here, so no level would change it.
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

    /// Appends what was held back. Call it at the end of the stream.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        self.run(&[], true, out);
    }

    fn run(&mut self, bytes: &[u8], is_end: bool, out: &mut Vec<u8>) {
        let mut stretch = Stretch { bytes: bytes.to_vec(), masks: Vec::new() };
        for level in &mut self.levels {
            let mut next = Stretch { bytes: Vec::with_capacity(stretch.bytes.len()), masks: Vec::new() };
            level.pass(&stretch, &mut next);
            if is_end {
                level.finish(&mut next);
            }
            stretch = next;
        }
        let mut from = 0;
        for at in stretch.masks {
            out.extend_from_slice(&stretch.bytes[from..at]);
            out.extend_from_slice(MASK);
            from = at;
        }
        out.extend_from_slice(&stretch.bytes[from..]);
    }
}

impl std::fmt::Debug for Masker {
    /// Counts only: the values are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masker").field("levels", &self.levels.len()).finish_non_exhaustive()
    }
}

impl Level {
    fn pass(&mut self, input: &Stretch, output: &mut Stretch) {
        let mut from = 0;
        for &at in &input.masks {
            self.read(&input.bytes[from..at], output);
            match self {
                Level::Search(search) => search.meet_mask(output),
                Level::Url(parameters) => parameters.meet_mask(output),
            }
            from = at;
        }
        self.read(&input.bytes[from..], output);
    }

    fn read(&mut self, bytes: &[u8], output: &mut Stretch) {
        match self {
            Level::Search(search) => search.read(bytes, output),
            Level::Url(parameters) => parameters.read(bytes, output),
        }
    }

    fn finish(&mut self, output: &mut Stretch) {
        match self {
            Level::Search(search) => search.finish(output),
            Level::Url(parameters) => parameters.finish(output),
        }
    }

    /// Holds nothing back, and what comes is looked at as if it were the beginning.
    fn is_at_rest(&self) -> bool {
        match self {
            Level::Search(search) => search.is_at_rest(),
            Level::Url(parameters) => parameters.is_at_rest(),
        }
    }
}

/// Without empty ones and duplicates, in the order in which they are looked for.
fn unique(values: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> =
        values.into_iter().map(|value| trimmed(&value)).filter(|value| !value.is_empty()).collect();
    values.sort_by(|one, other| (other.len(), other).cmp(&(one.len(), one)));
    values.dedup();
    values
}

/// The value without white space around it, in the Unicode sense where it is text.
fn trimmed(value: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(value) {
        Ok(text) => text.trim().as_bytes().to_vec(),
        Err(_) => value.trim_ascii().to_vec(),
    }
}

#[cfg(test)]
mod tests;
