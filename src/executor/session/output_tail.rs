//! Keeps the last lines of a script's output, to repeat them below an error when much other text stands between. Pure.

/// Number of lines. With no more lines of others below them, they are still in sight and not repeated.
pub(super) const LINES: usize = 20;
/// Longest printed line, in bytes.
const LINE: usize = 400;
/// Number of bytes kept.
const KEPT: usize = 32 << 10;

/// The end of the pushed bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct OutputTail(Vec<u8>);

impl OutputTail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Only when twice the size is reached, because removing the front moves the rest.
        if self.0.len() > 2 * KEPT {
            self.0.drain(..self.0.len() - KEPT);
        }
    }

    /// The last lines as text, without escape sequences; `None` without output.
    pub(super) fn text(&self) -> Option<String> {
        let start = self.0.len().saturating_sub(KEPT);
        let text = String::from_utf8_lossy(self.0.get(start..).unwrap_or_default());
        let shown = |line: &str| {
            let plain = without_escapes(line);
            // A progress bar overwrites its line; only the last state is kept.
            let last = plain.split('\r').rfind(|state| !state.trim().is_empty()).unwrap_or_default();
            let end = last.floor_char_boundary(LINE);
            format!("    {}", last.split_at(end).0)
        };
        let lines: Vec<_> = text.trim_end().lines().collect();
        let first = lines.len().saturating_sub(LINES);
        let lines: Vec<_> = lines.get(first..).unwrap_or_default().iter().map(|line| shown(line)).collect();
        (!lines.is_empty()).then(|| format!("  the last lines of the output, again:\n{}", lines.join("\n")))
    }
}

/// Removes sequences such as `ESC [ 31 m`.
fn without_escapes(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| ('@'..='~').contains(&c)).map_or(part.len(), |at| at + 1);
        text.push_str(part.get(end..).unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[&[u8]]) -> Option<String> {
        let mut tail = OutputTail::default();
        for piece in pieces {
            tail.push(piece);
        }
        tail.text()
    }

    #[test]
    fn the_last_lines_are_kept_whole() {
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[b"\n"]), None);
        let lines = (1..=30).fold(String::new(), |text, number| text + "line " + &number.to_string() + "\n");
        let shown = text(&[lines.as_bytes(), b"half", b" a line"]).unwrap();
        assert_eq!(shown.lines().count(), LINES + 1, "{shown}");
        assert!(shown.contains("again:\n    line 12\n") && shown.ends_with("\n    half a line"), "{shown}");
    }

    #[test]
    fn bars_and_colors_leave_their_last_state() {
        let shown = text(&[b"\x1b[31mred\x1b[0m\n10 %\r50 %\r\x1b[2K99 %\r\nend\n"]).unwrap();
        assert_eq!(shown, "  the last lines of the output, again:\n    red\n    99 %\n    end");
    }

    #[test]
    fn much_output_is_bounded() {
        let shown = text(&vec![&[b'x'; 9000][..]; 100]).unwrap();
        assert!(shown.len() < 1000, "{}", shown.len());
        let lines = "ü".repeat(300) + "\n";
        let shown = text(&vec![lines.as_bytes(); 2000]).unwrap();
        assert!(shown.len() < LINES * (LINE + 6) + 100, "{}", shown.len());
    }
}
