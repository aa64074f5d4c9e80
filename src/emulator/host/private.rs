//! A network for one container alone, whose port is reached through a Unix socket: any number of containers may listen on the
//! same port. Needs bubblewrap, and no root.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

use super::network::ContainerNetwork;
use super::relay::{forward, listen};
use crate::error::SetupError;

/// Name of the hidden command that runs the relay.
const COMMAND: &str = "emulator-relay";

/// A private network; it ends with the value.
#[derive(Debug)]
pub struct PrivateNetwork {
    socket: PathBuf,
    process: u32,
    _relay: Child,
    _way_out: Option<AbortOnDropHandle<()>>,
}

impl PrivateNetwork {
    /// Makes a network whose port `port` is reached by the socket [`PrivateNetwork::socket`]; `outside` is an address of this machine that
    /// exists in it too. The sockets are in `folder`.
    ///
    /// # Errors
    /// When there is no bubblewrap, namespaces are forbidden, or this program has no relay.
    pub async fn create(folder: &Path, port: u16, outside: Option<SocketAddr>) -> anyhow::Result<Self> {
        let program = std::fs::read_link("/proc/self/exe").context("failed to find this program")?;
        let (socket, outward) = (folder.join("in"), folder.join("out"));
        let mut command = Command::new("bwrap");
        command.args(["--unshare-net", "--dev-bind", "/", "/", "--die-with-parent", "--"]).arg(program).arg(COMMAND);
        command.args(["--port", &port.to_string(), "--inward"]).arg(&socket);
        let mut way_out = None;
        if let Some(address) = outside {
            command.args(["--outward-address", &address.to_string(), "--outward"]).arg(&outward);
            let listener = listen(&outward)?;
            way_out = Some(AbortOnDropHandle::new(tokio::spawn(async move { forward(&listener, address).await })));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut relay = command.spawn().context("failed to start `bwrap`")?;
        let said = relay.stdout.take().context("failed to read from `bwrap`")?;
        let line = BufReader::new(said).lines().next_line().await?;
        let process = line.and_then(|line| line.parse().ok()).ok_or_else(|| {
            SetupError::new("failed to make a network for a container: `bwrap --unshare-net` did not start the relay")
                .hint("install the package `bubblewrap`, and allow user namespaces on this host (`sysctl user.max_user_namespaces`)")
        })?;
        Ok(Self { socket, process, _relay: relay, _way_out: way_out })
    }

    /// The network, for a container.
    pub fn network(&self) -> ContainerNetwork {
        ContainerNetwork::Shared(PathBuf::from(format!("/proc/{}/ns/net", self.process)))
    }

    /// The socket that leads to the port. One on which nothing listens closes the connection.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}
