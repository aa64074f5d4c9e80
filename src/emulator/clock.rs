//! The one place of the emulator that asks for the time of day. A fault plan may put the clock forward or back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds that the clock is ahead of this machine's. One process runs one emulator.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// The time of day by this machine's clock.
pub(crate) fn of_machine() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = of_machine().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    now.saturating_add_signed(AHEAD_MS.load(Ordering::Relaxed))
}

/// As [`now_ms`], as a time.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(now_ms())
}

/// Sets the clock so many milliseconds ahead of this machine's.
pub(crate) fn set_ahead(ms: i64) {
    AHEAD_MS.store(ms, Ordering::Relaxed);
}

/// `true` while the clock is not this machine's.
pub(crate) fn is_set() -> bool {
    AHEAD_MS.load(Ordering::Relaxed) != 0
}
