//! A local AWS that speaks the real protocols on loopback and really runs training jobs.
//!
//! `SageMaker`, `CloudWatch` Logs, S3 and STS answer on one port. It uses nothing of the driver: a judge that shares code
//! with the judged proves nothing. Objects live on disk below the data directory; jobs and logs live in memory and end
//! with the process. It takes test credentials only, listens on loopback only, and never talks to AWS.

mod channels;
mod clock;
mod constraints;
mod error;
mod faults;
pub mod host;
mod ingest;
mod job;
mod life;
mod logs;
mod protocol;
mod quirks;
mod s3;
mod sagemaker;
mod server;
mod store;
mod stream;
mod sts;
mod validate;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::error::SetupError;
pub use self::faults::{CallFault, DropPoint, FaultPlan, JobFault, JobTrouble, LogFault};
pub use self::host::{Image, Profile};
pub use self::quirks::Quirks;

/// Where containers get the credentials of their role.
const ROLE_PATH: &str = "/v2/credentials/";
/// What the access keys of roles begin with.
const ROLE_KEY_PREFIX: &str = "EMULATORROLE";
/// Folder of the data directory for files that containers share.
const SHARED: &str = "shared";
/// How long a shutdown waits for containers and connections.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Run a local AWS emulator: SageMaker training jobs, CloudWatch Logs, S3 and STS on one port
///
/// Use AWS_ACCESS_KEY_ID=test and AWS_SECRET_ACCESS_KEY=test, and set AWS_ENDPOINT_URL to the printed address. Training
/// jobs really run, in containers on this machine.
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
    /// Use DIR as the root of containers of the image NAME, or `engine:IMAGE` to run it with podman or docker; may be
    /// repeated
    #[arg(long = "image", value_name = "NAME=DIR", value_parser = parse_image)]
    pub images: Vec<(String, Image)>,
    /// Start containers of the image NAME as this user, like `USER` in its Dockerfile; may be repeated. Needs root
    #[arg(long = "image-user", value_name = "NAME=UID[:GID]", value_parser = parse_image_user)]
    pub image_users: Vec<(String, host::User)>,
    /// Give containers of the image NAME this variable, like `ENV` in its Dockerfile; may be repeated
    #[arg(long = "image-env", value_name = "NAME=KEY=VALUE", value_parser = parse_image_env)]
    pub image_env: Vec<(String, (String, String))>,
    /// Let containers of the image NAME write only so much outside /tmp and /opt/ml: `64M`, `1G`; may be repeated
    #[arg(long = "root-size", value_name = "NAME=SIZE", value_parser = parse_root_size)]
    pub root_sizes: Vec<(String, u64)>,
    /// Fail jobs whose image is not given with --image, instead of running them on this machine's root
    #[arg(long)]
    pub strict_images: bool,
    /// Account id in ARNs
    #[arg(long, default_value = "000000000000", value_name = "ID")]
    pub account: String,
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
    /// Time between SIGTERM and SIGKILL when a job is stopped
    #[arg(long, default_value = "120s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub stop_grace: Duration,
    /// Time log lines are gathered before they become visible
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub log_delay: Duration,
    /// Time until gathered log lines are ingested: random for each batch, up to this
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub log_lag: Duration,
    /// Set all delays of jobs and logs to zero
    #[arg(long)]
    pub no_delays: bool,
    /// Turn one nuisance of the real services off; may be repeated
    #[arg(long = "without", value_name = "QUIRK", value_parser = Quirks::NAMES)]
    pub without: Vec<String>,
    /// Requests a second that an operation allows; 0 lifts the quota; may be repeated
    #[arg(long = "quota", value_name = "OPERATION=RATE", value_parser = parse_quota)]
    pub quotas: Vec<(String, f64)>,
    /// Fault plan to begin with, as JSON; `PUT /_emulator/faults` replaces it
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
    /// Give containers large files of their channels as links to one copy: for hundreds of jobs. What one container does to
    /// such a file, all see
    #[arg(long)]
    pub share_channels: bool,
    /// Seed of everything random
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
}

/// Time a job spends in each phase, besides its real work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    pub starting: Duration,
    pub pending: Duration,
    pub downloading: Duration,
    pub training: Duration,
    pub uploading: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { starting: second, pending: Duration::ZERO, downloading: second, training: second, uploading: second }
    }
}

impl Delays {
    /// Jobs go through their phases as fast as they can.
    pub fn none() -> Self {
        let none = Duration::ZERO;
        Self { starting: none, pending: none, downloading: none, training: none, uploading: none }
    }
}

/// How an emulator behaves.
#[derive(Debug, Clone)]
pub struct EmulatorConfig {
    /// Loopback only; port 0 takes a free one.
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub buckets: Vec<String>,
    pub account: String,
    /// Roots of images by their name.
    pub images: BTreeMap<String, Image>,
    /// User, environment and size of the root of images by their name.
    pub profiles: BTreeMap<String, Profile>,
    /// Whether an image that is not listed fails its job.
    pub strict_images: bool,
    pub delays: Delays,
    pub stop_grace: Duration,
    pub quirks: Quirks,
    /// Requests a second by operation, over the built-in quotas; 0 lifts one.
    pub quotas: BTreeMap<String, f64>,
    pub faults: FaultPlan,
    /// Whether large files of channels are links to one copy for all containers.
    pub share_channels: bool,
    pub seed: u64,
}

impl EmulatorConfig {
    /// The defaults of the command line.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: data_dir.into(),
            buckets: Vec::new(),
            account: "000000000000".to_owned(),
            images: BTreeMap::new(),
            profiles: BTreeMap::new(),
            strict_images: false,
            delays: Delays::default(),
            stop_grace: Duration::from_mins(2),
            quirks: Quirks::default(),
            quotas: BTreeMap::new(),
            faults: FaultPlan::default(),
            share_channels: false,
            seed: 1,
        }
    }

    /// Without any delay of jobs and logs; the other quirks stay.
    #[must_use]
    pub fn without_delays(mut self) -> Self {
        self.delays = Delays::none();
        self.quirks.batch_delay = Duration::ZERO;
        self.quirks.ingestion_lag = Duration::ZERO;
        self
    }

    fn image(&self, name: &str) -> Option<Image> {
        match self.images.get(name) {
            Some(image) => Some(image.clone()),
            None => (!self.strict_images).then_some(Image::Host),
        }
    }
}

impl TryFrom<EmulatorArgs> for EmulatorConfig {
    type Error = anyhow::Error;

    fn try_from(args: EmulatorArgs) -> anyhow::Result<Self> {
        let faults = args.faults.as_deref().map(read_plan).transpose()?.unwrap_or_default();
        let profiles = profiles(&args);
        let mut quirks = Quirks { batch_delay: args.log_delay, ingestion_lag: args.log_lag, ..Quirks::default() };
        for name in &args.without {
            quirks.turn_off(name);
        }
        let config = Self {
            listen: args.listen,
            data_dir: args.data_dir,
            buckets: args.buckets,
            account: args.account,
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
            stop_grace: args.stop_grace,
            quirks,
            quotas: args.quotas.into_iter().collect(),
            faults,
            share_channels: args.share_channels,
            seed: args.seed,
        };
        Ok(if args.no_delays { config.without_delays() } else { config })
    }
}

/// What all halves share.
#[derive(Debug)]
struct Core {
    config: EmulatorConfig,
    endpoint: String,
    jobs: Mutex<BTreeMap<String, job::Job>>,
    store: Arc<store::Store>,
    logs: logs::Logs,
    faults: faults::Faults,
    quotas: quirks::Quotas,
    counts: Mutex<BTreeMap<String, u64>>,
    roles: Mutex<std::collections::BTreeSet<String>>,
    numbers: AtomicU64,
    started_ms: u64,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    means: tokio::sync::OnceCell<host::Means>,
}

impl Core {
    /// What this machine offers for containers; tried out once.
    async fn means(&self) -> anyhow::Result<host::Means> {
        self.means.get_or_try_init(|| host::Means::detect(&self.config.data_dir)).await.copied()
    }

    /// Where the files are that containers share.
    fn shared_folder(&self) -> PathBuf {
        self.config.data_dir.join(SHARED)
    }

    /// Puts a fault plan in force; all counts begin at zero.
    fn set_faults(&self, plan: FaultPlan) {
        self.quotas.change(&plan.quotas);
        self.faults.set(plan);
    }

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, job::Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job_arn(&self, region: &str, name: &str) -> String {
        format!("arn:aws:sagemaker:{region}:{}:training-job/{name}", self.config.account)
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// An identifier in the form of a UUID, never the same twice.
    fn request_id(&self) -> String {
        let number = self.next_number();
        let (high, low) = (quirks::mixed(self.started_ms, "id", number), quirks::mixed(number, "id", self.started_ms));
        let hex = format!("{high:016x}{low:016x}");
        let cut = |from, to| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", cut(0, 8), cut(8, 12), cut(12, 16), cut(16, 20), cut(20, 32))
    }

    fn count(&self, operation: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(operation.to_owned()).or_default() += 1;
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands out a role's identifier; its credentials can be read until it is returned.
    fn lend_role(&self) -> String {
        let role = self.request_id();
        self.roles.lock().unwrap_or_else(PoisonError::into_inner).insert(role.clone());
        role
    }

    fn return_role(&self, role: &str) {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner).remove(role);
    }

    fn has_role(&self, role: &str) -> bool {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner).contains(role)
    }
}

/// A running emulator. Dropping it stops everything soon; [`Emulator::stop`] waits for that.
#[derive(Debug)]
pub struct Emulator {
    core: Arc<Core>,
}

impl Emulator {
    /// Starts an emulator in this process. Needs a runtime with more than one thread if the caller blocks.
    ///
    /// Fails when the address is taken or not loopback, or the data directory cannot be used.
    pub async fn start(config: EmulatorConfig) -> anyhow::Result<Self> {
        if !config.listen.ip().is_loopback() {
            return Err(SetupError::new(format!(
                "failed to listen on {}: it is not a loopback address",
                config.listen
            ))
            .hint("use `--listen 127.0.0.1:PORT`: the emulator runs what anybody asks it to run")
            .into());
        }
        let (folder, shared) = (config.data_dir.join("s3"), config.data_dir.join(SHARED));
        let open = move || {
            // An earlier start's containers may have changed these. What cannot be removed only costs space.
            drop(std::fs::remove_dir_all(shared));
            store::Store::open(folder)
        };
        let store = Arc::new(tokio::task::spawn_blocking(open).await??);
        for bucket in &config.buckets {
            if !s3s::path::check_bucket_name(bucket) {
                return Err(SetupError::new(format!("failed to create the bucket {bucket}: the name is not valid"))
                    .hint("give `--bucket` 3 to 63 lower case letters, digits and hyphens")
                    .into());
            }
            store.create_bucket(bucket).with_context(|| format!("failed to create the bucket {bucket}"))?;
        }
        let listener = server::bind(config.listen).await?;
        let endpoint = format!("http://{}", listener.local_addr().context("failed to read the port")?);
        let core = Arc::new(Core {
            endpoint,
            jobs: Mutex::default(),
            logs: logs::Logs::new(config.account.clone(), config.seed, &config.quirks),
            faults: faults::Faults::new(config.faults.clone(), config.seed),
            quotas: quirks::Quotas::new(&config.quotas),
            counts: Mutex::default(),
            roles: Mutex::default(),
            numbers: AtomicU64::new(1),
            started_ms: clock::now_ms(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            means: tokio::sync::OnceCell::new(),
            store: Arc::clone(&store),
            config,
        });
        core.quotas.change(&core.config.faults.quotas);
        core.tasks.spawn(server::serve(Arc::clone(&core), listener, s3::service(store)));
        Ok(Self { core })
    }

    /// `http://127.0.0.1:PORT`, for all services.
    pub fn endpoint(&self) -> &str {
        self.core.endpoint()
    }

    /// Requests so far by operation, also those that were refused.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.core.counts()
    }

    /// Puts a fault plan in force; its counts begin at zero.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.core.set_faults(plan);
    }

    /// Kills the containers, closes the connections and waits for both, ten seconds at most.
    pub async fn stop(self) {
        self.core.shutdown.cancel();
        self.core.tasks.close();
        if tokio::time::timeout(SHUTDOWN, self.core.tasks.wait()).await.is_err() {
            tracing::warn!("the emulator did not end all of its tasks in time");
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.core.shutdown.cancel();
    }
}

/// Runs the command: starts an emulator, says where, and serves until `shutdown` is canceled.
pub async fn run(args: EmulatorArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ready_file = args.ready_file.clone();
    let emulator = Emulator::start(EmulatorConfig::try_from(args)?).await?;
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on {}", emulator.endpoint()).and_then(|()| out.flush()).context("failed to print")?;
    }
    if let Some(path) = ready_file {
        announce(&path, emulator.endpoint())?;
    }
    shutdown.cancelled().await;
    emulator.stop().await;
    Ok(())
}

/// Writes the endpoint so that a reader sees all of it or nothing.
fn announce(path: &Path, endpoint: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(endpoint.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("failed to write the ready file {}", path.display()))
}

fn read_plan(path: &Path) -> anyhow::Result<FaultPlan> {
    let content = std::fs::read(path).with_context(|| format!("failed to read the fault plan {}", path.display()))?;
    serde_json::from_slice(&content).with_context(|| format!("failed to understand the fault plan {}", path.display()))
}

fn parse_image(text: &str) -> Result<(String, Image), String> {
    let (name, root) = text.split_once('=').ok_or("give NAME=DIR or NAME=engine:IMAGE")?;
    let image = match root.strip_prefix("engine:") {
        Some(image) => Image::Engine(image.to_owned()),
        None if Path::new(root).is_dir() => Image::Root(PathBuf::from(root)),
        None => return Err(format!("{root} is not a directory")),
    };
    Ok((name.to_owned(), image))
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
    let (operation, rate) = text.split_once('=').ok_or("give OPERATION=RATE")?;
    let rate: f64 = rate.parse().map_err(|_| format!("{rate} is not a number"))?;
    if !rate.is_finite() || rate < 0.0 {
        return Err("the rate must not be negative".to_owned());
    }
    Ok((operation.to_owned(), rate))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::Value;

    use super::*;

    async fn emulator(change: impl FnOnce(&mut EmulatorConfig)) -> (tempfile::TempDir, Emulator) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = EmulatorConfig::new(folder.path()).without_delays();
        change(&mut config);
        let emulator = Emulator::start(config).await.unwrap();
        (folder, emulator)
    }

    #[tokio::test]
    async fn a_plan_eats_from_a_quota_until_the_next_one() {
        let start = Instant::now();
        let others_take_nine = r#"{"quotas": {"FilterLogEvents": 1}}"#;
        let (_folder, emulator) =
            emulator(|config| config.faults = serde_json::from_str(others_take_nine).unwrap()).await;
        let admitted = || (0..20).filter(|_| emulator.core.quotas.admit("FilterLogEvents", start)).count();
        assert_eq!(admitted(), 1);
        emulator.set_faults(FaultPlan::default());
        assert_eq!(admitted(), 10);
        emulator.set_faults(serde_json::from_str(r#"{"quotas": {"FilterLogEvents": 0}}"#).unwrap());
        assert_eq!(admitted(), 20);
        emulator.stop().await;
    }

    #[tokio::test]
    async fn batches_are_ingested_late_and_in_order() {
        let lag = Duration::from_mins(1);
        let (_folder, emulator) = emulator(|config| config.quirks.ingestion_lag = lag).await;
        let before = clock::now_ms();
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        for number in 0..8 {
            sender.send(format!("{number}\n").into_bytes()).await.unwrap();
        }
        drop(sender);
        life::ship(Arc::clone(&emulator.core), "job/algo-1-1".into(), receiver).await;
        let dump = emulator.core.logs.dump("job/");
        let events: Vec<Value> = dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let times: Vec<u64> = events.iter().map(|event| event["ingestionTime"].as_u64().unwrap()).collect();
        assert_eq!(times.len(), 8);
        assert!(times.is_sorted(), "{times:?}");
        let latest = clock::now_ms() + u64::try_from(lag.as_millis()).unwrap();
        assert!(times.iter().all(|time| (before..latest).contains(time)), "{times:?}");
        assert!(times.iter().any(|time| *time > before + 1000), "{times:?}");
        assert_eq!(emulator.core.logs.dump("other/"), "");
        emulator.stop().await;
    }
}
