//! The parameters of a training job that the policy decides.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cloud::Network;

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
    pub volume_size_gb: u32,
    /// Seconds.
    pub max_runtime: u64,
    pub role_arn: String,
    pub network: Option<Network>,
    pub environment: BTreeMap<String, String>,
    /// A script that an interruption of the instance has ended runs again.
    pub rerun: bool,
    /// Sentences for the job's log.
    pub warnings: Vec<String>,
}
