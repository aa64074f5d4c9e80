//! Decides whether a job has a network, and refuses what a job without one cannot have.

use super::bounded::switched;
use super::bounds::JobBounds;
use super::decision::{CapacityDecision, DataDecision, DebugDecision};
use crate::base::failure::Failure;
use crate::config::input_channels::CHANNELS;
use crate::config::job_variables::{INPUT_PREFIX, JobVariables};
use crate::config::rules::Choice;
use crate::gitlab::JobContext;
use crate::protocol::isolation;

const ISOLATION: &str = "SAGEMAKER_NETWORK_ISOLATION";

/// `true`: the training jobs have no network.
pub(super) fn isolation(
    job: &JobContext,
    wishes: &JobVariables,
    capacity: &CapacityDecision,
    data: &DataDecision,
    debug: &DebugDecision,
    bounds: &JobBounds,
) -> Result<bool, Failure> {
    if !switched(ISOLATION, "network_isolation", wishes.network_isolation, bounds.network_isolation, bounds)? {
        return Ok(false);
    }
    let refused = |what: &str, why: &str, change: &str| {
        Err(Failure::user(format!("{what} and `{ISOLATION}` cannot go together: {why}")).hint(
            if bounds.network_isolation.choice == Choice::Only {
                change.to_owned()
            } else {
                format!("{change}, or set `{ISOLATION}` to `false`")
            },
        ))
    };
    if wishes.every_node && job.container_stages().len() > 1 {
        return refused(
            "`SAGEMAKER_RESULTS: all` of a job with several container stages",
            "the next stage finds the files of the first node alone",
            "leave `after_script` out, or set `SAGEMAKER_RESULTS` to `leader`",
        );
    }
    if data.checkpoints_ref.is_some() {
        return refused(
            "`SAGEMAKER_CHECKPOINTS`",
            "each container stage is a training job of its own, and each would load and change the checkpoints",
            "set `SAGEMAKER_CHECKPOINTS` to `false`",
        );
    }
    if data.model_output.is_some() {
        return refused(
            "`SAGEMAKER_MODEL_OUTPUT`",
            "SageMaker has one place for a job's output, and there the executor reads the results",
            "remove `SAGEMAKER_MODEL_OUTPUT` and let `artifacts:` keep the model",
        );
    }
    if capacity.spot_max_wait.is_some() {
        return refused(
            "`SAGEMAKER_SPOT`",
            "a container that SageMaker starts again could not tell whether its script has run",
            "set `SAGEMAKER_SPOT` to `false`",
        );
    }
    if capacity.retries > 0 {
        return refused(
            "`SAGEMAKER_RETRIES`",
            "a container that SageMaker starts again could not tell whether its script has run",
            "set `SAGEMAKER_RETRIES` to `0`",
        );
    }
    if debug.remote || debug.keep_on_failure > 0 {
        let variable = if debug.remote { "SAGEMAKER_REMOTE_DEBUG" } else { "SAGEMAKER_KEEP_ON_FAILURE" };
        let off = if debug.remote { "false" } else { "0" };
        return refused(
            &format!("`{variable}`"),
            "nobody reaches a container without network",
            &format!("set `{variable}` to `{off}`"),
        );
    }
    let most = CHANNELS - isolation::CHANNELS;
    if data.inputs.len() > most {
        return refused(
            &format!("{} input channels", data.inputs.len()),
            &format!("the project and the results of a stage need {} channels, so {most} fit", isolation::CHANNELS),
            &format!("set fewer `{INPUT_PREFIX}*` variables"),
        );
    }
    Ok(true)
}
