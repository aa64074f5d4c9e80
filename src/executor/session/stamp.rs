//! Time stamps that survive a change of the host's clock: time since boot and time of day.
//!
//! Two stamps of one boot are compared by the time since boot, which no clock change affects; stamps of different boots
//! by the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::base::clock::Clock;

/// Seconds by which the clock of a file server, or one that is just being set, may be ahead.
const AHEAD: u64 = 3600;

/// A moment that one process writes down for another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Id of the boot that `uptime` counts from; empty when the kernel does not give it.
    #[serde(default)]
    boot: String,
    /// Milliseconds since boot.
    #[serde(default)]
    uptime: u64,
    /// Seconds since 1970.
    #[serde(default)]
    unix: u64,
}

impl Stamp {
    /// Now.
    pub fn of(clock: &dyn Clock) -> Self {
        let (boot, uptime) = clock.since_boot();
        Self { boot, uptime: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX), unix: seconds_of(clock.now()) }
    }

    /// A moment known by its time of day alone, such as a file's modification time.
    pub fn of_day(time: SystemTime) -> Self {
        Self { unix: seconds_of(time), ..Self::default() }
    }

    /// Time from this moment to `now`; zero when the clock was set back, so that nothing looks older than it is.
    pub fn age(&self, now: &Self) -> Duration {
        if self.is_of_boot(now) {
            return Duration::from_millis(now.uptime.saturating_sub(self.uptime));
        }
        Duration::from_secs(now.unix.saturating_sub(self.unix))
    }

    /// `true` when no clock change affects the time between the two.
    pub fn is_of_boot(&self, now: &Self) -> bool {
        !self.boot.is_empty() && self.boot == now.boot
    }

    /// `true` when this moment, of another boot, lies in the future: one of the two clocks was wrong.
    pub fn is_ahead_of(&self, now: &Self) -> bool {
        !self.is_of_boot(now) && self.unix > now.unix.saturating_add(AHEAD)
    }

    /// Id of the boot, and the time since then.
    pub fn since_boot(&self) -> (&str, Duration) {
        (&self.boot, Duration::from_millis(self.uptime))
    }
}

fn seconds_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::HostClock;

    fn stamp(boot: &str, uptime: u64, unix: u64) -> Stamp {
        Stamp { boot: boot.into(), uptime, unix }
    }

    #[test]
    fn a_clock_that_jumps_changes_no_age() {
        let then = stamp("a", 1000, 500);
        assert_eq!(then.age(&stamp("a", 3000, 500 + 86_400)), Duration::from_secs(2));
        assert_eq!(then.age(&stamp("a", 3000, 10)), Duration::from_secs(2));
    }

    #[test]
    fn across_a_restart_the_time_of_day_counts() {
        let then = stamp("a", 90_000, 500);
        assert_eq!(then.age(&stamp("b", 1000, 560)), Duration::from_mins(1));
        assert_eq!(then.age(&stamp("b", 1000, 10)), Duration::ZERO);
        assert!(!then.is_ahead_of(&stamp("b", 0, 10)) && stamp("a", 0, 5000).is_ahead_of(&stamp("b", 0, 10)));
        assert!(!stamp("a", 0, 5000).is_ahead_of(&stamp("a", 0, 10)), "by the time since boot");
        assert_eq!(stamp("", 0, 500).age(&stamp("", 0, 501)), Duration::from_secs(1));
    }

    #[test]
    fn this_host_tells_its_time() {
        let first = Stamp::of(&HostClock);
        assert!(first.age(&Stamp::of(&HostClock)) < Duration::from_mins(1));
        assert!(!first.since_boot().0.is_empty(), "{first:?}");
    }
}
