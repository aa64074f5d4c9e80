//! Two-step cancellation by SIGTERM and SIGINT: the first signal asks for an orderly end, the second for an immediate
//! one.
//!
//! GitLab Runner sends SIGTERM to the driver's process group, SageMaker to the container's first process.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The cancellation of this process, with its two steps.
#[derive(Debug, Clone, Default)]
pub struct Cancellation {
    asked: CancellationToken,
    at_once: CancellationToken,
}

impl Cancellation {
    pub fn asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    pub fn at_once(&self) -> bool {
        self.at_once.is_cancelled()
    }

    /// Canceled by the first signal.
    pub fn token(&self) -> &CancellationToken {
        &self.asked
    }

    /// Goes to the next step.
    pub fn raise(&self) {
        if self.asked.is_cancelled() {
            self.at_once.cancel();
        } else {
            self.asked.cancel();
        }
    }

    /// Completes at the next step; never after the last one.
    pub async fn changed(&self) {
        if self.at_once() {
            std::future::pending::<()>().await;
        } else if self.asked() {
            self.at_once.cancelled().await;
        } else {
            self.asked.cancelled().await;
        }
    }
}

/// The signal handlers of this process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers; from here on neither signal ends the process. Needs a running runtime.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Raises `cancellation` with each signal, forever.
    pub async fn watch(mut self, cancellation: &Cancellation) -> std::convert::Infallible {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            cancellation.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_asks_and_the_second_means_at_once() {
        let cancellation = Cancellation::default();
        cancellation.raise();
        assert!(cancellation.asked() && !cancellation.at_once());
        cancellation.raise();
        assert!(cancellation.at_once());
    }
}
