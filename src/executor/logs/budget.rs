//! Limits the host's rate of one kind of request: a token bucket whose rate falls when the account is throttled.
//!
//! The quota belongs to an account and region, and other clients use it too. So the rate halves with each throttling and grows back
//! slowly, as in TCP. No waiting, no clock: times are arguments, as time since the start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Lowest rate, in requests a second; throttling does not reduce it further.
const LOWEST: f64 = 0.2;
/// Growth of the rate per second without throttling.
const GROWTH: f64 = 1.10;
/// At most one cut in this time: later errors may belong to requests sent before the cut.
const ONE_CUT_IN: Duration = Duration::from_secs(1);
/// Capacity of the bucket.
const CAPACITY: f64 = 3.0;
/// Tokens needed for an urgent request, and for any other: one token stays reserved for urgent ones.
const URGENT_NEEDS: f64 = 1.0;
const ANY_NEEDS: f64 = 2.0;

/// The requests that may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grant {
    Nothing,
    Urgent,
    Any,
}

/// The token bucket. Grants at most `ceiling * t + 3` requests in `t` seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadBudget {
    ceiling: f64,
    rate: f64,
    tokens: f64,
    /// Time up to which tokens were added; `grown`: up to which the rate has grown.
    refilled: Duration,
    grown: Duration,
    cut: Option<Duration>,
}

impl ReadBudget {
    /// Starts at half of `ceiling` (requests a second) with one token: another reader may just have used its tokens.
    pub(crate) fn new(ceiling: f64, now: Duration) -> Self {
        let ceiling = ceiling.max(LOWEST);
        Self { ceiling, rate: (ceiling / 2.0).max(LOWEST), tokens: 1.0, refilled: now, grown: now, cut: None }
    }

    /// Adds the tokens due at `now` and returns the requests that may be sent.
    pub(crate) fn grant(&mut self, now: Duration) -> Grant {
        let passed = now.saturating_sub(self.refilled).as_secs_f64();
        self.refilled = self.refilled.max(now);
        self.tokens = (self.tokens + passed * self.rate).min(CAPACITY);
        if self.tokens >= ANY_NEEDS {
            Grant::Any
        } else if self.tokens >= URGENT_NEEDS {
            Grant::Urgent
        } else {
            Grant::Nothing
        }
    }

    /// Time until `grant` is reached when nothing is sent. Call it after [`ReadBudget::grant`] at the same time.
    pub(crate) fn wait(&self, grant: Grant) -> Duration {
        let needed = match grant {
            Grant::Nothing => return Duration::ZERO,
            Grant::Urgent => URGENT_NEEDS,
            Grant::Any => ANY_NEEDS,
        };
        Duration::try_from_secs_f64((needed - self.tokens).max(0.0) / self.rate).unwrap_or(ONE_CUT_IN)
    }

    /// Takes the token of one request.
    pub(crate) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// Records a successful request: the rate grows.
    pub(crate) fn succeeded(&mut self, now: Duration) {
        // One second at most: a time without requests does not show that a higher rate is possible.
        let passed = now.saturating_sub(self.grown).as_secs_f64().min(1.0);
        self.grown = self.grown.max(now);
        self.rate = (self.rate * GROWTH.powf(passed)).min(self.ceiling);
    }

    /// Records a throttled request: the rate halves. `chance` (0 to 1) spreads hosts that were throttled together.
    pub(crate) fn throttled(&mut self, now: Duration, chance: f64) {
        if self.cut.is_some_and(|cut| now.saturating_sub(cut) < ONE_CUT_IN) {
            return;
        }
        self.cut = Some(now);
        self.grown = self.grown.max(now);
        self.rate = (self.rate / 2.0).max(LOWEST);
        self.tokens = self.tokens.min(0.0) - chance;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Requests in `from..to` seconds, looked at every 10 ms, all answered by `answer`.
    fn run(budget: &mut ReadBudget, from: u32, to: u32, answer: impl Fn(&mut ReadBudget, Duration)) -> u32 {
        let mut sent = 0;
        for tick in from * 100..to * 100 {
            let now = Duration::from_millis(u64::from(tick) * 10);
            if budget.grant(now) == Grant::Any {
                budget.spend();
                sent += 1;
                answer(budget, now);
            }
        }
        sent
    }

    #[test]
    fn a_new_reader_begins_modestly_and_reaches_its_ceiling() {
        let mut budget = ReadBudget::new(5.0, Duration::ZERO);
        assert_eq!(budget.grant(Duration::ZERO), Grant::Urgent);
        let first = run(&mut budget, 0, 2, ReadBudget::succeeded);
        assert!((4..=6).contains(&first), "{first}");
        run(&mut budget, 2, 20, ReadBudget::succeeded);
        let later = run(&mut budget, 20, 30, ReadBudget::succeeded);
        assert!((48..=51).contains(&later), "{later}");
    }

    #[test]
    fn throttling_halves_once_a_second_and_never_below_the_floor() {
        let mut budget = ReadBudget::new(5.0, Duration::ZERO);
        run(&mut budget, 0, 20, ReadBudget::succeeded);
        for _ in 0..3 {
            budget.throttled(at(20.0), 0.5);
        }
        assert!((budget.rate - 2.5).abs() < 0.01, "{}", budget.rate);
        for second in 21..60 {
            budget.throttled(at(f64::from(second)), 0.0);
        }
        assert!((budget.rate - LOWEST).abs() < 0.001, "{}", budget.rate);
        let sent = run(&mut budget, 60, 160, |_, _| {});
        assert!((18..=22).contains(&sent), "{sent}");
    }

    #[test]
    fn the_last_token_is_for_what_is_urgent() {
        let mut budget = ReadBudget::new(1.0, Duration::ZERO);
        // Three tokens were saved up.
        for grant in [Grant::Any, Grant::Any] {
            assert_eq!(budget.grant(at(100.0)), grant);
            budget.spend();
        }
        assert_eq!(budget.grant(at(100.0)), Grant::Urgent);
        budget.spend();
        assert_eq!(budget.grant(at(100.0)), Grant::Nothing);
        assert_eq!((budget.wait(Grant::Nothing), budget.wait(Grant::Urgent)), (Duration::ZERO, at(2.0)));
    }

    proptest! {
        #[test]
        fn no_more_than_the_ceiling_is_granted(
            ceiling in 0.2..50.0f64,
            steps in prop::collection::vec((0u64..3000, 0u8..4), 1..400),
        ) {
            let mut budget = ReadBudget::new(ceiling, Duration::ZERO);
            let (mut now, mut sent) = (Duration::ZERO, 0.0);
            for (pause, answer) in steps {
                now += Duration::from_millis(pause);
                if budget.grant(now) >= Grant::Urgent {
                    budget.spend();
                    sent += 1.0;
                    if answer == 0 { budget.throttled(now, 0.3) } else { budget.succeeded(now) }
                }
                prop_assert!(sent <= now.as_secs_f64() * ceiling + CAPACITY);
                prop_assert!(budget.rate >= LOWEST && budget.rate <= ceiling);
            }
        }

        #[test]
        fn the_wait_is_long_enough(ceiling in 0.2..50.0f64, pause in 0u64..5000) {
            let mut budget = ReadBudget::new(ceiling, Duration::ZERO);
            let now = Duration::from_millis(pause);
            while budget.grant(now) >= Grant::Urgent {
                budget.spend();
            }
            let later = now + budget.wait(Grant::Any) + Duration::from_nanos(10);
            prop_assert_eq!(budget.grant(later), Grant::Any);
        }
    }
}
