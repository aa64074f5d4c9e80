//! Decides how a training job gets its instances: spot or on demand, retries, warm pool, training plan, wait for the quota.

use super::bounded::{Bounded, switched};
use super::bounds::JobBounds;
use super::decision::CapacityDecision;
use super::matching::matches;
use super::refusal::{asked, listed};
use crate::base::failure::Failure;
use crate::cloud::is_accelerated;
use crate::config::forms::{KEEP_ALIVE, MAX_PENDING, QUEUE_TIMEOUT, RETRIES, SPOT_MAX_WAIT, is_training_plan};
use crate::config::job_variables::JobVariables;

const SPOT: &str = "SAGEMAKER_SPOT";
const MAX_WAIT: &str = "SAGEMAKER_SPOT_MAX_WAIT";
const KEEP: &str = "SAGEMAKER_KEEP_ALIVE";
const PENDING: &str = "SAGEMAKER_MAX_PENDING";
const PLAN: &str = "SAGEMAKER_TRAINING_PLAN";
/// The value of jobs that do without the operator's plan.
const NO_PLAN: &str = "none";
/// Time for waiting, in seconds, that a spot job has besides its run time.
const USUAL_WAIT: u64 = 3600;

/// `run` is the job's longest run time in seconds.
pub(super) fn capacity(
    wishes: &JobVariables,
    types: &[String],
    run: u64,
    bounds: &JobBounds,
) -> Result<CapacityDecision, Failure> {
    let is_spot = switched(SPOT, "spot", wishes.spot, bounds.spot, bounds)?;
    let retries = Bounded {
        variable: "SAGEMAKER_RETRIES",
        key: "max_retries",
        limit: bounds.retries,
        service: 0..=RETRIES,
        unit: "",
    };
    let retries = retries.decide(wishes.retries, bounds)?;
    let queue = Bounded {
        variable: "SAGEMAKER_QUEUE_TIMEOUT",
        key: "max_queue_timeout_seconds",
        limit: bounds.queue_timeout,
        service: 0..=QUEUE_TIMEOUT,
        unit: " s",
    };
    Ok(CapacityDecision {
        spot_max_wait: if is_spot { Some(max_wait(wishes, run)?) } else { None },
        retries,
        keep_alive: keep_alive(wishes, is_spot, bounds)?,
        training_plan: training_plan(wishes, is_spot, bounds)?,
        queue_timeout: queue.decide(wishes.queue_timeout.map(|wish| wish.as_secs()), bounds)?,
        max_pending: max_pending(wishes, types, is_spot, bounds)?,
        rerun: wishes.rerun.unwrap_or(is_spot || retries > 0),
    })
}

fn max_wait(wishes: &JobVariables, run: u64) -> Result<u64, Failure> {
    let usual = run + USUAL_WAIT;
    match wishes.spot_max_wait.map(|wish| wish.as_secs()) {
        None => Ok(usual),
        Some(wish) if wish < run => Err(Failure::user(format!(
            "`{MAX_WAIT}` is {wish} s; it is the time for waiting and running together, and the job may run for {run} s"
        ))
        .hint(format!("set `{MAX_WAIT}` to `{usual}s` or more, or lower `SAGEMAKER_MAX_RUNTIME`"))),
        Some(wish) if wish > SPOT_MAX_WAIT => {
            Err(Failure::user(format!("`{MAX_WAIT}` is {wish} s; it goes up to {SPOT_MAX_WAIT} s, which are 30 days")))
        }
        Some(wish) => Ok(wish),
    }
}

fn keep_alive(wishes: &JobVariables, is_spot: bool, bounds: &JobBounds) -> Result<u64, Failure> {
    let wish = wishes.keep_alive.map(|wish| wish.as_secs());
    let kept = Bounded {
        variable: KEEP,
        key: "max_keep_alive_seconds",
        limit: bounds.keep_alive,
        service: 0..=KEEP_ALIVE,
        unit: " s",
    };
    let kept = kept.decide(wish, bounds)?;
    match wish {
        Some(1..) if is_spot => Err(without_spot(KEEP, "spot instances do not stay after their job")
            .hint(format!("set `{KEEP}` to `0`, or `{SPOT}` to `false`"))),
        None if is_spot => Ok(0),
        _ => Ok(kept),
    }
}

fn max_pending(
    wishes: &JobVariables,
    types: &[String],
    is_spot: bool,
    bounds: &JobBounds,
) -> Result<Option<u64>, Failure> {
    let wish = wishes.max_pending.map(|wish| wish.as_secs());
    let (least, most) = (*MAX_PENDING.start(), *MAX_PENDING.end());
    if wish.is_some_and(|wish| (1..least).contains(&wish)) {
        return Err(Failure::user(format!(
            "`{PENDING}` is {} s; it goes from {least} to {most} s",
            wish.unwrap_or_default()
        ))
        .hint(format!("set `{PENDING}` to `{least}s` or more, or to `0`")));
    }
    let limit = bounds.max_pending;
    let waits = Bounded { variable: PENDING, key: "max_pending_seconds", limit, service: 0..=most, unit: " s" };
    let wait = waits.decide(wish, bounds)?;
    let is_asked = wish.is_some_and(|wish| wish > 0);
    if is_asked && is_spot {
        return Err(without_spot(PENDING, "a spot job waits by its own limit")
            .hint(format!("remove `{PENDING}` and set `{MAX_WAIT}`, or set `{SPOT}` to `false`")));
    }
    let counts = types.iter().any(|name| is_accelerated(name));
    if is_asked && !counts {
        return Err(Failure::user(format!("`{PENDING}` has no effect on {}", listed(types))).hint(format!(
            "remove `{PENDING}`, or name a type of `ml.p*`, `ml.g*` or `ml.trn*` in `SAGEMAKER_INSTANCE_TYPE`"
        )));
    }
    Ok((wait > 0 && counts && !is_spot).then_some(wait))
}

fn training_plan(wishes: &JobVariables, is_spot: bool, bounds: &JobBounds) -> Result<Option<String>, Failure> {
    let Some(plan) = &wishes.training_plan else {
        return Ok(bounds.training_plan.clone().filter(|_| !is_spot));
    };
    if plan == NO_PLAN {
        return Ok(None);
    }
    if !is_training_plan(plan) {
        return Err(Failure::user(format!("`{PLAN}` is not the ARN of a training plan")).hint(format!(
            "write `{PLAN}` as in `arn:aws:sagemaker:<region>:<account>:training-plan/<name>`, or `{NO_PLAN}`"
        )));
    }
    if is_spot {
        return Err(without_spot(PLAN, "the instances of a training plan are no spot instances")
            .hint(format!("remove `{PLAN}`, or set `{SPOT}` to `false`")));
    }
    if bounds.training_plans.iter().any(|glob| matches(glob, plan)) {
        return Ok(Some(plan.clone()));
    }
    Err(asked(bounds, PLAN, &format!("`{plan}`"), &listed(&bounds.training_plans), "training_plans"))
}

fn without_spot(variable: &str, reason: &str) -> Failure {
    Failure::user(format!("`{variable}` and `{SPOT}` cannot go together: {reason}"))
}

/// Sentences about variables that have no effect.
pub(super) fn without_effect(wishes: &JobVariables, is_spot: bool, keeps_checkpoints: bool) -> Vec<String> {
    let sentence =
        |variable: &str, needed: &str| format!("`{variable}` has no effect: it is for jobs with `{needed}: \"true\"`");
    let wait = wishes.spot_max_wait.filter(|_| !is_spot).map(|_| sentence(MAX_WAIT, SPOT));
    let other_ref = wishes.checkpoints_ref.as_ref().filter(|_| !keeps_checkpoints);
    let other_ref = other_ref.map(|_| sentence("SAGEMAKER_CHECKPOINTS_REF", "SAGEMAKER_CHECKPOINTS"));
    wait.into_iter().chain(other_ref).collect()
}
