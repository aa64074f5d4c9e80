//! What the agent must know before it can read its mailbox: a few environment variables of the training job.
//!
//! Everybody who may describe the job can read them, so none is a secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::arn::Arn;
use crate::base::failure::Failure;
use crate::cloud::Access;
use crate::config::env::Environment;

/// Prefix of the executor's own variables; the script does not see them.
pub const PREFIX: &str = "SAGEMAKER_EXECUTOR_";
const ROOT: &str = "SAGEMAKER_EXECUTOR_ROOT";
const BUCKET: &str = "SAGEMAKER_EXECUTOR_BUCKET";
const STORE_PREFIX: &str = "SAGEMAKER_EXECUTOR_PREFIX";
const REGION: &str = "SAGEMAKER_EXECUTOR_REGION";
const ENDPOINT_URL: &str = "SAGEMAKER_EXECUTOR_ENDPOINT_URL";
const KMS_KEY_ID: &str = "SAGEMAKER_EXECUTOR_KMS_KEY_ID";
const LEASE_SECONDS: &str = "SAGEMAKER_EXECUTOR_LEASE_SECONDS";

/// The platform names the endpoint of the role's credentials in one of these.
pub(super) const ROLE_CREDENTIALS: [&str; 2] =
    ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

/// Set by the driver in `CreateTrainingJob`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The session's place in the store.
    pub root: String,
    pub bucket: String,
    pub prefix: String,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
    pub kms_key_id: Option<String>,
    pub lease_seconds: u64,
}

impl Configuration {
    pub fn to_environment(&self) -> BTreeMap<String, String> {
        let optional = |name: &str, value: &Option<String>| value.clone().map(|value| (name.to_owned(), value));
        let mut environment = BTreeMap::from([
            (ROOT.to_owned(), self.root.clone()),
            (BUCKET.to_owned(), self.bucket.clone()),
            (STORE_PREFIX.to_owned(), self.prefix.clone()),
            (LEASE_SECONDS.to_owned(), self.lease_seconds.to_string()),
        ]);
        environment.extend(optional(REGION, &self.region));
        environment.extend(optional(ENDPOINT_URL, &self.endpoint_url));
        environment.extend(optional(KMS_KEY_ID, &self.kms_key_id));
        environment
    }

    pub fn from_environment(env: &Environment) -> anyhow::Result<Self> {
        let required = |name: &str| {
            env.get(name).map(str::to_owned).ok_or_else(|| {
                Failure::system(format!("the variable `{name}` is not set"))
                    .hint("this command is the container's entrypoint; the driver sets it in CreateTrainingJob")
            })
        };
        // The platform's own variables are the fallback. AWS_REGION comes last: an image or a job may set it for itself.
        let arn =
            env.get("TRAINING_JOB_ARN").and_then(Arn::parse).map(|arn| arn.region).filter(|region| !region.is_empty());
        let region = env.get(REGION).or(arn).or_else(|| env.get("AWS_REGION")).map(str::to_owned);
        Ok(Self {
            root: required(ROOT)?,
            bucket: required(BUCKET)?,
            prefix: required(STORE_PREFIX)?,
            region,
            endpoint_url: env.get(ENDPOINT_URL).map(str::to_owned),
            kms_key_id: env.get(KMS_KEY_ID).map(str::to_owned),
            lease_seconds: required(LEASE_SECONDS)?
                .parse()
                .map_err(|_| Failure::system(format!("the variable `{LEASE_SECONDS}` is not a number")))?,
        })
    }

    pub fn access(&self, ca_bundle: Option<PathBuf>) -> Access {
        Access {
            region: self.region.clone(),
            endpoint_url: self.endpoint_url.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            kms_key_id: self.kms_key_id.clone(),
            ca_bundle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_sets_is_what_the_agent_reads() {
        let configuration = Configuration {
            root: "sessions/gitlab-1-2-abcdef12".into(),
            bucket: "b".into(),
            prefix: "p".into(),
            region: Some("eu-west-1".into()),
            endpoint_url: Some("http://127.0.0.1:1".into()),
            kms_key_id: None,
            lease_seconds: 900,
        };
        let pairs = configuration.to_environment().into_iter().map(|(name, value)| (name.into(), value.into()));
        assert_eq!(Configuration::from_environment(&Environment::from_pairs(pairs)).unwrap(), configuration);
    }

    #[test]
    fn the_region_is_found_in_the_arn() {
        let mut pairs = vec![("TRAINING_JOB_ARN", "arn:aws:sagemaker:eu-west-3:000000000000:training-job/x")];
        pairs.extend([(ROOT, "r"), (BUCKET, "b"), (STORE_PREFIX, "p"), (LEASE_SECONDS, "60")]);
        let env = Environment::from_pairs(pairs.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(Configuration::from_environment(&env).unwrap().region.as_deref(), Some("eu-west-3"));
    }
}
