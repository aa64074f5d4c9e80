//! Supervises the host process of a container: starts it, passes on its output and signals, waits for its end.
//!
//! Dropping the [`HostProcess`] kills it. Nothing here is about images or files of the container.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::isolation::answers;
use super::spec::StopSignals;

/// Longest time that a stop waits for the entrypoint to be executed, so that its signal does not go to the launcher.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the first output that are kept to explain a failed set-up.
const HEAD: usize = 4096;

/// A child of its own thread: a parent-death signal is bound to the thread that started the child, and the runtime's threads
/// may come and go.
pub(super) struct HostProcess {
    pid: u32,
    handle: OwnedFd,
    exited: oneshot::Receiver<std::io::Result<ExitStatus>>,
    output: Option<pipe::Receiver>,
}

impl HostProcess {
    /// Starts the command with an empty stdin, stdout and stderr in one pipe.
    pub(super) async fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let (reader, writer) = std::io::pipe().context("failed to create a pipe")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone().context("failed to copy a pipe")?).stderr(writer);
        let (started, start) = oneshot::channel();
        let (ended, exited) = oneshot::channel();
        std::thread::Builder::new()
            .name("container".into())
            .spawn(move || {
                let child = command.spawn();
                drop(command); // Closes this side's copies of the pipe: its end must mean the container's end.
                let mut child = match child {
                    Ok(child) => child,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let opened = match Pid::from_raw(child.id().cast_signed()) {
                    Some(pid) => pidfd_open(pid, PidfdFlags::empty()).map_err(Into::into),
                    None => Err(std::io::ErrorKind::InvalidData.into()),
                };
                let lost = match opened {
                    Ok(handle) => started.send(Ok((child.id(), handle))).is_err(),
                    Err(error) => {
                        let _ = started.send(Err(error));
                        true
                    }
                };
                if lost {
                    let _ = child.kill();
                }
                let _ = ended.send(child.wait());
            })
            .context("failed to start a thread")?;
        let (pid, handle) = start.await.context("the container's thread ended")??;
        let mut process = Self { pid, handle, exited, output: None };
        process.output =
            Some(pipe::Receiver::from_owned_fd(reader.into()).context("failed to watch the container's output")?);
        Ok(process)
    }

    fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal); // The process may have ended meanwhile.
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        self.signal(Signal::KILL); // The end of bubblewrap or `unshare` kills PID 1, and with it the whole container.
    }
}

/// The way to the container's PID 1, for signals.
pub(super) enum Control {
    /// bubblewrap writes its status documents to this file.
    Bubblewrap { status: PathBuf },
    /// `unshare`, whose child is PID 1; the launch script writes a line to this file.
    Unshare { status: PathBuf },
    /// Through the engine's client.
    Engine { program: &'static str, container: String },
}

/// The end of the process.
pub(super) struct Outcome {
    pub(super) code: i32,
    /// The container was set up completely before it ended, so the exit code is its own.
    pub(super) set_up: bool,
    /// The entrypoint was executed.
    pub(super) started: bool,
    pub(super) killed: bool,
    pub(super) head: Vec<u8>,
}

/// Passes on output and signals until the end of the process and of its output.
pub(super) async fn supervise(
    mut process: HostProcess,
    control: &Control,
    output: mpsc::Sender<Vec<u8>>,
    signals: &StopSignals,
) -> anyhow::Result<Outcome> {
    let pipe = process.output.take().context("the container's output is read already")?;
    let watch = async {
        let (handle, pid) = (&process.handle, process.pid);
        let stopping = async {
            signals.stop.cancelled().await;
            control.terminate(pid).await;
            tokio::time::sleep(signals.grace).await;
        };
        let ended = tokio::select! {
            biased;
            ended = &mut process.exited => Some(ended),
            () = signals.kill.cancelled() => None,
            () = stopping => None,
        };
        let status = if let Some(ended) = ended {
            (ended, false)
        } else {
            control.kill(pid, handle).await;
            ((&mut process.exited).await, true)
        };
        (status.0.context("the container's thread ended").and_then(|status| Ok(status?)), status.1)
    };
    let ((status, killed), head) = tokio::join!(watch, carry(pipe, output));
    let head = head.context("failed to read the container's output")?;
    let status = status.context("failed to wait for the container")?;
    let (mut code, mut set_up) = (exit_code(status), control.set_up());
    // `unshare` cannot pass SIGKILL on: it fails at it with a code of its own.
    if killed && code == 1 && matches!(control, Control::Unshare { .. }) {
        code = 128 + Signal::KILL.as_raw();
    }
    // All namespaces and mounts are there, only the entrypoint is not; docker has a code of its own for each reason.
    if !set_up && head.starts_with(b"bwrap: execvp ") {
        set_up = true;
        code = if head.trim_ascii_end().ends_with(b"No such file or directory") { 127 } else { 126 };
    }
    let started = killed || !matches!(code, 126 | 127) || !control.says_no_entrypoint(&head);
    Ok(Outcome { code, set_up, started, killed, head })
}

/// The exit code, or 128 + signal as in shells.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}

/// Forwards the output as it is read and returns its first bytes. Reads to the end even when the receiver is gone.
async fn carry(mut pipe: pipe::Receiver, output: mpsc::Sender<Vec<u8>>) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = pipe.read(&mut buffer).await?;
        let chunk = buffer.get(..count).unwrap_or_default();
        if chunk.is_empty() {
            return Ok(head);
        }
        head.extend(chunk.iter().take(HEAD.saturating_sub(head.len())));
        let _ = output.send(chunk.to_vec()).await;
    }
}

impl Control {
    /// Whether the container was set up completely.
    fn set_up(&self) -> bool {
        match self {
            // bubblewrap tells an exit code only of a child that it has set up completely.
            Control::Bubblewrap { status } => {
                fs::read_to_string(status).is_ok_and(|status| status.contains("\"exit-code\""))
            }
            Control::Unshare { status } => status.exists(),
            Control::Engine { .. } => true,
        }
    }

    /// Whether the first output is the launcher's complaint that the entrypoint cannot be executed.
    fn says_no_entrypoint(&self, head: &[u8]) -> bool {
        let head = String::from_utf8_lossy(head);
        match self {
            Control::Bubblewrap { .. } => head.starts_with("bwrap: execvp "),
            // It is named with its full path.
            Control::Unshare { .. } => head.split(':').next().is_some_and(|program| program.ends_with("/chroot")),
            Control::Engine { .. } => {
                ["docker: Error", "Error: "].iter().any(|start| head.starts_with(start)) && head.contains("OCI runtime")
            }
        }
    }

    /// SIGTERM to PID 1, once it is the entrypoint. A PID 1 without a handler ignores it, as in any container.
    async fn terminate(&self, launcher: u32) {
        if let Control::Engine { program, container } = self {
            answers(program, &["kill", "--signal", "TERM", container], &[], Path::new("/")).await;
            return;
        }
        let patience = tokio::time::Instant::now() + START_PATIENCE;
        while !self.entrypoint_runs(launcher) && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(init) = self.open_init(launcher) {
            let _ = pidfd_send_signal(init, Signal::TERM);
        }
    }

    /// SIGKILL to PID 1, so that the launcher tells its end; to the launcher when there is no PID 1 yet.
    async fn kill(&self, launcher: u32, handle: &OwnedFd) {
        let killed = match self {
            Control::Engine { program, container } => answers(program, &["kill", container], &[], Path::new("/")).await,
            Control::Bubblewrap { .. } | Control::Unshare { .. } => {
                self.open_init(launcher).is_some_and(|init| pidfd_send_signal(init, Signal::KILL).is_ok())
            }
        };
        if !killed {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }

    fn init(&self, launcher: u32) -> Option<u32> {
        match self {
            Control::Bubblewrap { status } => {
                let status = fs::read_to_string(status).ok()?;
                let first =
                    serde_json::Deserializer::from_str(&status).into_iter::<serde_json::Value>().next()?.ok()?;
                first.get("child-pid")?.as_u64()?.try_into().ok()
            }
            Control::Unshare { .. } => {
                let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).ok()?;
                children.split_whitespace().next()?.parse().ok()
            }
            Control::Engine { .. } => None,
        }
    }

    fn open_init(&self, launcher: u32) -> Option<OwnedFd> {
        let init = self.init(launcher)?;
        let handle = pidfd_open(Pid::from_raw(init.cast_signed())?, PidfdFlags::empty()).ok()?;
        // Asked after the handle is open: a number that was given to another process meanwhile has another parent.
        let status = fs::read_to_string(format!("/proc/{init}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        (parent.trim().parse() == Ok(launcher)).then_some(handle)
    }

    fn entrypoint_runs(&self, launcher: u32) -> bool {
        match self {
            Control::Bubblewrap { .. } => {
                self.init(launcher).is_some_and(|init| executable(init) != executable(launcher))
            }
            Control::Unshare { .. } | Control::Engine { .. } => self.set_up(),
        }
    }
}

/// Device and inode of the program that a process runs; `None` when it has ended.
fn executable(pid: u32) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(Path::new("/proc").join(pid.to_string()).join("exe")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
