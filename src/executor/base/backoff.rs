//! Pauses between the tries of a call and between looks at something that is to come.

use std::time::Duration;

use backon::ExponentialBuilder;

/// Pauses from `first` up to `longest`, each twice the one before, without end: the caller's deadline ends them.
pub const fn backoff(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times()
}
