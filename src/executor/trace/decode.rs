//! The reader of frames: puts one run's output together again from log messages of two sources.
//!
//! Messages may come late, twice, out of order, damaged, mixed with foreign text or never; CloudWatch and the copy in the
//! object store feed the same decoder and whichever is first wins. It never panics, whatever the input, and
//! never hands out a byte whose predecessors it has not handed out. It does no I/O and waits for nothing.
//!
//! Memory: what was put in since the last [`take`](FrameDecoder::take), what is kept out of order (its limit), and
//! `MAX_NUMBERS` numbers of lines of others. A call takes at most 40 bytes for each byte of its message, for lines of its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::frame::{self, End};

/// Upper limit of what is kept out of order, in bytes, with `FRAME_OVERHEAD` for each frame.
pub const MAX_OUT_OF_ORDER: usize = 4 << 20;

/// What the bookkeeping of one kept frame counts for, in bytes.
const FRAME_OVERHEAD: usize = 128;

/// How many numbers of lines of others are kept out of order. Frames beyond it are refused like those beyond the limit.
const MAX_NUMBERS: usize = 1 << 16;

/// A line that carries none of the run's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Text that no agent framed: the start script's, the platform's, or somebody's outside of a run.
    Foreign(String),
    /// Text that somebody else than the script wrote into the container's log during this run; each comes once, in the order
    /// of arrival. Invalid UTF-8 is replaced.
    Beside(String),
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
    /// `None` when the beginning of the output was read by somebody else.
    hasher: Option<blake3::Hasher>,
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_cost: usize,
    limit: usize,
    refused: u64,
    end: Option<End>,
    /// Lines of others: all below this number are known, and these beyond it.
    next_beside: u64,
    known_beside: BTreeSet<u64>,
}

/// The run and the place of a frame's first byte, for a search through the copy of the output; the end frame
/// lies behind the last byte. `None` for everything else. The checksum is not looked at.
pub fn frame_start(line: &str) -> Option<(u32, u64)> {
    parse(line).filter(|parts| parts.kind != frame::BESIDE).map(|parts| (parts.run, parts.number))
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
            hasher: Some(blake3::Hasher::new()),
            waiting: BTreeMap::new(),
            waiting_cost: 0,
            limit,
            refused: 0,
            end: None,
            next_beside: 0,
            known_beside: BTreeSet::new(),
        }
    }

    /// A decoder that goes on at byte `offset`, where another one stopped. What lies before is dropped as known.
    ///
    /// Unless it begins at 0 it cannot hash the whole: [`finish`](Self::finish) then checks the size alone, and each frame's
    /// own checksum vouches for its bytes.
    pub fn resume(run: u32, offset: u64) -> Self {
        let fresh = Self::new(run);
        let hasher = fresh.hasher.clone().filter(|_| offset == 0);
        Self { next: offset, hasher, ..fresh }
    }

    /// Drops lines of others below number `beside`, which another decoder has handed out: its [`beside`](Self::beside).
    #[must_use]
    pub fn after_beside(self, beside: u64) -> Self {
        Self { next_beside: beside, ..self }
    }

    /// Takes one log message, of one or several lines, and returns the lines that carry nothing of the output.
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

    /// The end frame, every byte before it and every line of others are in.
    pub fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|end| self.next >= end.bytes && self.next_beside >= end.beside)
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

    /// How many lines of others are missing below the highest number that is known.
    pub fn missing_beside(&self) -> u64 {
        let highest = self.known_beside.last().map_or(0, |last| last + 1);
        let until = self.end.as_ref().map_or(highest, |end| highest.max(end.beside));
        until.saturating_sub(self.next_beside).saturating_sub(self.known_beside.len() as u64)
    }

    /// Gives up the first gap and returns it: no source has it. What follows becomes ready, and from then on
    /// [`finish`](Self::finish) tells of a mismatch. Missing lines of others are given up too, whether there is a gap or not.
    pub fn skip_missing(&mut self) -> Option<Range<u64>> {
        let highest = self.known_beside.pop_last().map_or(0, |last| last + 1);
        self.known_beside.clear();
        self.next_beside = self.next_beside.max(highest).max(self.end.as_ref().map_or(0, |end| end.beside));
        let gap = self.missing()?;
        self.next = gap.end;
        self.settle();
        Some(gap)
    }

    /// Bytes in order so far, taken or not.
    pub fn bytes(&self) -> u64 {
        self.next
    }

    /// Lines of others below this number were all handed out or given up.
    pub fn beside(&self) -> u64 {
        self.next_beside
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
        let actual = self.hasher.as_ref().map(frame::hash_text);
        if self.next > end.bytes || actual.as_ref().is_some_and(|actual| *actual != end.hash) {
            let actual = actual.unwrap_or_default();
            return Err(TraceError::Mismatch { run, bytes: self.next, expected: end.hash.clone(), actual });
        }
        Ok(end)
    }

    fn push_line(&mut self, line: &str) -> Option<Line> {
        let Some(parts) = parse(line) else { return Some(Line::Foreign(line.to_owned())) };
        if parts.run != self.run {
            let is_sound = parts.payload().is_some();
            return Some(if is_sound { Line::OtherRun(line.to_owned()) } else { Line::Damaged(line.to_owned()) });
        }
        let taken = match parts.kind {
            frame::DATA => self.accept(&parts).map(|()| None),
            frame::BESIDE => self.accept_beside(&parts),
            _ => self.accept_end(&parts).map(|()| None),
        };
        taken.unwrap_or_else(|Damage| Some(Line::Damaged(line.to_owned())))
    }

    fn accept_end(&mut self, parts: &Parts<'_>) -> Result<(), Damage> {
        let end = parts.end().ok_or(Damage)?;
        if *self.end.get_or_insert_with(|| end.clone()) == end { Ok(()) } else { Err(Damage) }
    }

    /// The line once; nothing when it is known or cannot be kept.
    fn accept_beside(&mut self, parts: &Parts<'_>) -> Result<Option<Line>, Damage> {
        let number = parts.number;
        if number < self.next_beside || self.known_beside.contains(&number) {
            return Ok(None);
        }
        if number == u64::MAX || self.end.as_ref().is_some_and(|end| number >= end.beside) {
            return Err(Damage);
        }
        let payload = parts.payload().ok_or(Damage)?;
        if number == self.next_beside {
            self.next_beside += 1;
            while self.known_beside.remove(&self.next_beside) {
                self.next_beside += 1;
            }
        } else if self.known_beside.len() >= MAX_NUMBERS {
            self.refused += 1;
            return Ok(None);
        } else {
            self.known_beside.insert(number);
        }
        Ok(Some(Line::Beside(String::from_utf8_lossy(&payload).into_owned())))
    }

    /// Takes a data frame.
    fn accept(&mut self, parts: &Parts<'_>) -> Result<(), Damage> {
        let (offset, body) = (parts.number, parts.body.as_bytes());
        // A payload is never longer than its body, and a known one is not worth a hash.
        let is_known = |length: usize| offset.checked_add(length as u64).is_some_and(|until| until <= self.next);
        if is_known(body.len()) || (offset < self.next && is_known(frame::unescaped_len(body))) {
            return Ok(());
        }
        if self.waiting.get(&offset).is_some_and(|known| known.len() >= frame::unescaped_len(body)) {
            return Ok(());
        }
        let start = self.ready.len();
        let is_sound = frame::unescape(body, &mut self.ready).is_some() && self.is_sound(parts, start);
        if !is_sound {
            self.ready.truncate(start);
            return Err(Damage);
        }
        if offset <= self.next {
            let known = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
            let fresh = start.saturating_add(known).min(self.ready.len());
            self.ready.drain(start..fresh);
            self.count_from(start);
            self.settle();
        } else {
            let payload = self.ready.get(start..).unwrap_or_default().to_vec();
            self.ready.truncate(start);
            self.keep(offset, payload);
        }
        Ok(())
    }

    /// The payload at the end of `ready`, from `start` on, has its checksum and lies within the output.
    fn is_sound(&self, parts: &Parts<'_>, start: usize) -> bool {
        let payload = self.ready.get(start..).unwrap_or_default();
        let until = parts.number.checked_add(payload.len() as u64);
        let fits = until.is_some_and(|until| self.end.as_ref().is_none_or(|end| until <= end.bytes));
        fits && !payload.is_empty() && parts.has_checksum_of(payload)
    }

    fn keep(&mut self, offset: u64, payload: Vec<u8>) {
        let freed = self.waiting.get(&offset).map_or(0, |known| known.len() + FRAME_OVERHEAD);
        let cost = self.waiting_cost - freed + payload.len() + FRAME_OVERHEAD;
        if cost > self.limit {
            self.refused += 1;
            return;
        }
        self.waiting_cost = cost;
        self.waiting.insert(offset, payload);
    }

    /// Counts what follows `next` and stands in `ready` from `start` on.
    fn count_from(&mut self, start: usize) {
        let fresh = self.ready.get(start..).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(fresh);
        }
        self.next += fresh.len() as u64;
    }

    /// Moves waiting frames that have become contiguous.
    fn settle(&mut self) {
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > self.next {
                break;
            }
            let (offset, payload) = entry.remove_entry();
            self.waiting_cost -= payload.len() + FRAME_OVERHEAD;
            let known = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
            let start = self.ready.len();
            self.ready.extend_from_slice(payload.get(known..).unwrap_or_default());
            self.count_from(start);
        }
    }
}

/// A frame that is not to be used.
struct Damage;

/// A line of a frame's outward shape; its checksum is not looked at yet.
struct Parts<'a> {
    run: u32,
    /// Of the first byte, of the line of others, or the size of the output, by kind.
    number: u64,
    checksum: &'a str,
    kind: u8,
    body: &'a str,
}

impl Parts<'_> {
    fn has_checksum_of(&self, payload: &[u8]) -> bool {
        frame::checksum(self.run, self.number, self.kind, payload) == self.checksum.as_bytes()
    }

    /// What a sound frame carries.
    fn payload(&self) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        if self.kind == frame::END {
            payload.extend_from_slice(self.body.as_bytes());
        } else {
            frame::unescape(self.body.as_bytes(), &mut payload)?;
        }
        self.has_checksum_of(&payload).then_some(payload)
    }

    fn end(&self) -> Option<End> {
        let (code, rest) = self.body.split_once(' ')?;
        let (hash, beside) = rest.split_once(' ')?;
        let (code, beside) = (code.parse().ok()?, decimal(beside)?);
        let end = End { code, bytes: self.number, hash: hash.to_owned(), beside };
        (hash.len() == frame::HASH_DIGITS && self.has_checksum_of(self.body.as_bytes())).then_some(end)
    }
}

fn parse(line: &str) -> Option<Parts<'_>> {
    let (run, rest) = line.split_once(':')?;
    let (number, rest) = rest.split_once(':')?;
    let (checksum, rest) = rest.split_at_checked(frame::CHECKSUM_DIGITS)?;
    let kind = *rest.as_bytes().first()?;
    let is_kind = [frame::DATA, frame::BESIDE, frame::END].contains(&kind);
    let is_hex = checksum.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_kind && is_hex).then_some(())?;
    Some(Parts { run: decimal(run)?.try_into().ok()?, number: decimal(number)?, checksum, kind, body: rest.get(1..)? })
}

/// Digits only: the standard parser would take a sign too.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
