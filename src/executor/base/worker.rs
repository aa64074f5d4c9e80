//! Runs work in a thread with a runtime of its own, so that it continues while the main thread blocks on a full stdout.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;

/// Longest wait for the thread's end; after that it is abandoned: it waits for a disk or the network.
const END_WITHIN: Duration = Duration::from_secs(2);

/// A running thread. Dropping it signals the work to end, and waits for that.
#[derive(Debug)]
pub struct Worker {
    name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    /// Closed when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Worker {
    /// `work` creates the future inside the thread; its argument completes when the work must end.
    pub fn start<W: Future<Output = anyhow::Result<()>>>(
        name: &'static str,
        work: impl FnOnce(oneshot::Receiver<()>) -> W + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Dropped last, so that everything the work held is released before the end is signaled.
                let _end: mpsc::Sender<()> = end;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
                    let done = runtime.block_on(work(stopped));
                    // A name lookup under way must not block the thread's end.
                    runtime.shutdown_background();
                    done
                });
                if let Err(error) = done {
                    tracing::warn!(error = format!("{error:#}"), "the thread `{name}` ended");
                }
            })
            .with_context(|| format!("failed to start the thread `{name}`"))?;
        Ok(Self { name, stop: Some(stop), ended })
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.ended.try_recv(), Err(mpsc::TryRecvError::Disconnected))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.ended.recv_timeout(END_WITHIN) {
            tracing::warn!("the thread `{}` does not end", self.name);
        }
    }
}
