//! How well the sender compresses: as well as the processors can while the network is busy anyway.

use std::time::Duration;

/// Levels of zstd's, the fastest first: from about 1 GB/s for each processor to a fifth of that. Before them no compression at
/// all, for a network that takes more than the processors can compress.
const LEVELS: [Option<i32>; 8] = [None, Some(-7), Some(-5), Some(-3), Some(-1), Some(1), Some(2), Some(3)];
const FIRST: usize = 5;
/// A network that waits loses time at once, bytes that could have been fewer cost little: so much faster down than up.
const DOWN: usize = 2;
/// Packs in a row that had to wait before the level goes up.
const PATIENCE: u32 = 16;
/// Compression is what the network waits for when it takes this part of the threads' time, one in so many; otherwise it is the
/// disk, or there is little to send.
const PART: u32 = 6;

#[derive(Debug)]
pub(crate) struct Compression {
    at: usize,
    waited: u32,
    /// Before a first pack is stored, a slow network takes packs as readily as a fast one.
    is_known: bool,
    /// Of the threads' time since the last pack: with compression, and with all.
    compressing: Duration,
    working: Duration,
}

impl Default for Compression {
    fn default() -> Self {
        let (compressing, working) = (Duration::ZERO, Duration::ZERO);
        Self { at: FIRST, waited: 0, is_known: false, compressing, working }
    }
}

impl Compression {
    /// A level of zstd's, or no compression.
    pub(crate) fn level(&self) -> Option<i32> {
        LEVELS.get(self.at).copied().flatten()
    }

    /// A pack is stored.
    pub(crate) fn stored(&mut self) {
        self.is_known = true;
    }

    /// A thread has compressed a block for so long, and has been so long about the one before, compression and all.
    pub(crate) fn spent(&mut self, compressing: Duration, last: Option<Duration>) {
        self.compressing += compressing;
        self.working += last.unwrap_or(compressing);
    }

    /// A pack is ready: does the network wait for it, or has it to wait for the network?
    pub(crate) fn adapt(&mut self, network_waits: bool) {
        let is_cause = std::mem::take(&mut self.compressing) * PART >= std::mem::take(&mut self.working);
        if !self.is_known {
            return;
        }
        if network_waits {
            self.waited = 0;
            if is_cause {
                self.at = self.at.saturating_sub(DOWN);
            }
            return;
        }
        self.waited += 1;
        if self.waited >= PATIENCE {
            self.at = (self.at + 1).min(LEVELS.len() - 1);
            self.waited = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Duration = Duration::from_millis(3);

    fn adapt(compression: &mut Compression, network_waits: bool, share: u32) {
        compression.spent(BLOCK, Some(BLOCK * 100 / share));
        compression.adapt(network_waits);
    }

    #[test]
    fn a_slow_network_gets_the_best_compression_and_a_fast_one_none() {
        let mut compression = Compression::default();
        (0..10).for_each(|_| adapt(&mut compression, true, 80));
        assert_eq!(compression.level(), Some(1), "nothing is known yet");
        compression.stored();
        (0..100).for_each(|_| adapt(&mut compression, false, 80));
        assert_eq!(compression.level(), Some(3));
        (0..3).for_each(|_| adapt(&mut compression, true, 60));
        assert_eq!(compression.level(), Some(-7));
        adapt(&mut compression, true, 40);
        assert_eq!(compression.level(), None);
        // Now and then a pack waits.
        for _ in 0..20 {
            (1..PATIENCE).for_each(|_| adapt(&mut compression, false, 1));
            adapt(&mut compression, true, 1);
        }
        assert_eq!(compression.level(), None);
        (0..PATIENCE).for_each(|_| adapt(&mut compression, false, 1));
        assert_eq!(compression.level(), Some(-7));
    }

    #[test]
    fn a_network_that_waits_for_the_disk_changes_nothing() {
        let mut compression = Compression::default();
        compression.stored();
        (0..100).for_each(|_| adapt(&mut compression, true, 5));
        assert_eq!(compression.level(), Some(1));
    }
}
