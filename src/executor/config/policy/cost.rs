//! The largest cost of a job: instances × price of an hour × longest run time and keep-alive.

use super::bounds::JobBounds;
use super::decision::Decision;
use crate::base::failure::Failure;
use crate::config::settings::Settings;

/// Refuses a job whose dearest instance type would cost more than the rule allows.
pub(super) fn check(decision: &Decision, settings: &Settings, bounds: &JobBounds) -> Result<(), Failure> {
    let Some(most) = bounds.max_cost else { return Ok(()) };
    for name in &decision.instance_types {
        let Some(price) = settings.prices.get(name) else {
            return Err(Failure::user(format!("the price of `{name}` is not known, and the job's cost has a limit"))
                .hint(format!(
                    "choose another `SAGEMAKER_INSTANCE_TYPE`, or ask the operator to add `{name}` to `[prices]`"
                )));
        };
        let seconds = decision.max_runtime + decision.capacity.keep_alive;
        let cost = cost(*price, decision.instance_count, seconds);
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

/// In the unit of the price, which is for one instance and an hour.
#[expect(clippy::cast_precision_loss, reason = "seconds of at most 28 days")]
fn cost(price: f64, instances: u32, seconds: u64) -> f64 {
    price * f64::from(instances) * seconds as f64 / 3600.0
}
