//! The command line of the emulator.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, FromArgMatches as _};

use super::config::{Delays, EcrImage, EmulatorConfig, ImageFindings, ProviderKeys};
use super::faults::FaultPlan;
use super::host::{self, ContainerImage, Profile};
use super::quirks::Quirks;

/// Run a local AWS emulator: SageMaker training jobs, CloudWatch Logs, S3 and STS on one port
///
/// Each start makes new credentials, in the file `credentials` of the data directory; requests that are not signed with them
/// are refused. The last two lines that it prints are shell commands which set them and AWS_ENDPOINT_URL. Training jobs really
/// run, in containers on this machine.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "the comments are the help text")]
pub struct EmulatorArgs {
    /// Address to listen on; loopback only. Port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Directory for buckets and running jobs; created when missing
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Write the endpoint URL to this file once the emulator listens
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Create this bucket when it does not exist; may be repeated
    #[arg(long = "bucket", value_name = "NAME")]
    pub buckets: Vec<String>,
    /// Use DIR as the root of containers of the image NAME, `overlay:DIR` for this machine's root with the files of DIR over it, or
    /// `engine:IMAGE` to run it with podman or docker; may be repeated
    #[arg(long = "image", value_name = "NAME=DIR", value_parser = parse_image)]
    pub images: Vec<(String, ContainerImage)>,
    /// Start containers of the image NAME as this user, like `USER` in its Dockerfile; may be repeated. Needs root
    #[arg(long = "image-user", value_name = "NAME=UID[:GID]", value_parser = parse_image_user)]
    pub image_users: Vec<(String, host::User)>,
    /// Give containers of the image NAME this variable, like `ENV` in its Dockerfile; may be repeated
    #[arg(long = "image-env", value_name = "NAME=KEY=VALUE", value_parser = parse_image_env)]
    pub image_env: Vec<(String, (String, String))>,
    /// Limit the bytes that containers of the image NAME can write outside /tmp and /opt/ml: `64M`, `1G`; may be repeated
    #[arg(long = "root-size", value_name = "NAME=SIZE", value_parser = parse_root_size)]
    pub root_sizes: Vec<(String, u64)>,
    /// Fail jobs whose image is not given with --image, instead of running them on this machine's root
    #[arg(long)]
    pub strict_images: bool,
    /// Put an image into the account's registry: repository, digest and its platforms; may be repeated
    #[arg(long = "ecr", value_name = "REPOSITORY@DIGEST=PLATFORM[,PLATFORM]", value_parser = parse_ecr_image)]
    pub ecr_images: Vec<EcrImage>,
    /// Let each scan of an image in the repository REPOSITORY find what FILE lists, as JSON: `findings` as
    /// `DescribeImageScanFindings` shows them, `duration_ms`, `failure`; may be repeated
    #[arg(long = "image-findings", value_name = "REPOSITORY=FILE", value_parser = parse_findings)]
    pub image_findings: Vec<(String, PathBuf)>,
    /// Account id in ARNs, unless a user or role of another account calls
    #[arg(long, default_value = "000000000000", value_name = "ID")]
    pub account: String,
    /// Users, roles and their policies, as `aws iam get-account-authorization-details` prints them; each gets a key in the file
    /// `credentials`, in a profile `user/NAME` or `role/NAME`. May be repeated with files of other accounts, whose profiles begin
    /// with the account: `222222222222/role/NAME`
    #[arg(long, value_name = "FILE")]
    pub iam: Vec<PathBuf>,
    /// Take tokens of this identity provider in AssumeRoleWithWebIdentity: ISSUER without `https://`, and its keys as a JWKS
    /// file, or as `s3://BUCKET/PREFIX`, a place of the emulator that everybody may read and that stands for the issuer's address; may be
    /// repeated. Needs --iam
    #[arg(long = "oidc", value_name = "ISSUER=KEYS", value_parser = parse_oidc, requires = "iam")]
    pub oidc: Vec<(String, PathBuf)>,
    /// Client id of the identity providers: tokens for another audience are refused; may be repeated. Any audience when absent
    #[arg(long = "oidc-audience", value_name = "TEXT", requires = "oidc")]
    pub oidc_audiences: Vec<String>,
    /// Time a job spends in Starting
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub starting_delay: Duration,
    /// Time a job spends in Pending
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub pending_delay: Duration,
    /// Time a job spends in Downloading, besides the download
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub downloading_delay: Duration,
    /// Time the download of the training image takes
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub training_delay: Duration,
    /// Time a job spends in Uploading, besides the upload
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub uploading_delay: Duration,
    /// Multiply the waits of deployments to endpoints (`WaitIntervalInSeconds`, `TerminationWaitInSeconds`,
    /// `MaximumExecutionTimeoutInSeconds`) by this
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = parse_scale)]
    pub deployment_wait_scale: f64,
    /// Multiply the periods of CloudWatch alarms by this: with 0.01 an alarm of one minute is decided every 600 ms
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = parse_scale)]
    pub alarm_period_scale: f64,
    /// Time between SIGTERM and SIGKILL when a job is stopped
    #[arg(long, default_value = "120s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub stop_grace: Duration,
    /// Time for which log lines are gathered before they become visible
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub log_delay: Duration,
    /// Time until gathered log lines are ingested: random for each batch, up to this
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub log_lag: Duration,
    /// Set all delays of jobs and logs to zero
    #[arg(long)]
    pub no_delays: bool,
    /// Turn one quirk of the real services off; may be repeated
    #[arg(long = "without", value_name = "QUIRK", value_parser = Quirks::NAMES)]
    pub without: Vec<String>,
    /// Requests a second that an operation allows; 0 lifts the quota; may be repeated. For an instance type (`ml.g5.xlarge=1`),
    /// instances that may run at once; `spot:TYPE`, `warm-pool:TYPE` and `endpoint:TYPE` are quotas of their own
    #[arg(long = "quota", value_name = "NAME=NUMBER", value_parser = parse_quota)]
    pub quotas: Vec<(String, f64)>,
    /// Let FOLDER stand for this EFS or FSx file system, for channels of jobs; may be repeated
    #[arg(long = "file-system", value_name = "ID=FOLDER", value_parser = parse_file_system)]
    pub file_systems: Vec<(String, PathBuf)>,
    /// Subnets, security groups, route tables and endpoints of VPCs, as JSON: `Subnets`, `SecurityGroups`, `RouteTables`, `VpcEndpoints`, each
    /// as `aws ec2 describe-...` prints it
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,
    /// A key of KMS and its state, such as `Enabled`; may be repeated
    #[arg(long = "kms-key", value_name = "ARN=STATE", value_parser = parse_key)]
    pub kms_keys: Vec<(String, String)>,
    /// Fault plan to begin with, as JSON; `PUT /_emulator/faults` replaces it
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
    /// Give containers the large files of their channels as hard links to one copy, for hundreds of jobs. A change by one
    /// container is seen by all
    #[arg(long)]
    pub share_channels: bool,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
}

impl EmulatorConfig {
    /// The defaults of the command line.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let command = EmulatorArgs::augment_args(clap::Command::new("emulator").no_binary_name(true));
        let given = command.try_get_matches_from([OsString::from("--data-dir"), data_dir.into().into()]);
        let args = given.and_then(|given| EmulatorArgs::from_arg_matches(&given)).expect("the defaults are valid");
        Self::try_from(args).expect("without a fault plan nothing is read")
    }
}

impl TryFrom<EmulatorArgs> for EmulatorConfig {
    type Error = anyhow::Error;

    fn try_from(args: EmulatorArgs) -> anyhow::Result<Self> {
        let faults = args.faults.as_deref().map(read_plan).transpose()?.unwrap_or_default();
        let iam = args.iam.iter().map(|file| read_account(file)).collect::<anyhow::Result<_>>()?;
        let profiles = profiles(&args);
        let network = args.network.as_deref().map(read_network).transpose()?.unwrap_or_default();
        let mut quirks = Quirks { batch_delay: args.log_delay, ingestion_lag: args.log_lag, ..Quirks::default() };
        for name in &args.without {
            quirks.turn_off(name);
        }
        let (instance_quotas, quotas): (Vec<_>, Vec<_>) =
            args.quotas.into_iter().partition(|(name, _)| is_instance_quota(name));
        let config = Self {
            listen: args.listen,
            data_dir: args.data_dir,
            buckets: args.buckets,
            account: args.account,
            iam,
            oidc: args
                .oidc
                .iter()
                .map(|(issuer, file)| Ok((issuer.clone(), read_keys(file)?)))
                .collect::<anyhow::Result<_>>()?,
            oidc_audiences: args.oidc_audiences,
            ecr_images: args.ecr_images,
            image_findings: args
                .image_findings
                .iter()
                .map(|(repository, file)| Ok((repository.clone(), read_findings(file)?)))
                .collect::<anyhow::Result<_>>()?,
            images: args.images.into_iter().collect(),
            profiles,
            strict_images: args.strict_images,
            delays: Delays {
                starting: args.starting_delay,
                pending: args.pending_delay,
                downloading: args.downloading_delay,
                training: args.training_delay,
                uploading: args.uploading_delay,
            },
            deployment_wait_scale: args.deployment_wait_scale,
            alarm_period_scale: args.alarm_period_scale,
            stop_grace: args.stop_grace,
            quirks,
            quotas: quotas.into_iter().collect(),
            instance_quotas: instance_quotas.into_iter().map(|(name, count)| (name, whole(count))).collect(),
            file_systems: args.file_systems.into_iter().collect(),
            network,
            kms_keys: args.kms_keys.into_iter().collect(),
            faults,
            share_channels: args.share_channels,
            seed: args.seed,
        };
        Ok(if args.no_delays { config.without_delays() } else { config })
    }
}

fn read_plan(path: &Path) -> anyhow::Result<FaultPlan> {
    let content = std::fs::read(path).with_context(|| format!("failed to read the fault plan {}", path.display()))?;
    serde_json::from_slice(&content).with_context(|| format!("failed to understand the fault plan {}", path.display()))
}

fn read_account(path: &Path) -> anyhow::Result<serde_json::Value> {
    let content =
        std::fs::read(path).with_context(|| format!("failed to read the users and roles {}", path.display()))?;
    serde_json::from_slice(&content)
        .with_context(|| format!("failed to read the users and roles {}: not JSON", path.display()))
}

fn read_network(path: &Path) -> anyhow::Result<serde_json::Value> {
    let content = std::fs::read(path).with_context(|| format!("failed to read the networks {}", path.display()))?;
    serde_json::from_slice(&content)
        .with_context(|| format!("failed to read the networks {}: not JSON", path.display()))
}

fn parse_key(text: &str) -> Result<(String, String), String> {
    let (arn, state) = text.rsplit_once('=').ok_or("give ARN=STATE")?;
    Ok((arn.to_owned(), state.to_owned()))
}

fn read_keys(path: &Path) -> anyhow::Result<ProviderKeys> {
    if let Some(place) = path.to_str().and_then(|text| text.strip_prefix("s3://")) {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        return Ok(ProviderKeys::Published { bucket: bucket.to_owned(), prefix });
    }
    let content = std::fs::read(path).with_context(|| format!("failed to read the JWKS {}", path.display()))?;
    let keys: serde_json::Value = serde_json::from_slice(&content)
        .with_context(|| format!("failed to read the JWKS {}: not JSON", path.display()))?;
    anyhow::ensure!(keys["keys"].is_array(), "failed to read the JWKS {}: it has no list `keys`", path.display());
    Ok(ProviderKeys::Given(keys))
}

fn read_findings(path: &Path) -> anyhow::Result<ImageFindings> {
    let content =
        std::fs::read(path).with_context(|| format!("failed to read the findings of images {}", path.display()))?;
    serde_json::from_slice(&content)
        .with_context(|| format!("failed to understand the findings of images {}", path.display()))
}

fn parse_findings(text: &str) -> Result<(String, PathBuf), String> {
    let (repository, file) = text.split_once('=').ok_or("give REPOSITORY=FILE")?;
    Ok((repository.to_owned(), PathBuf::from(file)))
}

fn parse_oidc(text: &str) -> Result<(String, PathBuf), String> {
    let (issuer, file) = text.split_once('=').ok_or("give ISSUER=JWKS-FILE or ISSUER=s3://BUCKET")?;
    if issuer.contains("://") {
        return Err("give the issuer without `https://`".to_owned());
    }
    Ok((issuer.to_owned(), PathBuf::from(file)))
}

fn parse_image(text: &str) -> Result<(String, ContainerImage), String> {
    let (name, root) = text.split_once('=').ok_or("give NAME=DIR, NAME=overlay:DIR or NAME=engine:IMAGE")?;
    if let Some(image) = root.strip_prefix("engine:") {
        return Ok((name.to_owned(), ContainerImage::Engine(image.to_owned())));
    }
    let directory = PathBuf::from(root.strip_prefix("overlay:").unwrap_or(root));
    if !directory.is_dir() {
        return Err(format!("{} is not a directory", directory.display()));
    }
    let is_root = directory == Path::new(root);
    Ok((name.to_owned(), if is_root { ContainerImage::Root(directory) } else { ContainerImage::Overlaid(directory) }))
}

fn parse_ecr_image(text: &str) -> Result<EcrImage, String> {
    let parts = text.split_once('=').and_then(|(image, platforms)| Some((image.split_once('@')?, platforms)));
    let ((repository, digest), platforms) = parts.ok_or("give REPOSITORY@sha256:DIGITS=linux/amd64")?;
    let platforms = platforms.split(',').map(str::to_owned).collect();
    Ok(EcrImage { repository: repository.to_owned(), digest: digest.to_owned(), platforms })
}

fn profiles(args: &EmulatorArgs) -> BTreeMap<String, Profile> {
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    for (name, user) in &args.image_users {
        profiles.entry(name.clone()).or_default().user = Some(*user);
    }
    for (name, (key, value)) in &args.image_env {
        profiles.entry(name.clone()).or_default().environment.insert(key.clone(), value.clone());
    }
    for (name, size) in &args.root_sizes {
        profiles.entry(name.clone()).or_default().root_size = Some(*size);
    }
    profiles
}

fn parse_image_user(text: &str) -> Result<(String, host::User), String> {
    let (name, user) = text.split_once('=').ok_or("give NAME=UID or NAME=UID:GID")?;
    Ok((name.to_owned(), user.parse()?))
}

fn parse_image_env(text: &str) -> Result<(String, (String, String)), String> {
    let parts = text.split_once('=').and_then(|(name, pair)| Some((name, pair.split_once('=')?)));
    let (name, (key, value)) = parts.ok_or("give NAME=KEY=VALUE")?;
    Ok((name.to_owned(), (key.to_owned(), value.to_owned())))
}

fn parse_root_size(text: &str) -> Result<(String, u64), String> {
    let (name, size) = text.split_once('=').ok_or("give NAME=SIZE")?;
    Ok((name.to_owned(), host::parse_size(size)?))
}

fn parse_quota(text: &str) -> Result<(String, f64), String> {
    let (operation, rate) = text.split_once('=').ok_or("give OPERATION=RATE or TYPE=COUNT")?;
    let rate: f64 = rate.parse().map_err(|_| format!("{rate} is not a number"))?;
    if !rate.is_finite() || rate < 0.0 {
        return Err("the rate must not be negative".to_owned());
    }
    if is_instance_quota(operation) && rate.fract() != 0.0 {
        return Err("the number of instances must be whole".to_owned());
    }
    Ok((operation.to_owned(), rate))
}

fn parse_scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale: &f64| (0.0..=1000.0).contains(scale));
    scale.ok_or_else(|| "give a number from 0 to 1000".to_owned())
}

/// Whether a quota is one of instances: `ml.g5.xlarge`, `spot:ml.g5.xlarge`.
fn is_instance_quota(name: &str) -> bool {
    name.rsplit(':').next().is_some_and(|name| name.starts_with("ml."))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and not negative, checked before")]
fn whole(count: f64) -> u64 {
    count as u64
}

fn parse_file_system(text: &str) -> Result<(String, PathBuf), String> {
    let (id, folder) = text.split_once('=').ok_or("give ID=FOLDER")?;
    if !Path::new(folder).is_dir() {
        return Err(format!("{folder} is not a directory"));
    }
    Ok((id.to_owned(), PathBuf::from(folder)))
}
