//! The things of a kind that wait for their deletion, in turns.
//!
//! A thing whose deletion AWS throttled waits for a later turn, in which it is looked at again like a new one. Turns get smaller and wait
//! longer while AWS throttles, so that few deletions are sent in vain; they recover slowly.

use std::collections::VecDeque;
use std::time::Duration;

/// Pauses before a turn, after one in which AWS throttled something.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A shorter pause is none.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// Turns in a row in which AWS throttled every deletion, after which no thing comes again: about two minutes.
const MOST_VAIN: usize = 8;

#[derive(Debug)]
pub(super) struct TurnQueue<T> {
    waiting: VecDeque<T>,
    /// Most things of a turn, now and ever.
    size: usize,
    most: usize,
    pause: Duration,
    /// Turns in a row without any deletion.
    vain: usize,
}

impl<T> TurnQueue<T> {
    pub(super) fn new(things: Vec<T>, most: usize) -> Self {
        Self { waiting: things.into(), size: most, most, pause: Duration::ZERO, vain: 0 }
    }

    /// The things of the next turn, after the pause that AWS needs. `None` when none is left.
    pub(super) async fn next(&mut self) -> Option<Vec<T>> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.is_patient() {
            tokio::time::sleep(self.pause).await;
        }
        let size = self.size.min(self.waiting.len());
        Some(self.waiting.drain(..size).collect())
    }

    /// Tells whether things that AWS throttled may come again.
    pub(super) fn is_patient(&self) -> bool {
        self.vain < MOST_VAIN
    }

    /// Ends a turn in which so many things were deleted, and AWS throttled these.
    pub(super) fn end(&mut self, deleted: usize, throttled: impl IntoIterator<Item = T>) {
        let before = self.waiting.len();
        self.waiting.extend(throttled);
        if self.waiting.len() > before {
            self.vain = if deleted == 0 { self.vain + 1 } else { 0 };
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            self.size = (self.size / 2).max(1);
        } else {
            self.vain = 0;
            self.pause = self.pause * 7 / 8;
            self.size = (self.size + 1).min(self.most);
            if self.pause < LEAST_PAUSE {
                self.pause = Duration::ZERO;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_throttled_comes_again_after_a_pause_in_smaller_turns() {
        let mut queue = TurnQueue::new((0..6).collect(), 4);
        let begun = Instant::now();
        assert_eq!(queue.next().await, Some(vec![0, 1, 2, 3]));
        assert!(begun.elapsed().is_zero());
        queue.end(3, [3]);
        assert_eq!(queue.next().await, Some(vec![4, 5]));
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        queue.end(2, []);
        assert_eq!(queue.next().await, Some(vec![3]));
        queue.end(1, []);
        assert_eq!(queue.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_when_aws_throttles_everything() {
        let mut queue = TurnQueue::new(vec!['a', 'b'], 4);
        let begun = Instant::now();
        let mut turns = 0;
        while queue.is_patient() {
            let things = queue.next().await.unwrap();
            queue.end(0, things);
            turns += 1;
        }
        assert_eq!(turns, MOST_VAIN);
        let waited = begun.elapsed();
        assert!((60..180).contains(&waited.as_secs()), "{waited:?}");
        // The last look waits for nothing.
        assert!(queue.next().await.is_some());
        assert_eq!(begun.elapsed(), waited);
    }
}
