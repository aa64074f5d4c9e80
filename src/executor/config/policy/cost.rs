//! The largest cost of a job: instances × price of an hour × longest run time and keep-alive.

use super::bounds::JobBounds;
use super::decision::Decision;
use crate::base::failure::Failure;
use crate::config::prices::{Price, PriceSource};
use crate::config::settings::Settings;

/// Refuses a job whose dearest choice of instances would cost more than the rule allows.
/// `jobs` is the number of training jobs, one after the other.
pub(super) fn check(decision: &Decision, jobs: usize, settings: &Settings, bounds: &JobBounds) -> Result<(), Failure> {
    let Some(most) = bounds.max_cost else { return Ok(()) };
    for instances in choices(decision) {
        // A limit goes by the operator's own prices alone: AWS's list is of one region.
        let price = Price::of(&instances, &settings.prices);
        let Some(price) = price.filter(|price| price.source == PriceSource::Operator) else {
            let unknown = instances.iter().find(|(name, _)| !settings.prices.contains_key(*name));
            let name = unknown.map_or("", |(name, _)| name);
            return Err(Failure::user(format!("the price of `{name}` is not known, and the job's cost has a limit"))
                .hint(format!(
                    "choose another `SAGEMAKER_INSTANCE_TYPE`, or ask the operator to add `{name}` to `[prices]`"
                )));
        };
        let seconds = longest(decision) * jobs as u64;
        let cost = price.cost(seconds);
        if cost.is_nan() || cost > most {
            let shown: Vec<_> = instances.iter().map(|(name, count)| format!("{count} x `{name}`")).collect();
            return Err(Failure::user(format!(
                "the job may cost up to {cost:.2} ({} for {seconds} s); the rule `{}` allows {most:.2}",
                shown.join(" and "),
                bounds.rule.as_deref().unwrap_or_default()
            ))
            .hint(
                "lower `SAGEMAKER_MAX_RUNTIME` (or the job's `timeout`), `SAGEMAKER_KEEP_ALIVE` or `SAGEMAKER_INSTANCE_COUNT`, choose a cheaper type, or ask the \
                 operator to raise `allow.max_cost`",
            ));
        }
    }
    Ok(())
}

/// Types and numbers of the instances that the job may get: one of its types, or all of its groups.
fn choices(decision: &Decision) -> Vec<Vec<(&str, u32)>> {
    match decision.instance_groups.as_slice() {
        [] => decision.instance_types.iter().map(|name| vec![(name.as_str(), decision.instance_count)]).collect(),
        groups => vec![groups.iter().map(|group| (group.instance_type.as_str(), group.count)).collect()],
    }
}

/// Most seconds that are billed.
fn longest(decision: &Decision) -> u64 {
    decision.max_runtime + decision.capacity.keep_alive
}

/// The price and the largest cost of the job's dearest choice of instances, in so many training jobs; `None`: the price of one is not known.
pub fn largest_cost(decision: &Decision, jobs: usize, settings: &Settings) -> Option<(Price, f64)> {
    let prices = choices(decision).into_iter().map(|instances| Price::of(&instances, &settings.prices));
    let prices: Vec<Price> = prices.collect::<Option<_>>()?;
    let is_one_source = prices.windows(2).all(|pair| pair[0].source == pair[1].source);
    let dearest = prices.into_iter().max_by(|a, b| a.hourly.total_cmp(&b.hourly)).filter(|_| is_one_source)?;
    Some((dearest, dearest.cost(longest(decision) * jobs as u64)))
}
