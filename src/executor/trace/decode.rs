//! Decodes frames: restores one run's output from log messages of two sources.
//!
//! Messages may be late, repeated, out of order, damaged, missing, or mixed with other text. CloudWatch and the copy in the object
//! store feed the same decoder; the first source to deliver a frame wins. The decoder never panics, whatever the input, and returns
//! bytes in order only. No I/O, no waiting.
//!
//! Memory: the bytes since the last [`take`](FrameDecoder::take), the bytes kept out of order (limited), and `MAX_NUMBERS` numbers of
//! foreign lines. A call takes at most 40 bytes for each byte of its message, for the returned lines.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::frame::{self, EndFrame, FrameSeal};
use crate::base::seal::NodeSeal;

/// Limit of the bytes kept out of order, counting `FRAME_OVERHEAD` for each frame.
pub const MAX_OUT_OF_ORDER: usize = 4 << 20;

/// Assumed memory, in bytes, of a kept frame without its payload.
const FRAME_OVERHEAD: usize = 128;

/// Limit of the numbers of foreign lines kept out of order. Frames beyond it are refused.
const MAX_NUMBERS: usize = 1 << 16;

/// A line that carries no output of the run's script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Text without a frame: of the start script, of SageMaker, or of another writer outside a run.
    Unframed(String),
    /// A line that another writer wrote into the container's log during this run. Each is returned once, in order of arrival, with
    /// invalid UTF-8 replaced.
    Foreign(String),
    /// A report of the agent, with its number.
    Report(u32, Vec<u8>),
    /// A valid frame of another run.
    OtherRun(String),
    /// Looks like a frame, but the tag or the offset is wrong: damaged, forged, or of another session.
    Damaged(String),
}

/// Why a run's output is not complete.
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
    seal: FrameSeal,
    /// Offset of the first byte that was not decoded yet.
    next: u64,
    ready: Vec<u8>,
    /// `None` when another decoder read the beginning of the output.
    hasher: Option<blake3::Hasher>,
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_cost: usize,
    limit: usize,
    refused: u64,
    end: Option<EndFrame>,
    /// All foreign lines below this number are known, and those in `known_foreign`.
    next_foreign: u64,
    known_foreign: BTreeSet<u64>,
}

/// Returns the run and the offset of a data frame's first byte, for a search through the copy; for the end frame, the size of the
/// output. `None` for other lines. Does not check the tag.
pub fn frame_start(line: &str) -> Option<(u32, u64)> {
    parse(line).filter(|raw| [frame::DATA, frame::END].contains(&raw.kind)).map(|raw| (raw.run, raw.number))
}

impl FrameDecoder {
    /// A decoder that keeps up to [`MAX_OUT_OF_ORDER`] bytes out of order.
    pub fn new(run: u32, seal: NodeSeal) -> Self {
        Self::with_limit(run, seal, MAX_OUT_OF_ORDER)
    }

    /// A decoder that keeps up to `limit` bytes out of order. Frames beyond the limit are refused and counted by
    /// [`refused`](Self::refused); push them again when the gap before them is filled.
    pub fn with_limit(run: u32, seal: NodeSeal, limit: usize) -> Self {
        Self {
            seal: FrameSeal::new(run, seal),
            next: 0,
            ready: Vec::new(),
            hasher: Some(blake3::Hasher::new()),
            waiting: BTreeMap::new(),
            waiting_cost: 0,
            limit,
            refused: 0,
            end: None,
            next_foreign: 0,
            known_foreign: BTreeSet::new(),
        }
    }

    /// A decoder that continues at byte `offset`, where another one stopped. Earlier bytes are dropped.
    ///
    /// Unless `offset` is 0 it cannot check the hash of the whole output: [`finish`](Self::finish) then checks the size only, and each
    /// frame's tag its bytes.
    pub fn resume(run: u32, seal: NodeSeal, offset: u64) -> Self {
        let fresh = Self::new(run, seal);
        let hasher = fresh.hasher.clone().filter(|_| offset == 0);
        Self { next: offset, hasher, ..fresh }
    }

    /// Drops foreign lines below this number: another decoder returned them, see [`foreign_lines`](Self::foreign_lines).
    #[must_use]
    pub fn after_foreign_lines(self, foreign_lines: u64) -> Self {
        Self { next_foreign: foreign_lines, ..self }
    }

    /// Takes a log message of one or several lines; returns the lines that carry no output of the script.
    pub fn push_message(&mut self, message: &str) -> Vec<Line> {
        message.split('\n').filter_map(|line| self.push_line(line)).collect()
    }

    /// Takes the bytes that are in order.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// The end frame, once it has arrived; output before it may still be missing.
    pub fn end(&self) -> Option<&EndFrame> {
        self.end.as_ref()
    }

    /// True when the end frame, every byte and every foreign line have arrived.
    pub fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|end| self.next >= end.bytes && self.next_foreign >= end.foreign_lines)
    }

    /// The first gap: bytes that must exist, because a later frame or the end frame has arrived.
    pub fn missing(&self) -> Option<Range<u64>> {
        let until = match (self.waiting.keys().next(), &self.end) {
            (Some(&first), _) => first,
            (None, Some(end)) => end.bytes,
            (None, None) => return None,
        };
        (until > self.next).then_some(self.next..until)
    }

    /// Number of foreign lines missing below the highest known number.
    pub fn missing_foreign_lines(&self) -> u64 {
        let highest = self.known_foreign.last().map_or(0, |last| last + 1);
        let until = self.end.as_ref().map_or(highest, |end| highest.max(end.foreign_lines));
        until.saturating_sub(self.next_foreign).saturating_sub(self.known_foreign.len() as u64)
    }

    /// Skips the first gap, which no source has, and returns it. The bytes after it become ready, and [`finish`](Self::finish) will
    /// report a mismatch. Missing foreign lines are skipped too, with or without a gap.
    pub fn skip_missing(&mut self) -> Option<Range<u64>> {
        let highest = self.known_foreign.pop_last().map_or(0, |last| last + 1);
        self.known_foreign.clear();
        self.next_foreign = self.next_foreign.max(highest).max(self.end.as_ref().map_or(0, |end| end.foreign_lines));
        let gap = self.missing()?;
        self.next = gap.end;
        self.settle();
        Some(gap)
    }

    /// Number of bytes in order so far, taken or not.
    pub fn bytes(&self) -> u64 {
        self.next
    }

    /// All foreign lines below this number were returned or skipped.
    pub fn foreign_lines(&self) -> u64 {
        self.next_foreign
    }

    /// Number of frames that the limit refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Checks that every byte has arrived and that the hash of the whole output is right; returns the end frame.
    pub fn finish(&self) -> Result<&EndFrame, TraceError> {
        let run = self.seal.run;
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
        let Some(raw) = parse(line) else { return Some(Line::Unframed(line.to_owned())) };
        if raw.kind == frame::REPORT {
            let number = u32::try_from(raw.number).ok().filter(|_| raw.run == frame::NO_RUN);
            let report = raw.payload(&self.seal.of_run(frame::NO_RUN));
            let report = number.zip(report).map(|(number, report)| Line::Report(number, report));
            return Some(report.unwrap_or_else(|| Line::Damaged(line.to_owned())));
        }
        if raw.run != self.seal.run {
            let is_sound = raw.payload(&self.seal.of_run(raw.run)).is_some();
            return Some(if is_sound { Line::OtherRun(line.to_owned()) } else { Line::Damaged(line.to_owned()) });
        }
        let taken = match raw.kind {
            frame::DATA => self.accept(&raw).map(|()| None),
            frame::FOREIGN => self.accept_foreign(&raw),
            _ => self.accept_end(&raw).map(|()| None),
        };
        taken.unwrap_or_else(|Damage| Some(Line::Damaged(line.to_owned())))
    }

    fn accept_end(&mut self, raw: &RawFrame<'_>) -> Result<(), Damage> {
        let end = raw.end(&self.seal).ok_or(Damage)?;
        if *self.end.get_or_insert_with(|| end.clone()) == end { Ok(()) } else { Err(Damage) }
    }

    /// Returns the line, or `None` when it is known or its number cannot be kept.
    fn accept_foreign(&mut self, raw: &RawFrame<'_>) -> Result<Option<Line>, Damage> {
        let number = raw.number;
        if number < self.next_foreign || self.known_foreign.contains(&number) {
            return Ok(None);
        }
        if number == u64::MAX || self.end.as_ref().is_some_and(|end| number >= end.foreign_lines) {
            return Err(Damage);
        }
        let payload = raw.payload(&self.seal).ok_or(Damage)?;
        if number == self.next_foreign {
            self.next_foreign += 1;
            while self.known_foreign.remove(&self.next_foreign) {
                self.next_foreign += 1;
            }
        } else if self.known_foreign.len() >= MAX_NUMBERS {
            self.refused += 1;
            return Ok(None);
        } else {
            self.known_foreign.insert(number);
        }
        Ok(Some(Line::Foreign(String::from_utf8_lossy(&payload).into_owned())))
    }

    /// Takes a data frame.
    fn accept(&mut self, raw: &RawFrame<'_>) -> Result<(), Damage> {
        let (offset, body) = (raw.number, raw.body.as_bytes());
        // A payload is never longer than its body. A known payload is not hashed, to save time.
        let is_known = |length: usize| offset.checked_add(length as u64).is_some_and(|until| until <= self.next);
        if is_known(body.len()) || (offset < self.next && is_known(frame::unescaped_len(body))) {
            return Ok(());
        }
        if self.waiting.get(&offset).is_some_and(|known| known.len() >= frame::unescaped_len(body)) {
            return Ok(());
        }
        let start = self.ready.len();
        let is_sound = frame::unescape(body, &mut self.ready).is_some() && self.is_sound(raw, start);
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

    /// Checks the payload in `ready[start..]`: its tag, and that it lies within the output.
    fn is_sound(&self, raw: &RawFrame<'_>, start: usize) -> bool {
        let payload = self.ready.get(start..).unwrap_or_default();
        let until = raw.number.checked_add(payload.len() as u64);
        let fits = until.is_some_and(|until| self.end.as_ref().is_none_or(|end| until <= end.bytes));
        fits && !payload.is_empty() && raw.has_tag_of(&self.seal, payload)
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

    /// Counts the bytes in `ready[start..]`, which follow `next`.
    fn count_from(&mut self, start: usize) {
        let fresh = self.ready.get(start..).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(fresh);
        }
        self.next += fresh.len() as u64;
    }

    /// Moves waiting frames to `ready` that have become contiguous.
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

/// A damaged frame.
struct Damage;

/// A line in the form of a frame, with an unchecked tag.
struct RawFrame<'a> {
    run: u32,
    /// By kind: offset of the first byte, number of the foreign line, or size of the output.
    number: u64,
    tag: &'a str,
    kind: u8,
    body: &'a str,
}

impl RawFrame<'_> {
    fn has_tag_of(&self, seal: &FrameSeal, payload: &[u8]) -> bool {
        seal.tag(self.number, self.kind, payload) == self.tag
    }

    /// The payload, if the frame is valid.
    fn payload(&self, seal: &FrameSeal) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        if self.kind == frame::END {
            payload.extend_from_slice(self.body.as_bytes());
        } else {
            frame::unescape(self.body.as_bytes(), &mut payload)?;
        }
        self.has_tag_of(seal, &payload).then_some(payload)
    }

    fn end(&self, seal: &FrameSeal) -> Option<EndFrame> {
        let (code, rest) = self.body.split_once(' ')?;
        let (hash, foreign_lines) = rest.split_once(' ')?;
        let (code, foreign_lines) = (code.parse().ok()?, decimal(foreign_lines)?);
        let end = EndFrame { code, bytes: self.number, hash: hash.to_owned(), foreign_lines };
        (hash.len() == frame::HASH_DIGITS && self.has_tag_of(seal, self.body.as_bytes())).then_some(end)
    }
}

fn parse(line: &str) -> Option<RawFrame<'_>> {
    let (run, rest) = line.split_once(':')?;
    let (number, rest) = rest.split_once(':')?;
    let (tag, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_hexdigit())?);
    let kind = *rest.as_bytes().first()?;
    let is_kind = [frame::DATA, frame::FOREIGN, frame::END, frame::REPORT].contains(&kind);
    (is_kind && frame::is_tag_length(tag.len())).then_some(())?;
    Some(RawFrame { run: decimal(run)?.try_into().ok()?, number: decimal(number)?, tag, kind, body: rest.get(1..)? })
}

/// Parses digits only; the standard parser also accepts a sign.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
