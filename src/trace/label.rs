//! With several nodes, each line of output names its node. Pure.

/// Puts `[name] ` before each line; a line waits until its end is known.
#[derive(Debug)]
pub struct Labeler {
    label: Vec<u8>,
    partial: Vec<u8>,
}

/// A line without an end is passed on when it has become this long.
const LONGEST: usize = 64 << 10;

impl Labeler {
    pub fn new(name: &str) -> Self {
        Self { label: format!("[{name}] ").into_bytes(), partial: Vec::new() }
    }

    /// The lines that `bytes` complete, labeled.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LONGEST {
                out.extend(self.flush());
            }
        }
        out
    }

    /// The line that has no end yet, with one.
    pub fn flush(&mut self) -> Vec<u8> {
        if self.partial.is_empty() {
            return Vec::new();
        }
        let mut line = self.label.clone();
        line.append(&mut self.partial);
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_names_its_node_whatever_the_pieces() {
        let mut labeler = Labeler::new("algo-2");
        let mut out = Vec::new();
        for piece in ["a", "b\nc", "\n\n", "end"] {
            out.extend(labeler.push(piece.as_bytes()));
        }
        out.extend(labeler.flush());
        assert_eq!(String::from_utf8(out).unwrap(), "[algo-2] ab\n[algo-2] c\n[algo-2] \n[algo-2] end\n");
        assert!(labeler.flush().is_empty());
    }
}
