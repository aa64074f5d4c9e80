//! The agent's configuration: environment variables of the training job that it needs to reach its mailbox.
//!
//! `DescribeTrainingJob` shows them, so none is a secret.

use std::collections::BTreeMap;

use crate::base::arn::Arn;
use crate::base::failure::Failure;

/// Prefix of the executor's own variables; removed from the script's environment.
pub const PREFIX: &str = "SAGEMAKER_EXECUTOR_";
const ROOT: &str = "SAGEMAKER_EXECUTOR_ROOT";
const KEY_HASH: &str = "SAGEMAKER_EXECUTOR_KEY_HASH";
const BUCKET: &str = "SAGEMAKER_EXECUTOR_BUCKET";
const STORE_PREFIX: &str = "SAGEMAKER_EXECUTOR_PREFIX";
const REGION: &str = "SAGEMAKER_EXECUTOR_REGION";
const ENDPOINT_URL: &str = "SAGEMAKER_EXECUTOR_ENDPOINT_URL";
const KMS_KEY_ID: &str = "SAGEMAKER_EXECUTOR_KMS_KEY_ID";
const LEASE_SECONDS: &str = "SAGEMAKER_EXECUTOR_LEASE_SECONDS";
const RERUN: &str = "SAGEMAKER_EXECUTOR_RERUN";
const INSTANCE_STAYS: &str = "SAGEMAKER_EXECUTOR_INSTANCE_STAYS";
const CHECKPOINTS: &str = "SAGEMAKER_EXECUTOR_CHECKPOINTS";
const FIPS: &str = "SAGEMAKER_EXECUTOR_USE_FIPS_ENDPOINT";
const DUAL_STACK: &str = "SAGEMAKER_EXECUTOR_USE_DUALSTACK_ENDPOINT";
const ISOLATED: &str = "SAGEMAKER_EXECUTOR_ISOLATED";

/// The variables, which the driver sets in `CreateTrainingJob`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a variable of its own")]
pub struct AgentEnv {
    /// The session's key prefix: [`SessionKeys::root`](crate::protocol::keys::SessionKeys::root).
    pub root: String,
    /// [`SealKey::commitment`](crate::base::seal::SealKey::commitment) of the session's key; `None` in a session without one.
    pub key_hash: Option<String>,
    pub bucket: String,
    pub prefix: String,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
    /// AWS's endpoints with FIPS 140 validated cryptography.
    pub use_fips: bool,
    /// AWS's endpoints with IPv6 addresses, too.
    pub use_dual_stack: bool,
    pub kms_key_id: Option<String>,
    pub lease_seconds: u64,
    /// A script that an interruption of the instance has ended may run again.
    pub rerun: bool,
    /// The instance goes to another job after this one: the job has a keep-alive.
    pub instance_stays: bool,
    /// The job keeps checkpoints.
    pub checkpoints: bool,
    /// The container has no network: see [`isolation`](super::isolation).
    pub isolated: bool,
}

impl AgentEnv {
    pub fn to_variables(&self) -> BTreeMap<String, String> {
        let optional = |name: &str, value: &Option<String>| value.clone().map(|value| (name.to_owned(), value));
        let mut environment = BTreeMap::from([
            (ROOT.to_owned(), self.root.clone()),
            (BUCKET.to_owned(), self.bucket.clone()),
            (STORE_PREFIX.to_owned(), self.prefix.clone()),
            (LEASE_SECONDS.to_owned(), self.lease_seconds.to_string()),
        ]);
        environment.extend(optional(KEY_HASH, &self.key_hash));
        environment.extend(optional(REGION, &self.region));
        environment.extend(optional(ENDPOINT_URL, &self.endpoint_url));
        environment.extend(optional(KMS_KEY_ID, &self.kms_key_id));
        let switches = [
            (RERUN, self.rerun),
            (INSTANCE_STAYS, self.instance_stays),
            (CHECKPOINTS, self.checkpoints),
            (ISOLATED, self.isolated),
            (FIPS, self.use_fips),
            (DUAL_STACK, self.use_dual_stack),
        ];
        let on = switches.into_iter().filter(|(_, is_on)| *is_on);
        environment.extend(on.map(|(name, _)| (name.to_owned(), "true".to_owned())));
        environment
    }

    /// Reads the variables with `get`, which returns a variable's value.
    pub fn read<'e>(get: impl Fn(&str) -> Option<&'e str>) -> anyhow::Result<Self> {
        let required = |name: &str| {
            get(name).map(str::to_owned).ok_or_else(|| {
                Failure::system(format!("the variable `{name}` is not set"))
                    .hint("this command is the container's entrypoint; the driver sets it in CreateTrainingJob")
            })
        };
        // SageMaker's own variables are the fallback. AWS_REGION comes last: an image or a job may set it for itself.
        let arn =
            get("TRAINING_JOB_ARN").and_then(Arn::parse).map(|arn| arn.region).filter(|region| !region.is_empty());
        let region = get(REGION).or(arn).or_else(|| get("AWS_REGION")).map(str::to_owned);
        let is_on = |name: &str| get(name) == Some("true");
        Ok(Self {
            root: required(ROOT)?,
            key_hash: get(KEY_HASH).map(str::to_owned),
            bucket: required(BUCKET)?,
            prefix: required(STORE_PREFIX)?,
            region,
            endpoint_url: get(ENDPOINT_URL).map(str::to_owned),
            use_fips: is_on(FIPS),
            use_dual_stack: is_on(DUAL_STACK),
            kms_key_id: get(KMS_KEY_ID).map(str::to_owned),
            lease_seconds: required(LEASE_SECONDS)?
                .parse()
                .map_err(|_| Failure::system(format!("the variable `{LEASE_SECONDS}` is not a number")))?,
            rerun: is_on(RERUN),
            instance_stays: is_on(INSTANCE_STAYS),
            checkpoints: is_on(CHECKPOINTS),
            isolated: is_on(ISOLATED),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_sets_is_what_the_agent_reads() {
        let env = AgentEnv {
            root: "sessions/gitlab-1-2-abcdef12/00ff".into(),
            key_hash: Some("aa".into()),
            bucket: "b".into(),
            prefix: "p".into(),
            region: Some("eu-west-1".into()),
            endpoint_url: Some("http://127.0.0.1:1".into()),
            use_fips: true,
            use_dual_stack: true,
            kms_key_id: None,
            lease_seconds: 900,
            rerun: true,
            instance_stays: true,
            checkpoints: true,
            isolated: true,
        };
        let variables = env.to_variables();
        let expected = [
            ("SAGEMAKER_EXECUTOR_BUCKET", "b"),
            ("SAGEMAKER_EXECUTOR_CHECKPOINTS", "true"),
            ("SAGEMAKER_EXECUTOR_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("SAGEMAKER_EXECUTOR_INSTANCE_STAYS", "true"),
            ("SAGEMAKER_EXECUTOR_ISOLATED", "true"),
            ("SAGEMAKER_EXECUTOR_KEY_HASH", "aa"),
            ("SAGEMAKER_EXECUTOR_LEASE_SECONDS", "900"),
            ("SAGEMAKER_EXECUTOR_PREFIX", "p"),
            ("SAGEMAKER_EXECUTOR_REGION", "eu-west-1"),
            ("SAGEMAKER_EXECUTOR_RERUN", "true"),
            ("SAGEMAKER_EXECUTOR_ROOT", "sessions/gitlab-1-2-abcdef12/00ff"),
            ("SAGEMAKER_EXECUTOR_USE_DUALSTACK_ENDPOINT", "true"),
            ("SAGEMAKER_EXECUTOR_USE_FIPS_ENDPOINT", "true"),
        ];
        assert!(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected), "{variables:?}");
        assert_eq!(AgentEnv::read(|name| variables.get(name).map(String::as_str)).unwrap(), env);
    }

    #[test]
    fn the_region_is_found_in_the_arn() {
        let variables = BTreeMap::from([
            ("TRAINING_JOB_ARN", "arn:aws:sagemaker:eu-west-3:000000000000:training-job/x"),
            (ROOT, "r"),
            (KEY_HASH, "aa"),
            (BUCKET, "b"),
            (STORE_PREFIX, "p"),
            (LEASE_SECONDS, "60"),
        ]);
        assert_eq!(AgentEnv::read(|name| variables.get(name).copied()).unwrap().region.as_deref(), Some("eu-west-3"));
    }
}
