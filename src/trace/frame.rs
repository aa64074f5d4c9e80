//! The frame: one log line that carries a piece of a run's output through a log service that is not a byte stream.
//!
//! CloudWatch mangles control characters, glues blank and indented lines to the line before, cuts lines at 16,384 bytes
//! and promises neither order nor completeness. A frame survives all of it and stays readable in the console:
//!
//! ```text
//! <run>:<offset>:<checksum>|<payload>            data; the payload begins at byte <offset> of the run's output
//! <run>:<bytes>:<checksum>!<code> <hash>         the end; <bytes> is the size of the whole output
//! ```
//!
//! Run, offset and code are decimal. The checksum is the first 4 bytes, in hex, of BLAKE3 over run (u32, little endian),
//! offset (u64, little endian), the kind character and the payload before escaping; it tells a frame from damage and from
//! look-alikes. The hash is the first 16 bytes, in hex, of BLAKE3 over the whole output.
//!
//! Escapes: `\n` `\r` `\t` `\e` (ESC) `\\`, and `\xNN` for every byte of other control characters (C0, DEL, C1), of
//! invalid UTF-8, of white space beyond ASCII, of the byte order mark, and for a blank that would end the line. All other
//! UTF-8 stands as it is. This module does no I/O and never fails.

use std::fmt::Write as _;

/// Upper limit of a frame line in bytes, without its newline; every line is shorter. The log pipeline cuts at 16,384.
pub const MAX_LINE: usize = 12_288;

/// Room for the prefix: u32, u64 and checksum in text, two colons and the kind.
const MAX_PREFIX: usize = 10 + 1 + 20 + 1 + CHECKSUM_DIGITS + 1;
pub(super) const CHECKSUM_DIGITS: usize = 8;
/// Longest escape of one character: four bytes as `\xNN`.
const MAX_ESCAPE: usize = 16;

pub(super) const DATA: char = '|';
pub(super) const END: char = '!';

/// What the end frame of a run says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The script's exit code, 128 + n after signal n.
    pub code: i32,
    /// Size of the whole output in bytes, after masking.
    pub bytes: u64,
    /// The first 16 bytes of BLAKE3 over the whole output, 32 hex digits.
    pub hash: String,
}

/// Turns one run's output into frames. Holds no output back: what goes in comes out with the same call.
#[derive(Debug, Clone)]
pub struct FrameEncoder {
    run: u32,
    offset: u64,
    hasher: blake3::Hasher,
}

impl FrameEncoder {
    pub fn new(run: u32) -> Self {
        Self { run, offset: 0, hasher: blake3::Hasher::new() }
    }

    /// The frames of `bytes`, in order, each shorter than [`MAX_LINE`] and without a newline. Empty input gives none.
    ///
    /// Valid characters are never divided between frames; a sequence that the input itself divides travels escaped.
    pub fn encode(&mut self, bytes: &[u8]) -> Vec<String> {
        self.hasher.update(bytes);
        let mut lines = Vec::new();
        let mut body = String::new();
        let mut start = 0;
        let mut at = 0;
        let room = MAX_LINE - MAX_PREFIX - MAX_ESCAPE;
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if body.len() >= room {
                    self.close(&mut lines, &mut body, &bytes[start..at]);
                    start = at;
                }
                escape_char(character, &mut body);
                at += character.len_utf8();
            }
            for byte in chunk.invalid() {
                if body.len() >= room {
                    self.close(&mut lines, &mut body, &bytes[start..at]);
                    start = at;
                }
                escape_byte(*byte, &mut body);
                at += 1;
            }
        }
        if at > start {
            self.close(&mut lines, &mut body, &bytes[start..at]);
        }
        lines
    }

    /// The end frame. Nothing of this run may be encoded after it.
    pub fn end(&self, code: i32) -> String {
        let payload = format!("{code} {}", self.hash());
        let checksum = checksum(self.run, self.offset, END, payload.as_bytes());
        format!("{}:{}:{checksum}{END}{payload}", self.run, self.offset)
    }

    /// Bytes encoded so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// The hash of what was encoded so far, as [`End::hash`].
    pub fn hash(&self) -> String {
        hash_text(&self.hasher)
    }

    fn close(&mut self, lines: &mut Vec<String>, body: &mut String, payload: &[u8]) {
        if body.ends_with(' ') {
            body.pop();
            escape_byte(b' ', body);
        }
        let checksum = checksum(self.run, self.offset, DATA, payload);
        lines.push(format!("{}:{}:{checksum}{DATA}{body}", self.run, self.offset));
        body.clear();
        self.offset += payload.len() as u64;
    }
}

/// How many leading bytes of `bytes` do not end inside a UTF-8 sequence that more input could complete.
///
/// At most three bytes are left out; invalid bytes are not waited for.
pub fn complete_len(bytes: &[u8]) -> usize {
    let tail_start = bytes.len().saturating_sub(3);
    for (back, byte) in bytes[tail_start..].iter().rev().enumerate() {
        let needed = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        let start = bytes.len() - back - 1;
        let incomplete =
            back + 1 < needed && std::str::from_utf8(&bytes[start..]).is_err_and(|error| error.error_len().is_none());
        return if incomplete { start } else { bytes.len() };
    }
    bytes.len()
}

pub(super) fn checksum(run: u32, offset: u64, kind: char, payload: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut kind_text = [0; 4];
    hasher.update(&run.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(kind.encode_utf8(&mut kind_text).as_bytes());
    hasher.update(payload);
    hasher.finalize().to_hex()[..CHECKSUM_DIGITS].to_owned()
}

pub(super) fn hash_text(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..32].to_owned()
}

fn escape_char(character: char, body: &mut String) {
    match character {
        '\n' => body.push_str("\\n"),
        '\r' => body.push_str("\\r"),
        '\t' => body.push_str("\\t"),
        '\u{1b}' => body.push_str("\\e"),
        '\\' => body.push_str("\\\\"),
        ' '..='~' => body.push(character),
        _ if character.is_control() || character.is_whitespace() || character == '\u{feff}' => {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                escape_byte(byte, body);
            }
        }
        _ => body.push(character),
    }
}

fn escape_byte(byte: u8, body: &mut String) {
    write!(body, "\\x{byte:02x}").expect("writing to a String does not fail");
}

/// The bytes an escaped payload stands for, or `None` when it is not one.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first()?;
        rest = after;
        match escape {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'e' => bytes.push(0x1b),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                let &[high, low] = digits else { return None };
                bytes.push(hex_digit(high)? << 4 | hex_digit(low)?);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(line: &str) -> &str {
        line.split_once(DATA).unwrap().1
    }

    #[test]
    fn ordinary_text_stays_readable() {
        let lines = FrameEncoder::new(3).encode("epoch 1 #015 größe\n\tloss\r\u{1b}[0K \\ ".as_bytes());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("3:0:"), "{lines:?}");
        assert_eq!(payload(&lines[0]), r"epoch 1 #015 größe\n\tloss\r\e[0K \\\x20");
    }

    #[test]
    fn characters_a_pipeline_may_change_are_escaped() {
        let lines = FrameEncoder::new(1).encode("\0\u{7f}\u{85}\u{2028}\u{feff}\u{a0}".as_bytes());
        assert_eq!(payload(&lines[0]), r"\x00\x7f\xc2\x85\xe2\x80\xa8\xef\xbb\xbf\xc2\xa0");
        let lines = FrameEncoder::new(1).encode(b"a\xff\xc3");
        assert_eq!(payload(&lines[0]), r"a\xff\xc3");
    }

    #[test]
    fn offsets_count_raw_bytes_and_the_end_carries_them() {
        let mut encoder = FrameEncoder::new(7);
        assert!(encoder.encode(b"").is_empty());
        encoder.encode(b"one\n");
        let second = encoder.encode(b"two\n");
        assert!(second[0].starts_with("7:4:"), "{second:?}");
        assert_eq!(encoder.bytes(), 8);
        let end = encoder.end(-3);
        assert!(end.starts_with("7:8:"), "{end}");
        assert!(end.ends_with(&format!("!-3 {}", &blake3::hash(b"one\ntwo\n").to_hex()[..32])), "{end}");
    }

    #[test]
    fn the_worst_input_stays_below_the_line_limit() {
        for unit in ["\u{0}", "é", "\u{2028}", "a", "😀", "\\"] {
            let mut encoder = FrameEncoder::new(u32::MAX);
            encoder.offset = u64::MAX / 2;
            let lines = encoder.encode(unit.repeat(20_000).as_bytes());
            assert!(lines.len() > 1);
            assert!(lines.iter().all(|line| line.len() < MAX_LINE));
        }
    }

    #[test]
    fn an_incomplete_sequence_is_recognized_at_the_end_only() {
        assert_eq!(complete_len("aé".as_bytes()), 3);
        assert_eq!(complete_len(b"a\xc3"), 1);
        assert_eq!(complete_len(b"a\xf0\x9f\x98"), 1);
        assert_eq!(complete_len(b"a\xff"), 2);
        assert_eq!(complete_len(b"\x80\x80\x80"), 3);
        assert_eq!(complete_len(b"\xe0\x80"), 2, "never valid, so not waited for");
        assert_eq!(complete_len(b""), 0);
    }

    proptest! {
        #[test]
        fn every_line_is_plain_and_reversible(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let mut back = Vec::new();
            for line in FrameEncoder::new(1).encode(&bytes) {
                prop_assert!(line.len() < MAX_LINE);
                prop_assert!(!line.chars().any(char::is_control));
                prop_assert_eq!(line.trim(), line.as_str());
                back.extend(unescape(payload(&line)).unwrap());
            }
            prop_assert_eq!(back, bytes);
        }
    }
}
