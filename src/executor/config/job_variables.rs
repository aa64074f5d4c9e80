//! The variables that a job may set: one table for code, documentation and refusals, and the values that a job has set.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Job variables with this prefix become environment variables of the training container.
pub const CONTAINER_ENV_PREFIX: &str = "SAGEMAKER_ENV_";
/// Job variables with this prefix become input channels of the training job.
pub const INPUT_PREFIX: &str = "SAGEMAKER_INPUT_";

/// Job variables with this prefix name secrets for the script.
pub const SECRET_PREFIX: &str = "SAGEMAKER_SECRET_";

/// One row of the variables table in `docs/CONFIG.md`.
#[derive(Debug, Clone, Copy)]
pub struct JobVariable {
    /// With `*` at its end: every variable that begins so.
    pub name: &'static str,
    pub meaning: &'static str,
    pub kind: &'static str,
    pub default: &'static str,
    /// The key in `allow` of a rule that bounds the value; `None`: every job may set it.
    pub policy: Option<&'static str>,
    pub example: &'static str,
}

/// The variables that a job may set, in the order of the documentation.
pub const JOB_VARIABLES: &[JobVariable] = &[
    JobVariable {
        name: "SAGEMAKER_INSTANCE_TYPE",
        meaning: "Instance types in order of preference, separated by commas; the next one is asked for when the quota refuses one, or when there is no capacity before the container ran; at most 10",
        kind: "list",
        default: "`job.instance_type`",
        policy: Some("instance_types"),
        example: "ml.g5.xlarge, ml.g5.2xlarge",
    },
    JobVariable {
        name: "SAGEMAKER_INSTANCE_COUNT",
        meaning: "Number of instances, at least 1; the script runs on each of them",
        kind: "integer",
        default: "`job.instance_count`",
        policy: Some("max_instance_count"),
        example: "2",
    },
    JobVariable {
        name: "SAGEMAKER_INSTANCE_GROUPS",
        meaning: "Groups of instances of different types, in place of type and number: `name=type x number`, separated by commas, at most 5. All types and the sum of all instances are bounded; no warm pool, no training plan",
        kind: "list",
        default: "none",
        policy: Some("instance_types"),
        example: "data=ml.c5.2xlarge x 2, train=ml.g5.xlarge x 1",
    },
    JobVariable {
        name: "SAGEMAKER_VOLUME_SIZE_GB",
        meaning: "Size of the volume in GB, 1 to 16384; without effect on instance types with local NVMe storage",
        kind: "integer",
        default: "`job.volume_size_gb`",
        policy: Some("max_volume_size_gb"),
        example: "200",
    },
    JobVariable {
        name: "SAGEMAKER_MAX_RUNTIME",
        meaning: "Longest time of the training job after its start: seconds, or a duration such as `2h 30m`",
        kind: "duration",
        default: "the job's `timeout`, at most `job.max_runtime_seconds`",
        policy: Some("max_runtime_seconds"),
        example: "2h 30m",
    },
    JobVariable {
        name: "SAGEMAKER_ROLE_ARN",
        meaning: "IAM role of the training job; the runner host needs `iam:PassRole` for it",
        kind: "ARN",
        default: "`job.role_arn`",
        policy: Some("roles"),
        example: "arn:aws:iam::123456789012:role/ci-training",
    },
    JobVariable {
        name: "SAGEMAKER_SPOT",
        meaning: "Runs the training job on spot instances, which cost less and can be taken away; SageMaker then starts the container again",
        kind: "boolean",
        default: "`job.spot`",
        policy: Some("spot"),
        example: "true",
    },
    JobVariable {
        name: "SAGEMAKER_SPOT_MAX_WAIT",
        meaning: "Longest time of a spot job from its creation to its end, so waiting and running together; at least the longest run time, at most 30 days",
        kind: "duration",
        default: "the longest run time and one hour",
        policy: None,
        example: "6h",
    },
    JobVariable {
        name: "SAGEMAKER_CHECKPOINTS",
        meaning: "Keeps `/opt/ml/checkpoints` in S3 while the job runs and fills it again in the next run: after an interruption, in a retry, and in later pipelines of the same ref, for the job of the same name",
        kind: "boolean",
        default: "`job.checkpoints`",
        policy: Some("checkpoints"),
        example: "true",
    },
    JobVariable {
        name: "SAGEMAKER_CHECKPOINTS_REF",
        meaning: "Branch or tag whose checkpoints the job uses in place of its own ref's. Refs that are protected, others, and merge requests of forks are kept apart; not for merge requests of forks",
        kind: "text",
        default: "the job's own ref",
        policy: None,
        example: "main",
    },
    JobVariable {
        name: "SAGEMAKER_NETWORK_ISOLATION",
        meaning: "Runs the job's containers without network and without credentials; each container stage is then a training job of its own, which waits for its instances anew. Not with checkpoints, a model output, spot instances or retries",
        kind: "boolean",
        default: "`job.network_isolation`",
        policy: Some("network_isolation"),
        example: "true",
    },
    JobVariable {
        name: "SAGEMAKER_RETRIES",
        meaning: "Times that SageMaker starts the training job again after an internal error of its own, 0 to 30",
        kind: "integer",
        default: "`job.retries`",
        policy: Some("max_retries"),
        example: "2",
    },
    JobVariable {
        name: "SAGEMAKER_KEEP_ALIVE",
        meaning: "Time that the instances stay after the job for the next one that asks for the same (a warm pool), billed, at most one hour; not with spot instances",
        kind: "duration",
        default: "`job.keep_alive_seconds`",
        policy: Some("max_keep_alive_seconds"),
        example: "15m",
    },
    JobVariable {
        name: "SAGEMAKER_TRAINING_PLAN",
        meaning: "Training plan whose reserved instances the job uses; the instance type must be that of the plan; `none` declines that of the operator; not with spot instances",
        kind: "ARN",
        default: "`job.training_plan`",
        policy: Some("training_plans"),
        example: "arn:aws:sagemaker:us-east-1:123456789012:training-plan/may",
    },
    JobVariable {
        name: "SAGEMAKER_QUEUE_TIMEOUT",
        meaning: "Longest wait for instances while the account's quota for the instance type is in use, at most 7 days",
        kind: "duration",
        default: "`job.queue_timeout_seconds`",
        policy: Some("max_queue_timeout_seconds"),
        example: "2h",
    },
    JobVariable {
        name: "SAGEMAKER_MAX_PENDING",
        meaning: "Longest wait of SageMaker for instances with an accelerator (`ml.p*`, `ml.g*`, `ml.trn*`) once it has accepted the training job, 30 minutes to 28 days; `0`: as long as SageMaker waits by itself; not with spot instances",
        kind: "duration",
        default: "`job.max_pending_seconds`",
        policy: Some("max_pending_seconds"),
        example: "2h",
    },
    JobVariable {
        name: "SAGEMAKER_RERUN",
        meaning: "Whether the script may run again after an interruption",
        kind: "boolean",
        default: "`true` with spot instances or retries, else `false`",
        policy: None,
        example: "false",
    },
    JobVariable {
        name: "SAGEMAKER_INPUT_*",
        meaning: "`SAGEMAKER_INPUT_TRAIN` is the input channel `train`: data at `/opt/ml/input/data/train`, which `SM_CHANNEL_TRAIN` names. `s3://`, `efs://` or `fsx://`, see below; at most 19 channels",
        kind: "URI",
        default: "`job.inputs`",
        policy: Some("inputs"),
        example: "s3://data/churn/2026?mode=FastFile",
    },
    JobVariable {
        name: "SAGEMAKER_MODEL_OUTPUT",
        meaning: "Folder in S3 for the content of `/opt/ml/model`: one `model.tar.gz` for each job, or its files as they are with `?compression=none`",
        kind: "URI",
        default: "`job.model_output`",
        policy: Some("model_outputs"),
        example: "s3://models/churn",
    },
    JobVariable {
        name: "SAGEMAKER_METRICS",
        meaning: "Values to read from the job's output, one `name=regular expression` a line with one group, which holds the number; at most 40. The last values are shown in the job's log and written to `sagemaker-metrics.txt` and `sagemaker-metrics.json`; SageMaker gets the same definitions",
        kind: "lines",
        default: "none",
        policy: None,
        example: r"loss=loss: ([-+.\w]+)",
    },
    JobVariable {
        name: "SAGEMAKER_RESULTS",
        meaning: "Nodes that send the files which `artifacts` and `cache` name: `leader`, the first one, or `all`, each other one into a folder of its name, such as `algo-2/`, which the paths must name too",
        kind: "text",
        default: "`leader`",
        policy: None,
        example: "all",
    },
    JobVariable {
        name: "SAGEMAKER_REMOTE_DEBUG",
        meaning: "Lets people into the running container by AWS Systems Manager; the job log shows the command; not with network isolation",
        kind: "boolean",
        default: "`false`",
        policy: Some("remote_debug"),
        example: "true",
    },
    JobVariable {
        name: "SAGEMAKER_KEEP_ON_FAILURE",
        meaning: "Time that the container of a failed script is kept for people to look into, billed, at most one day; the job runs on meanwhile, and its `timeout` holds",
        kind: "duration",
        default: "`0`",
        policy: Some("max_keep_on_failure_seconds"),
        example: "30m",
    },
    JobVariable {
        name: "SAGEMAKER_PROGRESS_RATE",
        meaning: "Updates a second that the job log keeps of a progress bar, which is a line that the script writes again and again after a carriage return; `0` keeps all",
        kind: "integer",
        default: "`1`",
        policy: None,
        example: "2",
    },
    JobVariable {
        name: "SAGEMAKER_DEBUG",
        meaning: "Shows every request to AWS in the job log: operation, object, answer, duration, request ID; no content and no credentials",
        kind: "boolean",
        default: "`false`",
        policy: None,
        example: "true",
    },
    JobVariable {
        name: "SAGEMAKER_ENV_*",
        meaning: "`SAGEMAKER_ENV_NAME` sets `NAME` in the training container; readable by everybody who may describe the job, so a masked variable is refused",
        kind: "text",
        default: "`job.environment`",
        policy: Some("environment"),
        example: "/tmp/huggingface",
    },
    JobVariable {
        name: "SAGEMAKER_SECRET_*",
        meaning: "`SAGEMAKER_SECRET_NAME` gives the script `NAME` from AWS Secrets Manager: name or ARN of a secret, `#` and a field of its JSON object; the operator's `secrets.allow` grants it, and the value is masked",
        kind: "text",
        default: "none",
        policy: None,
        example: "ci/churn/database#password",
    },
];

impl JobVariable {
    /// The row of a variable.
    pub fn of(name: &str) -> Option<&'static Self> {
        JOB_VARIABLES.iter().find(|variable| match variable.name.strip_suffix('*') {
            None => variable.name == name,
            Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        })
    }

    /// The row whose name is most like an unknown one.
    pub fn nearest(name: &str) -> &'static str {
        let likeness = |known: &str| {
            // A name of a prefix's may have any end.
            let length = if known.ends_with('*') { name.len().min(known.len()) } else { name.len() };
            strsim::jaro_winkler(known, name.get(..length).unwrap_or(name))
        };
        let by_likeness = |a: &&Self, b: &&Self| likeness(a.name).total_cmp(&likeness(b.name));
        JOB_VARIABLES.iter().max_by(by_likeness).map_or("", |variable| variable.name)
    }
}

/// The job's `SAGEMAKER_*` variables. Absent and empty are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct JobVariables {
    #[serde(default, rename = "sagemaker_instance_type", deserialize_with = "list")]
    pub instance_types: Vec<String>,
    #[serde(default, rename = "sagemaker_instance_count", deserialize_with = "number")]
    pub instance_count: Option<u32>,
    #[serde(default, rename = "sagemaker_instance_groups", deserialize_with = "list")]
    pub instance_groups: Vec<String>,
    #[serde(default, rename = "sagemaker_volume_size_gb", deserialize_with = "number")]
    pub volume_size_gb: Option<u32>,
    #[serde(default, rename = "sagemaker_max_runtime", deserialize_with = "duration")]
    pub max_runtime: Option<Duration>,
    #[serde(default, rename = "sagemaker_role_arn")]
    pub role_arn: Option<String>,
    #[serde(default, rename = "sagemaker_spot", deserialize_with = "boolean")]
    pub spot: Option<bool>,
    #[serde(default, rename = "sagemaker_spot_max_wait", deserialize_with = "duration")]
    pub spot_max_wait: Option<Duration>,
    #[serde(default, rename = "sagemaker_checkpoints", deserialize_with = "boolean")]
    pub checkpoints: Option<bool>,
    #[serde(default, rename = "sagemaker_checkpoints_ref")]
    pub checkpoints_ref: Option<String>,
    #[serde(default, rename = "sagemaker_network_isolation", deserialize_with = "boolean")]
    pub network_isolation: Option<bool>,
    #[serde(default, rename = "sagemaker_retries", deserialize_with = "number")]
    pub retries: Option<u32>,
    #[serde(default, rename = "sagemaker_keep_alive", deserialize_with = "duration")]
    pub keep_alive: Option<Duration>,
    #[serde(default, rename = "sagemaker_training_plan")]
    pub training_plan: Option<String>,
    #[serde(default, rename = "sagemaker_queue_timeout", deserialize_with = "duration")]
    pub queue_timeout: Option<Duration>,
    #[serde(default, rename = "sagemaker_max_pending", deserialize_with = "duration")]
    pub max_pending: Option<Duration>,
    #[serde(default, rename = "sagemaker_rerun", deserialize_with = "boolean")]
    pub rerun: Option<bool>,
    #[serde(default, rename = "sagemaker_model_output")]
    pub model_output: Option<String>,
    #[serde(default, rename = "sagemaker_metrics")]
    pub metrics: Option<String>,
    #[serde(default, rename = "sagemaker_results", deserialize_with = "every_node")]
    pub every_node: bool,
    #[serde(default, rename = "sagemaker_remote_debug", deserialize_with = "boolean")]
    pub remote_debug: Option<bool>,
    #[serde(default, rename = "sagemaker_keep_on_failure", deserialize_with = "duration")]
    pub keep_on_failure: Option<Duration>,
    #[serde(default, rename = "sagemaker_progress_rate", deserialize_with = "number")]
    pub progress_rate: Option<u32>,
    #[serde(default, rename = "sagemaker_debug", deserialize_with = "boolean")]
    pub debug: Option<bool>,
    /// From `SAGEMAKER_INPUT_*`, without the prefix.
    #[serde(skip)]
    pub inputs: BTreeMap<String, String>,
    /// From `SAGEMAKER_ENV_*`, without the prefix.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
    /// From `SAGEMAKER_SECRET_*`, without the prefix.
    #[serde(skip)]
    pub secrets: BTreeMap<String, String>,
}

fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

pub(super) fn number<'de, D: Deserializer<'de>, N: FromStr>(deserializer: D) -> Result<Option<N>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| serde::de::Error::custom("not a whole number"))
}

/// The forms that GitLab's own variables have, and those of YAML.
fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let wish = truth(&String::deserialize(deserializer)?);
    wish.map(Some).ok_or_else(|| serde::de::Error::custom("neither true nor false"))
}

pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn every_node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.to_ascii_lowercase().as_str() {
        "all" => Ok(true),
        "leader" => Ok(false),
        _ => Err(serde::de::Error::custom("neither leader nor all")),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let seconds = text.parse().map(Duration::from_secs);
    seconds
        .or_else(|_| humantime::parse_duration(&text))
        .map(Some)
        .map_err(|_| serde::de::Error::custom("not a duration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_by_its_name_or_its_prefix() {
        let of = |name: &str| JobVariable::of(name).map(|variable| variable.name);
        assert_eq!(of("SAGEMAKER_SPOT"), Some("SAGEMAKER_SPOT"));
        assert_eq!(of("SAGEMAKER_INPUT_TRAIN"), Some("SAGEMAKER_INPUT_*"));
        assert_eq!(of("SAGEMAKER_ENV_X"), Some("SAGEMAKER_ENV_*"));
        for unknown in ["SAGEMAKER_INPUT_", "SAGEMAKER_ENV", "SAGEMAKER_SPOTS", "sagemaker_spot"] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }

    /// The words of the table can be written as they stand in it.
    #[test]
    fn every_example_has_the_form_that_its_variable_needs() {
        let pairs = JOB_VARIABLES.iter().map(|variable| (variable.name, variable.example));
        let plain: Vec<(String, String)> = pairs
            .filter(|(name, _)| !name.ends_with('*'))
            .map(|(name, example)| (name.to_owned(), example.to_owned()))
            .collect();
        let read: JobVariables = envy::from_iter(plain).unwrap();
        assert_eq!((read.spot, read.keep_alive, read.retries), (Some(true), Some(Duration::from_mins(15)), Some(2)));
    }
}
