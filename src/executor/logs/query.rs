//! Requests to CloudWatch Logs, and the state of a query. No I/O, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::state::ReadStart;

/// An ordinary read that waits longer than this gets every other request, whatever is urgent.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Longest pause after repeated failures.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// A request to CloudWatch Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogRequest {
    Filter { query: u64, streams: Vec<String>, since: u64, token: Option<String> },
    List { key: String, job: String },
    Newest { token: Option<String> },
}

/// A read of up to 100 streams from one point in time to the end, page by page.
#[derive(Debug)]
pub(super) struct Query {
    /// Driver's key by stream.
    pub(super) members: BTreeMap<String, String>,
    pub(super) since: u64,
    pub(super) token: Option<String>,
    pub(super) start: ReadStart,
    pub(super) urgent: bool,
    /// The newest ingestion time known before it began.
    pub(super) newest: Option<u64>,
    pub(super) due: Duration,
    pub(super) in_flight: bool,
    pub(super) failures: u32,
}

/// Back-off: 0.5 s, doubled with each failure, +/- 25 %.
pub(super) fn backoff(failures: u32, chance: f64) -> Duration {
    let pause = Duration::from_millis(250) * 2u32.saturating_pow(failures.min(10));
    pause.min(LONGEST_BACKOFF).mul_f64(0.75 + chance / 2.0)
}
