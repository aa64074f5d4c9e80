//! Masks the values of sensitive URL parameters such as `?private_token=...`, as GitLab Runner does.
//!
//! A parameter begins with `?` or `&` anywhere in the output; its name ends with `=`, its value with `?`, `&`, white space or a
//! control character. An empty value is masked too.

use super::masked_bytes::MaskedBytes;

/// First characters of a parameter.
pub(super) const BEGINNINGS: [u8; 2] = *b"?&";

/// Names of the sensitive parameters, in lower case; the comparison ignores case.
pub const NAMES: [&str; 6] =
    ["private_token", "authenticity_token", "rss_token", "x-amz-signature", "x-amz-credential", "x-amz-security-token"];

/// Longest of [`NAMES`].
const LONGEST: usize = 20;

/// The search for parameters.
#[derive(Default)]
pub(super) struct Parameters {
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Outside,
    /// After `?` or `&`: the name so far.
    Name(Vec<u8>),
    /// After the `=` of a sensitive name: the beginning of a character that may end the value.
    Value(Vec<u8>),
}

impl Parameters {
    pub(super) fn read(&mut self, bytes: &[u8], output: &mut MaskedBytes) {
        for &byte in bytes {
            match &mut self.state {
                State::Value(cut) => {
                    cut.push(byte);
                    if let Some(end) = end_of_value(cut) {
                        output.masks.push(output.bytes.len());
                        self.state = State::Outside;
                        for byte in end {
                            self.show(byte, output);
                        }
                    }
                }
                State::Outside | State::Name(_) => self.show(byte, output),
            }
        }
    }

    /// Passes a mask of an earlier level: it may be part of a value, never of a name.
    pub(super) fn pass_mask(&mut self, output: &mut MaskedBytes) {
        if let State::Value(cut) = &mut self.state {
            cut.clear();
        } else {
            self.state = State::Outside;
            output.masks.push(output.bytes.len());
        }
    }

    pub(super) fn finish(&mut self, output: &mut MaskedBytes) {
        if let State::Value(_) = std::mem::take(&mut self.state) {
            output.masks.push(output.bytes.len());
        }
    }

    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Outside)
    }

    /// Writes a byte that is not part of a value.
    fn show(&mut self, byte: u8, output: &mut MaskedBytes) {
        output.bytes.push(byte);
        if BEGINNINGS.contains(&byte) {
            self.state = State::Name(Vec::new());
            return;
        }
        let State::Name(name) = &mut self.state else { return };
        if byte == b'=' {
            self.state = if is_sensitive(name) { State::Value(Vec::new()) } else { State::Outside };
        } else if name.len() < LONGEST {
            name.push(byte);
        } else {
            self.state = State::Outside;
        }
    }
}

/// Removes the value's bytes from `cut`; returns the character that ends the value.
fn end_of_value(cut: &mut Vec<u8>) -> Option<Vec<u8>> {
    while !cut.is_empty() {
        match std::str::from_utf8(cut).map(|text| text.chars().next()) {
            Ok(Some(character)) => {
                let is_end = matches!(character, '?' | '&') || character.is_whitespace() || character.is_control();
                let character = std::mem::take(cut);
                return is_end.then_some(character);
            }
            Err(error) if error.error_len().is_none() => return None,
            Ok(None) | Err(_) => {
                cut.remove(0);
            }
        }
    }
    None
}

fn is_sensitive(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    // The two non-ASCII characters that the runner's lower-casing turns into ASCII letters.
    let lower = |character| match character {
        '\u{212a}' => 'k',
        '\u{130}' => 'i',
        other => other.to_ascii_lowercase(),
    };
    let name: String = name.chars().map(lower).collect();
    NAMES.contains(&name.as_str())
}
