//! The network of containers: this machine's, or a loopback alone.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::error::SetupError;

/// The network that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// This machine's own.
    Host,
    /// A loopback of its own, and no route.
    Loopback,
    /// The network of this namespace, `/proc/PID/ns/net`, which other processes share.
    Shared(PathBuf),
}

/// A namespace with a loopback and no route, for several containers. Dropped, it ends once they have.
#[derive(Debug)]
pub struct SharedLoopback {
    holder: Child,
}

impl SharedLoopback {
    /// # Errors
    /// When this machine offers no such namespace: containers must not get a network instead.
    pub async fn create() -> anyhow::Result<Self> {
        let refused = || {
            SetupError::new("failed to make a network for several isolated containers: `unshare --net` or `ip link set lo up` failed")
                .hint("run the emulator as root, and install `util-linux` and `iproute2`; one isolated container alone needs neither")
        };
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "PATH=\"$PATH:/usr/sbin:/sbin\"; ip link set lo up && echo up && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut holder = command.spawn().context("failed to start `unshare`")?;
        let said = holder.stdout.take().context("failed to read from `unshare`")?;
        let line = BufReader::new(said).lines().next_line().await?;
        if line.is_none() {
            return Err(refused().into());
        }
        Ok(Self { holder })
    }

    pub fn network(&self) -> anyhow::Result<ContainerNetwork> {
        let id = self.holder.id().context("the process that holds the network has ended")?;
        Ok(ContainerNetwork::Shared(PathBuf::from(format!("/proc/{id}/ns/net"))))
    }
}
