//! A connection through the sandbox's proxy, for programs that know no proxy: ssh calls it as its `ProxyCommand`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::config::env::Environment;
use crate::sandbox::head::Upstream;

/// Longest reply of the proxy before the tunnel begins.
const MOST_BYTES: usize = 64 << 10;

/// Arguments of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SandboxTunnelArgs {
    host: String,
    port: u16,
}

/// Connects standard input and output with a host.
pub fn run(args: &SandboxTunnelArgs, environment: &Environment) -> ExitCode {
    match connect(args, environment).and_then(|stream| copy(&stream)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "failed to reach {} port {}", args.host, args.port);
            ExitCode::FAILURE
        }
    }
}

fn connect(args: &SandboxTunnelArgs, environment: &Environment) -> anyhow::Result<TcpStream> {
    let proxy = environment.get("https_proxy").and_then(Upstream::parse).context("`https_proxy` names no proxy")?;
    let mut stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).context("failed to reach the proxy")?;
    stream.write_all(&proxy.tunnel(&args.host, args.port))?;
    // Byte by byte, because what follows is the other program's.
    let (mut reply, mut byte) = (Vec::new(), [0]);
    while !reply.ends_with(b"\r\n\r\n") && reply.len() < MOST_BYTES {
        stream.read_exact(&mut byte).context("the proxy ended the connection")?;
        reply.extend(byte);
    }
    let text = String::from_utf8_lossy(&reply);
    let status = text.lines().next().unwrap_or_default();
    anyhow::ensure!(status.split(' ').nth(1) == Some("200"), "the proxy refuses the connection: {status}");
    Ok(stream)
}

fn copy(mut stream: &TcpStream) -> anyhow::Result<()> {
    let (mut input, mut output) =
        (File::from(rustix::io::dup(rustix::stdio::stdin())?), File::from(rustix::io::dup(rustix::stdio::stdout())?));
    let mut sending = stream.try_clone()?;
    // Ends with the process: the other side may be done while the input is still open.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut input, &mut sending);
        let _ = sending.shutdown(Shutdown::Write);
    });
    std::io::copy(&mut stream, &mut output)?;
    Ok(())
}
