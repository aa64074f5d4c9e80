//! The types of the manifest. Their doc comments are the descriptions in its JSON schema, `docs/manifest.schema.json`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The manifest of a project: what its model is, how it is judged, and where it goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// URI of the schema, for editors.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The model: its group in the registry, its files, and the bars that it must reach.
    pub model: Option<Model>,
    /// The endpoint that serves the model.
    pub endpoint: Option<Endpoint>,
    /// The files of a release.
    pub package: Option<Package>,
    /// Tags of everything that is created.
    pub tags: Tags,
    /// Places to deploy to, by the name of their GitLab environment.
    pub environments: BTreeMap<String, EnvironmentEntry>,
    /// The entry of `environments` that a command was started for.
    #[serde(skip)]
    #[schemars(skip)]
    pub target: EnvironmentEntry,
}

/// A model, and how it is judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Model package group in SageMaker's registry: at most 63 letters, digits and hyphens.
    pub group: String,
    #[serde(default)]
    pub description: Option<String>,
    /// Folder with the model's files, or the `s3://` URI of a `model.tar.gz`.
    #[serde(default = "model_folder")]
    pub path: String,
    /// Image that serves the model, with its digest: `REGISTRY/NAME@sha256:...`.
    pub image: String,
    /// Environment variables of the serving container.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// MIME types of requests.
    #[serde(default)]
    pub content_types: Vec<String>,
    /// MIME types of answers.
    #[serde(default)]
    pub response_types: Vec<String>,
    /// Instance types that may serve the model.
    #[serde(default)]
    pub instance_types: Vec<String>,
    /// Files with metrics of the model, for the gate and the registry.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Bars, as in `gate --require`: `accuracy>=0.8`.
    #[serde(default)]
    pub require: Vec<String>,
    /// How much a metric may be worse than that of the latest approved version, as in `gate --max-regression`: `f1=0.01`.
    #[serde(default)]
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
    /// At most 63 letters, digits and hyphens.
    pub name: String,
    /// Instances of the endpoint.
    #[serde(default)]
    pub instances: Option<Instances>,
    /// Without instances: SageMaker runs containers when requests come.
    #[serde(default)]
    pub serverless: Option<Serverless>,
    #[serde(default)]
    pub autoscaling: Option<Autoscaling>,
    #[serde(default)]
    pub deployment: Deployment,
    #[serde(default)]
    pub alarms: Alarms,
    /// Requests that the endpoint must answer as expected.
    #[serde(default)]
    pub test: Option<EndpointTest>,
}

/// Instances of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instances {
    /// As `ml.m5.large`.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Number of instances at the start.
    #[serde(default = "one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

/// Limits of a serverless endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Serverless {
    /// 1024, 2048, 3072, 4096, 5120 or 6144.
    pub memory_mb: u32,
    /// Requests at once, from 1 to 200.
    pub max_concurrency: u32,
    /// Requests at once that find a container ready, at most `max_concurrency`.
    #[serde(default)]
    pub provisioned_concurrency: Option<u32>,
}

/// Instances, or provisioned concurrency, by load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoscaling {
    pub min: u32,
    pub max: u32,
    /// Invocations a minute for each instance, or for serverless endpoints the used share of the provisioned concurrency, from 0 to 1.
    pub target: f64,
    #[serde(default)]
    pub scale_in_cooldown_seconds: Option<u32>,
    #[serde(default)]
    pub scale_out_cooldown_seconds: Option<u32>,
}

/// How a new version replaces the one that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deployment {
    pub strategy: Strategy,
    /// Share of the instances that gets traffic first (`canary`), is added at each step (`linear`), or is replaced at once
    /// (`rolling`), in percent: from 1 to 50.
    pub step_percent: Option<u32>,
    /// Time that alarms are watched after each step, from 0 to 3600.
    pub wait_seconds: Option<u32>,
    /// Time until the old instances end, from 0 to 3600.
    pub termination_wait_seconds: Option<u32>,
    /// Limit that SageMaker keeps, from 600 to 28800.
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
    pub errors_5xx: Option<f64>,
    /// p95 of the model's latency in milliseconds, above which the alarm is on.
    pub latency_p95_ms: Option<f64>,
    /// Names of alarms that exist.
    pub names: Vec<String>,
}

/// Requests that an endpoint must answer as expected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointTest {
    /// Files with requests and what their answers must be.
    pub samples: Vec<String>,
    #[serde(default)]
    pub requests: Option<u32>,
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Limit of the 95th percentile of the time of an answer, in milliseconds.
    #[serde(default)]
    pub max_p95_ms: Option<f64>,
    /// Limit of the share of failed requests, from 0 to 1.
    #[serde(default)]
    pub max_error_rate: Option<f64>,
}

/// Files of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Package {
    /// Glob patterns, relative to the manifest.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

/// Tags of everything that is created: the usual ones, and any other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Tags(pub BTreeMap<String, String>);

/// A place to deploy to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnvironmentEntry {
    /// AWS region; that of the SDK's chain when absent.
    pub region: Option<String>,
    /// Twelve digits. A command refuses to work in another account.
    pub account: Option<String>,
    /// ARN of the role that SageMaker assumes for models and endpoints.
    pub role: Option<String>,
    /// Bucket for models, metrics and the record of deployments.
    pub bucket: Option<String>,
    /// Prefix of the keys in the bucket.
    pub prefix: Option<String>,
    /// KMS key for what is stored.
    pub key: Option<String>,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    /// Containers that serve the model have no network.
    pub network_isolation: bool,
    /// Changes to the rest of the manifest, as a JSON merge patch (RFC 7386): `null` removes a key.
    pub patch: serde_json::Map<String, serde_json::Value>,
}
