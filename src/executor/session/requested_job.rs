//! Part of the session record about the request for the current training job: later stages go by it, and not by an operator's file that
//! may have changed since.

use serde::{Deserialize, Serialize};

use crate::cloud::{InstanceGroup, TrainingJobSpec};
use crate::config::policy::{self, ModelOutput};
use crate::protocol::agent_env::AgentEnv;

/// Parts of the request for the training job. All empty in a session that a version without it began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestedJob {
    pub image: String,
    /// Where the content of `/opt/ml/model` goes; `None`: nowhere.
    pub model_output: Option<ModelOutput>,
    /// The agent was told that a script may run again after an interruption.
    pub may_rerun: bool,
    /// Seconds of waiting and running together at most.
    pub most_seconds: u64,
    /// The types of which SageMaker selects one; empty when it has selected, and for a single type.
    pub preferred_types: Vec<String>,
    /// Instances of several types.
    pub instance_groups: Vec<InstanceGroup>,
    /// People can get into the container by AWS Systems Manager.
    pub remote_debug: bool,
}

impl RequestedJob {
    /// `own_output`: the session's own folder, which nobody reads.
    pub fn of(spec: &TrainingJobSpec, own_output: &str) -> Self {
        let output = ModelOutput { folder: spec.output_uri.clone(), is_archive: spec.compress_output };
        let agent = AgentEnv::read(|name| spec.environment.get(name).map(String::as_str));
        Self {
            image: spec.image.clone(),
            model_output: (output.folder != own_output).then_some(output),
            may_rerun: agent.is_ok_and(|agent| agent.rerun),
            most_seconds: spec.spot_max_wait.unwrap_or(spec.max_runtime),
            preferred_types: spec.preferred_types.clone(),
            instance_groups: spec.instance_groups.clone(),
            remote_debug: spec.remote_debug,
        }
    }

    /// The digest that names the image, with its algorithm. `None`: a tag names it.
    pub fn image_digest(&self) -> Option<&str> {
        let (_, digest) = self.image.rsplit_once('@')?;
        policy::is_by_digest(&self.image).then_some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::example_spec;

    #[test]
    fn the_request_is_kept_as_it_was_sent() {
        let spec = TrainingJobSpec { max_runtime: 60, output_uri: "s3://own".to_owned(), ..example_spec("x") };
        let kept = RequestedJob::of(&spec, "s3://own");
        assert_eq!((kept.model_output, kept.may_rerun, kept.most_seconds), (None, false, 60));
        let image = format!("repository@sha256:{}", "0".repeat(64));
        let more = TrainingJobSpec { compress_output: true, output_uri: "s3://m/x".to_owned(), image, ..spec };
        let kept = RequestedJob::of(&TrainingJobSpec { spot_max_wait: Some(90), ..more }, "s3://own");
        let output = ModelOutput { folder: "s3://m/x".to_owned(), is_archive: true };
        assert_eq!((kept.model_output.as_ref(), kept.most_seconds), (Some(&output), 90));
        assert_eq!(kept.image_digest(), Some(format!("sha256:{}", "0".repeat(64)).as_str()));
        assert_eq!(RequestedJob { image: "repository:tag".to_owned(), ..kept }.image_digest(), None);
    }
}
