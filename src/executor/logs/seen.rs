//! Remembers the events of a log stream, to drop repeated ones: exact within a time window, bounded in size, no I/O.
//!
//! Reads with `FilterLogEvents` overlap, since events become visible out of order; the event id tells which are new. Times are epoch
//! milliseconds of the writer's clock.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher as _};

/// Whether an event is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    First,
    Again,
    /// Older than the window: its id may have been forgotten.
    Unknown,
}

/// Ids of a stream's newest events: 16 bytes each, plus the tree's overhead.
#[derive(Debug, Clone, Default)]
pub(super) struct SeenIds {
    ids: BTreeSet<(u64, u64)>,
    /// Start of the window, in epoch milliseconds.
    horizon: u64,
}

impl SeenIds {
    /// Remembers the event, unless it is older than the window.
    pub(super) fn note(&mut self, timestamp: u64, id: &str) -> Novelty {
        if timestamp < self.horizon {
            return Novelty::Unknown;
        }
        if self.ids.insert((timestamp, digest(id))) { Novelty::First } else { Novelty::Again }
    }

    /// Forgets an event that could not be delivered.
    pub(super) fn forget(&mut self, timestamp: u64, id: &str) {
        self.ids.remove(&(timestamp, digest(id)));
    }

    /// Moves the start of the window to `horizon`; forgets older ids.
    pub(super) fn forget_before(&mut self, horizon: u64) {
        if horizon > self.horizon {
            self.horizon = horizon;
            self.ids = self.ids.split_off(&(horizon, 0));
        }
    }

    /// Forgets the oldest ids until about `limit` are left; keeps all of the newest millisecond.
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

/// A 64-bit hash of an id: together with the millisecond, collisions within a stream are improbable.
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
        let mut seen = SeenIds::default();
        assert_eq!(seen.note(5, "a"), Novelty::First);
        assert_eq!(seen.note(5, "b"), Novelty::First);
        assert_eq!(seen.note(5, "a"), Novelty::Again);
        seen.forget(5, "a");
        assert_eq!(seen.note(5, "a"), Novelty::First);
        assert_eq!(seen.note(4, "late"), Novelty::First);
    }

    #[test]
    fn before_the_window_nothing_is_known() {
        let mut seen = SeenIds::default();
        for time in 0..100 {
            seen.note(time, "x");
        }
        seen.forget_before(40);
        assert_eq!(seen.len(), 60);
        assert_eq!((seen.note(39, "x"), seen.note(40, "x")), (Novelty::Unknown, Novelty::Again));
        seen.shrink_to(10);
        assert_eq!((seen.len(), seen.horizon), (10, 90));
    }

    #[test]
    fn the_newest_millisecond_is_never_forgotten() {
        let mut seen = SeenIds::default();
        for id in 0..100 {
            seen.note(7, &id.to_string());
        }
        seen.shrink_to(10);
        assert_eq!(seen.len(), 100);
        assert_eq!(seen.note(7, "3"), Novelty::Again);
    }
}
