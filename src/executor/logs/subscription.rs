//! What one driver wants read, and how fast: the words that drivers and the elected reader share. No I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of what is written into the shared directory.
pub(super) const VERSION: u32 = 1;

/// How soon a driver needs what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// CloudWatch is the only live source: 1 to 2 seconds.
    Live,
    /// The copy in the store is live, CloudWatch is the record: 5 to 15 seconds.
    Record,
}

/// A subscription to have the job's streams read from `since` on (epoch milliseconds) once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Again {
    /// Each subscription has its own, so that it is served once.
    pub(super) number: u32,
    pub(super) since: u64,
}

/// One driver's subscription; a file in the shared directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub(super) version: u32,
    /// The training job's name.
    pub(super) job: String,
    pub(super) nodes: usize,
    /// Everything of the stream before this time is known; a stream that is absent is read from its head.
    pub(super) floors: BTreeMap<String, u64>,
    pub(super) pace: Pace,
    /// The container runs, so its streams must appear soon.
    #[serde(default)]
    pub(super) started: bool,
    /// The stage has ended and waits for what the log alone has.
    #[serde(default)]
    pub(super) urgent: bool,
    #[serde(default)]
    pub(super) again: Option<Again>,
}

/// A pause that grows from the first to the second while nothing happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
}

impl Pause {
    const fn seconds(shortest: u64, longest: u64) -> Self {
        Self { shortest: Duration::from_secs(shortest), longest: Duration::from_secs(longest) }
    }

    /// The pause after one of `pause` in which nothing happened.
    pub(super) fn longer(self, pause: Duration) -> Duration {
        (pause * 3 / 2).clamp(self.shortest, self.longest)
    }
}

/// Every interval of the reader, in one place; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intervals {
    pub(super) live: Pause,
    pub(super) record: Pause,
    pub(super) urgent: Duration,
    /// Looking for the streams of a job that has fewer than nodes.
    pub(super) list: Pause,
    /// Looking for new streams of a job of which one has been silent as long: a container that is started again writes
    /// into a stream of its own.
    pub(super) list_silent: Pause,
    /// After the stage has ended without its last event.
    pub(super) list_urgent: Duration,
    /// One listing of the newest streams serves all jobs that look for theirs.
    pub(super) discovery: Pause,
    /// Every stream is read once in this time from before its floor, for batches that arrive late.
    pub(super) deep: Duration,
    /// After a refusal that asking again does not change.
    pub(super) refused: Duration,
    /// The reader looks for new subscriptions.
    pub(super) look: Duration,
    /// Drivers try to become the reader this often.
    pub(super) elect: Duration,
    /// The reader shows that it works; drivers look as often.
    pub(super) beat: Duration,
    /// A reader that has not shown it for so long hangs.
    pub(super) hung: Duration,
    /// A driver that reads for itself beside a reader that hangs.
    pub(super) alone: Pause,
    /// A driver writes down how far it is at most this often.
    pub(super) publish: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            live: Pause::seconds(1, 2),
            record: Pause::seconds(5, 15),
            urgent: Duration::from_secs(1),
            list: Pause::seconds(1, 15),
            list_silent: Pause::seconds(120, 1800),
            list_urgent: Duration::from_secs(3),
            discovery: Pause::seconds(2, 30),
            deep: Duration::from_secs(20),
            refused: Duration::from_secs(30),
            look: Duration::from_millis(250),
            elect: Duration::from_millis(500),
            beat: Duration::from_secs(1),
            hung: Duration::from_secs(15),
            alone: Pause::seconds(15, 20),
            publish: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
impl Intervals {
    /// 20 times as fast, except for what a busy machine could mistake for a hang.
    pub(super) fn fast() -> Self {
        let usual = Self::default();
        let pause = |pause: Pause| Pause { shortest: pause.shortest / 20, longest: pause.longest / 20 };
        Self {
            live: pause(usual.live),
            record: pause(usual.record),
            urgent: usual.urgent / 20,
            list: pause(usual.list),
            list_silent: pause(usual.list_silent),
            list_urgent: usual.list_urgent / 20,
            discovery: pause(usual.discovery),
            deep: usual.deep / 20,
            refused: usual.refused / 20,
            look: usual.look / 20,
            elect: usual.elect / 20,
            beat: usual.beat / 20,
            hung: usual.hung,
            alone: pause(usual.alone),
            publish: usual.publish / 20,
        }
    }
}
