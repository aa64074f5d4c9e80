//! Which events of one log stream have been met: exact for a window of time, of bounded size, no I/O.
//!
//! `FilterLogEvents` is asked for overlapping times, since events become visible out of order; the event's id tells
//! what is new. Times are epoch milliseconds of the writer's clock.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher as _};

/// What is known of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    First,
    Again,
    /// From before the window, where ids are forgotten: it may be known or not.
    Unknown,
}

/// Ids of a stream's newest events: 16 bytes each and the tree's overhead.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    ids: BTreeSet<(u64, u64)>,
    /// Events before this time are no longer told apart.
    horizon: u64,
}

impl Seen {
    /// Remembers the event, unless it is from before the window.
    pub(super) fn meet(&mut self, timestamp: u64, id: &str) -> Novelty {
        if timestamp < self.horizon {
            return Novelty::Unknown;
        }
        if self.ids.insert((timestamp, digest(id))) { Novelty::First } else { Novelty::Again }
    }

    /// Takes the event back, which could not be passed on.
    pub(super) fn forget(&mut self, timestamp: u64, id: &str) {
        self.ids.remove(&(timestamp, digest(id)));
    }

    /// Ends the window at `horizon`: older ids are forgotten.
    pub(super) fn forget_before(&mut self, horizon: u64) {
        if horizon > self.horizon {
            self.horizon = horizon;
            self.ids = self.ids.split_off(&(horizon, 0));
        }
    }

    /// Forgets the oldest ids until about `limit` are left; those of the newest millisecond always stay.
    pub(super) fn shrink_to(&mut self, limit: usize) {
        let excess = self.ids.len().saturating_sub(limit.max(1));
        let newest = self.ids.last().map_or(0, |(time, _)| *time);
        if excess > 0
            && let Some((time, _)) = self.ids.iter().nth(excess)
        {
            self.forget_before((*time).min(newest));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// 64 bits of an id: with the millisecond beside it, two events of a stream do not meet by chance.
fn digest(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once() {
        let mut seen = Seen::default();
        assert_eq!(seen.meet(5, "a"), Novelty::First);
        assert_eq!(seen.meet(5, "b"), Novelty::First);
        assert_eq!(seen.meet(5, "a"), Novelty::Again);
        seen.forget(5, "a");
        assert_eq!(seen.meet(5, "a"), Novelty::First);
        assert_eq!(seen.meet(4, "late"), Novelty::First);
    }

    #[test]
    fn before_the_window_nothing_is_known() {
        let mut seen = Seen::default();
        for time in 0..100 {
            seen.meet(time, "x");
        }
        seen.forget_before(40);
        assert_eq!(seen.len(), 60);
        assert_eq!((seen.meet(39, "x"), seen.meet(40, "x")), (Novelty::Unknown, Novelty::Again));
        seen.shrink_to(10);
        assert_eq!((seen.len(), seen.horizon), (10, 90));
    }

    #[test]
    fn the_newest_millisecond_is_never_forgotten() {
        let mut seen = Seen::default();
        for id in 0..100 {
            seen.meet(7, &id.to_string());
        }
        seen.shrink_to(10);
        assert_eq!(seen.len(), 100);
        assert_eq!(seen.meet(7, "3"), Novelty::Again);
    }
}
