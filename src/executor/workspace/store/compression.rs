//! Adapts the sender's compression level: as high as the processors manage without making the network wait.

use std::time::Duration;

/// zstd levels, the fastest first: from about 1 GB/s per processor to a fifth of that. The first is no compression, for a network that
/// is faster than the processors.
const LEVELS: [Option<i32>; 8] = [None, Some(-7), Some(-5), Some(-3), Some(-1), Some(1), Some(2), Some(3)];
const FIRST: usize = 5;
/// Steps down at a time, against one step up: a waiting network costs more than larger packs.
const DOWN: usize = 2;
/// Consecutive packs that must wait for the network before the level goes up.
const PATIENCE: u32 = 16;
/// Compression counts as the cause when it takes at least 1/`PART` of the threads' time; else the disk is, or there is little to send.
const PART: u32 = 6;

#[derive(Debug)]
pub(crate) struct Compression {
    at: usize,
    waited: u32,
    /// A pack was stored. Before, a slow network looks as fast as any.
    is_known: bool,
    /// The threads' time since the last pack: for compression; `working`: in total.
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
    /// The zstd level; `None`: no compression.
    pub(crate) fn level(&self) -> Option<i32> {
        LEVELS.get(self.at).copied().flatten()
    }

    /// Records that a pack was stored.
    pub(crate) fn stored(&mut self) {
        self.is_known = true;
    }

    /// Records the time a thread took to compress a block, and its total time since the block before.
    pub(crate) fn spent(&mut self, compressing: Duration, last: Option<Duration>) {
        self.compressing += compressing;
        self.working += last.unwrap_or(compressing);
    }

    /// Adapts the level when a pack is ready: down if the network waits for packs, up if packs wait for the network.
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
