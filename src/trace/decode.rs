//! The reader of frames: puts one run's output together again from log messages of two sources.
//!
//! Messages may come late, twice, out of order, damaged, mixed with foreign text or never; CloudWatch and the copy in the
//! object store feed the same decoder and whichever is first wins. It never panics, whatever the input, and
//! never hands out a byte whose predecessors it has not handed out. It does no I/O and waits for nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use super::frame::{self, End};

/// Upper limit of what is kept out of order, in bytes, with `FRAME_OVERHEAD` for each frame.
pub const MAX_OUT_OF_ORDER: usize = 64 << 20;

/// What the bookkeeping of one kept frame counts for, in bytes.
const FRAME_OVERHEAD: usize = 128;

/// A line that is not a sound frame of this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Text of somebody else: the start script, another process of the container, the platform.
    Foreign(String),
    /// A sound frame of another run.
    OtherRun(String),
    /// Looks like a frame, but its checksum or its place is wrong. The other source has the sound one.
    Damaged(String),
}

/// Why a run's output cannot be called finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    #[error("the trace of run {run} has no end frame yet")]
    NoEnd { run: u32 },
    #[error("the trace of run {run} misses bytes {} to {}", missing.start, missing.end)]
    Incomplete { run: u32, missing: Range<u64> },
    #[error("the trace of run {run} has {bytes} bytes with hash {actual}, its end frame says {expected}")]
    Mismatch { run: u32, bytes: u64, expected: String, actual: String },
}

/// Decodes the frames of one run.
#[derive(Debug)]
pub struct FrameDecoder {
    run: u32,
    /// Offset of the first byte that is not in order yet.
    next: u64,
    ready: Vec<u8>,
    hasher: blake3::Hasher,
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_cost: usize,
    limit: usize,
    refused: u64,
    end: Option<End>,
}

impl FrameDecoder {
    /// A decoder that keeps up to [`MAX_OUT_OF_ORDER`].
    pub fn new(run: u32) -> Self {
        Self::with_limit(run, MAX_OUT_OF_ORDER)
    }

    /// A decoder that keeps up to `limit` bytes out of order. Frames beyond it are refused, counted by
    /// [`refused`](Self::refused), and have to be pushed again once the gap before them is filled.
    pub fn with_limit(run: u32, limit: usize) -> Self {
        Self {
            run,
            next: 0,
            ready: Vec::new(),
            hasher: blake3::Hasher::new(),
            waiting: BTreeMap::new(),
            waiting_cost: 0,
            limit,
            refused: 0,
            end: None,
        }
    }

    /// Takes one log message, of one or several lines, and returns the lines that are not sound frames of this run.
    pub fn push_message(&mut self, message: &str) -> Vec<Line> {
        message.split('\n').filter_map(|line| self.push_line(line)).collect()
    }

    /// The bytes that are in order and were not taken yet.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// What the end frame says, as soon as it is known; the output before it may still be missing.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The end frame and every byte before it are in.
    pub fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.bytes == self.next)
    }

    /// The first gap that is known: bytes that must exist, because a later frame or the end frame is in.
    pub fn missing(&self) -> Option<Range<u64>> {
        let until = match (self.waiting.keys().next(), &self.end) {
            (Some(&first), _) => first,
            (None, Some(end)) => end.bytes,
            (None, None) => return None,
        };
        (until > self.next).then_some(self.next..until)
    }

    /// Gives up the first gap and returns it: no source has it. What follows becomes ready, and from then on
    /// [`finish`](Self::finish) tells of a mismatch.
    pub fn skip_missing(&mut self) -> Option<Range<u64>> {
        let gap = self.missing()?;
        self.next = gap.end;
        self.settle();
        Some(gap)
    }

    /// Bytes in order so far, taken or not.
    pub fn bytes(&self) -> u64 {
        self.next
    }

    /// How many frames the limit refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The end, after every byte came in and the hash of the whole output was compared.
    pub fn finish(&self) -> Result<&End, TraceError> {
        let run = self.run;
        let end = self.end.as_ref().ok_or(TraceError::NoEnd { run })?;
        if self.next < end.bytes {
            let missing = self.missing().unwrap_or(self.next..end.bytes);
            return Err(TraceError::Incomplete { run, missing });
        }
        let actual = frame::hash_text(&self.hasher);
        if self.next > end.bytes || actual != end.hash {
            return Err(TraceError::Mismatch { run, bytes: self.next, expected: end.hash.clone(), actual });
        }
        Ok(end)
    }

    fn push_line(&mut self, line: &str) -> Option<Line> {
        let Some(parts) = parse(line) else { return Some(Line::Foreign(line.to_owned())) };
        let Some(content) = parts.content() else { return Some(Line::Damaged(line.to_owned())) };
        if parts.run != self.run {
            return Some(Line::OtherRun(line.to_owned()));
        }
        let in_place = match content {
            Content::Data(payload) => self.accept(parts.offset, payload),
            Content::End(end) => self.accept_end(&end),
        };
        (!in_place).then_some(Line::Damaged(line.to_owned()))
    }

    fn accept_end(&mut self, end: &End) -> bool {
        *self.end.get_or_insert_with(|| end.clone()) == *end
    }

    fn accept(&mut self, offset: u64, payload: Vec<u8>) -> bool {
        let Some(until) = offset.checked_add(payload.len() as u64) else { return false };
        if self.end.as_ref().is_some_and(|end| until > end.bytes) {
            return false;
        }
        if until <= self.next {
            return true;
        }
        if offset <= self.next {
            self.append(offset, &payload);
            self.settle();
            return true;
        }
        let known = self.waiting.get(&offset).map_or(0, Vec::len);
        if payload.len() <= known {
            return true;
        }
        let freed = if known == 0 { 0 } else { known + FRAME_OVERHEAD };
        let cost = self.waiting_cost - freed + payload.len() + FRAME_OVERHEAD;
        if cost > self.limit {
            self.refused += 1;
            return true;
        }
        self.waiting_cost = cost;
        self.waiting.insert(offset, payload);
        true
    }

    /// Appends what follows `next`; `offset` is not beyond it.
    fn append(&mut self, offset: u64, payload: &[u8]) {
        let known = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
        if let Some(fresh) = payload.get(known..) {
            self.hasher.update(fresh);
            self.ready.extend_from_slice(fresh);
            self.next += fresh.len() as u64;
        }
    }

    /// Moves waiting frames that have become contiguous.
    fn settle(&mut self) {
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > self.next {
                break;
            }
            let (offset, payload) = entry.remove_entry();
            self.waiting_cost -= payload.len() + FRAME_OVERHEAD;
            self.append(offset, &payload);
        }
    }
}

/// A line of a frame's outward shape; its checksum is not looked at yet.
struct Parts<'a> {
    run: u32,
    offset: u64,
    checksum: &'a str,
    kind: char,
    body: &'a str,
}

enum Content {
    Data(Vec<u8>),
    End(End),
}

impl Parts<'_> {
    /// What a sound frame carries.
    fn content(&self) -> Option<Content> {
        let is_sound = |payload: &[u8]| frame::checksum(self.run, self.offset, self.kind, payload) == self.checksum;
        if self.kind == frame::DATA {
            let payload = frame::unescape(self.body)?;
            return (!payload.is_empty() && is_sound(&payload)).then_some(Content::Data(payload));
        }
        let (code, hash) = self.body.split_once(' ')?;
        let code = code.parse().ok()?;
        is_sound(self.body.as_bytes()).then(|| Content::End(End { code, bytes: self.offset, hash: hash.to_owned() }))
    }
}

fn parse(line: &str) -> Option<Parts<'_>> {
    let (run, rest) = line.split_once(':')?;
    let (offset, rest) = rest.split_once(':')?;
    let (checksum, rest) = rest.split_at_checked(frame::CHECKSUM_DIGITS)?;
    let kind = rest.chars().next().filter(|kind| [frame::DATA, frame::END].contains(kind))?;
    let is_hex = checksum.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then_some(())?;
    Some(Parts {
        run: decimal(run)?.try_into().ok()?,
        offset: decimal(offset)?,
        checksum,
        kind,
        body: &rest[kind.len_utf8()..],
    })
}

/// Digits only: the standard parser would take a sign too.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::trace::frame::FrameEncoder;

    fn frames(run: u32, pieces: &[Vec<u8>], code: i32) -> Vec<String> {
        let mut encoder = FrameEncoder::new(run);
        let mut lines: Vec<String> = pieces.iter().flat_map(|piece| encoder.encode(piece)).collect();
        lines.push(encoder.end(code));
        lines
    }

    /// What the log service does to the lines a container writes: control characters become `#ooo`, lines are cut at
    /// 16,384 bytes, and lines that are blank or begin with white space are joined to the message before.
    fn mangle(lines: &[String]) -> Vec<String> {
        let mut messages: Vec<String> = Vec::new();
        for line in lines {
            let mut rest = line.as_str();
            while rest.len() > 16_384 {
                let cut = rest.floor_char_boundary(16_384);
                messages.push(rest[..cut].to_owned());
                rest = &rest[cut..];
            }
            let mut text = String::new();
            for character in rest.chars() {
                match u32::from(character) {
                    code @ (0..0x20 | 0x7f) => write!(text, "#{code:03o}").unwrap(),
                    _ => text.push(character),
                }
            }
            match messages.last_mut() {
                Some(last) if text.is_empty() || text.starts_with(char::is_whitespace) => {
                    last.push('\n');
                    last.push_str(&text);
                }
                _ => messages.push(text),
            }
        }
        messages
    }

    #[test]
    fn foreign_text_other_runs_and_damage_are_told_apart() {
        let other = frames(2, &[b"x".to_vec()], 0);
        let mine = frames(1, &[b"hello\n".to_vec()], 5);
        let damaged = mine[0].replace("hello", "hullo");
        let message = format!("12:30:59 starting\n{}\n{damaged}\n{}\n  indented\n\n{}", other[0], mine[0], mine[1]);
        let mut decoder = FrameDecoder::new(1);
        assert_eq!(
            decoder.push_message(&message),
            [
                Line::Foreign("12:30:59 starting".to_owned()),
                Line::OtherRun(other[0].clone()),
                Line::Damaged(damaged.clone()),
                Line::Foreign("  indented".to_owned()),
                Line::Foreign(String::new()),
            ]
        );
        assert_eq!(decoder.take(), b"hello\n");
        assert!(decoder.take().is_empty());
        assert_eq!(decoder.finish().unwrap().code, 5);
    }

    #[test]
    fn a_gap_is_named_until_it_is_filled() {
        let lines = frames(1, &[b"aa".to_vec(), b"bb".to_vec(), b"cc".to_vec()], 0);
        let mut decoder = FrameDecoder::new(1);
        assert_eq!(decoder.missing(), None);
        assert_eq!(decoder.finish(), Err(TraceError::NoEnd { run: 1 }));
        decoder.push_message(&lines[3]);
        assert_eq!(decoder.missing(), Some(0..6));
        decoder.push_message(&lines[2]);
        assert_eq!(decoder.missing(), Some(0..4));
        decoder.push_message(&lines[0]);
        assert_eq!(decoder.take(), b"aa");
        assert_eq!(decoder.missing(), Some(2..4));
        assert!(!decoder.is_complete());
        assert_eq!(decoder.finish(), Err(TraceError::Incomplete { run: 1, missing: 2..4 }));
        decoder.push_message(&lines[1]);
        assert_eq!(decoder.take(), b"bbcc");
        assert_eq!(decoder.missing(), None);
        assert!(decoder.is_complete());
    }

    #[test]
    fn a_gap_that_is_given_up_is_not_called_complete_output() {
        let lines = frames(1, &[b"aa".to_vec(), b"bb".to_vec(), b"cc".to_vec()], 0);
        let mut decoder = FrameDecoder::new(1);
        for line in [&lines[0], &lines[2], &lines[3]] {
            decoder.push_message(line);
        }
        assert_eq!(decoder.skip_missing(), Some(2..4));
        assert_eq!(decoder.skip_missing(), None);
        assert_eq!(decoder.take(), b"aacc");
        assert!(decoder.is_complete());
        assert!(matches!(decoder.finish(), Err(TraceError::Mismatch { .. })));
    }

    #[test]
    fn output_that_does_not_fit_the_hash_is_an_error() {
        let mut decoder = FrameDecoder::new(1);
        decoder.push_message(&frames(1, &[b"forged".to_vec()], 0)[0]);
        decoder.push_message(&frames(1, &[b"honest".to_vec()], 0)[1]);
        assert!(decoder.is_complete());
        assert!(matches!(decoder.finish(), Err(TraceError::Mismatch { bytes: 6, .. })));
    }

    #[test]
    fn frames_beyond_the_end_or_the_number_range_are_damage() {
        let mut decoder = FrameDecoder::new(1);
        let long = frames(1, &[b"longer".to_vec()], 0);
        decoder.push_message(&frames(1, &[b"short".to_vec()], 0)[1]);
        assert_eq!(decoder.push_message(&long[0]), [Line::Damaged(long[0].clone())]);
        let sum = frame::checksum(1, u64::MAX, frame::DATA, b"x");
        let line = format!("1:{}:{sum}|x", u64::MAX);
        assert_eq!(decoder.push_message(&line), [Line::Damaged(line.clone())]);
    }

    #[test]
    fn memory_out_of_order_is_bounded_and_refilled() {
        let pieces: Vec<Vec<u8>> = (0..50u8).map(|number| vec![number; 1000]).collect();
        let lines = frames(1, &pieces, 0);
        let mut decoder = FrameDecoder::with_limit(1, 10_000);
        for line in lines.iter().skip(1).rev() {
            decoder.push_message(line);
            assert!(decoder.waiting_cost <= 10_000);
        }
        assert!(decoder.refused() > 0);
        for line in &lines {
            decoder.push_message(line);
        }
        assert_eq!(decoder.take(), pieces.concat());
        assert_eq!(decoder.waiting_cost, 0);
        decoder.finish().unwrap();
    }

    proptest! {
        #[test]
        fn any_order_duplicates_and_losses_give_the_same_bytes(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..40),
            first in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
            order in any::<u64>(),
            code in any::<i32>(),
        ) {
            let lines = frames(9, &pieces, code);
            let mut decoder = FrameDecoder::new(9);
            let mut taken = Vec::new();
            // The first source: any lines, any order, with losses and duplicates.
            for index in first {
                prop_assert!(decoder.push_message(index.get::<String>(&lines)).is_empty());
                taken.extend(decoder.take());
            }
            // The second source has all of them, rotated.
            let shift = usize::try_from(order % lines.len() as u64).unwrap();
            for line in lines.iter().cycle().skip(shift).take(lines.len()) {
                prop_assert!(decoder.push_message(line).is_empty());
                taken.extend(decoder.take());
            }
            prop_assert_eq!(&taken, &pieces.concat());
            prop_assert!(decoder.is_complete());
            prop_assert_eq!(decoder.finish().unwrap().code, code);
        }

        #[test]
        fn the_log_service_leaves_frames_intact(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
            size in 0_usize..40_000,
            noise in "[ \t]{0,3}[a-z\r]{0,9}",
        ) {
            let mut pieces = pieces;
            pieces.push(b" \t\n".iter().copied().cycle().take(size).collect());
            let mut container = Vec::new();
            for line in frames(1, &pieces, 0) {
                container.push(line);
                container.push(noise.clone());
            }
            let mut decoder = FrameDecoder::new(1);
            for message in mangle(&container) {
                decoder.push_message(&message);
            }
            prop_assert_eq!(decoder.take(), pieces.concat());
            prop_assert!(decoder.finish().is_ok());
        }

        #[test]
        fn no_message_makes_it_panic(text in ".*", run in any::<u32>(), offset in any::<u64>()) {
            let mut decoder = FrameDecoder::new(run);
            decoder.push_message(&text);
            decoder.push_message(&format!("{run}:{offset}:{text}"));
            decoder.push_message(&format!("{run}:{offset}:00000000|{text}"));
            let sum = frame::checksum(run, offset, frame::DATA, text.as_bytes());
            decoder.push_message(&format!("{run}:{offset}:{sum}|{text}"));
            decoder.push_message(&format!("{run}:{offset}:{sum}!{text}"));
            decoder.take();
            let _ = decoder.finish();
        }
    }
}
