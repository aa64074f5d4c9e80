//! The frame: a log line that carries a piece of a run's output through a log service that is not a byte stream.
//!
//! CloudWatch mangles control characters, joins blank and indented lines to the line before, cuts lines at 16,384 bytes and
//! guarantees neither order nor completeness. A frame survives all of it and stays readable in the console:
//!
//! ```text
//! <run>:<offset>:<tag>|<payload>            data; the payload begins at byte <offset> of the run's output
//! <run>:<number>:<tag>><payload>            a line of another writer during the run, counted from 0
//! <run>:<bytes>:<tag>!<code> <hash> <lines> the end: size and hash of the whole output, number of foreign lines
//! 0:<number>:<tag>?<payload>                a report of the agent, in a container without network
//! ```
//!
//! Run, offset, number, code and lines are decimal. The tag is the first 8 bytes, in hex, of [`Seal::tag`] over the payload before
//! escaping; it detects damaged frames, forged frames and text that looks like a frame. In a session without a key it is a checksum
//! of 4 bytes. The hash is the first 16 bytes, in hex, of BLAKE3 over the whole output.
//!
//! Escapes: `\n` `\r` `\t` `\e` (ESC) `\\`, and `\xNN` for each byte of other control characters (C0, DEL, C1), of invalid UTF-8,
//! of white space beyond ASCII, of the byte order mark, and for a space at the end of the line. Other UTF-8 is not escaped. This
//! module does no I/O and never fails.

use crate::base::node::NodeId;
use crate::base::seal::{Label, MessageKind, NodeSeal, Seal};

/// Longest frame line in bytes, without its newline. The log pipeline cuts at 16,384.
pub const MAX_LINE: usize = 12_288;

/// Longest prefix: u32, u64 and tag in text, two colons and the kind.
const MAX_PREFIX: usize = 10 + 1 + 20 + 1 + TAG_DIGITS + 1;
const TAG_DIGITS: usize = 16;
/// Length of the checksum, in a session without a key.
const CHECKSUM_DIGITS: usize = 8;
pub(super) const HASH_DIGITS: usize = 32;
/// Longest escape of one character: four bytes as `\xNN`.
const MAX_ESCAPE: usize = 16;
/// Length at which a body is complete; the last escape may exceed it.
const ROOM: usize = MAX_LINE - MAX_PREFIX - MAX_ESCAPE;

pub(super) const DATA: u8 = b'|';
pub(super) const FOREIGN: u8 = b'>';
pub(super) const END: u8 = b'!';
pub(super) const REPORT: u8 = b'?';
/// The run in the frames of reports.
pub(super) const NO_RUN: u32 = 0;

/// The content of the end frame of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndFrame {
    /// The script's exit code; 128 + n after signal n.
    pub code: i32,
    /// Size of the whole output in bytes, after masking.
    pub bytes: u64,
    /// The first 16 bytes of BLAKE3 over the whole output, 32 hex digits.
    pub hash: String,
    /// Number of lines that other writers wrote during the run.
    pub foreign_lines: u64,
}

/// Encodes one run's output as frames. Each call encodes all of its input.
#[derive(Debug, Clone)]
pub struct FrameEncoder {
    seal: FrameSeal,
    offset: u64,
    foreign_lines: u64,
    hasher: blake3::Hasher,
}

impl FrameEncoder {
    pub fn new(run: u32, seal: NodeSeal) -> Self {
        Self { seal: FrameSeal::new(run, seal), offset: 0, foreign_lines: 0, hasher: blake3::Hasher::new() }
    }

    /// Appends the frames of `bytes`, in order, each with a newline and shorter than [`MAX_LINE`] without it.
    ///
    /// A valid character is never split between frames. A character that is split between two calls is escaped.
    pub fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.hasher.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = frame_of(&self.seal, self.offset, DATA, rest, out);
            self.offset += taken as u64;
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Appends the frames of a line of another writer, given without its newline; a long line is split.
    pub fn encode_foreign(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut rest = line;
        loop {
            let taken = frame_of(&self.seal, self.foreign_lines, FOREIGN, rest, out);
            self.foreign_lines += 1;
            rest = rest.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Appends the end frame. Encode nothing of this run afterwards.
    pub fn end(&self, code: i32, out: &mut Vec<u8>) {
        let payload = format!("{code} {} {}", self.hash(), self.foreign_lines);
        out.extend_from_slice(format!("{}:{}:", self.seal.run, self.offset).as_bytes());
        out.extend_from_slice(self.seal.tag(self.offset, END, payload.as_bytes()).as_bytes());
        out.push(END);
        out.extend_from_slice(payload.as_bytes());
        out.push(b'\n');
    }

    /// Bytes encoded so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// The hash of the bytes encoded so far, as in [`EndFrame::hash`].
    pub fn hash(&self) -> String {
        hash_text(&self.hasher)
    }
}

/// The frame of a report with this number, with a newline. `None` for a report that does not fit into one line.
pub fn report_frame(seal: NodeSeal, number: u32, report: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let taken = frame_of(&FrameSeal::new(NO_RUN, seal), number.into(), REPORT, report, &mut out);
    (taken == report.len()).then_some(out)
}

/// Appends one frame with the beginning of `bytes`; returns how many bytes it carries, 0 only for empty input.
fn frame_of(seal: &FrameSeal, number: u64, kind: u8, bytes: &[u8], out: &mut Vec<u8>) -> usize {
    // Every byte takes at least one byte in the body.
    let mut window = bytes.get(..ROOM).unwrap_or(bytes);
    if window.len() < bytes.len() {
        window = window.get(..complete_len(window)).unwrap_or_default();
    }
    out.extend_from_slice(format!("{}:{number}:", seal.run).as_bytes());
    let at = out.len();
    let digits = seal.digits();
    out.resize(at + digits, b'0');
    out.push(kind);
    let taken = escape(window, out);
    if let Some(b' ') = out.get(at + digits + 1..).unwrap_or_default().last() {
        out.pop();
        escape_byte(b' ', out);
    }
    let tag = seal.tag(number, kind, window.get(..taken).unwrap_or_default());
    if let Some(place) = out.get_mut(at..at + digits) {
        place.copy_from_slice(tag.as_bytes());
    }
    out.push(b'\n');
    taken
}

/// Length of `bytes` without an incomplete UTF-8 sequence at its end, which more input could complete.
///
/// At most three bytes are left out; invalid bytes are not.
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

/// Tags have one of these lengths.
pub(super) fn is_tag_length(digits: usize) -> bool {
    [TAG_DIGITS, CHECKSUM_DIGITS].contains(&digits)
}

/// Makes the tags of the frames of one run on one node.
#[derive(Debug, Clone)]
pub(super) struct FrameSeal {
    pub(super) run: u32,
    node: NodeId,
    seal: Seal,
}

impl FrameSeal {
    pub(super) fn new(run: u32, NodeSeal { node, seal }: NodeSeal) -> Self {
        Self { run, node, seal }
    }

    /// The same for another run.
    pub(super) fn of_run(&self, run: u32) -> Self {
        Self { run, ..self.clone() }
    }

    pub(super) fn digits(&self) -> usize {
        match self.seal {
            Seal::Keyed(_) => TAG_DIGITS,
            Seal::Absent => CHECKSUM_DIGITS,
        }
    }

    /// In hex, [`digits`](Self::digits) long.
    pub(super) fn tag(&self, number: u64, kind: u8, payload: &[u8]) -> String {
        let message = match kind {
            DATA => MessageKind::Output,
            FOREIGN => MessageKind::ForeignLine,
            REPORT => MessageKind::FramedReport,
            _ => MessageKind::EndOfOutput,
        };
        let label = Label::frame(message, self.node, self.run, number);
        let tag = self.seal.tag(label, payload).unwrap_or_else(|| self.checksum(number, kind, payload));
        tag.to_hex()[..self.digits()].to_owned()
    }

    /// For a session without a key.
    fn checksum(&self, number: u64, kind: u8, payload: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.run.to_le_bytes()).update(&number.to_le_bytes()).update(&[kind]).update(payload);
        hasher.finalize()
    }
}

pub(super) fn hash_text(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..HASH_DIGITS].to_owned()
}

/// Appends the escaped beginning of `bytes`, at most [`ROOM`] and one escape; returns the number of bytes that were escaped.
fn escape(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let full = out.len() + ROOM;
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        let raw = text.as_bytes();
        let mut at = 0;
        while at < raw.len() {
            let Some(room) = full.checked_sub(out.len()).filter(|room| *room > 0) else { return taken + at };
            let ahead = raw.get(at..).unwrap_or_default();
            let ahead = ahead.get(..room).unwrap_or(ahead);
            let run = plain_len(ahead);
            out.extend_from_slice(ahead.get(..run).unwrap_or_default());
            at += run;
            if run == room {
                continue;
            }
            match raw.get(at) {
                None => break,
                Some(b'\n') => out.extend_from_slice(b"\\n"),
                Some(b'\r') => out.extend_from_slice(b"\\r"),
                Some(b'\t') => out.extend_from_slice(b"\\t"),
                Some(0x1b) => out.extend_from_slice(b"\\e"),
                Some(b'\\') => out.extend_from_slice(b"\\\\"),
                Some(byte) if byte.is_ascii() => escape_byte(*byte, out),
                Some(_) => {
                    at += escape_char(text.get(at..).unwrap_or_default(), out);
                    continue;
                }
            }
            at += 1;
        }
        taken += raw.len();
        for byte in chunk.invalid() {
            if out.len() >= full {
                return taken;
            }
            escape_byte(*byte, out);
            taken += 1;
        }
    }
    taken
}

/// Number of leading bytes that need no escape.
fn plain_len(bytes: &[u8]) -> usize {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'[' | b']'..=b'~');
    // No branch per byte, so the compiler vectorizes it.
    let blocks = bytes.chunks_exact(16).take_while(|block| block.iter().fold(true, |all, byte| all & is_plain(byte)));
    let whole = blocks.count() * 16;
    let rest = bytes.get(whole..).unwrap_or_default();
    whole + rest.iter().position(|byte| !is_plain(byte)).unwrap_or(rest.len())
}

/// Appends the first character of `text`, which is not ASCII, escaped if needed; returns its length.
fn escape_char(text: &str, out: &mut Vec<u8>) -> usize {
    let Some(character) = text.chars().next() else { return 0 };
    let raw = text.as_bytes().get(..character.len_utf8()).unwrap_or_default();
    if character.is_control() || character.is_whitespace() || character == '\u{feff}' {
        for byte in raw {
            escape_byte(*byte, out);
        }
    } else {
        out.extend_from_slice(raw);
    }
    raw.len()
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    out.extend_from_slice(&hex(byte));
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Appends the unescaped payload; returns `None` for an invalid escape, and `out` then holds a part.
pub(super) fn unescape(body: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = body;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escaped) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (byte, length) = match escaped.get(1)? {
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'e' => (0x1b, 2),
            b'\\' => (b'\\', 2),
            b'x' => (hex_digit(*escaped.get(2)?)? << 4 | hex_digit(*escaped.get(3)?)?, 4),
            _ => return None,
        };
        out.push(byte);
        rest = escaped.get(length..)?;
    }
    out.extend_from_slice(rest);
    Some(())
}

/// Length of the unescaped body if it is valid; at most the body's length.
pub(super) fn unescaped_len(body: &[u8]) -> usize {
    let mut escapes = 0;
    let mut rest = body;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let length = if rest.get(at + 1) == Some(&b'x') { 4 } else { 2 };
        escapes += length - 1;
        rest = rest.get(at + length..).unwrap_or_default();
    }
    body.len().saturating_sub(escapes)
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
    use crate::base::seal::SealKey;

    fn node_seal() -> NodeSeal {
        Seal::Keyed(SealKey::new([7; 32])).of_node(NodeId::LEADER)
    }

    fn payload(line: &str) -> &str {
        line.split_once(['|', '>']).unwrap().1
    }

    fn encode(encoder: &mut FrameEncoder, bytes: &[u8]) -> Vec<String> {
        let mut out = Vec::new();
        encoder.encode(bytes, &mut out);
        lines(out)
    }

    fn lines(out: Vec<u8>) -> Vec<String> {
        String::from_utf8(out).unwrap().split_terminator('\n').map(str::to_owned).collect()
    }

    fn back(line: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        unescape(payload(line).as_bytes(), &mut bytes).unwrap();
        assert_eq!(unescaped_len(payload(line).as_bytes()), bytes.len());
        bytes
    }

    #[test]
    fn ordinary_text_stays_readable() {
        let lines =
            encode(&mut FrameEncoder::new(3, node_seal()), "epoch 1 #015 größe\n\tloss\r\u{1b}[0K \\ ".as_bytes());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("3:0:"), "{lines:?}");
        assert_eq!(payload(&lines[0]), r"epoch 1 #015 größe\n\tloss\r\e[0K \\\x20");
    }

    #[test]
    fn characters_a_pipeline_may_change_are_escaped() {
        let lines = encode(&mut FrameEncoder::new(1, node_seal()), "\0\u{7f}\u{85}\u{2028}\u{feff}\u{a0}".as_bytes());
        assert_eq!(payload(&lines[0]), r"\x00\x7f\xc2\x85\xe2\x80\xa8\xef\xbb\xbf\xc2\xa0");
        let lines = encode(&mut FrameEncoder::new(1, node_seal()), b"a\xff\xc3");
        assert_eq!(payload(&lines[0]), r"a\xff\xc3");
    }

    #[test]
    fn offsets_count_raw_bytes_and_the_end_carries_them() {
        let mut encoder = FrameEncoder::new(7, node_seal());
        assert!(encode(&mut encoder, b"").is_empty());
        encode(&mut encoder, b"one\n");
        let second = encode(&mut encoder, b"two\n");
        assert!(second[0].starts_with("7:4:"), "{second:?}");
        assert_eq!(encoder.bytes(), 8);
        let mut end = Vec::new();
        encoder.end(-3, &mut end);
        let end = lines(end).remove(0);
        assert!(end.starts_with("7:8:"), "{end}");
        assert!(end.ends_with(&format!("!-3 {} 0", &blake3::hash(b"one\ntwo\n").to_hex()[..32])), "{end}");
    }

    #[test]
    fn the_worst_input_stays_below_the_line_limit() {
        for unit in ["\u{0}", "é", "\u{2028}", "a", "😀", "\\"] {
            let mut encoder = FrameEncoder::new(u32::MAX, node_seal());
            encoder.offset = u64::MAX / 2;
            let lines = encode(&mut encoder, unit.repeat(20_000).as_bytes());
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

    #[test]
    fn lines_of_others_are_counted_and_long_ones_divided() {
        let mut encoder = FrameEncoder::new(2, node_seal());
        let mut out = Vec::new();
        encoder.encode_foreign(b"GPU 0\tbusy ", &mut out);
        encoder.encode_foreign(b"", &mut out);
        let long = "x".repeat(20_000);
        encoder.encode_foreign(long.as_bytes(), &mut out);
        encoder.end(0, &mut out);
        let lines = lines(out);
        assert!(lines[0].starts_with("2:0:") && lines[0].ends_with(r">GPU 0\tbusy\x20"), "{lines:?}");
        assert!(lines[1].starts_with("2:1:") && lines[1].ends_with('>'), "{lines:?}");
        assert_eq!(format!("{}{}", payload(&lines[2]), payload(&lines[3])), long);
        assert!(lines[4].starts_with("2:0:") && lines[4].ends_with(" 4"), "{lines:?}");
        assert!(lines.iter().all(|line| line.len() < MAX_LINE));
    }

    #[test]
    fn a_broken_escape_is_refused() {
        for body in ["\\", "a\\q", r"\x1", r"\x1g", r"\xAB"] {
            assert_eq!(unescape(body.as_bytes(), &mut Vec::new()), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn every_line_is_plain_and_reversible(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let mut all = Vec::new();
            for line in encode(&mut FrameEncoder::new(1, node_seal()), &bytes) {
                prop_assert!(line.len() < MAX_LINE);
                prop_assert!(!line.chars().any(char::is_control));
                prop_assert_eq!(line.trim(), line.as_str());
                all.extend(back(&line));
            }
            prop_assert_eq!(all, bytes);
        }
    }
}
