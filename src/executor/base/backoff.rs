//! Exponential back-off for retries and polling.

use std::time::Duration;

use backon::ExponentialBuilder;

/// Pauses from `first`, doubling up to `longest`, without end: the caller has a deadline.
pub const fn backoff(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times()
}
