//! The search for one value, or for the prefix of a token: Knuth, Morris and Pratt's, so that no byte is looked at twice.

use super::stretch::Stretch;

/// One level's state.
pub(super) struct Search {
    wanted: Wanted,
    value: Vec<u8>,
    /// For each number of matched bytes less one: how many of them still match after a mismatch.
    fallback: Vec<usize>,
    matched: usize,
    token: Token,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
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

impl Search {
    /// `value` is not empty.
    pub(super) fn new(value: Vec<u8>, wanted: Wanted) -> Self {
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

    /// A mask of an earlier level: no value reaches over it.
    pub(super) fn meet_mask(&mut self, output: &mut Stretch) {
        self.release(output);
        output.masks.push(output.bytes.len());
    }

    pub(super) fn finish(&mut self, output: &mut Stretch) {
        self.release(output);
        self.close_token(output);
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.matched == 0 && self.token == Token::Outside
    }

    pub(super) fn read(&mut self, mut bytes: &[u8], output: &mut Stretch) {
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
