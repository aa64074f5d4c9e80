//! A local AWS that speaks the real protocols on loopback and really runs training jobs.
//!
//! `SageMaker`, `CloudWatch` Logs, S3 and STS answer on one port. It shares no code with the driver: a test double with the
//! driver's own mistakes would not find them. Objects live on disk below the data directory; jobs and logs live in memory and end
//! with the process. It listens on loopback only, takes only requests that are signed with a secret made at its start, and never
//! talks to AWS.

mod args;
mod authentication;
mod authorization;
mod caller;
mod clock;
mod config;
mod control;
mod credentials;
mod error;
mod event;
mod faults;
mod gate;
pub mod host;
mod iam;
mod model;
mod package_names;
mod paging;
mod protocol;
mod quirks;
mod secret_names;
mod server;
mod service;
mod services;
mod shared;
mod sigv4;
mod store;
mod tags;
mod validate;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::args::EmulatorArgs;
pub use self::config::{Delays, EcrImage, EmulatorConfig};
pub use self::credentials::Credentials;
use self::credentials::create_private;
pub use self::error::SetupError;
pub use self::faults::{CallFault, DropPoint, EndpointFault, FaultPlan, JobFault, JobTrouble, LogFault, PackageFault};
use self::gate::Gate;
pub use self::host::{ContainerImage, Profile, RelayArgs};
pub use self::quirks::Quirks;
use self::shared::Shared;
pub use self::sigv4::Unsigned;
use self::store::Store;

/// The second line of the command's output.
const NOT_CHECKED: &str = "not checked: IAM policies without --iam, whether subnets, security groups and KMS keys exist, and \
                           pulls from a registry (docs/EMULATOR.md)";

/// How long a shutdown waits for containers and connections.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A running emulator. Dropping it begins the shutdown; [`Emulator::stop`] also waits for it.
pub struct Emulator {
    shared: Arc<Shared>,
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
            .hint("use `--listen 127.0.0.1:PORT`: the emulator runs commands on this machine")
            .into());
        }
        let (jobs, folder, shared) = (config.jobs_folder(), config.data_dir.join("s3"), config.shared_folder());
        let open = move || {
            // Containers of an earlier start may have changed these files. Those that cannot be removed only cost space.
            drop(std::fs::remove_dir_all(shared));
            drop(host::discard(&jobs));
            create_private(&jobs)?;
            create_private(&folder)?;
            Store::open(folder)
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
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.with_context(|| format!("failed to listen on {}", config.listen))?;
        let endpoint = format!("http://{}", listener.local_addr().context("failed to read the port")?);
        let shared = Arc::new(Shared::new(config, endpoint)?);
        shared.keys.write(&shared.config.data_dir)?;
        let gate = Arc::new(Gate::new(&shared, store));
        shared.tasks.spawn(server::serve(gate, listener));
        Ok(Self { shared })
    }

    /// `http://127.0.0.1:PORT`, for all services.
    pub fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    /// The administrator's credentials, to sign requests with; the file `credentials` in the data directory holds the same.
    pub fn credentials(&self) -> &Credentials {
        self.shared.keys.administrator()
    }

    /// Kills the containers, closes the connections and waits for both, ten seconds at most.
    pub async fn stop(self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("the emulator did not end all of its tasks in time");
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
    }
}

/// Runs the command: starts an emulator, prints its address, and serves until `shutdown` is canceled.
pub async fn run(args: EmulatorArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ready_file = args.ready_file.clone();
    let emulator = Emulator::start(EmulatorConfig::try_from(args)?).await?;
    {
        let mut out = std::io::stdout().lock();
        let (endpoint, file) = (emulator.endpoint(), credentials::file(&emulator.shared.config.data_dir));
        // The file's name rather than the secret: this output often goes to a log that others may read.
        let lines = format!(
            "listening on {endpoint}\n{NOT_CHECKED}\nunset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN \
             AWS_PROFILE\nexport AWS_ENDPOINT_URL={endpoint} AWS_SHARED_CREDENTIALS_FILE={}\n",
            host::quote(&file)
        );
        out.write_all(lines.as_bytes()).and_then(|()| out.flush()).context("failed to print")?;
    }
    if let Some(path) = ready_file {
        announce(&path, emulator.endpoint())?;
    }
    shutdown.cancelled().await;
    emulator.stop().await;
    Ok(())
}

/// Runs the hidden command that joins a container's private network with Unix sockets.
pub async fn relay(args: RelayArgs) -> anyhow::Result<()> {
    let ready = || {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", std::process::id()).and_then(|()| out.flush()).context("failed to print")
    };
    host::relay(args, ready).await
}

/// Writes the ready file with the endpoint, atomically.
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

#[cfg(test)]
mod tests;
