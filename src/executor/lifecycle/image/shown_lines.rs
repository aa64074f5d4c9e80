//! The output of builders and scanners, line by line on stderr: made safe to print, and without secrets.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read};

use crate::base::plain;
use crate::ui::Printer;

/// Longest line, in bytes; the rest of a longer one is left out.
const LONGEST_LINE: u64 = 64 << 10;
/// Lines that are kept for the error.
const KEPT: usize = 20;
/// Shortest part of a secret that is masked.
const SHORTEST: usize = 4;
const MASK: &str = "[MASKED]";

/// Texts that are not shown. Has no `Debug`.
#[derive(Clone, Default)]
pub(super) struct Masks(Vec<String>);

impl Masks {
    /// Each line of these texts is masked.
    pub(super) fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let lines = secrets.into_iter().flat_map(str::lines).map(str::trim).filter(|line| line.len() >= SHORTEST);
        let mut masks: Vec<_> = lines.map(str::to_owned).collect();
        // The longest first: a shorter one may be a part of it.
        masks.sort_by_key(|mask| std::cmp::Reverse(mask.len()));
        Self(masks)
    }

    pub(super) fn apply(&self, text: &str) -> String {
        self.0.iter().fold(
            text.to_owned(),
            |text, mask| {
                if text.contains(mask) { text.replace(mask, MASK) } else { text }
            },
        )
    }
}

/// Shows lines until the end of the output, and gives back the last ones. Blocks.
pub(super) fn show(output: impl Read, masks: &Masks, printer: Option<&Printer>) -> VecDeque<String> {
    let (mut output, mut last) = (BufReader::new(output), VecDeque::new());
    while let Ok(Some(line)) = next(&mut output) {
        let line = masks.apply(&String::from_utf8_lossy(&line));
        let line = plain::lines(&line).into_owned();
        if let Some(printer) = printer {
            printer.line(&line);
        }
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}

/// The next line without its end; `None` at the end of the output.
fn next(output: &mut BufReader<impl Read>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else {
        // The rest is read, so that the writer can go on.
        loop {
            let bytes = output.fill_buf()?;
            let (used, is_end) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            };
            output.consume(used);
            if is_end {
                break;
            }
        }
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &[u8], secrets: &[&str]) -> (String, VecDeque<String>) {
        let (printer, captured) = Printer::captured();
        let last = show(output, &Masks::of(secrets.iter().copied()), Some(&printer));
        (captured.text(), last)
    }

    #[test]
    fn secrets_and_what_a_log_would_obey_are_not_shown() {
        let secret = "first-line\nsecond\n\nx\n";
        let (text, last) = shown(b"a first-line b second x\n\x1b[2Ksection_start:1:x\nend", &[secret, "first-line b"]);
        assert_eq!(text, "a [MASKED] [MASKED] x\n\\x1b[2Ksection-start:1:x\nend\n");
        assert_eq!(last, ["a [MASKED] [MASKED] x", "\\x1b[2Ksection-start:1:x", "end"]);
    }

    #[test]
    fn a_long_line_is_cut_and_only_the_last_lines_are_kept() {
        let long = [vec![b'a'; 3 << 16], b"\nend".to_vec()].concat();
        let (_, last) = shown(&long, &[]);
        assert!(last[0].starts_with("aaa") && last[0].len() < 3 << 16);
        assert_eq!(last[1], "end");
        let (_, last) = shown("x\n".repeat(KEPT + 5).as_bytes(), &[]);
        assert_eq!(last.len(), KEPT);
    }
}
