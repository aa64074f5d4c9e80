//! A job's trace with the append rules of GitLab: only the next byte may follow.

/// The answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchReply {
    /// Taken; the trace now has this many bytes.
    Accepted { length: usize },
    /// Refused: the sender must go on from this length.
    Mismatch { length: usize },
}

/// The bytes of a job's trace.
#[derive(Debug, Default, Clone)]
pub(crate) struct Trace {
    bytes: Vec<u8>,
}

impl Trace {
    pub(crate) fn append(&mut self, first: usize, bytes: &[u8]) -> PatchReply {
        if first != self.bytes.len() {
            return PatchReply::Mismatch { length: self.bytes.len() };
        }
        self.bytes.extend_from_slice(bytes);
        PatchReply::Accepted { length: self.bytes.len() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        text.is_empty() || self.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

#[test]
fn only_the_next_byte_may_follow() {
    let mut trace = Trace::default();
    assert_eq!(trace.append(0, b"abc"), PatchReply::Accepted { length: 3 });
    assert_eq!(trace.append(2, b"cd"), PatchReply::Mismatch { length: 3 });
    assert_eq!(trace.append(4, b"e"), PatchReply::Mismatch { length: 3 });
    assert_eq!(trace.append(3, b"d"), PatchReply::Accepted { length: 4 });
    assert!(trace.contains("bcd") && !trace.contains("bcde"));
}
