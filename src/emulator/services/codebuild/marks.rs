//! Finds the marks of a script in its output, which goes on without them. Pure.

/// The begin or the end of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PhaseMark {
    Begin(String),
    /// With the exit code, and the number of the command that ended the phase.
    End {
        phase: String,
        code: i32,
        command: usize,
    },
}

/// Output on its way, of which the last line is not yet whole.
#[derive(Debug)]
pub(super) struct MarkReader {
    mark: Vec<u8>,
    line: Vec<u8>,
}

/// Longest line that can be a mark, in bytes; a longer one goes on at once.
const LONGEST: usize = 200;

impl MarkReader {
    pub(super) fn new(mark: &str) -> Self {
        Self { mark: mark.as_bytes().to_vec(), line: Vec::new() }
    }

    /// Takes a chunk of output, and gives back what goes on and the marks in it.
    pub(super) fn push(&mut self, chunk: &[u8]) -> (Vec<u8>, Vec<PhaseMark>) {
        let (mut out, mut marks) = (Vec::new(), Vec::new());
        self.line.extend_from_slice(chunk);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let rest = self.line.split_off(end + 1);
            let line = std::mem::replace(&mut self.line, rest);
            match line.strip_prefix(self.mark.as_slice()).and_then(parse) {
                Some(mark) => {
                    // The mark begins a line of its own: the line break before it is not the script's.
                    if out.last() == Some(&b'\n') && (out.len() == 1 || out.get(out.len() - 2) == Some(&b'\n')) {
                        out.pop();
                    }
                    marks.push(mark);
                }
                None => out.extend(line),
            }
        }
        if self.line.len() > LONGEST {
            out.append(&mut self.line);
        }
        (out, marks)
    }

    /// The rest of the output.
    pub(super) fn finish(self) -> Vec<u8> {
        self.line
    }
}

fn parse(line: &[u8]) -> Option<PhaseMark> {
    let words: Vec<_> = std::str::from_utf8(line).ok()?.split_whitespace().collect();
    match words.as_slice() {
        ["begin", phase] => Some(PhaseMark::Begin((*phase).to_owned())),
        ["end", phase, code, command] => Some(PhaseMark::End {
            phase: (*phase).to_owned(),
            code: code.parse().ok()?,
            command: command.parse().ok()?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_at_any_border_and_leave_the_output() {
        let output = b"a\n\n#m begin BUILD\nb\n\n#m end BUILD 7 2\nc #m begin X\nd";
        for at in 0..output.len() {
            let (head, tail) = output.split_at(at);
            let mut reader = MarkReader::new("#m ");
            let (mut out, mut marks) = reader.push(head);
            let (more, later) = reader.push(tail);
            out.extend(more);
            marks.extend(later);
            out.extend(reader.finish());
            let text = String::from_utf8(out).unwrap();
            assert!(
                text.starts_with("a\n") && text.ends_with("c #m begin X\nd") && !text.contains("\n#m"),
                "{at}: {text}"
            );
            let end = PhaseMark::End { phase: "BUILD".to_owned(), code: 7, command: 2 };
            assert_eq!(marks, [PhaseMark::Begin("BUILD".to_owned()), end], "{at}");
        }
    }
}
