//! Figures about the time of answers. Pure.

use std::time::Duration;

use serde::Serialize;

/// The time of answers in milliseconds, also of those that did not come in time; `None` when nothing was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct LatencyFigures {
    /// Of the first request of all, which may have found no container ready.
    pub(super) first: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) max: Option<f64>,
}

impl LatencyFigures {
    pub(super) fn of(first: Option<Duration>, mut answers: Vec<Duration>) -> Self {
        answers.sort_unstable();
        let at = |percent| percentile(&answers, percent).map(milliseconds);
        Self { first: first.map(milliseconds), p50: at(50), p95: at(95), p99: at(99), max: at(100) }
    }
}

/// The smallest value that so many percent of all values do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// With three decimals.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(milliseconds: impl IntoIterator<Item = u64>) -> LatencyFigures {
        LatencyFigures::of(None, milliseconds.into_iter().map(Duration::from_millis).collect())
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let figures = of((1..=100).rev());
        assert_eq!([figures.p50, figures.p95, figures.p99, figures.max], [50.0, 95.0, 99.0, 100.0].map(Some));
        let figures = of([7, 3]);
        assert_eq!([figures.p50, figures.p95, figures.max], [3.0, 7.0, 7.0].map(Some));
        assert_eq!(of([]), LatencyFigures::default());
        let first = LatencyFigures::of(Some(Duration::from_nanos(1_234_567)), Vec::new());
        assert_eq!(first.first, Some(1.235));
    }

    proptest! {
        #[test]
        fn no_more_than_the_rest_exceeds_a_percentile(values in prop::collection::vec(0_u64..1000, 1..300), percent in 1_usize..=100) {
            let mut sorted: Vec<_> = values.iter().map(|&value| Duration::from_millis(value)).collect();
            sorted.sort_unstable();
            let found = percentile(&sorted, percent).unwrap();
            let [below, not_above] = [|a: Duration, b| a < b, |a, b| a <= b]
                .map(|holds: fn(Duration, Duration) -> bool| sorted.iter().filter(|&&one| holds(one, found)).count());
            prop_assert!(not_above * 100 >= sorted.len() * percent);
            prop_assert!(below * 100 < sorted.len() * percent);
        }
    }
}
