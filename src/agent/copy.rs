//! Where frames go: the container's log, and a copy of the same lines in the object store.
//!
//! The copy is written as numbered batches: no gaps, none written anew with other content. It is quick for the first line
//! after a pause and thrifty under steady output. Lines are forgotten only after they are stored;
//! [`TraceCopy::finish`] is the barrier before an exit may be reported. This module never reads the copy back, and it
//! never divides a frame.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::cloud::ObjectStore;

/// How long the first batch after a pause collects, and the step from which the wait grows.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long a batch collects at most.
const LONGEST_WAIT: Duration = Duration::from_millis(1500);
/// A batch is closed when it has so many bytes; the last lines may exceed it by one call of `send`.
const BATCH_BYTES: usize = 1 << 20;
/// Calls of `send` that wait behind a slow upload; with [`SEND_BYTES`] the bound of the memory.
const QUEUE: usize = 32;
/// Longer calls of `send` are divided.
const SEND_BYTES: usize = 256 << 10;
/// How long one batch is tried to upload, beyond the store's own retries.
pub const UPLOAD_DEADLINE: Duration = Duration::from_mins(2);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Takes frame lines in order. A call may wait for a slow receiver, which slows the script down.
#[async_trait]
pub trait FrameSink: Send {
    async fn send(&mut self, lines: &[String]) -> anyhow::Result<()>;
}

/// The container's log, and the copy where there is one.
///
/// A copy that failed does not end the log: the run goes on and [`finish`](Self::finish) tells.
#[derive(Debug)]
pub struct TraceOutput<W> {
    log: W,
    copy: Option<TraceCopy>,
}

impl<W: AsyncWrite + Send + Unpin> TraceOutput<W> {
    pub fn new(log: W, copy: Option<TraceCopy>) -> Self {
        Self { log, copy }
    }

    /// Waits until everything is stored and returns the number of batches in the copy.
    pub async fn finish(mut self) -> anyhow::Result<u32> {
        self.log.flush().await.context("failed to write to the container's log")?;
        match self.copy {
            Some(copy) => copy.finish().await,
            None => Ok(0),
        }
    }
}

#[async_trait]
impl<W: AsyncWrite + Send + Unpin> FrameSink for TraceOutput<W> {
    async fn send(&mut self, lines: &[String]) -> anyhow::Result<()> {
        let mut text = lines.join("\n");
        text.push('\n');
        self.log.write_all(text.as_bytes()).await.context("failed to write to the container's log")?;
        self.log.flush().await.context("failed to write to the container's log")?;
        match &mut self.copy {
            Some(copy) => copy.send(lines).await,
            None => Ok(()),
        }
    }
}

/// The copy of one run's frames. Dropped before [`finish`](Self::finish), it stops and may lack its tail.
#[derive(Debug)]
pub struct TraceCopy {
    lines: mpsc::Sender<String>,
    uploads: AbortOnDropHandle<anyhow::Result<u32>>,
}

impl TraceCopy {
    /// Starts the copy; `key_of` names the object of each batch, counted from 0.
    ///
    /// Keeps at most about 10 MiB. Each batch is tried for [`UPLOAD_DEADLINE`].
    pub fn new(store: Arc<dyn ObjectStore>, key_of: impl Fn(u32) -> String + Send + 'static) -> Self {
        let (lines, queue) = mpsc::channel(QUEUE);
        Self { lines, uploads: AbortOnDropHandle::new(tokio::spawn(upload_all(store, key_of, queue))) }
    }

    /// Uploads the last batch, waits for it and returns the number of batches. An error means that the copy ends early.
    pub async fn finish(self) -> anyhow::Result<u32> {
        drop(self.lines);
        self.uploads.await.context("failed to finish the copy of the trace")?
    }
}

#[async_trait]
impl FrameSink for TraceCopy {
    /// Waits while the queue is full. After an upload failed for good, lines are dropped and the log alone has them.
    async fn send(&mut self, lines: &[String]) -> anyhow::Result<()> {
        let mut piece = String::new();
        for line in lines {
            piece.push_str(line);
            piece.push('\n');
            if piece.len() >= SEND_BYTES {
                let _ = self.lines.send(std::mem::take(&mut piece)).await;
            }
        }
        if !piece.is_empty() {
            let _ = self.lines.send(piece).await;
        }
        Ok(())
    }
}

/// Collects and uploads batch after batch until the sender is gone.
async fn upload_all(
    store: Arc<dyn ObjectStore>,
    key_of: impl Fn(u32) -> String + Send,
    mut queue: mpsc::Receiver<String>,
) -> anyhow::Result<u32> {
    let mut number = 0;
    let mut wait = FIRST_WAIT;
    let mut stored_at: Option<Instant> = None;
    while let Some(first) = queue.recv().await {
        let is_steady = stored_at.is_some_and(|stored_at| stored_at.elapsed() < LONGEST_WAIT);
        wait = if is_steady { (wait * 2).min(LONGEST_WAIT) } else { FIRST_WAIT };
        let batch = collect(first, &mut queue, Instant::now() + wait).await;
        upload(store.as_ref(), &key_of(number), batch.into_bytes()).await?;
        stored_at = Some(Instant::now());
        number += 1;
    }
    Ok(number)
}

/// Adds lines until the batch is large enough, its time is over or no more can come; no newline at the end.
async fn collect(first: String, queue: &mut mpsc::Receiver<String>, until: Instant) -> String {
    let mut batch = first;
    while batch.len() < BATCH_BYTES {
        let Ok(Some(lines)) = timeout_at(until, queue.recv()).await else { break };
        batch.push_str(&lines);
    }
    if batch.ends_with('\n') {
        batch.pop();
    }
    batch
}

/// Puts one object and tries again until the deadline: whatever the error, the lines exist only here.
async fn upload(store: &dyn ObjectStore, key: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let deadline = Instant::now() + UPLOAD_DEADLINE;
    let mut pause = RETRY_FIRST;
    loop {
        let error: anyhow::Error = match timeout_at(deadline, store.put(key, body.clone())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.into(),
            Err(_) => anyhow::anyhow!("no answer from the object store within {UPLOAD_DEADLINE:?}"),
        };
        if Instant::now() + pause >= deadline {
            return Err(error.context(format!("failed to store the trace copy `{key}`")));
        }
        tracing::warn!(key, error = format!("{error:#}"), "failed to store a batch of the trace copy, trying again");
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::cloud::{CloudError, CloudErrorKind};

    /// Objects with the moment of their first write; fails as often as told.
    #[derive(Default)]
    struct Store {
        objects: Mutex<BTreeMap<String, (Vec<u8>, Instant)>>,
        failures: Mutex<u32>,
    }

    #[async_trait]
    impl ObjectStore for Store {
        async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
            Ok(self.objects.lock().unwrap().get(key).map(|(body, _)| body.clone()))
        }
        async fn get_to_file(&self, _: &str, _: &Path) -> Result<bool, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn size(&self, _: &str) -> Result<Option<u64>, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(CloudError {
                    kind: CloudErrorKind::Transient,
                    operation: format!("put {key}"),
                    message: "reset".to_owned(),
                    action: "s3:PutObject",
                });
            }
            let old = self.objects.lock().unwrap().insert(key.to_owned(), (body, Instant::now()));
            assert!(old.is_none(), "{key} is written twice");
            Ok(())
        }
        async fn put_file(&self, _: &str, _: &Path) -> Result<(), CloudError> {
            unreachable!("the copy only puts")
        }
        async fn put_if_absent(&self, _: &str, _: Vec<u8>) -> Result<bool, CloudError> {
            unreachable!("the copy only puts")
        }
        async fn list(&self, prefix: &str) -> Result<Vec<String>, CloudError> {
            Ok(self.objects.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect())
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
            let objects = self.objects.lock().unwrap();
            let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
            objects.iter().map(|(key, (body, _))| (key.clone(), text(body))).collect()
        }

        /// When each batch was stored, in milliseconds after `start`.
        fn times(&self, start: Instant) -> Vec<u128> {
            let objects = self.objects.lock().unwrap();
            objects.values().map(|(_, at)| at.duration_since(start).as_millis()).collect()
        }
    }

    fn copy_to(store: &Arc<Store>) -> TraceCopy {
        TraceCopy::new(store.clone(), |batch| format!("trace/{batch:06}"))
    }

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_batch_is_quick_and_steady_output_makes_larger_ones() {
        let store = Arc::new(Store::default());
        let start = Instant::now();
        let mut copy = copy_to(&store);
        for number in 0..100 {
            copy.send(&[format!("line {number}")]).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(copy.finish().await.unwrap() as usize, store.batches().len());
        let times = store.times(start);
        assert!(times[0] <= 300, "{times:?}");
        let gaps: Vec<u128> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= 1700), "{gaps:?}");
        assert!(times.len() < 12, "{times:?}");
        let all: Vec<String> = store.batches().into_iter().map(|(_, body)| body).collect();
        let expected: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        assert_eq!(all.join("\n"), expected.join("\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_a_line_is_quick_again() {
        let store = Arc::new(Store::default());
        let mut copy = copy_to(&store);
        for _ in 0..50 {
            copy.send(&lines(&["busy"])).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_secs(10)).await;
        let start = Instant::now();
        copy.send(&lines(&["late"])).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        let (_, body) = store.batches().pop().unwrap();
        assert_eq!(body, "late");
        let stored = store.objects.lock().unwrap().values().next_back().unwrap().1;
        assert!(stored - start <= Duration::from_millis(300));
        copy.finish().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_batch_does_not_wait_and_finish_stores_the_rest() {
        let store = Arc::new(Store::default());
        let start = Instant::now();
        let mut copy = copy_to(&store);
        for _ in 0..300 {
            copy.send(&["x".repeat(10_000)]).await.unwrap();
        }
        copy.send(&lines(&["end"])).await.unwrap();
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
        *store.failures.lock().unwrap() = 5;
        let mut copy = copy_to(&store);
        copy.send(&lines(&["one"])).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        copy.send(&lines(&["two"])).await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 2);
        assert_eq!(
            store.batches(),
            [("trace/000000".to_owned(), "one".to_owned()), ("trace/000001".to_owned(), "two".to_owned())]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_ends_the_copy_but_not_the_log() {
        let store = Arc::new(Store::default());
        *store.failures.lock().unwrap() = u32::MAX;
        let start = Instant::now();
        let mut log = Vec::new();
        let mut output = TraceOutput::new(&mut log, Some(copy_to(&store)));
        for number in 0..200 {
            output.send(&[format!("line {number}")]).await.unwrap();
        }
        let error = output.finish().await.unwrap_err();
        assert_eq!(error.to_string(), "failed to store the trace copy `trace/000000`");
        assert!(start.elapsed() <= UPLOAD_DEADLINE + FIRST_WAIT);
        assert_eq!(String::from_utf8(log).unwrap().lines().count(), 200);
    }

    #[tokio::test]
    async fn an_empty_run_stores_nothing() {
        let store = Arc::new(Store::default());
        assert_eq!(copy_to(&store).finish().await.unwrap(), 0);
        assert!(store.batches().is_empty());
    }
}
