//! One query: up to 100 streams from one point in time to the end, page by page. And what all requests share. No I/O, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::state::Reach;

/// What waits longer than this gets every other request, whatever is urgent.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause after a request failed in a row.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Filter { query: u64, streams: Vec<String>, since: u64, token: Option<String> },
    List { key: String, job: String },
    Newest { token: Option<String> },
}

#[derive(Debug)]
pub(super) struct Query {
    /// Driver by stream.
    pub(super) members: BTreeMap<String, String>,
    pub(super) since: u64,
    pub(super) token: Option<String>,
    pub(super) reach: Reach,
    pub(super) urgent: bool,
    /// The newest ingestion known before it began.
    pub(super) newest: Option<u64>,
    pub(super) due: Duration,
    pub(super) in_flight: bool,
    pub(super) failures: u32,
}

/// 0.5 s, doubled with each failure, give or take a quarter.
pub(super) fn backoff(failures: u32, chance: f64) -> Duration {
    let pause = Duration::from_millis(250) * 2u32.saturating_pow(failures.min(10));
    pause.min(LONGEST_BACKOFF).mul_f64(0.75 + chance / 2.0)
}
