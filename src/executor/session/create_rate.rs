//! Rate limit of `CreateTrainingJob` for the drivers of one host, kept in one small file, so that sixty jobs that begin
//! together do not throttle each other. The rate drops when other callers of the account need it.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{ConstantBuilder, Retryable as _};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::logs::budget::{Grant, ReadBudget};
use crate::session::stamp::Stamp;

/// Highest rate of one host, in requests a second; a new host begins at half of it. AWS does not publish its own limit.
const CEILING: f64 = 4.0;
/// Longest wait for the file's lock, which is held for a moment only; after that a driver goes on without it.
const LOCKED_FOR: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
/// Longest pause between two checks for a turn: the rate may have grown.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Content of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Shared {
    /// Id of the boot that the budget's times count from.
    boot: String,
    budget: ReadBudget,
}

/// The rate limit of one host.
#[derive(Debug, Clone)]
pub(super) struct CreateRate {
    path: PathBuf,
    boot: String,
    /// Time since boot when this was made.
    uptime: Duration,
    made: Instant,
}

impl CreateRate {
    pub(super) fn of(state_dir: &Path, stamp: &Stamp) -> Self {
        let (boot, uptime) = stamp.since_boot();
        Self { path: state_dir.join("create.json"), boot: boot.to_owned(), uptime, made: Instant::now() }
    }

    /// Waits for a turn; `false` when none comes before `until`.
    pub(super) async fn take(&self, until: Instant) -> bool {
        loop {
            let now = self.now();
            let wait = self.with(|budget| {
                if budget.grant(now) == Grant::Nothing {
                    Some(budget.wait(Grant::Urgent))
                } else {
                    budget.spend();
                    None
                }
            });
            let wait = match wait.await {
                Ok(None) => return true,
                Ok(Some(wait)) => wait.clamp(POLL, LONGEST_PAUSE).mul_f64(1.0 + fastrand::f64() / 2.0),
                Err(error) => {
                    tracing::debug!(%error, path = %self.path.display(), "failed to lock the file of the request rate");
                    return true;
                }
            };
            if Instant::now() + wait >= until {
                return false;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Adapts the rate to an answer.
    pub(super) async fn answered(&self, is_throttled: bool) {
        let now = self.now();
        let told = self
            .with(|budget| if is_throttled { budget.throttled(now, fastrand::f64()) } else { budget.succeeded(now) });
        if let Err(error) = told.await {
            tracing::debug!(%error, path = %self.path.display(), "failed to save the request rate");
        }
    }

    fn now(&self) -> Duration {
        self.uptime + self.made.elapsed()
    }

    async fn with<R>(&self, act: impl FnOnce(&mut ReadBudget) -> R) -> std::io::Result<R> {
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&self.path)?;
        let deadline = Instant::now() + LOCKED_FOR;
        (|| async { file.try_lock() })
            .retry(ConstantBuilder::new().with_delay(POLL).without_max_times())
            .when(|error| matches!(error, TryLockError::WouldBlock) && Instant::now() < deadline)
            .adjust(|_, pause| pause.map(|pause| pause.mul_f64(1.0 + fastrand::f64())))
            .await?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let shared = serde_json::from_slice::<Shared>(&text).ok().filter(|shared| shared.boot == self.boot);
        let mut shared =
            shared.unwrap_or_else(|| Shared { boot: self.boot.clone(), budget: ReadBudget::new(CEILING, self.now()) });
        let result = act(&mut shared.budget);
        let text = serde_json::to_vec(&shared)?;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&text)?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::HostClock;

    #[tokio::test(start_paused = true)]
    async fn a_lone_job_waits_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let rate = CreateRate::of(dir.path(), &Stamp::of(&HostClock));
        let start = Instant::now();
        assert!(rate.take(start + Duration::from_mins(1)).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn drivers_that_begin_together_are_spread_and_yield_to_throttling() {
        let dir = tempfile::tempdir().unwrap();
        let rate = CreateRate::of(dir.path(), &Stamp::of(&HostClock));
        let start = Instant::now();
        let until = start + Duration::from_hours(1);
        for _ in 0..11 {
            assert!(rate.clone().take(until).await);
            rate.answered(false).await;
        }
        let quick = start.elapsed();
        assert!((Duration::from_millis(2500)..Duration::from_secs(10)).contains(&quick), "{quick:?}");
        for _ in 0..4 {
            rate.answered(true).await;
            assert!(rate.take(until).await);
        }
        let slow = Instant::now();
        assert!(rate.take(until).await);
        assert!(slow.elapsed() >= Duration::from_secs(1), "{:?}", slow.elapsed());
        assert!(!rate.take(Instant::now() + POLL).await, "no turn comes so soon");
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_file_a_driver_goes_on() {
        let rate = CreateRate::of(Path::new("/proc/no-such-folder"), &Stamp::of(&HostClock));
        assert!(rate.take(Instant::now() + Duration::from_secs(1)).await);
        rate.answered(true).await;
    }
}
