//! The parameters of a training job that the policy decides.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::metric::MetricDefinition;
use crate::cloud::{Channel, InstanceGroup, Network};
use crate::config::input_channels::ModelOutput;

use super::secrets::JobSecret;

/// Parameters of the training job for one GitLab job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Name of the rule; `None` for a file without rules.
    pub rule: Option<String>,
    /// Training jobs of the rule at once on this host.
    pub max_jobs: Option<u32>,
    pub image: String,
    /// In order of preference, at least one.
    pub instance_types: Vec<String>,
    pub instance_count: u32,
    /// Instances of several types, which are those of `instance_types`; empty for a job whose instances are of one type.
    pub instance_groups: Vec<InstanceGroup>,
    pub volume_size_gb: u32,
    /// Seconds.
    pub max_runtime: u64,
    pub role_arn: String,
    pub network: Option<Network>,
    /// The training jobs have no network, and each container stage is a training job of its own.
    pub network_isolation: bool,
    pub environment: BTreeMap<String, String>,
    pub capacity: CapacityDecision,
    pub data: DataDecision,
    /// Values to read from the output.
    pub metrics: Vec<MetricDefinition>,
    /// Secrets for the script, all of them granted.
    pub secrets: Vec<JobSecret>,
    pub debug: DebugDecision,
    /// Sentences for the job's log.
    pub warnings: Vec<String>,
}

impl Decision {
    /// The instances to ask for, in order of preference, as people read them: types, or all groups together.
    pub fn requests(&self) -> Vec<String> {
        let shown = |group: &InstanceGroup| format!("{} x {} ({})", group.count, group.instance_type, group.name);
        match self.instance_groups.as_slice() {
            [] => self.instance_types.clone(),
            groups => vec![groups.iter().map(shown).collect::<Vec<_>>().join(" and ")],
        }
    }
}

/// How the training job gets its instances, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapacityDecision {
    /// Seconds of waiting and running together on spot instances; `None`: on demand.
    pub spot_max_wait: Option<u64>,
    /// Restarts by SageMaker after an internal error.
    pub retries: u32,
    /// Seconds that the instances stay after the job.
    pub keep_alive: u64,
    pub training_plan: Option<String>,
    /// Seconds of waiting for the quota.
    pub queue_timeout: u64,
    /// Seconds that SageMaker waits for instances with an accelerator; `None`: as long as it does by itself.
    pub max_pending: Option<u64>,
    /// The script may run again after an interruption.
    pub rerun: bool,
}

/// Ways for people to look into the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DebugDecision {
    /// By AWS Systems Manager, while the container runs.
    pub remote: bool,
    /// Seconds that the container is kept after its script has failed.
    pub keep_on_failure: u64,
}

/// Data of the training job besides its project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataDecision {
    /// The ref whose checkpoints the job reads and writes; `None`: it keeps none.
    pub checkpoints_ref: Option<String>,
    /// The channels besides the agent's.
    pub inputs: Vec<JobInput>,
    /// Where the content of `/opt/ml/model` goes.
    pub model_output: Option<ModelOutput>,
}

/// An input channel, and the variable or the key of the operator's file that it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobInput {
    pub set_by: String,
    pub channel: Channel,
}
