//! Content-defined chunking: the cut points of a file depend on its content alone, so unchanged parts keep their chunks.
//!
//! A chunk is identified by its BLAKE3 hash. Knows no packs and no store.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::{fmt, io};

use fastcdc::v2020::FastCDC;
use serde::{Deserialize, Serialize};

/// Smallest, usual and largest chunk, in bytes. A change in a large file costs about one usual chunk; the index of 20 GB has 80,000
/// chunks. A file of at most [`LEAST`] is one chunk.
pub(crate) const LEAST: usize = 64 << 10;
pub(crate) const USUAL: usize = 256 << 10;
pub(crate) const LARGEST: usize = 1 << 20;
/// Size of the read buffer.
const WINDOW: usize = 2 * LARGEST;

/// BLAKE3 of a chunk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ChunkHash([u8; 32]);

impl ChunkHash {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

/// Cuts files into chunks; reuses its buffer.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    window: Vec<u8>,
}

impl Cutter {
    /// Calls `sink` with each chunk of `from..to` and its offset, in order. Returns the end of the file if it is below `to`, else `to`.
    pub(crate) fn cut(
        &mut self,
        file: &File,
        from: u64,
        to: u64,
        mut sink: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let size = usize::try_from(to.saturating_sub(from)).unwrap_or(WINDOW).min(WINDOW);
        if self.window.len() < size {
            self.window.resize(size, 0);
        }
        // `window[start..end]` is the file's content from `at` on.
        let (mut at, mut start, mut end) = (from, 0, 0);
        let mut ended = false;
        loop {
            if !ended && end - start < LARGEST {
                self.window.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                while end < size && !ended {
                    let left = usize::try_from(to - at).unwrap_or(usize::MAX) - end;
                    let length = left.min(size - end);
                    ended = length == 0;
                    match file.read_at(&mut self.window[end..end + length], at + end as u64) {
                        Ok(0) => ended = true,
                        Ok(length) => end += length,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                ended |= at + end as u64 >= to;
            }
            if start == end {
                return Ok(at);
            }
            let rest = &self.window[start..end];
            let length = if rest.len() <= LEAST {
                rest.len()
            } else {
                FastCDC::new(rest, LEAST, USUAL, LARGEST).cut(0, rest.len()).1
            };
            sink(at, &rest[..length])?;
            start += length;
            at += length as u64;
        }
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| *chunk == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random bytes, the same each time.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn chunks(bytes: &[u8], from: u64, to: u64) -> Vec<(u64, ChunkHash, usize)> {
        let mut chunks = Vec::new();
        let mut joined = Vec::new();
        let reached = Cutter::default()
            .cut(&file(bytes), from, to, |at, chunk| {
                joined.extend_from_slice(chunk);
                chunks.push((at, ChunkHash::of(chunk), chunk.len()));
                Ok(())
            })
            .unwrap();
        let range = usize::try_from(from).unwrap()..usize::try_from(reached).unwrap();
        assert!(joined == bytes[range], "the chunks are the file");
        chunks
    }

    #[test]
    fn chunks_are_within_their_sizes_and_make_up_the_file() {
        let bytes = noise(9 << 20);
        let found = chunks(&bytes, 0, bytes.len() as u64);
        assert!((9..80).contains(&found.len()), "{}", found.len());
        let (_, whole) = found.split_last().unwrap();
        assert!(whole.iter().all(|(_, _, length)| (LEAST..=LARGEST).contains(length)));
    }

    #[test]
    fn a_part_of_a_file_and_a_file_that_is_shorter_than_told() {
        let bytes = noise(3 << 20);
        let end = bytes.len() as u64;
        assert_eq!(chunks(&bytes, 1 << 20, end).first().unwrap().0, 1 << 20);
        let short = chunks(&bytes, 0, end + 5);
        assert_eq!(short, chunks(&bytes, 0, end));
        assert_eq!(chunks(&bytes, end, end), []);
        assert_eq!(chunks(b"", 0, 10), []);
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let before = noise(16 << 20);
        let mut after = before.clone();
        after.splice(5 << 20..5 << 20, *b"inserted");
        let old: std::collections::HashSet<_> =
            chunks(&before, 0, before.len() as u64).into_iter().map(|chunk| chunk.1).collect();
        let new = chunks(&after, 0, after.len() as u64);
        let sent: usize = new.iter().filter(|chunk| !old.contains(&chunk.1)).map(|chunk| chunk.2).sum();
        assert!(sent <= 2 * LARGEST, "{sent}");
    }
}
