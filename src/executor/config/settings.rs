//! The keys of the operator's file, immutable once it is read.
//!
//! `docs/CONFIG.md` documents each key, and `runner-config/sagemaker-executor.toml` contains all of them; tests compare both
//! with this file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::destination::DestinationPattern;
use crate::cloud::{Access, EndpointKind, Network, VpcRegistry};
use crate::config::env::Environment;
use crate::config::iam_patterns::OwnPlace;
use crate::config::rules::{PolicyRule, SecretGrant};

/// Path of the file without `--config`.
pub const DEFAULT_PATH: &str = "/etc/sagemaker-executor/sagemaker-executor.toml";

/// All settings of the file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default)]
    pub aws: AwsSettings,
    pub storage: StorageSettings,
    pub job: JobSettings,
    #[serde(default)]
    pub runner: RunnerSettings,
    #[serde(default)]
    pub limits: LimitsSettings,
    #[serde(default)]
    pub trace: TraceSettings,
    #[serde(default)]
    pub results: ResultsSettings,
    #[serde(default)]
    pub audit: AuditSettings,
    #[serde(default)]
    pub log: LogSettings,
    #[serde(default)]
    pub metrics: MetricsSettings,
    /// Which jobs may have what; without rules all jobs get the values of `[job]`.
    #[serde(default)]
    pub rules: Vec<PolicyRule>,
    /// Price of one instance for an hour, by instance type; for `allow.max_cost`.
    #[serde(default)]
    pub prices: BTreeMap<String, f64>,
    /// Jobs may have all that SageMaker takes: set by `try` alone.
    #[serde(skip)]
    pub allows_all: bool,
    #[serde(default)]
    pub sandbox: SandboxSettings,
    #[serde(default)]
    pub secrets: SecretsSettings,
    #[serde(default)]
    pub iam: IamSettings,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSettings {
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
    /// The endpoint as seen from the container, when it differs.
    pub container_endpoint_url: Option<String>,
    #[serde(default)]
    pub use_fips_endpoint: bool,
    #[serde(default)]
    pub use_dualstack_endpoint: bool,
    pub ca_bundle: Option<PathBuf>,
    /// The role that alone creates training jobs, in place of the driver's own identity.
    pub creator_role_arn: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageSettings {
    pub bucket: String,
    #[serde(default = "prefix")]
    pub prefix: String,
    pub kms_key_id: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct JobSettings {
    pub role_arn: Option<String>,
    pub image: Option<String>,
    #[serde(default = "instance_type")]
    pub instance_type: String,
    #[serde(default = "one")]
    pub instance_count: u32,
    #[serde(default = "volume_size_gb")]
    pub volume_size_gb: u32,
    pub volume_kms_key_id: Option<String>,
    /// Upper limit of every job's run time.
    #[serde(default = "day")]
    pub max_runtime_seconds: u64,
    #[serde(default)]
    pub subnets: Vec<String>,
    #[serde(default)]
    pub security_group_ids: Vec<String>,
    #[serde(default)]
    pub encrypt_inter_container_traffic: bool,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    #[serde(default)]
    pub spot: bool,
    #[serde(default)]
    pub checkpoints: bool,
    /// Training jobs without a network.
    #[serde(default)]
    pub network_isolation: bool,
    #[serde(default)]
    pub retries: u32,
    #[serde(default)]
    pub keep_alive_seconds: u64,
    pub training_plan: Option<String>,
    #[serde(default = "hour")]
    pub queue_timeout_seconds: u64,
    #[serde(default)]
    pub max_pending_seconds: u64,
    /// URIs of input channels, by the channel's name.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    pub model_output: Option<String>,
    #[serde(default)]
    pub image_repository_access: RepositoryAccess,
    /// Gives the credentials of the registry in the VPC.
    pub image_credentials_lambda_arn: Option<String>,
}

/// Way from SageMaker to the registry of the training image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RepositoryAccess {
    /// ECR, by SageMaker itself.
    #[default]
    Platform,
    /// A registry in the VPC.
    Vpc,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunnerSettings {
    pub builds_dir: PathBuf,
    pub cache_dir: PathBuf,
    pub state_dir: PathBuf,
    pub shell: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSettings {
    pub lease_seconds: u64,
    pub cancel_grace_seconds: u64,
    pub provisioning_seconds: u64,
    pub results_max_bytes: u64,
    pub results_max_files: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TraceSettings {
    pub live_copy: bool,
    /// Limit for all drivers of a host together; AWS allows an account 5 to 25 [`crate::cloud::JobLogs`] calls a
    /// second.
    pub log_requests_per_second: f64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResultsSettings {
    pub keep_outside_links: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// `audit.log` in `runner.state_dir` when absent.
    pub file: Option<PathBuf>,
}

/// The program's log for operators; without a file there is none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// An absolute path, or [`JOURNALD`].
    pub file: Option<String>,
    pub level: LogLevel,
}

/// Value of `log.file` that sends the log to systemd's journal.
pub const JOURNALD: &str = "journald";

/// The least level of events in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

/// Counts for Prometheus; without a file nothing is counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSettings {
    pub file: Option<PathBuf>,
    /// The paths of projects are labels of the jobs.
    pub by_project: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxSettings {
    pub enabled: bool,
    /// The path of the job's builds, in the sandbox and in the container.
    pub builds_dir: PathBuf,
    /// Besides GitLab itself.
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<DestinationPattern>,
    /// Besides the system's own paths.
    pub readable: Vec<PathBuf>,
    pub max_processes: u64,
    /// Of the whole stage where the host has a control group for it, else of one process.
    pub max_memory_bytes: u64,
    pub max_file_bytes: u64,
    /// Of all files in the directories of a job.
    pub max_bytes: u64,
    pub max_files: u64,
}

/// Secrets of AWS Secrets Manager for the containers of jobs.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsSettings {
    /// Jobs get no secret that no entry grants.
    pub allow: Vec<SecretGrant>,
}

/// Names that only the policies of `policy iam` hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IamSettings {
    pub host_role_arn: Option<String>,
    /// Keys of the buckets of input data, where it is not `storage.kms_key_id`.
    pub input_kms_key_ids: Vec<String>,
    /// Keys of the buckets of models.
    pub model_kms_key_ids: Vec<String>,
    /// Keys of the secrets of jobs, where it is not `aws/secretsmanager`.
    pub secret_kms_key_ids: Vec<String>,
    /// Endpoints for S3 in the VPC of the training instances.
    pub vpc_endpoint_ids: Vec<String>,
}

fn prefix() -> String {
    "sagemaker-executor".to_owned()
}
fn instance_type() -> String {
    "ml.m5.large".to_owned()
}
fn one() -> u32 {
    1
}
fn volume_size_gb() -> u32 {
    50
}
fn day() -> u64 {
    86_400
}
fn hour() -> u64 {
    3600
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self {
            builds_dir: PathBuf::from("/var/lib/sagemaker-executor/builds"),
            cache_dir: PathBuf::from("/var/lib/sagemaker-executor/cache"),
            state_dir: PathBuf::from("/var/lib/sagemaker-executor/state"),
            shell: "bash".to_owned(),
        }
    }
}

impl Default for LimitsSettings {
    fn default() -> Self {
        Self {
            lease_seconds: 900,
            cancel_grace_seconds: 30,
            provisioning_seconds: 3600,
            results_max_bytes: 100 << 30,
            results_max_files: 1_000_000,
        }
    }
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            builds_dir: PathBuf::from("/tmp/builds"),
            allow: Vec::new(),
            readable: Vec::new(),
            max_processes: 4096,
            max_memory_bytes: 8 << 30,
            max_file_bytes: 100 << 30,
            max_bytes: 100 << 30,
            max_files: 5_000_000,
        }
    }
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { live_copy: true, log_requests_per_second: 5.0 }
    }
}

impl Settings {
    /// Takes the AWS SDK's own endpoint variables when the file names no endpoint: the container, which does not see
    /// the runner's environment, must use it too.
    pub fn adopt_endpoint(&mut self, env: &Environment) {
        if self.aws.endpoint_url.is_some() {
            return;
        }
        self.aws.use_fips_endpoint |= env.is_on("AWS_USE_FIPS_ENDPOINT");
        self.aws.use_dualstack_endpoint |= env.is_on("AWS_USE_DUALSTACK_ENDPOINT");
        let services = [
            "AWS_ENDPOINT_URL_SAGEMAKER",
            "AWS_ENDPOINT_URL_S3",
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
            "AWS_ENDPOINT_URL_STS",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        ];
        let url = env.get("AWS_ENDPOINT_URL").map(str::to_owned);
        if services.iter().all(|name| env.get(name).is_none()) {
            self.aws.endpoint_url = url;
        } else if self.aws.container_endpoint_url.is_none() {
            // The agent only uses S3.
            self.aws.container_endpoint_url = env.get("AWS_ENDPOINT_URL_S3").map(str::to_owned).or(url);
        }
    }

    /// The folder of the executor's own objects.
    pub fn own_place(&self) -> OwnPlace<'_> {
        OwnPlace { bucket: &self.storage.bucket, prefix: &self.storage.prefix }
    }

    /// Settings for reaching AWS, for the driver.
    pub fn access(&self) -> Access {
        Access {
            region: self.aws.region.clone(),
            endpoint_url: self.aws.endpoint_url.clone(),
            endpoints: self.endpoints(),
            bucket: self.storage.bucket.clone(),
            prefix: self.storage.prefix.clone(),
            kms_key_id: self.storage.kms_key_id.clone(),
            ca_bundle: self.aws.ca_bundle.clone(),
            ..Access::default()
        }
    }

    /// The kind of AWS's endpoints, for driver and container.
    pub fn endpoints(&self) -> EndpointKind {
        EndpointKind { fips: self.aws.use_fips_endpoint, dual_stack: self.aws.use_dualstack_endpoint }
    }

    /// The VPC of the training instances, if the operator set one.
    pub fn network(&self) -> Option<Network> {
        (!self.job.subnets.is_empty()).then(|| Network {
            subnets: self.job.subnets.clone(),
            security_group_ids: self.job.security_group_ids.clone(),
        })
    }

    /// The registry of the training images, when it is in the VPC.
    pub fn vpc_registry(&self) -> Option<VpcRegistry> {
        (self.job.image_repository_access == RepositoryAccess::Vpc)
            .then(|| VpcRegistry { credentials_lambda_arn: self.job.image_credentials_lambda_arn.clone() })
    }

    /// The file that gets one line for each decision about a job.
    pub fn audit_file(&self) -> PathBuf {
        self.audit.file.clone().unwrap_or_else(|| self.runner.state_dir.join("audit.log"))
    }

    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.limits.lease_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[storage]\nbucket = \"b\"\n[job]\nrole_arn = \"arn:aws:iam::000000000000:role/r\"\n";

    #[test]
    fn two_keys_are_enough() {
        let settings = toml::from_str::<Settings>(MINIMAL).unwrap();
        assert_eq!(settings.storage.prefix, "sagemaker-executor");
        assert_eq!(settings.network(), None);
    }

    #[test]
    fn the_container_learns_an_endpoint_of_the_environment() {
        let adopted = |text: &str, pairs: &[(&str, &str)]| {
            let mut settings: Settings = toml::from_str(text).unwrap();
            settings.adopt_endpoint(&Environment::from_pairs(pairs.iter().map(|(k, v)| (k.into(), v.into()))));
            (settings.aws.endpoint_url, settings.aws.container_endpoint_url)
        };
        let url = |text: &str| Some(text.to_owned());
        assert_eq!(adopted(MINIMAL, &[]), (None, None));
        assert_eq!(adopted(MINIMAL, &[("AWS_ENDPOINT_URL", "http://a")]), (url("http://a"), None));
        assert_eq!(
            adopted(MINIMAL, &[("AWS_ENDPOINT_URL", "http://a"), ("AWS_ENDPOINT_URL_S3", "http://s3")]),
            (None, url("http://s3"))
        );
        let kind = |pairs: &[(&str, &str)]| {
            let mut settings: Settings = toml::from_str(MINIMAL).unwrap();
            settings.adopt_endpoint(&Environment::from_pairs(pairs.iter().map(|(k, v)| (k.into(), v.into()))));
            settings.access().endpoints
        };
        assert_eq!(kind(&[("AWS_USE_FIPS_ENDPOINT", "True")]), EndpointKind { fips: true, dual_stack: false });
        assert_eq!(kind(&[("AWS_USE_DUALSTACK_ENDPOINT", "true")]), EndpointKind { fips: false, dual_stack: true });
        assert_eq!(kind(&[("AWS_USE_FIPS_ENDPOINT", "false")]), EndpointKind::default());
        let named = format!("{MINIMAL}[aws]\nendpoint_url = \"http://file\"\n");
        assert_eq!(adopted(&named, &[("AWS_ENDPOINT_URL", "http://a")]), (url("http://file"), None));
    }
}
