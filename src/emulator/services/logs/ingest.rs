//! Makes log events from a container's bytes: cuts long lines, escapes control characters, joins indented lines.
//!
//! Pure: bytes and times in, events out. `training/shipping.rs` decides when a batch becomes visible.

use crate::event::InputLogEvent;
use crate::quirks::Quirks;

/// Length at which the container runtime cuts a line, in bytes before escaping.
pub(crate) const CUT: usize = 16_384;
/// The largest event the service takes, in bytes.
const LARGEST: usize = 1_048_576 - 26;

/// The state of one container's output between two chunks.
#[derive(Debug)]
pub(crate) struct Ingest {
    cut: usize,
    escape: bool,
    glue: bool,
    line: Vec<u8>,
    /// The event that a later blank or indented line may still join.
    open: Option<InputLogEvent>,
    ready: Vec<InputLogEvent>,
}

impl Ingest {
    pub(crate) fn new(quirks: &Quirks) -> Self {
        Self {
            cut: if quirks.cut_lines { CUT } else { LARGEST },
            escape: quirks.escape_controls,
            glue: quirks.glue_lines,
            line: Vec::new(),
            open: None,
            ready: Vec::new(),
        }
    }

    /// Takes output as it was written at `now` (epoch milliseconds).
    pub(crate) fn push(&mut self, chunk: &[u8], now: u64) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (content, ended) = match piece.strip_suffix(b"\n") {
                Some(content) => (content, true),
                None => (piece, false),
            };
            let mut rest = content;
            while self.line.len() + rest.len() > self.cut {
                let (head, tail) = rest.split_at(self.cut - self.line.len());
                self.line.extend_from_slice(head);
                rest = tail;
                self.end_line(now);
            }
            self.line.extend_from_slice(rest);
            if ended {
                self.end_line(now);
            }
        }
    }

    /// Ends a batch and returns its events, the open one included: lines that would have joined it become events of their own.
    pub(crate) fn flush(&mut self) -> Vec<InputLogEvent> {
        self.close_event();
        std::mem::take(&mut self.ready)
    }

    /// Returns the last events, including that of a line without an end.
    pub(crate) fn finish(&mut self, now: u64) -> Vec<InputLogEvent> {
        if !self.line.is_empty() {
            self.end_line(now);
        }
        self.flush()
    }

    /// Whether a flush would give something.
    pub(crate) fn has_events(&self) -> bool {
        self.open.is_some() || !self.ready.is_empty()
    }

    fn end_line(&mut self, now: u64) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = if self.escape { escaped(&text) } else { text.into_owned() };
        let continues = self.glue && text.chars().next().is_none_or(char::is_whitespace);
        match &mut self.open {
            Some(event) if continues && event.message.len() + text.len() < LARGEST => {
                event.message.push('\n');
                event.message.push_str(&text);
            }
            _ => {
                self.close_event();
                self.open = Some(InputLogEvent { timestamp: now, message: text });
            }
        }
    }

    fn close_event(&mut self) {
        // The service refuses events without a character, so a blank line that came alone is lost.
        self.ready.extend(self.open.take().filter(|event| !event.message.is_empty()));
    }
}

/// Control characters as `#` and three octal digits, as the log daemon of the instances writes them.
fn escaped(text: &str) -> String {
    if !text.bytes().any(|byte| byte.is_ascii_control()) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_control() {
            let code = u32::from(letter);
            out.push('#');
            for shift in [6, 3, 0] {
                out.extend(char::from_digit(code >> shift & 7, 8));
            }
        } else {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(chunks: &[&[u8]]) -> Vec<String> {
        let mut ingest = Ingest::new(&Quirks::default());
        for chunk in chunks {
            ingest.push(chunk, 1);
        }
        ingest.finish(1).into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn controls_become_octal_and_other_text_stays() {
        assert_eq!(messages(&[b"a\rb\x1b[0m\tc\x00\x7f #015 \xc3\xa4\n"]), ["a#015b#033[0m#011c#000#177 #015 ä"]);
    }

    #[test]
    fn blank_and_indented_lines_join_the_event_before() {
        assert_eq!(messages(&[b"one\n\n  two\nthree\n"]), ["one\n\n  two", "three"]);
    }

    #[test]
    fn a_tab_is_escaped_before_anyone_looks_for_white_space() {
        assert_eq!(messages(&[b"one\n\ttwo\n"]), ["one", "#011two"]);
    }

    #[test]
    fn a_long_line_is_cut_before_escaping() {
        let mut line = vec![b'\t'; CUT];
        line.extend_from_slice(b"tail\n");
        let got = messages(&[&line]);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].len(), CUT * 4);
        assert_eq!(got[1], "tail");
        let exact = [vec![b'x'; CUT], b"\ny".to_vec()].concat();
        assert_eq!(messages(&[&exact]), ["x".repeat(CUT), "y".to_owned()], "a line of exactly the limit is not cut");
    }

    #[test]
    fn chunk_borders_do_not_matter() {
        let text = b"alpha\n beta\ngamma delta\n\nend";
        let whole = messages(&[text]);
        for at in 1..text.len() {
            let (head, tail) = text.split_at(at);
            assert_eq!(messages(&[head, tail]), whole, "cut at {at}");
        }
    }

    #[test]
    fn a_flush_tears_continuation_lines_off_and_loses_lone_blanks() {
        let mut ingest = Ingest::new(&Quirks::default());
        ingest.push(b"one\n", 1);
        assert_eq!(ingest.flush(), [InputLogEvent { timestamp: 1, message: "one".into() }]);
        ingest.push(b"  two\n", 2);
        assert_eq!(ingest.flush(), [InputLogEvent { timestamp: 2, message: "  two".into() }]);
        ingest.push(b"\n", 3);
        assert_eq!(ingest.flush(), []);
        assert!(!ingest.has_events());
    }

    #[test]
    fn without_quirks_a_line_is_an_event() {
        let mut ingest = Ingest::new(&Quirks::none());
        ingest.push(&[vec![b'x'; CUT + 1], b"\n\t\x1by\n".to_vec()].concat(), 1);
        let got: Vec<_> = ingest.finish(1).into_iter().map(|event| event.message).collect();
        assert_eq!(got, ["x".repeat(CUT + 1), "\t\x1by".to_owned()]);
    }
}
