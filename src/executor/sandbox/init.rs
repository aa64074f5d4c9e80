//! The first process of a sandbox: opens the doors of its network, limits itself, starts the script, and ends with it.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::base::process::{ProcessGroup, Reaper};
use crate::sandbox::{channel, privileges, system_calls};

/// Interval in which root's processes are counted.
const COUNT: Duration = Duration::from_millis(250);

/// Arguments that the driver gives to the first process of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SandboxInitArgs {
    /// An address of the host's loopback that connections to the same address lead to
    #[arg(long)]
    pub(super) forward: Vec<SocketAddr>,
    /// Largest number of processes
    #[arg(long)]
    pub(super) processes: u64,
    /// Largest data of one process in bytes
    #[arg(long)]
    pub(super) memory: u64,
    /// Largest size of one file in bytes
    #[arg(long)]
    pub(super) file: u64,
    /// Refuse sockets of the file system
    #[arg(long)]
    pub(super) no_unix_sockets: bool,
    /// The shell and its arguments
    #[arg(last = true, required = true)]
    pub(super) command: Vec<OsString>,
}

/// Runs the script to its end and returns its exit code. Everything else in the sandbox ends with this process.
pub async fn run(args: SandboxInitArgs) -> ExitCode {
    match script(args).await {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "failed to start the script in the sandbox");
            ExitCode::FAILURE
        }
    }
}

async fn script(args: SandboxInitArgs) -> anyhow::Result<i32> {
    let socket = rustix::stdio::stdin().as_fd().try_clone_to_owned()?;
    // Ports below 1024 cannot be had; git still reaches them through the proxy.
    let mut listeners: Vec<TcpListener> =
        args.forward.iter().filter_map(|address| TcpListener::bind(address).ok()).collect();
    let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to listen in the sandbox")?;
    let url = format!("http://{}", proxy.local_addr()?);
    listeners.push(proxy);
    for (resource, most) in
        [(Resource::Nproc, args.processes), (Resource::Data, args.memory), (Resource::Fsize, args.file)]
    {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .context("failed to set a limit of the sandbox")?;
    }
    // With this limit the kernel neither writes a core file nor calls the host's program for them.
    setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) }).context("failed to forbid core files")?;
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        privileges::give_up()?;
    }
    // As in the helper container of GitLab's Docker executor, so that a checkout has the same modes; nobody else of the host can enter the job's
    // directories.
    rustix::process::umask(rustix::fs::Mode::empty());
    let _reaper = Reaper::start()?;
    system_calls::refuse(!args.no_unix_sockets)?;
    let mut group = ProcessGroup::spawn(command(&args.command, &url)?)?;
    channel::send_started(&socket, &listeners).context("failed to tell the driver that the script runs")?;
    drop(listeners);
    let mut driver = driver(socket)?;
    let mut asked = [0];
    let mut tick = tokio::time::interval(COUNT);
    loop {
        tokio::select! {
            // The kernel's limit does not bind root.
            _ = tick.tick(), if is_root => if threads() > args.processes {
                driver.write_all(channel::PROCESSES).await?;
                return Ok(1);
            },
            exit = group.wait() => return Ok(exit?.code),
            read = driver.read(&mut asked) => match read {
                Ok(0) | Err(_) => anyhow::bail!("the driver is gone"),
                Ok(_) => group.ask_to_end(),
            },
        }
    }
}

/// Threads of the sandbox; the largest number when they cannot be counted. A directory has a link for each directory in it, and two of its
/// own.
fn threads() -> u64 {
    let Ok(entries) = std::fs::read_dir("/proc") else { return u64::MAX };
    let entries = entries.flatten();
    let processes = entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let tasks = processes.filter_map(|process| std::fs::metadata(process.path().join("task")).ok());
    tasks.map(|tasks| tasks.nlink().saturating_sub(2)).sum()
}

fn driver(socket: OwnedFd) -> anyhow::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(UnixStream::from_std(socket)?)
}

fn command(words: &[OsString], proxy: &str) -> anyhow::Result<Command> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env(name, proxy).env(name.to_ascii_uppercase(), proxy);
    }
    command.env("no_proxy", "").env("NO_PROXY", "");
    Ok(command)
}
