//! The types of the manifest. Their doc comments are the descriptions in its JSON schema, `docs/manifest.schema.json`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::image_entry::ImageEntry;

/// Names of model package groups and endpoints (`ModelPackageGroupName`, `EndpointName`).
const NAME: &str = "^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$";
/// An image with its digest; a tag may stand before it. SageMaker takes at most 255 characters.
const IMAGE: &str = "^[^@:/\\s]+(:[0-9]+)?(/[^@:\\s]+)+(:[^@:/\\s]+)?@sha256:[0-9a-f]{64}$";
const INSTANCE_TYPE: &str = "^ml\\.[a-z0-9-]+\\.[a-z0-9-]+$";
const REGION: &str = "^[a-z]{2,4}(-[a-z]+){1,2}-[0-9]{1,2}$";
const ACCOUNT: &str = "^[0-9]{12}$";
const ROLE: &str = "^arn:aws[a-z-]*:iam::[0-9]{12}:role/[a-zA-Z_0-9+=,.@/-]+$";
const BUCKET: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
const PREFIX: &str = "^[a-zA-Z0-9!_.*'()-]+(/[a-zA-Z0-9!_.*'()-]+)*$";
/// A key's id, its ARN, or the ARN or name of an alias.
const KMS_KEY: &str = "^[a-zA-Z0-9:/_-]{1,2048}$";
const S3_PREFIX: &str = "^s3://[a-z0-9][a-z0-9.-]*[a-z0-9](/.*)?$";
const SUBNET: &str = "^subnet-[0-9a-zA-Z]{1,25}$";
const SECURITY_GROUP: &str = "^sg-[0-9a-zA-Z]{1,29}$";
/// Metric, comparison and number. Labels of the metric may follow its name, in braces.
const RULE: &str = "^\\s*[^<>=!{}\"\\s][^<>=!{}\"]*(\\{.*\\})?\\s*(>=|<=|==|>|<)\\s*-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?\\s*$";
/// Metric, `=` and a number that is not negative.
const LIMIT: &str =
    "^\\s*[^<>=!{}\"\\s][^<>=!{}\"]*(\\{.*\\})?\\s*=\\s*(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?\\s*$";
/// `type/subtype`, at most 256 characters.
const MIME_TYPE: &str = "^[^\\s/]+/[^\\s]+$";

/// Whether a model package group and an endpoint may have this name.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 63 && regex::Regex::new(NAME).is_ok_and(|pattern| pattern.is_match(name))
}

/// Most entries of `environments`.
pub(super) const MOST_ENVIRONMENTS: usize = 100;

/// The manifest of a project: what its model is, how it is judged, and where it goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// URI of the schema, for editors.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The model: its group in the registry, its files, and the bars that it must reach.
    pub model: Option<ModelEntry>,
    /// The endpoint that serves the model.
    pub endpoint: Option<Endpoint>,
    /// The image that the project builds.
    pub image: Option<ImageEntry>,
    /// The files of a release.
    pub package: Option<Package>,
    /// Tags of everything that is created.
    pub tags: TagEntries,
    /// Places to deploy to, by the name of their GitLab environment: at most 100.
    #[schemars(extend("maxProperties" = MOST_ENVIRONMENTS))]
    pub environments: BTreeMap<String, EnvironmentEntry>,
    /// The entry of `environments` that a command was started for.
    #[serde(skip)]
    pub target: EnvironmentEntry,
}

/// A model, and how it is judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// Model package group in SageMaker's registry: 1 to 63 letters, digits and hyphens, with a letter or digit at both ends.
    #[schemars(regex(pattern = NAME))]
    pub group: String,
    /// Description of each version, at most 1024 characters.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Folder with the model's files, or the `s3://` URI of a `model.tar.gz`.
    #[serde(default = "model_folder")]
    #[schemars(length(min = 1))]
    pub path: String,
    /// Image that serves the model, with its digest: `REGISTRY/NAME@sha256:` and 64 digits.
    #[schemars(regex(pattern = IMAGE), length(max = 255))]
    pub image: String,
    /// Environment variables of the serving container: at most 100, with values of at most 1024 characters.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// MIME types of requests, as `text/csv`.
    #[serde(default)]
    #[schemars(inner(regex(pattern = MIME_TYPE), length(max = 256)))]
    pub content_types: Vec<String>,
    /// MIME types of answers, as `text/csv`.
    #[serde(default)]
    #[schemars(inner(regex(pattern = MIME_TYPE), length(max = 256)))]
    pub response_types: Vec<String>,
    /// Instance types that may serve the model, as `ml.m5.large`.
    #[serde(default)]
    #[schemars(inner(regex(pattern = INSTANCE_TYPE)))]
    pub instance_types: Vec<String>,
    /// Files with metrics of the model, for the gate and the registry.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub metrics: Vec<String>,
    /// Metrics that a JSONPath finds in files of JSON, by name, as in `gate --metric`: `$.report.f1`.
    #[serde(default)]
    pub metric_paths: BTreeMap<String, String>,
    /// Bars, as in `gate --require`: `accuracy>=0.8`.
    #[serde(default)]
    #[schemars(inner(regex(pattern = RULE)))]
    pub require: Vec<String>,
    /// How much a metric may be worse than that of the latest approved version, as in `gate --max-regression`: `f1=0.01`.
    #[serde(default)]
    #[schemars(inner(regex(pattern = LIMIT)))]
    pub max_regression: Vec<String>,
    /// Approvals that a version needs.
    #[serde(default)]
    pub approvals: Approvals,
}

fn model_folder() -> String {
    "model".to_owned()
}

/// Approvals that a version needs before it may go live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// Number of different users, from 1 to 10.
    #[schemars(range(min = 1, max = 10))]
    pub min: u32,
    /// The user who registered the version does not count.
    pub no_self: bool,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { min: 1, no_self: false }
    }
}

/// An endpoint, on instances or serverless.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Name of the endpoint: 1 to 63 letters, digits and hyphens, with a letter or digit at both ends.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// Instances of the endpoint.
    #[serde(default)]
    pub instances: Option<EndpointInstances>,
    /// Without instances: SageMaker runs containers when requests come.
    #[serde(default)]
    pub serverless: Option<Serverless>,
    /// Requests that lie in S3, whose answers are written there; with `instances`.
    #[serde(default)]
    pub asynchronous: Option<Asynchronous>,
    /// Instances, or provisioned concurrency, by load.
    #[serde(default)]
    pub autoscaling: Option<Autoscaling>,
    /// How a new version replaces the one that runs.
    #[serde(default)]
    pub deployment: Deployment,
    /// Alarms that roll a deployment back.
    #[serde(default)]
    pub alarms: Alarms,
    /// Requests that the endpoint must answer as expected.
    #[serde(default)]
    pub test: Option<EndpointTest>,
}

/// Instances of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointInstances {
    /// Instance type, as `ml.m5.large`.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = INSTANCE_TYPE))]
    pub instance_type: String,
    /// Number of instances at the start, at least 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub count: u32,
    /// Time for the download of the model, from 60 to 3600.
    #[serde(default)]
    #[schemars(range(min = 60, max = 3600))]
    pub download_timeout_seconds: Option<u32>,
    /// Time until a container answers `GET /ping`, from 60 to 3600.
    #[serde(default)]
    #[schemars(range(min = 60, max = 3600))]
    pub startup_timeout_seconds: Option<u32>,
}

fn one() -> u32 {
    1
}

/// Requests that lie in S3, whose answers are written there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Asynchronous {
    /// `s3://` URI of a prefix for answers; `asynchronous/ENDPOINT/answers` in the environment's bucket when absent.
    #[schemars(regex(pattern = S3_PREFIX), length(max = 1024))]
    pub answers: Option<String>,
    /// `s3://` URI of a prefix for failures; `asynchronous/ENDPOINT/failures` in the environment's bucket when absent.
    #[schemars(regex(pattern = S3_PREFIX), length(max = 1024))]
    pub failures: Option<String>,
    /// Requests that an instance works on at once, from 1 to 1000; SageMaker's choice when absent.
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent: Option<u32>,
}

/// Limits of a serverless endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Serverless {
    /// Memory of a container: 1024, 2048, 3072, 4096, 5120 or 6144 MB.
    #[schemars(extend("enum" = [1024, 2048, 3072, 4096, 5120, 6144]))]
    pub memory_mb: u32,
    /// Requests at once, from 1 to 200.
    #[schemars(range(min = 1, max = 200))]
    pub max_concurrency: u32,
    /// Requests at once that find a container ready, at most `max_concurrency`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 200))]
    pub provisioned_concurrency: Option<u32>,
}

/// Instances, or provisioned concurrency, by load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoscaling {
    /// Fewest instances, at least 1.
    #[schemars(range(min = 1))]
    pub min: u32,
    /// Most instances, at least `min`.
    #[schemars(range(min = 1))]
    pub max: u32,
    /// Invocations a minute for each instance, or for serverless endpoints the used share of the provisioned concurrency, from 0 to 1.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub target: f64,
    /// Time after instances ended until more may end, from 0 to 3600.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub scale_in_cooldown_seconds: Option<u32>,
    /// Time after instances started until more may start, from 0 to 3600.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub scale_out_cooldown_seconds: Option<u32>,
}

/// How a new version replaces the one that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deployment {
    /// How traffic moves to a new version.
    pub strategy: Strategy,
    /// Share of the instances that gets traffic first (`canary`), is added at each step (`linear`), or is replaced at once
    /// (`rolling`), in percent: from 1 to 50; `linear` and `rolling` from 10 and 5 on.
    #[schemars(range(min = 1, max = 50))]
    pub step_percent: Option<u32>,
    /// Time that alarms are watched after each step, from 0 to 3600; 300 when absent and there are alarms.
    #[schemars(range(max = 3600))]
    pub wait_seconds: Option<u32>,
    /// Time until the old instances end, from 0 to 3600.
    #[schemars(range(max = 3600))]
    pub termination_wait_seconds: Option<u32>,
    /// Limit that SageMaker keeps, from 600 to 28800, above the sum of all waits; half an hour more than that sum when absent.
    #[schemars(range(min = 600, max = 28800))]
    pub timeout_seconds: Option<u32>,
}

/// How traffic moves to a new version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    #[default]
    AllAtOnce,
    Canary,
    Linear,
    Rolling,
}

/// Alarms that roll a deployment back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Alarms {
    /// Answers with status 5xx in a minute, above which the alarm is on.
    #[schemars(range(min = 0))]
    pub errors_5xx: Option<f64>,
    /// p95 of the model's latency in milliseconds, above which the alarm is on.
    #[schemars(range(min = 0))]
    pub latency_p95_ms: Option<f64>,
    /// Names of alarms that exist; at most 10 alarms together with those above.
    #[schemars(length(max = 10), inner(length(min = 1, max = 255)))]
    pub names: Vec<String>,
}

/// Requests that an endpoint must answer as expected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointTest {
    /// Files with requests and what their answers must be; at least one.
    #[schemars(length(min = 1))]
    pub samples: Vec<String>,
    /// Number of requests to send, at least 1.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub requests: Option<u32>,
    /// Requests at once, at least 1.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
    /// Limit of the 95th percentile of the time of an answer, in milliseconds.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_p95_ms: Option<f64>,
    /// Limit of the share of failed requests, from 0 to 1.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub max_error_rate: Option<f64>,
}

/// Files of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Package {
    /// Glob patterns of files that belong to it, relative to the manifest.
    pub include: Vec<String>,
    /// Glob patterns of files that do not.
    pub exclude: Vec<String>,
}

/// Tags of everything that is created: the usual ones, and any other. At most 38, with names of at most 128 and values of at most 256
/// characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("properties" = {
    "Environment": {"type": "string"}, "Project": {"type": "string"}, "Owner": {"type": "string"},
    "CostCenter": {"type": "string"}, "Application": {"type": "string"}
}))]
pub struct TagEntries(pub BTreeMap<String, String>);

/// Tier of an environment, as GitLab knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentTier {
    Production,
    Staging,
    Testing,
    Development,
    Other,
}

/// A place to deploy to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnvironmentEntry {
    /// Tier of the environment; as GitLab derives it from the name when absent. `production` and `other` take approved versions alone.
    pub tier: Option<EnvironmentTier>,
    /// AWS region, as `eu-west-1`; that of the SDK's chain when absent.
    #[schemars(regex(pattern = REGION))]
    pub region: Option<String>,
    /// Account: twelve digits. A command refuses to work in another account.
    #[schemars(regex(pattern = ACCOUNT))]
    pub account: Option<String>,
    /// ARN of the role that SageMaker assumes for models and endpoints: `arn:aws:iam::ACCOUNT:role/NAME`.
    #[schemars(regex(pattern = ROLE), length(max = 2048))]
    pub role: Option<String>,
    /// ARN of the role that jobs with an id token assume to work in the environment; `AWS_ROLE_ARN` when absent.
    #[schemars(regex(pattern = ROLE), length(max = 2048))]
    pub job_role: Option<String>,
    /// Bucket for models, metrics and the record of deployments: its name alone.
    #[schemars(regex(pattern = BUCKET), length(min = 3, max = 63))]
    pub bucket: Option<String>,
    /// Prefix of the keys in the bucket, without a slash at its ends.
    #[schemars(regex(pattern = PREFIX), length(max = 512))]
    pub prefix: Option<String>,
    /// KMS key for what is stored: its id, its ARN, or an alias.
    #[schemars(regex(pattern = KMS_KEY))]
    pub key: Option<String>,
    /// Subnets of the containers, at most 16; with `security_groups`.
    #[schemars(length(max = 16), inner(regex(pattern = SUBNET)))]
    pub subnets: Vec<String>,
    /// Security groups of the containers, at most 5; with `subnets`.
    #[schemars(length(max = 5), inner(regex(pattern = SECURITY_GROUP)))]
    pub security_groups: Vec<String>,
    /// Containers that serve the model have no network.
    pub network_isolation: bool,
    /// Commands use AWS's endpoints with FIPS 140 validated cryptography, as `AWS_USE_FIPS_ENDPOINT=true` does.
    pub use_fips_endpoint: bool,
    /// Commands use AWS's endpoints with IPv6 addresses, too, as `AWS_USE_DUALSTACK_ENDPOINT=true` does.
    pub use_dualstack_endpoint: bool,
    /// Changes to `model`, `endpoint`, `image`, `package` and `tags`, as a JSON merge patch (RFC 7386): `null` removes a key.
    #[schemars(extend(
        "additionalProperties" = false,
        "properties" = {
            "model": {"type": ["object", "null"]}, "endpoint": {"type": ["object", "null"]},
            "image": {"type": ["object", "null"]}, "package": {"type": ["object", "null"]}, "tags": {"type": ["object", "null"]}
        }
    ))]
    pub patch: serde_json::Map<String, serde_json::Value>,
}
