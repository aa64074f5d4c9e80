//! The price of training instances: the operator's own, or AWS's list price. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// The region whose list prices are here.
pub const LIST_REGION: &str = "us-east-1";
/// When these were AWS's list prices.
pub const LIST_DATE: &str = "2026-08";

/// On-demand list prices for training in [`LIST_REGION`]: US dollars for one instance and an hour.
const LIST: &[(&str, f64)] = &[
    ("ml.c5.18xlarge", 3.672),
    ("ml.c5.2xlarge", 0.408),
    ("ml.c5.4xlarge", 0.816),
    ("ml.c5.9xlarge", 1.836),
    ("ml.c5.xlarge", 0.204),
    ("ml.c6i.12xlarge", 2.448),
    ("ml.c6i.16xlarge", 3.264),
    ("ml.c6i.24xlarge", 4.896),
    ("ml.c6i.2xlarge", 0.408),
    ("ml.c6i.32xlarge", 6.528),
    ("ml.c6i.4xlarge", 0.816),
    ("ml.c6i.8xlarge", 1.632),
    ("ml.c6i.xlarge", 0.204),
    ("ml.g4dn.12xlarge", 4.89),
    ("ml.g4dn.16xlarge", 5.44),
    ("ml.g4dn.2xlarge", 0.94),
    ("ml.g4dn.4xlarge", 1.505),
    ("ml.g4dn.8xlarge", 2.72),
    ("ml.g4dn.xlarge", 0.7364),
    ("ml.g5.12xlarge", 7.09),
    ("ml.g5.16xlarge", 5.12),
    ("ml.g5.24xlarge", 10.18),
    ("ml.g5.2xlarge", 1.515),
    ("ml.g5.48xlarge", 20.36),
    ("ml.g5.4xlarge", 2.03),
    ("ml.g5.8xlarge", 3.06),
    ("ml.g5.xlarge", 1.408),
    ("ml.g6.12xlarge", 5.752),
    ("ml.g6.16xlarge", 4.246),
    ("ml.g6.24xlarge", 8.344),
    ("ml.g6.2xlarge", 1.222),
    ("ml.g6.48xlarge", 16.688),
    ("ml.g6.4xlarge", 1.654),
    ("ml.g6.8xlarge", 2.518),
    ("ml.g6.xlarge", 1.127),
    ("ml.g6e.12xlarge", 13.12),
    ("ml.g6e.24xlarge", 18.832),
    ("ml.g6e.2xlarge", 2.8),
    ("ml.g6e.48xlarge", 37.664),
    ("ml.g6e.4xlarge", 3.7553),
    ("ml.g6e.8xlarge", 5.6607),
    ("ml.g6e.xlarge", 2.6054),
    ("ml.m5.12xlarge", 2.765),
    ("ml.m5.24xlarge", 5.53),
    ("ml.m5.2xlarge", 0.461),
    ("ml.m5.4xlarge", 0.922),
    ("ml.m5.large", 0.115),
    ("ml.m5.xlarge", 0.23),
    ("ml.m6i.12xlarge", 2.765),
    ("ml.m6i.16xlarge", 3.686),
    ("ml.m6i.24xlarge", 5.53),
    ("ml.m6i.2xlarge", 0.461),
    ("ml.m6i.32xlarge", 7.373),
    ("ml.m6i.4xlarge", 0.922),
    ("ml.m6i.8xlarge", 1.843),
    ("ml.m6i.large", 0.115),
    ("ml.m6i.xlarge", 0.23),
    ("ml.p4d.24xlarge", 25.251),
    ("ml.p4de.24xlarge", 31.564),
    ("ml.p5.48xlarge", 63.296),
    ("ml.p5.4xlarge", 7.912),
    ("ml.r5.12xlarge", 3.629),
    ("ml.r5.16xlarge", 4.838),
    ("ml.r5.24xlarge", 7.258),
    ("ml.r5.2xlarge", 0.605),
    ("ml.r5.4xlarge", 1.21),
    ("ml.r5.8xlarge", 2.419),
    ("ml.r5.large", 0.151),
    ("ml.r5.xlarge", 0.302),
    ("ml.t3.2xlarge", 0.3994),
    ("ml.t3.large", 0.0998),
    ("ml.t3.medium", 0.0499),
    ("ml.t3.xlarge", 0.1997),
    ("ml.trn1.2xlarge", 1.545),
    ("ml.trn1.32xlarge", 24.725),
];

/// Price of all instances of a job for an hour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Price {
    pub hourly: f64,
    pub source: PriceSource,
}

/// Where a price comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceSource {
    /// `[prices]` of the operator's file, in the operator's currency.
    Operator,
    /// AWS's list, in US dollars.
    List,
}

impl Price {
    /// The price of instances, by type and number; `own` is the operator's. `None`: the price of a type is not known. The two
    /// sources are never mixed, because their currencies may differ.
    pub fn of<S: AsRef<str>>(instances: &[(S, u32)], own: &BTreeMap<String, f64>) -> Option<Self> {
        let listed = |name: &str| LIST.iter().find(|(listed, _)| *listed == name).map(|(_, price)| *price);
        let total = |price: &dyn Fn(&str) -> Option<f64>| {
            let sum = instances.iter().map(|(name, count)| Some(price(name.as_ref())? * f64::from(*count)));
            sum.sum::<Option<f64>>().filter(|_| !instances.is_empty())
        };
        let of_operator = total(&|name| own.get(name).copied());
        of_operator.map(|hourly| Self { hourly, source: PriceSource::Operator }).or_else(|| {
            let hourly = total(&listed)?;
            Some(Self { hourly, source: PriceSource::List })
        })
    }

    /// The cost of these seconds.
    #[expect(clippy::cast_precision_loss, reason = "seconds of at most 28 days")]
    pub fn cost(self, seconds: u64) -> f64 {
        self.hourly * seconds as f64 / 3600.0
    }

    /// `$8.94`; the currency of the operator's prices is not known.
    pub fn amount(self, cost: f64) -> String {
        self.rounded(cost, 2)
    }

    /// `$0.032`: the cost of a minute.
    pub fn a_minute(self) -> String {
        let cost = self.cost(60);
        self.rounded(cost, if cost < 0.1 { 3 } else { 2 })
    }

    fn rounded(self, cost: f64, digits: usize) -> String {
        let sign = if self.source == PriceSource::List { "$" } else { "" };
        format!("{sign}{cost:.digits$}")
    }

    /// The source in words, for a job in this region.
    pub fn source_words(self, region: &str) -> String {
        match self.source {
            PriceSource::Operator => "the operator's price".to_owned(),
            PriceSource::List if region == LIST_REGION => "list price".to_owned(),
            PriceSource::List => format!("list price of {LIST_REGION}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::accelerators;

    fn own(prices: &[(&str, f64)]) -> BTreeMap<String, f64> {
        prices.iter().map(|(name, price)| ((*name).to_owned(), *price)).collect()
    }

    #[test]
    fn the_list_is_sorted_and_without_doubles() {
        assert!(LIST.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(LIST.iter().all(|(name, price)| name.starts_with("ml.") && *price > 0.0));
    }

    #[test]
    fn the_accelerators_of_every_type_in_the_list_are_known() {
        let accelerated =
            LIST.iter().filter(|(name, _)| ["ml.g", "ml.p", "ml.trn"].iter().any(|kind| name.starts_with(kind)));
        let unknown: Vec<_> = accelerated.filter(|(name, _)| accelerators::words(name).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    /// Within these families the price of a CPU is the same for all sizes.
    #[test]
    fn prices_grow_with_the_size() {
        for (name, price) in LIST {
            let Some((family, size)) = name.strip_prefix("ml.").and_then(|name| name.split_once('.')) else {
                panic!("{name}")
            };
            let large = match family {
                "c5" | "c6i" => 0.102,
                "m5" | "m6i" => 0.1152,
                "r5" => 0.1512,
                "t3" => 0.09984,
                _ => continue,
            };
            let larges = match size {
                "medium" => 0.5,
                "large" => 1.0,
                "xlarge" => 2.0,
                size => size.strip_suffix("xlarge").unwrap().parse::<f64>().unwrap() * 2.0,
            };
            assert!((price / (large * larges) - 1.0).abs() < 0.005, "{name}");
        }
    }

    #[test]
    fn a_price_counts_every_instance() {
        let listed = |hourly| Some(Price { hourly, source: PriceSource::List });
        assert_eq!(Price::of(&[("ml.m5.large", 1)], &own(&[])), listed(0.115));
        assert_eq!(Price::of(&[("ml.m5.xlarge", 3)], &own(&[])), listed(0.23 * 3.0));
        assert_eq!(Price::of(&[("ml.g5.2xlarge", 1), ("ml.c5.2xlarge", 2)], &own(&[])), listed(1.515 + 0.816));
        let minute = |name| Price::of(&[(name, 1)], &own(&[])).unwrap().a_minute();
        assert_eq!((minute("ml.m5.large"), minute("ml.p5.48xlarge")), ("$0.002".to_owned(), "$1.05".to_owned()));
        assert_eq!(Price::of(&[("ml.levitating", 1)], &own(&[])), None);
        assert_eq!(Price::of::<&str>(&[], &own(&[])), None);
    }

    #[test]
    fn the_operators_price_comes_first_and_is_never_mixed_with_the_list() {
        let own = own(&[("ml.m5.large", 1.0), ("ml.mine", 2.0)]);
        let operator = |hourly| Some(Price { hourly, source: PriceSource::Operator });
        assert_eq!(Price::of(&[("ml.m5.large", 2), ("ml.mine", 1)], &own), operator(4.0));
        let mixed = Price::of(&[("ml.m5.large", 1), ("ml.m5.xlarge", 1)], &own).unwrap();
        assert!(mixed.source == PriceSource::List && (mixed.hourly - 0.345).abs() < 1e-9, "{mixed:?}");
        assert_eq!(Price::of(&[("ml.mine", 1), ("ml.m5.xlarge", 1)], &own), None);
    }

    #[test]
    fn a_cost_names_its_source() {
        let list = Price { hourly: 1.515, source: PriceSource::List };
        assert_eq!(list.amount(list.cost(5 * 3600 + 54 * 60)), "$8.94");
        assert_eq!(list.source_words("us-east-1"), "list price");
        assert_eq!(list.source_words("eu-west-1"), "list price of us-east-1");
        let own = Price { hourly: 2.0, source: PriceSource::Operator };
        assert_eq!((own.amount(2.0), own.source_words("x")), ("2.00".to_owned(), "the operator's price".to_owned()));
    }
}
