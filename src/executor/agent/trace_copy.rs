//! Sends frames to the container's log and copies them to the object store.
//!
//! The copy consists of numbered batches without gaps; a stored batch is never replaced by other content. The first line after a
//! pause is stored soon, steady output in larger batches. Up to two uploads run at once, so a later batch may be stored before an
//! earlier one. Lines are dropped only once they are stored; [`TraceCopy::finish`] must return before an exit is reported. This
//! module never reads the copy and never splits a frame.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::pump::FrameSink;
use super::spool::OutputSpool;
use crate::base::backoff::backoff;
use crate::cloud::ObjectStore;

/// Collecting time of the first batch after a pause; doubles under steady output.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest collecting time in [`CopyMode::Live`].
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Collecting time in [`CopyMode::Late`].
const LATE_WAIT: Duration = Duration::from_secs(10);
/// A batch is closed at this size; the last call of `send` may exceed it.
const BATCH_BYTES: usize = 512 << 10;
/// Uploads that run at once.
const IN_FLIGHT: usize = 2;
/// Limit of the lines that wait for uploads: enough that an outage of the store delays neither the log nor ordinary output.
const QUEUE_BYTES: usize = 2 << 20;
/// Longer input of `send` is split.
const SEND_BYTES: usize = 128 << 10;
/// Time limit for uploading one batch, on top of the store's own retries.
pub(super) const UPLOAD_DEADLINE: Duration = Duration::from_mins(2);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRIES: ExponentialBuilder = backoff(RETRY_FIRST, Duration::from_secs(5));

/// Writes frames to the container's log and to the copy.
///
/// A failed copy does not end the log: the run goes on and [`finish`](Self::finish) returns the error. A slow log does not delay the
/// copy as long as the disk has room for the lines that wait for the log.
#[derive(Debug)]
pub(super) struct TraceOutput {
    log: Arc<OutputSpool>,
    copy: TraceCopy,
}

impl TraceOutput {
    pub(super) fn new(log: Arc<OutputSpool>, copy: TraceCopy) -> Self {
        Self { log, copy }
    }

    /// Waits until the copy is stored and returns the number of its batches.
    pub(super) async fn finish(self) -> anyhow::Result<u32> {
        self.copy.finish().await
    }
}

impl FrameSink for TraceOutput {
    fn send(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        self.log.write(lines);
        self.copy.send(lines);
        Ok(())
    }
}

/// The collecting time of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyMode {
    /// The driver reads the copy while the script runs: short.
    Live,
    /// The driver reads the copy for gaps and the tail only: few, large batches.
    Late,
}

/// Uploads the frames of one run. Dropped before [`finish`](Self::finish), it stops and the tail may be missing.
#[derive(Debug)]
pub(super) struct TraceCopy {
    lines: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
    runtime: Handle,
    uploads: AbortOnDropHandle<anyhow::Result<u32>>,
}

impl TraceCopy {
    /// Starts the copy; `key_of` names the object of each batch, counted from 0.
    ///
    /// Holds about 7 MiB at most. Each batch is tried for [`UPLOAD_DEADLINE`].
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        mode: CopyMode,
        key_of: impl Fn(u32) -> String + Send + 'static,
    ) -> Self {
        let (lines, queue) = mpsc::unbounded_channel();
        let uploads = AbortOnDropHandle::new(tokio::spawn(upload_all(store, mode, key_of, queue)));
        Self { lines, room: Arc::new(Semaphore::new(QUEUE_BYTES)), runtime: Handle::current(), uploads }
    }

    /// Queues whole lines. Blocks while the queue is full, so call it from a thread outside the runtime. After an upload has failed for
    /// good, lines are dropped; only the log has them.
    pub(super) fn send(&self, lines: &[u8]) {
        for piece in pieces(lines) {
            self.runtime.block_on(self.queue(piece));
        }
    }

    async fn queue(&self, piece: &[u8]) {
        let bytes = u32::try_from(piece.len().min(QUEUE_BYTES)).unwrap_or_default();
        if let Ok(room) = self.room.clone().acquire_many_owned(bytes).await {
            let _ = self.lines.send(Piece { lines: piece.to_vec(), _room: room });
        }
    }

    /// Waits for all uploads and returns the number of batches. An error means that the copy is incomplete.
    pub(super) async fn finish(self) -> anyhow::Result<u32> {
        drop(self.lines);
        self.uploads.await.context("failed to finish the copy of the trace")?
    }
}

/// Queued lines with their share of the queue's limit.
#[derive(Debug)]
struct Piece {
    lines: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// Splits the lines into pieces of at most [`SEND_BYTES`] and one line.
fn pieces(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let ahead = rest.get(SEND_BYTES..).unwrap_or_default();
        let length = ahead.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| SEND_BYTES + at + 1);
        let (piece, after) = rest.split_at_checked(length)?;
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Collects and uploads batches until the sender is gone.
async fn upload_all(
    store: Arc<dyn ObjectStore>,
    mode: CopyMode,
    key_of: impl Fn(u32) -> String + Send,
    mut queue: mpsc::UnboundedReceiver<Piece>,
) -> anyhow::Result<u32> {
    let mut uploads = JoinSet::new();
    let mut number = 0;
    let mut wait = FIRST_WAIT;
    let mut closed_at: Option<Instant> = None;
    while let Some(first) = queue.recv().await {
        let is_steady = closed_at.is_some_and(|closed_at| closed_at.elapsed() < LONGEST_WAIT);
        wait = match mode {
            CopyMode::Late => LATE_WAIT,
            CopyMode::Live if is_steady => (wait * 2).min(LONGEST_WAIT),
            CopyMode::Live => FIRST_WAIT,
        };
        let batch = collect(first, &mut queue, Instant::now() + wait).await;
        closed_at = Some(Instant::now());
        while let Some(stored) = uploads.try_join_next() {
            stored.context("failed to upload a batch")??;
        }
        if uploads.len() >= IN_FLIGHT
            && let Some(stored) = uploads.join_next().await
        {
            stored.context("failed to upload a batch")??;
        }
        let (store, key) = (store.clone(), key_of(number));
        uploads.spawn(async move { upload(store.as_ref(), &key, batch).await });
        number += 1;
    }
    while let Some(stored) = uploads.join_next().await {
        stored.context("failed to upload a batch")??;
    }
    Ok(number)
}

/// Adds lines until the batch is full, its time is over or the sender is gone. Removes the last newline.
async fn collect(first: Piece, queue: &mut mpsc::UnboundedReceiver<Piece>, until: Instant) -> Vec<u8> {
    // Allocated once: growing would leave freed blocks of many sizes in the allocator.
    let mut batch = Vec::with_capacity(BATCH_BYTES + SEND_BYTES * 2);
    batch.extend_from_slice(&first.lines);
    drop(first);
    while batch.len() < BATCH_BYTES {
        let Ok(Some(piece)) = timeout_at(until, queue.recv()).await else { break };
        batch.extend_from_slice(&piece.lines);
    }
    if batch.ends_with(b"\n") {
        batch.pop();
    }
    batch
}

/// Puts one object and tries again until the deadline: whatever the error, the lines exist only here.
async fn upload(store: &dyn ObjectStore, key: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let deadline = Instant::now() + UPLOAD_DEADLINE;
    let put = || async {
        let stored = timeout_at(deadline, store.put(key, body.clone())).await;
        stored
            .with_context(|| format!("no answer from the object store within {UPLOAD_DEADLINE:?}"))?
            .map_err(Into::into)
    };
    put.retry(RETRIES)
        .adjust(|_: &anyhow::Error, pause| pause.filter(|pause| Instant::now() + *pause < deadline))
        .notify(|error, pause| {
            // Said once; what follows is the same.
            if pause == RETRY_FIRST {
                let error = format!("{error:#}");
                tracing::warn!(key, error, "failed to store a batch of the trace copy, trying again");
            }
        })
        .await
        .with_context(|| format!("failed to store the trace copy `{key}`"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use tokio::time::sleep;

    use super::*;
    use bytes::Bytes;

    use crate::cloud::{CloudError, CloudErrorKind, Content, Listed, Retention, Sha256Hash, StoredHash};

    /// Objects with the moment of their first write; fails as often as told.
    #[derive(Default)]
    struct Store {
        objects: Mutex<BTreeMap<String, (Vec<u8>, Instant)>>,
        failures: Mutex<u32>,
        delay: Duration,
    }

    #[async_trait]
    impl ObjectStore for Store {
        async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
            Ok(self.objects.lock().get(key).map(|(body, _)| body.clone()))
        }
        async fn size(&self, _: &str) -> Result<Option<u64>, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
            sleep(self.delay).await;
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(CloudError {
                    kind: CloudErrorKind::Transient,
                    operation: format!("put {key}"),
                    message: "reset".to_owned(),
                    action: "s3:PutObject",
                });
            }
            let old = self.objects.lock().insert(key.to_owned(), (body, Instant::now()));
            assert!(old.is_none(), "{key} is written twice");
            Ok(())
        }
        async fn put_with_hash(&self, _: &str, _: Content<'_>, _: &Sha256Hash) -> Result<(), CloudError> {
            unreachable!("the copy only puts")
        }
        async fn stored_hash(&self, _: &str) -> Result<StoredHash, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn retention(&self) -> Result<Retention, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn get_range(&self, _: &str, _: u64, _: u64) -> Result<Option<Bytes>, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn put_if_absent(&self, _: &str, _: Bytes) -> Result<bool, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn inventory(&self, _: &str) -> Result<Vec<Listed>, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn delete(&self, _: &[String]) -> Result<(), CloudError> {
            unreachable!("the copy only puts")
        }
        fn uri(&self, key: &str) -> String {
            key.to_owned()
        }
    }

    impl Store {
        fn batches(&self) -> Vec<(String, String)> {
            let objects = self.objects.lock();
            let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
            objects.iter().map(|(key, (body, _))| (key.clone(), text(body))).collect()
        }

        /// When each batch was stored, in milliseconds after `start`.
        fn times(&self, start: Instant) -> Vec<u128> {
            let objects = self.objects.lock();
            objects.values().map(|(_, at)| at.duration_since(start).as_millis()).collect()
        }
    }

    fn copy_to(store: &Arc<Store>) -> TraceCopy {
        TraceCopy::new(store.clone(), CopyMode::Live, |batch| format!("trace/{batch:06}"))
    }

    /// As [`TraceCopy::send`] does from a thread of its own.
    async fn send(copy: &TraceCopy, line: &str) {
        for piece in pieces(format!("{line}\n").as_bytes()) {
            copy.queue(piece).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_batch_is_quick_and_steady_output_makes_larger_ones() {
        let store = Arc::new(Store::default());
        let start = Instant::now();
        let copy = copy_to(&store);
        for number in 0..100 {
            send(&copy, &format!("line {number}")).await;
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(copy.finish().await.unwrap() as usize, store.batches().len());
        let times = store.times(start);
        assert!(times[0] <= 300, "{times:?}");
        let gaps: Vec<u128> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= 1100), "{gaps:?}");
        assert!(times.len() < 14, "{times:?}");
        let all: Vec<String> = store.batches().into_iter().map(|(_, body)| body).collect();
        let expected: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        assert_eq!(all.join("\n"), expected.join("\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_a_line_is_quick_again() {
        let store = Arc::new(Store::default());
        let copy = copy_to(&store);
        for _ in 0..50 {
            send(&copy, "busy").await;
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_secs(10)).await;
        let start = Instant::now();
        send(&copy, "late").await;
        sleep(Duration::from_secs(2)).await;
        let (_, body) = store.batches().pop().unwrap();
        assert_eq!(body, "late");
        let stored = store.objects.lock().values().next_back().unwrap().1;
        assert!(stored - start <= Duration::from_millis(300));
        copy.finish().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_batch_does_not_wait_and_finish_stores_the_rest() {
        let store = Arc::new(Store::default());
        let start = Instant::now();
        let copy = copy_to(&store);
        for _ in 0..600 {
            send(&copy, &"x".repeat(10_000)).await;
        }
        send(&copy, "end").await;
        let count = copy.finish().await.unwrap();
        let batches = store.batches();
        assert_eq!(batches.len(), count as usize);
        assert!(batches.iter().enumerate().all(|(number, (key, _))| *key == format!("trace/{number:06}")));
        assert!(batches.iter().all(|(_, body)| body.len() <= BATCH_BYTES + SEND_BYTES));
        assert!(batches.last().unwrap().1.ends_with("\nend"));
        assert_eq!(Instant::now(), start, "nothing had to be waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_upload_is_repeated_under_the_same_number() {
        let store = Arc::new(Store::default());
        *store.failures.lock() = 5;
        let copy = copy_to(&store);
        send(&copy, "one").await;
        sleep(Duration::from_secs(1)).await;
        send(&copy, "two").await;
        assert_eq!(copy.finish().await.unwrap(), 2);
        assert_eq!(
            store.batches(),
            [("trace/000000".to_owned(), "one".to_owned()), ("trace/000001".to_owned(), "two".to_owned())]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_ends_the_copy_but_not_the_log() {
        let store = Arc::new(Store::default());
        *store.failures.lock() = u32::MAX;
        let log = Arc::new(OutputSpool::new(None, 0));
        let mut output = TraceOutput::new(log.clone(), copy_to(&store));
        send(&output.copy, "first").await;
        sleep(UPLOAD_DEADLINE + FIRST_WAIT * 2).await;
        // The next one meets the failure; what follows is dropped.
        send(&output.copy, "second").await;
        sleep(FIRST_WAIT * 2).await;
        let output = tokio::task::spawn_blocking(move || {
            output.send(b"third\n").unwrap();
            output
        });
        let error = output.await.unwrap().finish().await.unwrap_err();
        assert_eq!(error.to_string(), "failed to store the trace copy `trace/000000`");
        let mut text = [0; 20];
        assert_eq!(log.read(&mut text, None).unwrap(), super::super::spool::Read::Bytes(6));
    }

    #[tokio::test]
    async fn a_log_that_takes_nothing_does_not_keep_lines_from_the_copy() {
        let store = Arc::new(Store::default());
        let log = Arc::new(OutputSpool::new(Some(tempfile::tempfile().unwrap()), 1 << 20));
        let mut output = TraceOutput::new(log, copy_to(&store));
        let output = tokio::task::spawn_blocking(move || {
            for _ in 0..100 {
                output.send(b"line\n").unwrap();
            }
            output
        });
        assert_eq!(output.await.unwrap().finish().await.unwrap(), 1);
        assert_eq!(store.batches()[0].1.lines().count(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_gets_two_batches_at_once_and_no_number_is_left_out() {
        let store = Arc::new(Store { delay: Duration::from_secs(3), ..Store::default() });
        let start = Instant::now();
        let copy = copy_to(&store);
        for _ in 0..600 {
            send(&copy, &"x".repeat(10_000)).await;
        }
        assert_eq!(copy.finish().await.unwrap(), 12);
        let times: Vec<u128> = (1..=6).flat_map(|pair| [pair * 3000; 2]).collect();
        assert_eq!(store.times(start), times);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_live_reader_batches_are_few_and_the_end_does_not_wait() {
        let store = Arc::new(Store::default());
        let start = Instant::now();
        let copy = TraceCopy::new(store.clone(), CopyMode::Late, |batch| format!("trace/{batch:06}"));
        for number in 0..250 {
            send(&copy, &format!("line {number}")).await;
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(copy.finish().await.unwrap(), 3);
        let times = store.times(start);
        assert!(times[0] == 10_000 && times[1] >= 20_000 && times[2] == 25_000, "{times:?}");
    }

    #[test]
    fn a_long_call_is_divided_between_lines() {
        let text = "a line of some length\n".repeat(50_000);
        assert!(pieces(text.as_bytes()).all(|piece| piece.ends_with(b"h\n") && piece.len() <= SEND_BYTES + 22));
        assert_eq!(pieces(text.as_bytes()).collect::<Vec<_>>().concat(), text.as_bytes());
        assert_eq!(pieces(b"").count(), 0);
    }

    #[tokio::test]
    async fn an_empty_run_stores_nothing() {
        let store = Arc::new(Store::default());
        assert_eq!(copy_to(&store).finish().await.unwrap(), 0);
        assert!(store.batches().is_empty());
    }
}
