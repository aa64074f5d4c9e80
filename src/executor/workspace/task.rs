//! Tools of a running transfer: progress, threads, cancellation and retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::base::backoff::backoff;
use crate::cloud::{CloudError, CloudErrorKind};
use anyhow::Context as _;
use backon::Retryable as _;

/// The progress of a transfer, for display.
#[derive(Debug, Default)]
pub struct TransferProgress {
    /// Number of writing threads.
    busy: AtomicU64,
    has_arrived: AtomicBool,
    total: AtomicU64,
    content: AtomicU64,
    transferred: AtomicU64,
}

impl TransferProgress {
    /// Waits until the threads of an abandoned transfer have stopped writing: each ends at its next check.
    pub async fn at_rest(&self) {
        while self.busy.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// True when everything was received and is being applied, which should not be interrupted.
    pub fn has_arrived(&self) -> bool {
        self.has_arrived.load(Ordering::Acquire)
    }

    pub(crate) fn arrived(&self) {
        self.has_arrived.store(true, Ordering::Release);
    }

    /// Counts a writing thread until the value is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    pub(crate) fn found(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, bytes: u64) {
        self.content.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.transferred.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of content found so far.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes of content that were transferred or did not need to be.
    pub fn content(&self) -> u64 {
        self.content.load(Ordering::Relaxed)
    }

    /// Bytes sent to or received from the object store.
    pub fn transferred(&self) -> u64 {
        self.transferred.load(Ordering::Relaxed)
    }
}

pub(crate) struct Busy(Arc<TransferProgress>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Stops work on another thread when its result is no longer needed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.0.load(Ordering::Relaxed), "the transfer was canceled");
        Ok(())
    }
}

pub(crate) struct StopOnDrop(pub(crate) Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs blocking work on its own thread. If the future is dropped, the work ends at its next check.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let stop = Stop::default();
    let _guard = StopOnDrop(stop.clone());
    tokio::task::spawn_blocking(move || work(&stop)).await.context("the transfer's thread ended early")?
}

/// How long a call is tried again that may well succeed later, as under throttling or while credentials are renewed; the SDK's own
/// tries come first. As long as the default lease: then the other side has left.
const PATIENCE: Duration = Duration::from_mins(15);

/// `true` for faults, and for credentials that AWS does not accept: they are renewed. A permission that is missing stays missing.
fn is_passing(kind: CloudErrorKind) -> bool {
    kind.may_pass() || kind == CloudErrorKind::Unauthenticated
}

/// Calls until there is an answer.
pub(crate) async fn persist<T, F>(call: impl FnMut() -> F) -> Result<T, CloudError>
where
    F: Future<Output = Result<T, CloudError>>,
{
    let started = tokio::time::Instant::now();
    call.retry(backoff(Duration::from_millis(200), Duration::from_secs(5)))
        .when(|error| is_passing(error.kind) && started.elapsed() < PATIENCE)
        .notify(|error, _| tracing::debug!(%error, "a transfer's call is tried again"))
        .await
}
