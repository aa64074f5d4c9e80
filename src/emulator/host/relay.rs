//! The relay between Unix sockets and the ports of a private network; runs inside that network.
//!
//! Connections to the socket `--inward` go to a port of the network's loopback, and connections to the port of `--outward` go to the
//! socket beside it. It ends with its standard input, which the emulator holds.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, copy_bidirectional};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Arguments of the hidden command that the emulator starts in a private network.
#[derive(Debug, Clone, Args)]
pub struct RelayArgs {
    /// Unix socket whose connections go to the port
    #[arg(long, value_name = "SOCKET")]
    pub inward: PathBuf,
    /// Port of the private network
    #[arg(long)]
    pub port: u16,
    /// Unix socket to which connections of the address `--outward-address` go
    #[arg(long, value_name = "SOCKET", requires = "outward_address")]
    pub outward: Option<PathBuf>,
    /// Address of the private network that stands for one outside
    #[arg(long, value_name = "ADDRESS")]
    pub outward_address: Option<SocketAddr>,
}

/// Serves until standard input ends; calls `ready` once it listens.
pub(crate) async fn serve(args: RelayArgs, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let inward = listen(&args.inward)?;
    let outward = match (args.outward, args.outward_address) {
        (Some(socket), Some(address)) => {
            let listener = TcpListener::bind(address).await;
            Some((listener.with_context(|| format!("failed to listen on {address}"))?, socket))
        }
        _ => None,
    };
    ready()?;
    let leave = async {
        let Some((listener, socket)) = &outward else { return std::future::pending().await };
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(join(stream, UnixStream::connect(socket.clone())));
        }
    };
    let input = std::io::stdin().as_fd().try_clone_to_owned().context("failed to use standard input")?;
    let mut input = pipe::Receiver::from_owned_fd(input).context("failed to use standard input")?;
    let mut byte = [0];
    tokio::select! {
        () = forward(&inward, port) => {}
        () = leave => {}
        _ = input.read(&mut byte) => {}
    }
    Ok(())
}

/// A socket in a folder that only we can enter.
pub(super) fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    UnixListener::bind(socket).with_context(|| {
        format!("failed to listen on the socket {} (a path of more than 107 bytes is too long)", socket.display())
    })
}

/// Hands each connection on to an address, until the socket fails.
pub(super) async fn forward(listener: &UnixListener, to: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(join(stream, TcpStream::connect(to)));
    }
}

/// Copies in both directions until both ends are closed. A connection that cannot be made closes the other.
async fn join<A, B>(mut one: A, other: impl Future<Output = std::io::Result<B>>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    if let Ok(mut other) = other.await {
        drop(copy_bidirectional(&mut one, &mut other).await);
    }
}
