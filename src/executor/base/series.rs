//! Values over time in bounded memory: neighbours are merged when there are too many. No I/O.

use serde::{Deserialize, Serialize};

/// Most points of a series.
pub const MOST_POINTS: usize = 400;
/// Larger numbers are in no point, so that no sum overflows.
const LARGEST: f64 = 1e100;

/// `false` for what is no number, too.
fn is_plottable(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// A number as JSON has it; as text what JSON has no number for.
mod any_number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        let written =
            |value: f64| if value.is_finite() { Written::Number(value) } else { Written::Text(value.to_string()) };
        value.map(written).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(match Option::<Written>::deserialize(deserializer)? {
            Some(Written::Number(value)) => Some(value),
            Some(Written::Text(text)) => Some(text.parse().map_err(serde::de::Error::custom)?),
            None => None,
        })
    }
}

/// Neighbouring values of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, f64, f64, f64)", into = "(u64, u32, f64, f64, f64)")]
pub struct Point {
    /// Time of the first of them, in milliseconds.
    pub at: u64,
    pub count: u32,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

impl From<(u64, u32, f64, f64, f64)> for Point {
    fn from((at, count, min, mean, max): (u64, u32, f64, f64, f64)) -> Self {
        Self { at, count, min, mean, max }
    }
}

impl From<Point> for (u64, u32, f64, f64, f64) {
    fn from(point: Point) -> Self {
        (point.at, point.count, point.min, point.mean, point.max)
    }
}

impl Point {
    fn of(at: u64, value: f64) -> Self {
        Self { at, count: 1, min: value, mean: value, max: value }
    }

    /// Both in one, with the earlier time.
    fn merged(self, next: Self) -> Self {
        let count = self.count.saturating_add(next.count);
        let share = f64::from(next.count) / f64::from(count.max(1));
        Self {
            at: self.at,
            count,
            min: self.min.min(next.min),
            mean: (self.mean + (next.mean - self.mean) * share).clamp(self.min.min(next.min), self.max.max(next.max)),
            max: self.max.max(next.max),
        }
    }

    fn is_sound(&self) -> bool {
        self.count > 0
            && is_plottable(self.min)
            && is_plottable(self.max)
            && self.min <= self.mean
            && self.mean <= self.max
    }
}

/// The values of one quantity in order of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    points: Vec<Point>,
    /// Number of values in a full point.
    per_point: u32,
    /// The first number.
    first: f64,
    /// Also what is no number, such as `nan`.
    #[serde(with = "any_number")]
    last: Option<f64>,
}

impl Series {
    /// A series with these points, as [`Series::thinned`] gives them. `None` when they cannot be those of a series.
    pub fn of_points(points: Vec<Point>, last: Option<f64>) -> Option<Self> {
        let first = points.first()?.mean;
        let last = last.or_else(|| points.last().map(|point| point.mean));
        let per_point = points.iter().map(|point| point.count).max().unwrap_or(1);
        Some(Self { points, per_point, first, last }).filter(Self::is_sound)
    }

    /// Adds a value; `at` is in milliseconds and never decreases.
    pub fn push(&mut self, at: u64, value: f64) {
        self.last = Some(value);
        if !is_plottable(value) {
            return;
        }
        if self.points.is_empty() {
            (self.first, self.per_point) = (value, self.per_point.max(1));
        }
        let point = Point::of(at, value);
        match self.points.last_mut() {
            Some(last) if last.count < self.per_point => *last = last.merged(point),
            _ => self.points.push(point),
        }
        if self.points.len() > MOST_POINTS {
            self.points = merged_pairs(&self.points);
            self.per_point = self.per_point.saturating_mul(2);
        }
    }

    /// Adds the values of a later series, whose times begin at `from`.
    pub fn extend(&mut self, later: &Self, from: u64) {
        if self.points.is_empty() {
            self.first = later.first;
        }
        self.last = later.last.or(self.last);
        self.per_point = self.per_point.max(later.per_point);
        self.points.extend(later.points.iter().map(|point| Point { at: point.at.saturating_add(from), ..*point }));
        while self.points.len() > MOST_POINTS {
            self.points = merged_pairs(&self.points);
            self.per_point = self.per_point.saturating_mul(2);
        }
    }

    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// `None` without any number.
    pub fn first(&self) -> Option<f64> {
        (!self.points.is_empty()).then_some(self.first)
    }

    /// The last value, also one that is no number. `None` without any value.
    pub fn last(&self) -> Option<f64> {
        self.last
    }

    pub fn min(&self) -> Option<f64> {
        self.points.iter().map(|point| point.min).reduce(f64::min)
    }

    pub fn max(&self) -> Option<f64> {
        self.points.iter().map(|point| point.max).reduce(f64::max)
    }

    pub fn mean(&self) -> Option<f64> {
        self.points.iter().copied().reduce(Point::merged).map(|point| point.mean)
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.points.iter().map(|point| u64::from(point.count)).sum()
    }

    /// Time of the last point.
    pub fn end(&self) -> u64 {
        self.points.last().map_or(0, |point| point.at)
    }

    /// At most `most` points of the same values.
    pub fn thinned(&self, most: usize) -> Vec<Point> {
        let per_group = self.points.len().div_ceil(most.max(1)).max(1);
        self.points.chunks(per_group).filter_map(|group| group.iter().copied().reduce(Point::merged)).collect()
    }

    /// `true` for one that [`Series::push`] can have made; it may come from a container.
    pub fn is_sound(&self) -> bool {
        let (low, high) = (self.min().unwrap_or_default(), self.max().unwrap_or_default());
        self.points.len() <= MOST_POINTS
            && self.points.iter().all(Point::is_sound)
            && self.points.is_sorted_by_key(|point| point.at)
            && (low..=high).contains(&self.first)
            && self.last.is_none_or(|last| !is_plottable(last) || (low..=high).contains(&last))
    }
}

fn merged_pairs(points: &[Point]) -> Vec<Point> {
    points.chunks(2).filter_map(|pair| pair.iter().copied().reduce(Point::merged)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Series {
        let mut series = Series::default();
        for (at, value) in (0..).zip(values) {
            series.push(at * 10, value);
        }
        series
    }

    #[test]
    fn many_values_stay_in_few_points_without_loss_of_extremes() {
        let count = 100_000_u32;
        let series = of((0..count).map(f64::from));
        assert!(series.points().len() <= MOST_POINTS && series.points().len() > MOST_POINTS / 3);
        assert_eq!(series.count(), u64::from(count));
        assert_eq!((series.first(), series.last()), (Some(0.0), Some(99_999.0)));
        assert_eq!((series.min(), series.max()), (Some(0.0), Some(99_999.0)));
        assert!((series.mean().unwrap() - 49_999.5).abs() < 0.01, "{:?}", series.mean());
        assert!(series.is_sound());
        assert_eq!(series.thinned(50).iter().map(|point| u64::from(point.count)).sum::<u64>(), u64::from(count));
        assert!(series.thinned(50).len() <= 50);
    }

    #[test]
    fn what_is_no_number_is_told_by_the_last_value_alone() {
        let series = of([0.5, f64::NAN]);
        assert!(series.last().unwrap().is_nan());
        assert_eq!((series.first(), series.count()), (Some(0.5), 1));
        assert_eq!(of([f64::INFINITY, 2.0]).first(), Some(2.0));
        assert_eq!(of([f64::NAN]).first(), None);
        assert_eq!(of([1e308, -1e308, 1.0]).mean(), Some(1.0));
        assert!(series.is_sound() && of([f64::NAN]).is_sound() && Series::default().is_sound());
    }

    #[test]
    fn a_later_series_goes_on_behind_the_earlier() {
        let mut joined = of([1.0, 2.0]);
        joined.extend(&of((0..1000).map(f64::from)), 500);
        assert_eq!(
            (joined.count(), joined.first(), joined.last(), joined.max()),
            (1002, Some(1.0), Some(999.0), Some(999.0))
        );
        assert!(joined.is_sound() && joined.points().len() <= MOST_POINTS);
    }

    #[test]
    fn points_make_a_series_again() {
        let series = of([1.0, 3.0, 2.0]);
        let again = Series::of_points(series.thinned(2), Some(2.0)).unwrap();
        assert_eq!((again.count(), again.max(), again.last()), (3, Some(3.0), Some(2.0)));
        let odd = |at, mean| Point { at, count: 1, min: 0.0, mean, max: 1.0 };
        assert_eq!(Series::of_points(vec![odd(1, 2.0)], None), None);
        assert_eq!(Series::of_points(vec![odd(1, f64::NAN)], None), None);
        assert_eq!(Series::of_points(vec![odd(1, 0.5), odd(0, 0.5)], None), None);
        assert_eq!(Series::of_points(Vec::new(), Some(1.0)), None);
    }

    #[test]
    fn a_series_survives_the_journey_and_one_that_was_bent_is_not_sound() {
        let series = of([0.25, 0.5]);
        let text = serde_json::to_string(&series).unwrap();
        assert_eq!(
            text,
            r#"{"points":[[0,1,0.25,0.25,0.25],[10,1,0.5,0.5,0.5]],"per_point":1,"first":0.25,"last":0.5}"#
        );
        assert_eq!(serde_json::from_str::<Series>(&text).unwrap(), series);
        for (from, to) in [("[0,1", "[20,1"), ("[0,1", "[0,0"), ("0.25,0.25,0.25", "0.3,0.25,0.25"), ("0.25}", "7}")] {
            let bent: Series =
                serde_json::from_str(&text.replace("\"last\":0.5}", "\"last\":0.25}").replacen(from, to, 1)).unwrap();
            assert!(!bent.is_sound(), "{from} {to}");
        }
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            let read: Series = serde_json::from_str(&serde_json::to_string(&of([0.5, odd])).unwrap()).unwrap();
            assert!(read.is_sound() && read.last().unwrap().total_cmp(&odd).is_eq(), "{odd}");
        }
        let large = text.replace("0.5,0.5,0.5", "0.5,0.5,1e200");
        assert!(!serde_json::from_str::<Series>(&large).unwrap().is_sound());
        let many = Series { points: vec![Point::of(0, 0.0); MOST_POINTS + 1], ..Series::default() };
        assert!(!many.is_sound());
    }
}
