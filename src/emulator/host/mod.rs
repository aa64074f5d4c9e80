//! Runs one training container on this machine: namespaces by bubblewrap (or `unshare`), or a container engine.
//!
//! A container has its own processes, IPC, host name and files, and shares the machine's network, unless it is isolated: the agent talks to the
//! emulator on loopback. It is root inside with the usual capabilities of a container, and its entrypoint is PID 1.
//! Without bubblewrap and without an engine nothing runs. This module never writes outside the two directories
//! it is given, never leaves a mount on the host (mounts live in a namespace that ends with the container), and knows
//! nothing of training jobs: its caller fills `/opt/ml`.
//!
//! Limits: as an ordinary user only uid 0 exists inside, so `chown` to others, package managers that switch users and images
//! with a user of their own fail; `sudo` fails everywhere, since bubblewrap forbids new privileges. A container of another user
//! is built by `unshare` and `chroot`, because bubblewrap as root cannot change the user.

mod engine;
mod files;
mod isolation;
mod launch;
mod network;
mod private;
mod process;
mod profile;
mod relay;
mod rootfs;
mod spec;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::files::discard;
pub(super) use self::files::quote;
pub use self::isolation::{Isolation, Namespace};
use self::launch::prepare;
pub use self::network::{ContainerNetwork, SharedLoopback};
pub use self::private::PrivateNetwork;
use self::process::{Control, HostProcess};
pub(super) use self::profile::parse_size;
pub use self::profile::{Profile, User};
pub use self::relay::RelayArgs;
pub(super) use self::relay::serve as relay;
pub use self::spec::{BindMount, ContainerExit, ContainerImage, ContainerSpec, ImageSetup, Leftovers, StopSignals};
use crate::error::SetupError;

/// Runs a container to its end.
///
/// Output (stdout and stderr, one pipe) is sent in chunks as written, complete before this returns; when the receiver is gone
/// it is read and dropped. `stop` sends SIGTERM to PID 1 once and SIGKILL after `grace`; `kill` sends SIGKILL at once.
/// When this returns no process of the container lives. Dropping the future kills the container.
///
/// # Errors
/// When the container could not be set up: no bubblewrap, namespaces forbidden, an engine that does not answer. A container
/// that ran, however badly, is a [`ContainerExit`].
pub async fn run(
    spec: ContainerSpec,
    output: mpsc::Sender<Vec<u8>>,
    stop: CancellationToken,
    kill: CancellationToken,
    grace: Duration,
) -> anyhow::Result<ContainerExit> {
    fs::create_dir_all(&spec.scratch).with_context(|| format!("failed to create {}", spec.scratch.display()))?;
    let signals = StopSignals { stop, kill, grace };
    if let ContainerImage::Engine(image) = &spec.root {
        return engine::run(&spec, image, output, &signals).await;
    }
    let isolation = Isolation::detect(&spec.scratch).await?;
    run_with(spec, isolation, output, signals).await
}

/// Tries out whether this machine can run containers of `image`, which for an engine is only asked. What this leaves in the
/// directory `scratch`, [`discard`] removes.
///
/// # Errors
/// Those of [`run`], and when the image holds no `/bin/sh`.
pub async fn check(image: ContainerImage, scratch: &Path) -> anyhow::Result<()> {
    let opt_ml = scratch.join("opt-ml");
    fs::create_dir_all(&opt_ml).with_context(|| format!("failed to create {}", opt_ml.display()))?;
    if let ContainerImage::Engine(image) = &image {
        return engine::find(image, scratch).await.map(drop);
    }
    let spec = ContainerSpec {
        id: "check".to_owned(),
        root: image,
        profile: Profile::default(),
        entrypoint: ["/bin/sh", "-c", "exit 0"].map(str::to_owned).to_vec(),
        arguments: Vec::new(),
        environment: BTreeMap::new(),
        hostname: "check".to_owned(),
        hosts: Vec::new(),
        network: ContainerNetwork::Host,
        opt_ml,
        mounts: Vec::new(),
        scratch: scratch.to_owned(),
        leftovers: Leftovers::None,
    };
    let (output, mut said) = mpsc::channel(16);
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    let (exit, ()) =
        tokio::join!(run(spec, output, stop, kill, Duration::ZERO), async { while said.recv().await.is_some() {} });
    match exit?.code {
        0 => Ok(()),
        code => Err(SetupError::new(format!("failed to run `/bin/sh` of the image (exit code {code})"))
            .hint("a job needs an image with `/bin/sh`")
            .into()),
    }
}

/// [`run`] for [`ContainerImage::Host`] and [`ContainerImage::Root`] with the given isolation, so that tests can choose each.
pub async fn run_with(
    spec: ContainerSpec,
    isolation: Isolation,
    output: mpsc::Sender<Vec<u8>>,
    signals: StopSignals,
) -> anyhow::Result<ContainerExit> {
    let programs = spec.entrypoint.len() + spec.arguments.len();
    anyhow::ensure!(programs > 0, "failed to start container {}: it has neither entrypoint nor arguments", spec.id);
    anyhow::ensure!(
        spec.opt_ml.is_dir(),
        "failed to start container {}: {} is not a directory",
        spec.id,
        spec.opt_ml.display()
    );
    let isolation = spec.profile.fit(&spec.id, isolation)?;
    let setup = {
        let spec = spec.clone();
        let task = tokio::task::spawn_blocking(move || prepare(&spec, isolation));
        task.await.context("failed to prepare the container's root")??
    };
    let process = HostProcess::spawn(setup.command).await.context("failed to start the container")?;
    let status = setup.status;
    let control = if isolation.bubblewrap { Control::Bubblewrap { status } } else { Control::Unshare { status } };
    let outcome = process::supervise(process, &control, output, &signals).await?;
    if outcome.set_up || outcome.killed {
        return Ok(ContainerExit { code: outcome.code, started: outcome.started });
    }
    let said = String::from_utf8_lossy(&outcome.head);
    let failure = SetupError::new(format!("failed to set up container {}: {}", spec.id, said.trim()))
        .hint("allow user namespaces on this host (`sysctl user.max_user_namespaces`, and `kernel.apparmor_restrict_unprivileged_userns` on Ubuntu), or run as root");
    Err(failure.into())
}
