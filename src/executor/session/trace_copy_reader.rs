//! Reads the agent's copy of one node's output from the mailbox: continuously while it is live, or from a missing byte
//! on.

use anyhow::Result;
use futures::future::join;

use crate::base::node::NodeId;
use crate::cloud::CloudError;
use crate::session::exchange::Exchange;
use crate::trace::frame_start;

/// A batch of this size was closed because it was full: the next one exists, or soon will.
const FULL: usize = 512 << 10;
/// Batches read in one go, before other work gets its turn.
const AT_ONCE: u32 = 4;

/// Lines of other writers are stored a little before the output they came with, and may not be printed yet.
const BEFORE: u32 = 2;

/// Batches in a row without output that are searched: another writer may add them without end.
const MOST_WITHOUT_OUTPUT: u32 = 64;

/// Reader of one node's copy, with its position.
#[derive(Debug)]
pub(super) struct TraceCopyReader {
    node: NodeId,
    run: u32,
    /// Number of the next batch.
    next: u32,
    /// The last batch was full.
    full: bool,
    /// Number of batches known to exist.
    there: u32,
}

/// Callback that takes the text of a batch.
pub(super) type Take<'t> = &'t mut (dyn FnMut(&str) + Send);

impl TraceCopyReader {
    pub(super) fn new(node: NodeId, run: u32) -> Self {
        Self { node, run, next: 0, full: false, there: 0 }
    }

    /// `true` when the next batch exists, or soon will.
    pub(super) fn is_behind(&self) -> bool {
        self.full || self.next < self.there
    }

    /// Reads the next batches, a few at most. Returns `true` when something came.
    pub(super) async fn read_on(&mut self, exchange: &dyn Exchange, take: Take<'_>) -> Result<bool, CloudError> {
        let start = self.next;
        while self.next < start + AT_ONCE {
            // Two at a time while the agent is ahead; otherwise requests for a batch that does not exist would double.
            let (first, second) = if self.is_behind() {
                let (first, second) =
                    join(self.fetch(exchange, self.next), self.fetch(exchange, self.next.saturating_add(1))).await;
                (first?, second?)
            } else {
                (self.fetch(exchange, self.next).await?, None)
            };
            let Some(first) = first else {
                (self.full, self.there) = (false, self.next);
                break;
            };
            self.next += 1;
            self.full = first.len() >= FULL;
            take(&first);
            if let Some(second) = second {
                self.next += 1;
                self.full = second.len() >= FULL;
                take(&second);
            }
            if !self.is_behind() {
                break;
            }
        }
        Ok(self.next > start)
    }

    /// Positions the reader at the batch that holds the byte at `offset`, or a little before. `batches` is their number
    /// when the copy is complete.
    ///
    /// The missing byte is mostly near the end: with a known end the search steps back from there, otherwise forward,
    /// in doubling steps, and then bisects.
    pub(super) async fn seek(
        &mut self,
        exchange: &dyn Exchange,
        offset: u64,
        batches: Option<u32>,
    ) -> Result<(), CloudError> {
        // Batch `low` begins at or before the byte, batch `high` after it or does not exist.
        let (mut low, mut high) = (0, batches);
        let mut step = 1;
        loop {
            let probe = match high {
                Some(high) if high <= low + 1 => break,
                Some(high) if batches.is_some() && step < high - low => high - step,
                Some(high) => low + (high - low) / 2,
                None => low.saturating_add(step),
            };
            step = step.saturating_mul(2);
            match self.start_from(exchange, probe, high).await? {
                Some((batch, start)) if start <= offset => low = batch,
                _ => high = Some(probe),
            }
        }
        self.next = low.saturating_sub(BEFORE);
        self.there = batches.unwrap_or(low.saturating_add(1));
        Ok(())
    }

    /// Returns the first batch in `batch..until`, of some, that holds output, and the offset of that output.
    async fn start_from(
        &self,
        exchange: &dyn Exchange,
        mut batch: u32,
        until: Option<u32>,
    ) -> Result<Option<(u32, u64)>, CloudError> {
        let most = batch.saturating_add(MOST_WITHOUT_OUTPUT);
        while batch < until.unwrap_or(most).min(most) {
            let Some(text) = self.fetch(exchange, batch).await? else { return Ok(None) };
            if let Some((_, start)) = text.lines().find_map(frame_start) {
                return Ok(Some((batch, start)));
            }
            batch = batch.saturating_add(1);
        }
        Ok(None)
    }

    async fn fetch(&self, exchange: &dyn Exchange, batch: u32) -> Result<Option<String>, CloudError> {
        let body = exchange.output(self.node, self.run, batch).await?;
        Ok(body.map(|body| match String::from_utf8(body) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seal::Seal;
    use crate::cloud::testing::Memory;
    use crate::protocol::keys::SessionKeys;
    use crate::session::exchange::StoreExchange;
    use crate::trace::FrameEncoder;

    fn keys() -> SessionKeys {
        SessionKeys::new("sessions/x", Seal::Absent)
    }

    /// `batches` batches of ten frames of ten bytes each.
    fn store(batches: u32) -> Memory {
        let memory = Memory::new();
        let mut encoder = FrameEncoder::new(1, Seal::Absent.of_node(NodeId::LEADER));
        for batch in 0..batches {
            let mut lines = Vec::new();
            (0..10).for_each(|_| encoder.encode(b"123456789\n", &mut lines));
            memory.objects.insert(&keys().trace(NodeId::LEADER, 1, batch), lines);
        }
        memory
    }

    #[tokio::test]
    async fn a_byte_is_found_whether_the_end_is_known_or_not() {
        let memory = store(200);
        for known in [Some(200), None] {
            for wanted in [0, 99, 100, 9_999, 10_000, 19_899, 19_900, 19_999] {
                let mut reader = TraceCopyReader::new(NodeId::LEADER, 1);
                reader
                    .seek(&StoreExchange::new(memory.objects.clone(), keys(), String::new()), wanted, known)
                    .await
                    .unwrap();
                let found = u32::try_from(wanted / 100).unwrap();
                assert_eq!(reader.next, found.saturating_sub(BEFORE), "{wanted} {known:?}");
            }
        }
    }

    /// Batches without script output do not tell where its bytes are.
    #[tokio::test]
    async fn batches_of_other_writers_hide_no_byte() {
        let memory = Memory::new();
        let mut encoder = FrameEncoder::new(1, Seal::Absent.of_node(NodeId::LEADER));
        for batch in 0..40 {
            let mut lines = Vec::new();
            if batch == 5 || batch == 30 {
                encoder.encode(b"123456789\n", &mut lines);
            } else {
                encoder.encode_foreign(b"NCCL INFO", &mut lines);
            }
            memory.objects.insert(&keys().trace(NodeId::LEADER, 1, batch), lines);
        }
        for known in [Some(40), None] {
            for (wanted, holder) in [(0, 5), (9, 5), (10, 30), (19, 30)] {
                let mut reader = TraceCopyReader::new(NodeId::LEADER, 1);
                reader
                    .seek(&StoreExchange::new(memory.objects.clone(), keys(), String::new()), wanted, known)
                    .await
                    .unwrap();
                assert!(reader.next <= holder, "{wanted} {known:?}: {}", reader.next);
                assert!(reader.next + 6 > holder || wanted < 10, "{wanted} {known:?}: {}", reader.next);
            }
        }
    }

    /// Batches known to exist are read without waiting: otherwise the end of a stage would be late by as many turns.
    #[tokio::test]
    async fn what_was_found_is_read_in_one_go() {
        let memory = store(200);
        let mut reader = TraceCopyReader::new(NodeId::LEADER, 1);
        reader
            .seek(&StoreExchange::new(memory.objects.clone(), keys(), String::new()), 19_950, Some(200))
            .await
            .unwrap();
        let mut batches = 0;
        assert!(reader.is_behind());
        assert!(
            reader
                .read_on(&StoreExchange::new(memory.objects.clone(), keys(), String::new()), &mut |_| batches += 1)
                .await
                .unwrap()
        );
        assert_eq!((batches, reader.next, reader.is_behind()), (3, 200, false));
    }

    #[tokio::test]
    async fn reading_goes_on_where_it_ended() {
        let memory = store(3);
        let mut reader = TraceCopyReader::new(NodeId::LEADER, 1);
        let mut texts = Vec::new();
        for expected in [true, true, true, false] {
            let read = reader
                .read_on(&StoreExchange::new(memory.objects.clone(), keys(), String::new()), &mut |text| {
                    texts.push(text.to_owned());
                })
                .await
                .unwrap();
            assert_eq!(read, expected);
        }
        assert_eq!(texts.len(), 3);
        assert!(texts[2].starts_with("1:200:"));
    }
}
