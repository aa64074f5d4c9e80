//! Lists the numbers of files with metrics, in time that grows with their size alone.

use std::collections::BTreeMap;

use super::{MOST_COMPARED, Metric, Metrics, Reading};
use crate::lifecycle::gate::decimal::Decimal;
use crate::lifecycle::gate::labels::Selector;

/// So many metrics of one name with different labels are in no list.
const MOST_LABELED: usize = 1000;

impl Metrics {
    /// The numbers, as they are written; of metrics that are there once.
    pub(in crate::lifecycle::gate) fn numbers(&self) -> BTreeMap<String, String> {
        let numbers = self.listed().into_iter().map(|(selector, value)| (selector.to_string(), value.to_string()));
        numbers.collect()
    }

    /// The names of the numbers, in their order.
    pub(in crate::lifecycle::gate) fn selectors(&self) -> Vec<Selector> {
        self.listed().into_iter().map(|(selector, _)| selector).collect()
    }

    /// Metrics that are there once, and are numbers; the first ones of many.
    fn listed(&self) -> Vec<(Selector, Decimal)> {
        let mut by_name = BTreeMap::<String, Vec<&Metric>>::new();
        let mut names = Vec::new();
        for metric in &self.all {
            let Some(name) = metric.path.name() else { continue };
            let group = by_name.entry(name.clone()).or_default();
            if group.len() < MOST_LABELED {
                if names.len() < MOST_COMPARED {
                    names.push((name, metric));
                }
                group.push(metric);
            }
        }
        let number = |(name, metric): (String, &Metric)| {
            let same = by_name.get(&name)?;
            let has_labels =
                |other: &&&Metric| metric.labels.iter().all(|(name, value)| other.labels.get(name) == Some(value));
            let is_once = same.len() < MOST_LABELED && same.iter().filter(has_labels).count() == 1;
            match metric.value {
                Reading::Number(value) if is_once && !metric.is_repeated => {
                    Some((Selector { name, labels: metric.labels.clone() }, value))
                }
                _ => None,
            }
        };
        names.into_iter().filter_map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::gate::metrics::MetricsSource;

    fn metrics(text: &str) -> Metrics {
        Metrics::parse(&[MetricsSource { name: "m.txt".to_owned(), bytes: text.as_bytes().to_vec() }], &[]).unwrap()
    }

    #[test]
    fn numbers_that_are_there_once_are_listed_in_their_order() {
        let text = "b 1\na{x=\"1\"} 2\na{x=\"2\"} 3\nc 1\nc 1\nn NaN\nz 0\n";
        let metrics = metrics(text);
        let names: Vec<_> = metrics.selectors().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["b", "a{x=\"1\"}", "a{x=\"2\"}", "z"]);
        assert!(metrics.selectors().iter().all(|selector| metrics.value(selector).is_ok()));
        let many = (0..100_000).fold(String::new(), |all, number| all + &format!("a{{x=\"{number}\"}} 1\n"));
        let metrics = self::metrics(&(many + "b 1\n"));
        assert_eq!(metrics.numbers(), BTreeMap::from([("b".to_owned(), "1".to_owned())]));
    }
}
