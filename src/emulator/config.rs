//! The configuration of an emulator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::faults::FaultPlan;
use super::host::{ContainerImage, Profile};
use super::quirks::Quirks;

/// Folder of the data directory with the channel files that containers share.
const SHARED: &str = "shared";

/// Time a job spends in each phase, besides its real work; none by default.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    pub starting: Duration,
    pub pending: Duration,
    pub downloading: Duration,
    pub training: Duration,
    pub uploading: Duration,
}

/// An image in the account's registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrImage {
    pub repository: String,
    /// `sha256:` and 64 digits.
    pub digest: String,
    /// `linux/amd64`; with more than one the image is a list.
    pub platforms: Vec<String>,
}

/// The result of each scan of the images of a repository, as a file has it.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageFindings {
    /// As `DescribeImageScanFindings` lists them: objects with `name`, `severity`, `attributes` and so on.
    pub findings: Vec<serde_json::Value>,
    /// Milliseconds that a scan lasts.
    pub duration_ms: u64,
    /// The text of a scan that fails in place of finding something.
    pub failure: Option<String>,
}

/// The configuration of an emulator; `args.rs` makes it from the command line.
#[derive(Debug, Clone)]
pub struct EmulatorConfig {
    /// Loopback only; port 0 takes a free one.
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub buckets: Vec<String>,
    /// The account of the administrator, the jobs and the buckets.
    pub account: String,
    /// Users, roles and policies of each account, as `aws iam get-account-authorization-details` prints them; without any the
    /// administrator alone calls, and all jobs get the shipped policy's actions.
    pub iam: Vec<serde_json::Value>,
    /// Keys of identity providers, by issuer without `https://`.
    pub oidc: BTreeMap<String, ProviderKeys>,
    /// Client ids of all identity providers; without any they take tokens for every audience.
    pub oidc_audiences: Vec<String>,
    /// Images in the registry of the account.
    pub ecr_images: Vec<EcrImage>,
    /// Results of the scans of images, by repository; without any nothing is found.
    pub image_findings: BTreeMap<String, ImageFindings>,
    /// Roots of images by their name.
    pub images: BTreeMap<String, ContainerImage>,
    /// User, environment and size of the root of images by their name.
    pub profiles: BTreeMap<String, Profile>,
    /// Whether an image that is not listed fails its job.
    pub strict_images: bool,
    pub delays: Delays,
    /// Factor of all waits of a deployment to an endpoint.
    pub deployment_wait_scale: f64,
    /// Factor of the periods of alarms.
    pub alarm_period_scale: f64,
    pub stop_grace: Duration,
    pub quirks: Quirks,
    /// Requests a second by operation, over the built-in quotas; 0 lifts one.
    pub quotas: BTreeMap<String, f64>,
    /// Instances that may run at once, by type; `spot:` or `warm-pool:` before the type is another quota.
    pub instance_quotas: BTreeMap<String, u64>,
    /// Folders that stand for EFS and `FSx` file systems, by their id.
    pub file_systems: BTreeMap<String, PathBuf>,
    /// Networks of the account, with the lists and members that the AWS CLI prints for EC2.
    pub network: serde_json::Value,
    /// States of KMS keys, by their ARN.
    pub kms_keys: BTreeMap<String, String>,
    pub faults: FaultPlan,
    /// Whether large files of channels are links to one copy for all containers.
    pub share_channels: bool,
    pub seed: u64,
}

/// The place of an identity provider's keys.
#[derive(Debug, Clone)]
pub enum ProviderKeys {
    /// A key set (JWKS).
    Given(serde_json::Value),
    /// A place in a bucket of the emulator, which stands for the issuer's address: AWS reads the discovery document there, and the keys
    /// that it names.
    Published { bucket: String, prefix: String },
}

impl EmulatorConfig {
    /// Without any delay of jobs and logs; the other quirks stay.
    #[must_use]
    pub fn without_delays(mut self) -> Self {
        self.delays = Delays::default();
        self.quirks.batch_delay = Duration::ZERO;
        self.quirks.ingestion_lag = Duration::ZERO;
        self
    }

    /// The files that containers of an image start from.
    pub(crate) fn image(&self, name: &str) -> Option<ContainerImage> {
        match self.images.get(name) {
            Some(image) => Some(image.clone()),
            None => (!self.strict_images).then_some(ContainerImage::Host),
        }
    }

    /// Folder of the jobs that run.
    pub(crate) fn jobs_folder(&self) -> PathBuf {
        self.data_dir.join("jobs")
    }

    /// Folder of the channel files that containers share.
    pub(crate) fn shared_folder(&self) -> PathBuf {
        self.data_dir.join(SHARED)
    }
}
