//! Takes the values of masked variables out of a byte stream, as GitLab Runner does with its own trace.
//!
//! The runner masks only what it prints itself, but the log service and the object store see the output earlier. The rules
//! are the runner's: values are looked for without the white space around them, one after the other, the longest first (of equal ones the greater); each
//! occurrence, from the left, becomes `[MASKED]`; what a longer value has replaced is not looked at again. Matching is on exact bytes, so
//! an encoded or divided secret passes.
//!
//! Unlike the runner's, the result here never depends on how the input was divided into writes. Nothing is kept but the
//! beginning of a possible match, which is always shorter than the longest value.

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

/// Replaces values, and what follows the prefix of a token, in a stream.
pub struct Masker {
    /// Values, then prefixes, each the longest first.
    levels: Vec<Level>,
}

/// Output of a level: bytes, and where among them a mask stands.
#[derive(Default)]
struct Stretch {
    bytes: Vec<u8>,
    /// Indexes into `bytes`, ascending; the mask stands before the byte of this index.
    masks: Vec<usize>,
}

/// The search for one value: Knuth, Morris and Pratt's, so that no byte is looked at twice.
struct Level {
    wanted: Wanted,
    value: Vec<u8>,
    /// For each number of matched bytes less one: how many of them still match after a mismatch.
    fallback: Vec<usize>,
    matched: usize,
    token: Token,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Becomes the mask.
    Value,
    /// Stays; what follows becomes the mask.
    Prefix,
}

/// Where the search for the end of a token stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Outside,
    /// Behind a prefix.
    Begun,
    /// Behind a prefix and at least one byte that was left out.
    Hidden,
}

impl Masker {
    /// Looks for values alone. Empty ones are ignored and equal ones are looked for once.
    pub fn new(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { levels: unique(values).into_iter().map(|value| Level::new(value, Wanted::Value)).collect() }
    }

    /// Looks for values, then for tokens by their prefix: GitLab's own prefixes and the given ones.
    ///
    /// The prefix of a token stays and the letters, digits and `-._=` after it become `[MASKED]`. The runner cares for
    /// fifteen prefixes at most; here there is no limit.
    pub fn with_prefixes(
        values: impl IntoIterator<Item = Vec<u8>>,
        prefixes: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut masker = Self::new(values);
        let own = TOKEN_PREFIXES.map(|prefix| prefix.as_bytes().to_vec());
        let prefixes = unique(prefixes.into_iter().map(String::into_bytes).chain(own));
        masker.levels.extend(prefixes.into_iter().map(|prefix| Level::new(prefix, Wanted::Prefix)));
        masker
    }

    /// Appends to `out` what is safe to show; a possible beginning of a value at the end stays here.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.levels.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        self.run(bytes, false, out);
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
                level.release(&mut next);
                level.close_token(&mut next);
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
        f.debug_struct("Masker").field("values", &self.levels.len()).finish_non_exhaustive()
    }
}

impl Level {
    fn new(value: Vec<u8>, wanted: Wanted) -> Self {
        let mut fallback = vec![0; value.len()];
        let mut matched = 0;
        for at in 1..value.len() {
            while matched > 0 && value[at] != value[matched] {
                matched = fallback[matched - 1];
            }
            if value[at] == value[matched] {
                matched += 1;
            }
            fallback[at] = matched;
        }
        Self { wanted, value, fallback, matched: 0, token: Token::Outside }
    }

    fn pass(&mut self, input: &Stretch, output: &mut Stretch) {
        let mut from = 0;
        for &at in &input.masks {
            self.search(&input.bytes[from..at], output);
            self.release(output);
            output.masks.push(output.bytes.len());
            from = at;
        }
        self.search(&input.bytes[from..], output);
    }

    fn search(&mut self, mut bytes: &[u8], output: &mut Stretch) {
        while !bytes.is_empty() {
            if self.token != Token::Outside {
                bytes = self.hide_token(bytes, output);
                continue;
            }
            if self.matched == 0 {
                let skip = bytes.iter().position(|byte| *byte == self.value[0]).unwrap_or(bytes.len());
                let (plain, rest) = bytes.split_at(skip);
                output.bytes.extend_from_slice(plain);
                bytes = rest;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return };
            if byte == self.value[self.matched] {
                self.matched += 1;
                bytes = rest;
                if self.matched == self.value.len() {
                    self.matched = 0;
                    match self.wanted {
                        Wanted::Value => output.masks.push(output.bytes.len()),
                        Wanted::Prefix => {
                            output.bytes.extend_from_slice(&self.value);
                            self.token = Token::Begun;
                        }
                    }
                }
            } else {
                // Not at zero: there the skip above stops at the first byte of the value only.
                let kept = self.fallback[self.matched - 1];
                output.bytes.extend_from_slice(&self.value[..self.matched - kept]);
                self.matched = kept;
            }
        }
    }

    /// Leaves a token's bytes out and returns what follows it.
    fn hide_token<'a>(&mut self, bytes: &'a [u8], output: &mut Stretch) -> &'a [u8] {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._=".contains(byte);
        let (hidden, rest) = bytes.split_at(bytes.iter().take_while(|byte| is_part(byte)).count());
        if !hidden.is_empty() {
            self.token = Token::Hidden;
        }
        if !rest.is_empty() {
            self.close_token(output);
        }
        rest
    }

    /// Shows the mask of a token that has ended.
    fn close_token(&mut self, output: &mut Stretch) {
        if self.token == Token::Hidden {
            output.masks.push(output.bytes.len());
        }
        self.token = Token::Outside;
    }

    /// Gives back a match that did not come to its end.
    fn release(&mut self, output: &mut Stretch) {
        output.bytes.extend_from_slice(&self.value[..self.matched]);
        self.matched = 0;
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask_all(values: &[&str], writes: &[&str]) -> String {
        let mut masker = Masker::new(values.iter().map(|value| value.as_bytes().to_vec()));
        let mut out = Vec::new();
        for write in writes {
            masker.push(write.as_bytes(), &mut out);
        }
        masker.flush(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// The rule in its plainest form, over the whole input at once.
    fn model(values: &[Vec<u8>], input: &[u8]) -> Vec<u8> {
        let mut values: Vec<&Vec<u8>> = values.iter().filter(|value| !value.is_empty()).collect();
        values.sort_by_key(|value| (value.len(), *value));
        values.reverse();
        // A masked place is `None`.
        let mut cells: Vec<Option<u8>> = input.iter().copied().map(Some).collect();
        for value in values {
            let wanted: Vec<Option<u8>> = value.iter().copied().map(Some).collect();
            let mut next = Vec::new();
            let mut at = 0;
            while at < cells.len() {
                if cells[at..].starts_with(&wanted) {
                    next.push(None);
                    at += wanted.len();
                } else {
                    next.push(cells[at]);
                    at += 1;
                }
            }
            cells = next;
        }
        cells.into_iter().flat_map(|cell| cell.map_or(MASK.to_vec(), |byte| vec![byte])).collect()
    }

    #[test]
    fn longer_values_go_first_and_masks_are_not_masked_again() {
        assert_eq!(mask_all(&["ab", "abcd"], &["xabcdab"]), "x[MASKED][MASKED]");
        assert_eq!(mask_all(&["xab", "abcd"], &["xabcd"]), "x[MASKED]");
        assert_eq!(mask_all(&["secret", "MASKED"], &["secret MASKED"]), "[MASKED] [MASKED]");
        assert_eq!(mask_all(&["abc", "WXYZ"], &["abWXYZc"]), "ab[MASKED]c");
        assert_eq!(mask_all(&["", "a", "a"], &["banana"]), "b[MASKED]n[MASKED]n[MASKED]");
        assert_eq!(mask_all(&["ab", "bc"], &["abc"]), "a[MASKED]");
        assert_eq!(mask_all(&["key\n", " "], &["a key."]), "a [MASKED].");
        assert_eq!(mask_all(&[], &["plain"]), "plain");
    }

    #[test]
    fn a_value_is_found_over_write_boundaries() {
        assert_eq!(mask_all(&["secret"], &["my s", "ecr", "", "et!"]), "my [MASKED]!");
        assert_eq!(mask_all(&["aaab"], &["aa", "aab"]), "a[MASKED]");
    }

    #[test]
    fn tokens_are_hidden_behind_their_prefix_over_write_boundaries() {
        let mask = |writes: &[&str]| {
            let mut masker = Masker::with_prefixes([b"hunter2".to_vec()], ["mine_".to_owned()]);
            let mut out = Vec::new();
            for write in writes {
                masker.push(write.as_bytes(), &mut out);
            }
            masker.flush(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(mask(&["a gl", "pat-a", "b.C", " z"]), "a glpat-[MASKED] z");
        assert_eq!(mask(&["glpat-", "\n"]), "glpat-\n");
        assert_eq!(mask(&["x mine_1=2"]), "x mine_[MASKED]");
        assert_eq!(mask(&["glpat-hunter2 glpat-ahunter2b!"]), "glpat-[MASKED] glpat-[MASKED][MASKED]!");
        assert_eq!(mask(&["glpat-glrt-secret,glrt-x"]), "glpat-[MASKED],glrt-[MASKED]");
        assert_eq!(mask(&["glpa glpat"]), "glpa glpat");
    }

    #[test]
    fn a_possible_match_is_held_back_and_given_back() {
        let mut masker = Masker::new([b"secret".to_vec()]);
        let mut out = Vec::new();
        masker.push(b"a sec", &mut out);
        assert_eq!(out, b"a ");
        masker.push(b"ond", &mut out);
        assert_eq!(out, b"a second");
        masker.push(b"se", &mut out);
        masker.flush(&mut out);
        assert_eq!(out, b"a secondse");
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", Masker::new([b"hunter2".to_vec()])).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn the_result_is_the_models_however_the_input_is_divided(
            values in prop::collection::vec(prop::collection::vec(b'a'..=b'c', 0..5), 0..6),
            writes in prop::collection::vec(prop::collection::vec(b'a'..=b'd', 0..9), 0..20),
        ) {
            let mut masker = Masker::new(values.clone());
            let mut out = Vec::new();
            for write in &writes {
                masker.push(write, &mut out);
            }
            masker.flush(&mut out);
            prop_assert_eq!(out, model(&values, &writes.concat()));
        }
    }
}
