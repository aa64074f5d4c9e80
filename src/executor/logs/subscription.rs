//! A driver's subscription, and the reader's intervals. No I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Version of the files in the shared directory.
pub(super) const VERSION: u32 = 1;

/// How soon a driver needs new events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedMode {
    /// CloudWatch is the only live source: read every 1 to 2 seconds.
    Live,
    /// The copy in the store is the live source: read every 5 to 15 seconds.
    Record,
}

/// A request to read the job's streams once more from `since` (epoch milliseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Again {
    /// Differs from the request before, so that each is served once.
    pub(super) number: u32,
    pub(super) since: u64,
}

/// A driver's subscription; a file in the shared directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub(super) version: u32,
    /// The training job's name.
    pub(super) job: String,
    pub(super) nodes: usize,
    /// Epoch milliseconds by stream: the driver has all earlier events. A stream that is absent is read from its start.
    pub(super) floors: BTreeMap<String, u64>,
    #[serde(rename = "pace")]
    pub(super) mode: FeedMode,
    /// The container runs, so its streams will appear soon.
    #[serde(default)]
    pub(super) started: bool,
    /// The stage has ended and waits for events that only the log has.
    #[serde(default)]
    pub(super) urgent: bool,
    #[serde(default)]
    pub(super) again: Option<Again>,
}

/// A pause that grows from `shortest` to `longest` while nothing happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
}

impl Pause {
    const fn seconds(shortest: u64, longest: u64) -> Self {
        Self { shortest: Duration::from_secs(shortest), longest: Duration::from_secs(longest) }
    }

    /// The next pause after `pause` passed without an event.
    pub(super) fn longer(self, pause: Duration) -> Duration {
        (pause * 3 / 2).clamp(self.shortest, self.longest)
    }
}

/// The reader's intervals; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intervals {
    pub(super) live: Pause,
    pub(super) record: Pause,
    pub(super) urgent: Duration,
    /// Between listings of a job that lacks a node's stream.
    pub(super) list: Pause,
    /// Between listings of a job with a node that has been silent as long: a restarted container writes into a new stream.
    pub(super) list_silent: Pause,
    /// From a stage's end to a listing, when its last event is missing.
    pub(super) list_urgent: Duration,
    /// Between listings of the newest streams.
    pub(super) discovery: Pause,
    /// Between deep reads of a stream, which begin before its floor to find late batches.
    pub(super) deep: Duration,
    /// After an error that a retry does not fix.
    pub(super) refused: Duration,
    /// Between the reader's checks for new subscriptions.
    pub(super) look: Duration,
    /// Between a driver's attempts to become the reader.
    pub(super) elect: Duration,
    /// Between heartbeats of the reader, and between a driver's checks of it.
    pub(super) beat: Duration,
    /// A reader without a heartbeat for this long hangs.
    pub(super) hung: Duration,
    /// Between reads of a driver that reads for itself.
    pub(super) alone: Pause,
    /// Shortest time between a driver's writes of its floors.
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
    /// 20 times as fast, except `hung`, which a busy machine could exceed.
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
