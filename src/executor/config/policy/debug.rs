//! Decides which ways people have to look into the container.

use super::bounded::{Bounded, switched};
use super::bounds::JobBounds;
use super::decision::DebugDecision;
use crate::base::failure::Failure;
use crate::config::forms::KEEP_ON_FAILURE;
use crate::config::job_variables::JobVariables;

pub(super) const REMOTE: &str = "SAGEMAKER_REMOTE_DEBUG";

pub(super) fn debug(wishes: &JobVariables, bounds: &JobBounds) -> Result<DebugDecision, Failure> {
    let keep = Bounded {
        variable: "SAGEMAKER_KEEP_ON_FAILURE",
        key: "max_keep_on_failure_seconds",
        limit: bounds.keep_on_failure,
        service: 0..=KEEP_ON_FAILURE,
        unit: " s",
    };
    Ok(DebugDecision {
        remote: switched(REMOTE, "remote_debug", wishes.remote_debug, bounds.remote_debug, bounds)?,
        keep_on_failure: keep.decide(wishes.keep_on_failure.map(|wish| wish.as_secs()), bounds)?,
    })
}
