//! Time as a port. Sleeps and deadlines are tokio's; the time of day and the time since boot come from here, so that
//! tests control both.

use std::fmt::Debug;
use std::fs;
use std::time::{Duration, SystemTime};

/// The clocks of a host.
pub trait Clock: Debug + Send + Sync {
    /// The time of day. It jumps when the clock is set.
    fn now(&self) -> SystemTime;
    /// Id of the boot, empty when the kernel does not give it, and the time since boot, which no setting of the clock
    /// changes.
    fn since_boot(&self) -> (String, Duration);
}

/// The clocks of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn since_boot(&self) -> (String, Duration) {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let uptime = read("/proc/uptime").split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
        let Some(uptime) = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
            // Both are needed to compare two moments.
            return Default::default();
        };
        (read("/proc/sys/kernel/random/boot_id").trim().to_owned(), uptime)
    }
}

#[cfg(any(test, feature = "testing"))]
pub use testing::TestClock;

#[cfg(any(test, feature = "testing"))]
mod testing {
    use std::thread::{self, ThreadId};

    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::{Clock, Duration, SystemTime};

    /// Clocks that follow the time of the test's runtime, which may be paused, and that jump on demand.
    #[derive(Debug)]
    pub struct TestClock {
        started: Instant,
        home: ThreadId,
        state: Mutex<State>,
    }

    #[derive(Debug)]
    struct State {
        /// The time of day when the clock was made, plus every jump.
        day: SystemTime,
        /// Threads with a runtime of their own get the time last read in the test's runtime.
        elapsed: Duration,
    }

    impl TestClock {
        /// A clock at this time of day, an hour after boot.
        pub fn at(day: SystemTime) -> Self {
            let state = Mutex::new(State { day, elapsed: Duration::ZERO });
            Self { started: Instant::now(), home: thread::current().id(), state }
        }

        /// Sets the clock.
        pub fn jump(&self, to: impl FnOnce(SystemTime) -> SystemTime) {
            let mut state = self.state.lock();
            state.day = to(state.day);
        }

        fn look(&self) -> (SystemTime, Duration) {
            let mut state = self.state.lock();
            if thread::current().id() == self.home {
                state.elapsed = self.started.elapsed();
            }
            (state.day + state.elapsed, state.elapsed)
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> SystemTime {
            self.look().0
        }

        fn since_boot(&self) -> (String, Duration) {
            ("test".to_owned(), Duration::from_hours(1) + self.look().1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_tells_its_time() {
        let (boot, uptime) = HostClock.since_boot();
        assert!(!boot.is_empty() && uptime > Duration::ZERO);
        assert!(HostClock.now() > SystemTime::UNIX_EPOCH);
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_changes_the_time_of_day_alone() {
        let clock = TestClock::at(SystemTime::UNIX_EPOCH);
        tokio::time::sleep(Duration::from_hours(30)).await;
        clock.jump(|day| day + Duration::from_hours(48));
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_hours(78));
        assert_eq!(clock.since_boot().1, Duration::from_hours(31));
    }
}
