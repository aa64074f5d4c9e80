//! Searches for one value, or for the prefix of a token, with the Knuth-Morris-Pratt algorithm: each byte is read once.

use super::masked_bytes::MaskedBytes;

/// The search of one level.
pub(super) struct Search {
    kind: SearchKind,
    value: Vec<u8>,
    /// The failure table: after `i + 1` matched bytes and a mismatch, `fallback[i]` bytes still match.
    fallback: Vec<usize>,
    matched: usize,
    token: Token,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SearchKind {
    /// The match becomes the mask.
    Value,
    /// The match stays; the token after it becomes the mask.
    Prefix,
}

/// State of the search for the end of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Outside,
    /// After a prefix.
    Begun,
    /// After a prefix and at least one hidden byte.
    Hidden,
}

impl Search {
    /// `value` must not be empty.
    pub(super) fn new(value: Vec<u8>, kind: SearchKind) -> Self {
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
        Self { kind, value, fallback, matched: 0, token: Token::Outside }
    }

    /// Passes a mask of an earlier level: no match extends over it.
    pub(super) fn pass_mask(&mut self, output: &mut MaskedBytes) {
        self.release(output);
        output.masks.push(output.bytes.len());
    }

    pub(super) fn finish(&mut self, output: &mut MaskedBytes) {
        self.release(output);
        self.close_token(output);
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.matched == 0 && self.token == Token::Outside
    }

    pub(super) fn read(&mut self, mut bytes: &[u8], output: &mut MaskedBytes) {
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
                    match self.kind {
                        SearchKind::Value => output.masks.push(output.bytes.len()),
                        SearchKind::Prefix => {
                            output.bytes.extend_from_slice(&self.value);
                            self.token = Token::Begun;
                        }
                    }
                }
            } else {
                // `matched` is above 0: at 0, the skip above stops at the first byte of the value.
                let kept = self.fallback[self.matched - 1];
                output.bytes.extend_from_slice(&self.value[..self.matched - kept]);
                self.matched = kept;
            }
        }
    }

    /// Drops the bytes of a token; returns the bytes after it.
    fn hide_token<'a>(&mut self, bytes: &'a [u8], output: &mut MaskedBytes) -> &'a [u8] {
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

    /// Ends a token: writes its mask.
    fn close_token(&mut self, output: &mut MaskedBytes) {
        if self.token == Token::Hidden {
            output.masks.push(output.bytes.len());
        }
        self.token = Token::Outside;
    }

    /// Writes the bytes of an incomplete match.
    fn release(&mut self, output: &mut MaskedBytes) {
        output.bytes.extend_from_slice(&self.value[..self.matched]);
        self.matched = 0;
    }
}
