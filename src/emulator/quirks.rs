//! The quirks of the real services that clients must handle, each with a switch, and the request quotas.
//!
//! All are on by default. Random choices depend on a seed and a count, never on the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The quirks that are on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each with its own flag")]
pub struct Quirks {
    /// Control characters arrive as `#015`, `#033`, `#011`.
    pub escape_controls: bool,
    /// Blank and indented lines join the event before.
    pub glue_lines: bool,
    /// Lines are cut at 16,384 bytes.
    pub cut_lines: bool,
    /// Time for which output is gathered into a batch before it becomes visible; zero shows it at once.
    pub batch_delay: Duration,
    /// Longest time until a batch is ingested; it is random for each batch, and batches of a stream stay in order.
    pub ingestion_lag: Duration,
    /// One page in eight is empty although more follow.
    pub empty_pages: bool,
    /// One page of `FilterLogEvents` in eight repeats the last event of the page before.
    pub overlapping_pages: bool,
    /// Requests beyond the quota of an operation get a `ThrottlingException`.
    pub throttling: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            escape_controls: true,
            glue_lines: true,
            cut_lines: true,
            batch_delay: Duration::from_secs(5),
            ingestion_lag: Duration::ZERO,
            empty_pages: true,
            overlapping_pages: true,
            throttling: true,
        }
    }
}

impl Quirks {
    /// All quirks off.
    pub fn none() -> Self {
        Self {
            escape_controls: false,
            glue_lines: false,
            cut_lines: false,
            batch_delay: Duration::ZERO,
            ingestion_lag: Duration::ZERO,
            empty_pages: false,
            overlapping_pages: false,
            throttling: false,
        }
    }

    /// Turns one quirk off by its name on the command line; `false` for an unknown name.
    pub fn turn_off(&mut self, name: &str) -> bool {
        match name {
            "escape-controls" => self.escape_controls = false,
            "glue-lines" => self.glue_lines = false,
            "cut-lines" => self.cut_lines = false,
            "batch-delay" => (self.batch_delay, self.ingestion_lag) = (Duration::ZERO, Duration::ZERO),
            "empty-pages" => self.empty_pages = false,
            "overlapping-pages" => self.overlapping_pages = false,
            "throttling" => self.throttling = false,
            _ => return false,
        }
        true
    }

    /// The names that [`Quirks::turn_off`] knows.
    pub const NAMES: [&'static str; 7] =
        ["escape-controls", "glue-lines", "cut-lines", "batch-delay", "empty-pages", "overlapping-pages", "throttling"];
}

/// Whether a quirk occurs at its `nth` occasion: one in eight, the same for the same seed.
pub(crate) fn unlucky(seed: u64, kind: &str, nth: u64) -> bool {
    mixed(seed, kind, nth).is_multiple_of(8)
}

/// A hash of its arguments.
pub(crate) fn mixed(seed: u64, kind: &str, nth: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(kind.as_bytes()).update(&nth.to_le_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

/// Requests a second of an account and region, by operation. Operations that are not listed are not limited.
const QUOTAS: &[(&str, f64)] = &[
    ("GetLogEvents", 10.0),
    ("FilterLogEvents", 10.0),
    ("DescribeLogStreams", 25.0),
    ("DescribeLogGroups", 10.0),
    ("ListTrainingJobs", 2.0),
    ("CreateTrainingJob", 2.0),
    ("DescribeTrainingJob", 10.0),
    ("StopTrainingJob", 10.0),
];
/// Operations whose token bucket holds more than one second's requests.
const BURSTS: &[(&str, f64)] = &[("CreateTrainingJob", 10.0)];

/// Token buckets, one per operation.
#[derive(Debug)]
pub(crate) struct Quotas {
    rates: BTreeMap<String, f64>,
    buckets: Mutex<BTreeMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    rate: f64,
    size: f64,
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    fn full(operation: &str, rate: f64) -> Self {
        let burst = BURSTS.iter().find(|(name, _)| *name == operation).map_or(rate, |(_, burst)| burst.max(rate));
        let size = burst.max(1.0);
        Self { rate, size, tokens: size, filled: None }
    }
}

impl Quotas {
    /// The real quotas, with `changes` over them; a rate of zero lifts a quota.
    pub(crate) fn new(changes: &BTreeMap<String, f64>) -> Self {
        let mut rates: BTreeMap<String, f64> =
            QUOTAS.iter().map(|(operation, rate)| ((*operation).to_owned(), *rate)).collect();
        rates.extend(changes.iter().map(|(operation, rate)| (operation.clone(), *rate)));
        let quotas = Self { rates, buckets: Mutex::default() };
        quotas.change(&BTreeMap::new());
        quotas
    }

    /// Replaces the rates by the initial ones with `changes` over them. A bucket whose rate changes begins full.
    pub(crate) fn change(&self, changes: &BTreeMap<String, f64>) {
        let mut buckets = self.buckets.lock();
        let mut rates = self.rates.clone();
        rates.extend(changes.iter().map(|(operation, rate)| (operation.clone(), *rate)));
        let next = rates.into_iter().filter(|(_, rate)| *rate > 0.0).map(|(operation, rate)| {
            let full = Bucket::full(&operation, rate);
            // A bucket whose rate stays the same keeps its tokens, so that another change allows no burst.
            let bucket = buckets.get(&operation).copied().filter(|now| (now.rate - rate).abs() < f64::EPSILON);
            (operation, bucket.unwrap_or(full))
        });
        *buckets = next.collect();
    }

    /// Whether a request at `now` is within the quota.
    pub(crate) fn admit(&self, operation: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        let Some(bucket) = buckets.get_mut(operation) else { return true };
        let elapsed = bucket.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        bucket.tokens = (bucket.tokens + elapsed.as_secs_f64() * bucket.rate).min(bucket.size);
        bucket.filled = Some(now);
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_can_be_changed_for_a_while() {
        let quotas = Quotas::new(&BTreeMap::from([("FilterLogEvents".to_owned(), 10.0)]));
        let start = Instant::now();
        let admitted = |at: Instant| (0..20).filter(|_| quotas.admit("FilterLogEvents", at)).count();
        assert_eq!(admitted(start), 10);
        quotas.change(&BTreeMap::from([("GetLogEvents".to_owned(), 1.0)]));
        assert_eq!(admitted(start), 0, "another operation's change fills no bucket");
        quotas.change(&BTreeMap::from([("FilterLogEvents".to_owned(), 2.0)]));
        assert_eq!(admitted(start), 2);
        assert_eq!(admitted(start + Duration::from_secs(5)), 2);
        quotas.change(&BTreeMap::from([("FilterLogEvents".to_owned(), 0.0)]));
        assert_eq!(admitted(start), 20);
        quotas.change(&BTreeMap::new());
        assert_eq!(admitted(start), 10);
    }

    #[test]
    fn a_quota_refills_with_time_and_not_with_tries() {
        let quotas = Quotas::new(&BTreeMap::new());
        let start = Instant::now();
        let admitted = (0..5).filter(|_| quotas.admit("ListTrainingJobs", start)).count();
        assert_eq!(admitted, 2);
        assert!(!quotas.admit("ListTrainingJobs", start + Duration::from_millis(400)));
        assert!(quotas.admit("ListTrainingJobs", start + Duration::from_millis(501)));
        assert!(quotas.admit("PutObject", start));
    }

    #[test]
    fn a_rate_of_zero_lifts_a_quota() {
        let quotas = Quotas::new(&BTreeMap::from([("ListTrainingJobs".to_owned(), 0.0)]));
        let now = Instant::now();
        assert!((0..100).all(|_| quotas.admit("ListTrainingJobs", now)));
    }

    #[test]
    fn every_quirk_has_a_name() {
        let mut quirks = Quirks::default();
        for name in Quirks::NAMES {
            assert!(quirks.turn_off(name), "{name}");
        }
        assert_eq!(quirks, Quirks::none());
        assert!(!quirks.turn_off("typo"));
    }

    #[test]
    fn luck_is_the_same_for_the_same_seed_and_rare() {
        let unlucky_ones = (0..800).filter(|nth| unlucky(7, "pages", *nth)).count();
        assert!((50..150).contains(&unlucky_ones), "{unlucky_ones}");
        assert_eq!(mixed(1, "a", 2), mixed(1, "a", 2));
        assert_ne!(mixed(1, "a", 2), mixed(2, "a", 2));
    }
}
