//! Repetition of calls: which failures may pass, how long to wait, and when to give up.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff};
use executor::base::backoff::backoff;
use executor::gitlab::api::GitLabError;
use tokio::time::Instant;

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: GitLabError,
    pub(super) fate: Fate,
}

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Refused by a rate limit, without effect; with the pause that GitLab asks for.
    Throttled(Option<Duration>),
    /// No connection: it was not sent.
    Unsent,
    /// Sent, and answered with 502, 503 or 504, or not at all: it may have taken effect.
    Lost(Option<Duration>),
    /// Answered: the same request gets the same answer.
    Answered,
}

/// The effect of a request that arrives twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeatable {
    /// None more than once: it reads, or sets a value.
    Always,
    /// A second object: it is repeated only if it certainly had no effect.
    UnlessSent,
}

/// Bounds of the repetition of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) first: Duration,
    pub(super) longest: Duration,
    /// Of all pauses together.
    pub(super) total: Duration,
    /// Repetitions without an answer, or with one of a proxy that reaches no GitLab.
    pub(super) without_answer: u32,
    /// No such repetition begins later after the begin of the call: each attempt may take its whole time limit.
    pub(super) latest: Duration,
}

impl Default for Limits {
    /// GitLab counts requests by the minute, so two minutes see the end of a rate limit. A restart takes some seconds.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            total: Duration::from_mins(2),
            without_answer: 5,
            latest: Duration::from_secs(90),
        }
    }
}

/// The pauses of one call.
pub(super) struct Pauses {
    limits: Limits,
    repeatable: Repeatable,
    backoff: ExponentialBackoff,
    waited: Duration,
    without_answer: u32,
    begun: Instant,
}

impl Pauses {
    pub(super) fn new(limits: Limits, repeatable: Repeatable) -> Self {
        let backoff = backoff(limits.first, limits.longest).build();
        Self { limits, repeatable, backoff, waited: Duration::ZERO, without_answer: 0, begun: Instant::now() }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The call's own error, when it is not repeated.
    pub(super) async fn wait(&mut self, failed: Failed) -> Result<(), GitLabError> {
        let Some(pause) = self.next(failed.fate) else { return Err(failed.error) };
        tracing::info!("{}; it is tried again in {} ms", failed.error, pause.as_millis());
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn next(&mut self, fate: Fate) -> Option<Duration> {
        let asked = match fate {
            Fate::Throttled(asked) => asked,
            Fate::Lost(_) if self.repeatable == Repeatable::UnlessSent => return None,
            Fate::Answered => return None,
            Fate::Unsent | Fate::Lost(_) => {
                self.without_answer += 1;
                let is_late = self.begun.elapsed() > self.limits.latest;
                if is_late || self.without_answer > self.limits.without_answer {
                    return None;
                }
                if let Fate::Lost(asked) = fate { asked } else { None }
            }
        };
        // At least the own pause: a server that asks for none would be called without end.
        let pause = self.backoff.next()?.max(asked.unwrap_or_default());
        self.waited = self.waited.saturating_add(pause);
        (self.waited <= self.limits.total).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use executor::gitlab::api::GitLabErrorKind;

    use super::*;

    /// The pauses in seconds until the call gives up, when every attempt fails so.
    fn pauses(repeatable: Repeatable, fate: Fate) -> Vec<f64> {
        let mut pauses = Pauses::new(Limits::default(), repeatable);
        std::iter::from_fn(|| pauses.next(fate)).take(1000).map(|pause| pause.as_secs_f64()).collect()
    }

    #[test]
    fn a_read_waits_for_gitlab_for_some_seconds() {
        for fate in [Fate::Unsent, Fate::Lost(None)] {
            assert_eq!(pauses(Repeatable::Always, fate), [0.5, 1.0, 2.0, 4.0, 8.0]);
        }
        assert_eq!(pauses(Repeatable::Always, Fate::Answered), [0.0; 0]);
    }

    #[test]
    fn a_request_that_may_have_taken_effect_is_not_sent_again() {
        assert_eq!(pauses(Repeatable::UnlessSent, Fate::Lost(None)), [0.0; 0]);
        assert_eq!(pauses(Repeatable::UnlessSent, Fate::Unsent), [0.5, 1.0, 2.0, 4.0, 8.0]);
    }

    #[test]
    fn a_rate_limit_is_waited_for_two_minutes() {
        let own = pauses(Repeatable::UnlessSent, Fate::Throttled(None));
        assert_eq!(own, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        let asked = |seconds| pauses(Repeatable::UnlessSent, Fate::Throttled(Some(Duration::from_secs(seconds))));
        assert_eq!(asked(50), [50.0, 50.0]);
        assert_eq!(asked(120), [120.0]);
        assert_eq!(asked(121), [0.0; 0]);
        assert_eq!(asked(u64::MAX), [0.0; 0]);
        assert_eq!(asked(0), own, "a server cannot ask for requests without a pause");
    }

    /// As of a server that sends a byte a second.
    #[tokio::test(start_paused = true)]
    async fn slow_attempts_are_repeated_for_a_bounded_time() {
        let mut pauses = Pauses::new(Limits::default(), Repeatable::Always);
        let begun = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            let Some(pause) = pauses.next(Fate::Lost(None)) else { break };
            tokio::time::sleep(pause).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_millis(120_500), "two attempts");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_is_kept_and_the_last_error_is_the_calls_own() {
        let failed = || Failed {
            error: GitLabError { kind: GitLabErrorKind::Throttled, operation: "x".to_owned(), message: "y".to_owned() },
            fate: Fate::Throttled(Some(Duration::from_secs(100))),
        };
        let mut pauses = Pauses::new(Limits::default(), Repeatable::Always);
        let begun = tokio::time::Instant::now();
        pauses.wait(failed()).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 100);
        assert_eq!(pauses.wait(failed()).await.unwrap_err().kind, GitLabErrorKind::Throttled);
        assert_eq!(begun.elapsed().as_secs(), 100);
    }
}
