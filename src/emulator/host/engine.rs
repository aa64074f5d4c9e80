//! Runs a container by podman or docker, for images that have to be pulled.
//!
//! The engine's client passes on output and exit code; signals go through the engine. The container is always removed.

use std::path::Path;
use std::process::{Command, Stdio};

use tokio::sync::mpsc;

use super::isolation::answers;
use super::network::ContainerNetwork;
use super::process::{Control, HostProcess, Outcome, supervise};
use super::spec::{ContainerExit, ContainerSpec, StopSignals, environment};
use crate::error::SetupError;

/// Exit code of podman and docker when they could not start the container.
const ENGINE_FAILED: i32 = 125;

pub(super) async fn run(
    spec: &ContainerSpec,
    image: &str,
    output: mpsc::Sender<Vec<u8>>,
    signals: &StopSignals,
) -> anyhow::Result<ContainerExit> {
    let engine = find(image, &spec.scratch).await?;
    let name = format!("sagemaker-executor-{}", spec.id);
    let removal = Removal { engine, name: Some(name.clone()) };
    answers(engine, &["rm", "--force", &name], &[], &spec.scratch).await; // Left by an emulator that was killed.
    let mut command = Command::new(engine);
    let network = match spec.network {
        ContainerNetwork::Host => "host",
        ContainerNetwork::Loopback => "none",
        ContainerNetwork::Shared(_) => {
            let why = "failed to run several isolated containers by an engine: they would have no way to each other";
            return Err(SetupError::new(why).hint("use `host` or an unpacked root directory as the image").into());
        }
    };
    command.args(["run", "--name", &name, "--network", network, "--hostname", &spec.hostname]);
    for (name, address) in &spec.hosts {
        command.arg("--add-host").arg(format!("{name}:{address}"));
    }
    command.arg("--volume").arg(format!("{}:/opt/ml", spec.opt_ml.display()));
    for mount in &spec.mounts {
        let mode = if mount.writable { "" } else { ":ro" };
        command.arg("--volume").arg(format!("{}:{}{mode}", mount.from.display(), mount.at.display()));
    }
    for (name, value) in environment(spec).into_iter().filter(|(name, _)| spec.environment.contains_key(*name)) {
        if name.starts_with("AWS_CONTAINER_") {
            // It leads to the role's credentials, and `ps` shows command lines to everybody.
            command.args(["--env", name]).env(name, value);
        } else {
            command.args(["--env", &format!("{name}={value}")]);
        }
    }
    if let Some(program) = spec.entrypoint.first() {
        command.args(["--entrypoint", program]);
    }
    command.arg(image).args(spec.entrypoint.iter().skip(1)).args(&spec.arguments);
    let process = HostProcess::spawn(command).await?;
    let control = Control::Engine { program: engine, container: name };
    let Outcome { code, started, killed, head, .. } = supervise(process, &control, output, signals).await?;
    removal.now().await;
    if code == ENGINE_FAILED && !killed {
        let said = String::from_utf8_lossy(&head);
        return Err(SetupError::new(format!("failed to run image {image} with {engine}: {}", said.trim()))
            .hint(format!("try `{engine} run --rm {image}` by hand"))
            .into());
    }
    Ok(ContainerExit { code, started })
}

/// The engine that answers on this machine.
pub(super) async fn find(image: &str, directory: &Path) -> anyhow::Result<&'static str> {
    for program in ["podman", "docker"] {
        if answers(program, &["info"], &[], directory).await {
            return Ok(program);
        }
    }
    Err(SetupError::new(format!("failed to run image {image}: neither podman nor docker answers on this machine"))
        .hint("install podman or start docker (`podman info` or `docker info` must succeed), or unpack the image and give its root directory")
        .into())
}

/// Removes the container in any state, at the latest when dropped.
struct Removal {
    engine: &'static str,
    name: Option<String>,
}

impl Removal {
    async fn now(mut self) {
        if let Some(name) = self.name.take() {
            answers(self.engine, &["rm", "--force", &name], &[], Path::new("/")).await;
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else { return };
        let mut command = Command::new(self.engine);
        command.args(["rm", "--force", &name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A destructor cannot wait for an engine; the thread reaps the client.
        let reap = move || drop(command.status());
        let _ = std::thread::Builder::new().name("container removal".into()).spawn(reap);
    }
}
