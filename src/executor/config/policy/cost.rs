//! The largest cost of a job: instances × price of an hour × longest run time and keep-alive.

use super::bounds::JobBounds;
use super::decision::Decision;
use crate::base::failure::Failure;
use crate::config::prices::{Price, PriceSource};
use crate::config::settings::Settings;

/// Refuses a job whose dearest instance type would cost more than the rule allows.
pub(super) fn check(decision: &Decision, settings: &Settings, bounds: &JobBounds) -> Result<(), Failure> {
    let Some(most) = bounds.max_cost else { return Ok(()) };
    for name in &decision.instance_types {
        // A limit goes by the operator's own prices alone: AWS's list is of one region.
        let price = Price::of(&[(name, decision.instance_count)], &settings.prices);
        let Some(price) = price.filter(|price| price.source == PriceSource::Operator) else {
            return Err(Failure::user(format!("the price of `{name}` is not known, and the job's cost has a limit"))
                .hint(format!(
                    "choose another `SAGEMAKER_INSTANCE_TYPE`, or ask the operator to add `{name}` to `[prices]`"
                )));
        };
        let seconds = longest(decision);
        let cost = price.cost(seconds);
        if cost.is_nan() || cost > most {
            return Err(Failure::user(format!(
                "the job may cost up to {cost:.2} ({} x `{name}` for {} s); the rule `{}` allows {most:.2}",
                decision.instance_count,
                seconds,
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

/// Most seconds that are billed.
fn longest(decision: &Decision) -> u64 {
    decision.max_runtime + decision.capacity.keep_alive
}

/// The price and the largest cost of the dearest of the job's instance types; `None`: the price of one is not known.
pub fn largest_cost(decision: &Decision, settings: &Settings) -> Option<(Price, f64)> {
    let price = |name: &String| Price::of(&[(name, decision.instance_count)], &settings.prices);
    let prices: Vec<Price> = decision.instance_types.iter().map(price).collect::<Option<_>>()?;
    let is_one_source = prices.windows(2).all(|pair| pair[0].source == pair[1].source);
    let dearest = prices.into_iter().max_by(|a, b| a.hourly.total_cmp(&b.hourly)).filter(|_| is_one_source)?;
    Some((dearest, dearest.cost(longest(decision))))
}
