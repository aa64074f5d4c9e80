//! Runs the host's build stages under bubblewrap, where they see and reach only what belongs to their job.
//!
//! The driver starts bubblewrap, which starts this program as the first process of new namespaces ([`init`]), which starts the script.
//! The network of the sandbox is a loopback alone: its first process opens sockets there and hands them to the driver, which serves them
//! (`proxy`).

mod bubblewrap;
mod cgroup;
mod channel;
mod disk;
mod head;
pub mod init;
mod own_program;
mod privileges;
mod proxy;
mod ssh;
mod system_calls;
pub mod tunnel;
mod view;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

pub use ssh::{SshFile, ssh_files};

use crate::base::destination::AllowedDestinations;
use crate::base::failure::Failure;
use crate::base::process::WaitsForItsChildren;
use crate::config::env::Environment;
use crate::config::settings::SandboxSettings;
use crate::sandbox::bubblewrap::BUBBLEWRAP;
use crate::sandbox::cgroup::StageGroup;
use crate::sandbox::disk::{Amount, DiskWatch};
use crate::sandbox::head::Upstream;
use crate::sandbox::own_program::{OwnProgram, installed_program};
use crate::sandbox::proxy::{HostResolver, Proxy, Upstreams};
use crate::sandbox::view::View;
use crate::ui::Printer;

/// A stage's script, and the directories that it works in.
pub struct SandboxedScript<'a> {
    /// Shell and script.
    pub command: [&'a Path; 2],
    /// Files that the script reads, each under its own path.
    pub files: Vec<PathBuf>,
    /// Programs outside `/usr` that it calls.
    pub programs: Vec<PathBuf>,
    /// Files with the texts of [`ssh_files`], each with its path in the sandbox.
    pub ssh_config: Vec<(PathBuf, PathBuf)>,
    /// Directories of the job, each with its path in the sandbox.
    pub writable: Vec<(PathBuf, PathBuf)>,
    /// A directory is shared with other jobs at the same time. Through a socket in it they could hand each other what only one of them has.
    pub shares_directory: bool,
    /// Variables besides those of the driver that the sandbox keeps.
    pub variables: Vec<(String, String)>,
    /// The address of the job's repository, which names GitLab.
    pub repository: &'a str,
}

/// A script that runs in a sandbox. Dropped, it ends with everything that it started.
pub struct Sandbox {
    child: Child,
    driver: UnixStream,
    group: Option<StageGroup>,
    disk: DiskWatch,
    _waits: Option<WaitsForItsChildren>,
    _served: Vec<AbortOnDropHandle<()>>,
}

impl Sandbox {
    /// Starts the script.
    ///
    /// # Errors
    /// A failure with a hint when bubblewrap is missing, or cannot make the sandbox; it prints the reason itself.
    pub async fn start(
        script: &SandboxedScript<'_>,
        settings: &SandboxSettings,
        environment: &Environment,
        printer: &Printer,
    ) -> anyhow::Result<Self> {
        let allowed = AllowedDestinations::new(settings.allow.clone(), script.repository);
        let mut forward = allowed.loopback();
        forward.truncate(channel::MOST_LISTENERS - 1);
        let folder = script.command[1].parent().context("the stage script lies in no folder")?;
        // Until the sandbox has it.
        let own = OwnProgram::find(folder)?;
        let mut arguments = view::arguments(&view_of(script, settings, environment, &own));
        arguments.extend(view::init_arguments(settings, &forward, script.shares_directory));
        let (driver, inside) =
            std::os::unix::net::UnixStream::pair().context("failed to make the socket of the sandbox")?;
        driver.set_nonblocking(true)?;
        let driver = UnixStream::from_std(driver)?;
        let most = Amount { bytes: settings.max_bytes, files: settings.max_files };
        let disk = DiskWatch::new(script.writable.iter().map(|(from, _)| from.clone()).collect(), most)?;
        let group = StageGroup::create(settings.max_processes, settings.max_memory_bytes);
        let program = bubblewrap::program();
        let mut command = group.as_ref().map_or_else(|| Command::new(program), |group| group.command(program));
        command
            .args(arguments)
            .args(script.command)
            .env_clear()
            .envs(view::environment(environment.for_host_scripts()));
        command.envs(script.variables.iter().map(|(name, value)| (name, value)));
        // In a group of its own, because a signal of the runner to the driver's group would end bubblewrap, and the script without any grace.
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(inside))).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(not_started)?;
        drop(command);
        let waits = WaitsForItsChildren::of(&child);
        let listeners = started(&mut child, &driver).await?;
        drop(own);
        let proxy = Arc::new(Proxy {
            allowed,
            upstreams: upstreams(environment),
            resolver: Arc::new(HostResolver),
            printer: printer.clone(),
            told: Mutex::new(BTreeSet::new()),
        });
        let serve = |listener: std::net::TcpListener| {
            listener.set_nonblocking(true)?;
            let to = Some(listener.local_addr()?).filter(|address| forward.contains(address));
            let served = Arc::clone(&proxy).serve(tokio::net::TcpListener::from_std(listener)?, to);
            anyhow::Ok(AbortOnDropHandle::new(tokio::spawn(served)))
        };
        let served = listeners
            .into_iter()
            .map(serve)
            .collect::<Result<_, _>>()
            .context("failed to serve the sandbox's network")?;
        Ok(Self { child, driver, group, disk, _waits: waits, _served: served })
    }

    /// Waits for the script. The status is the script's own; after a signal its exit code is 128 and the signal's number.
    ///
    /// # Errors
    /// The user's failure when the stage exceeds a limit, which ends it.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let status = tokio::select! {
            status = self.child.wait() => status.context("failed to wait for the script")?,
            failure = self.disk.exceeded() => {
                self.child.kill().await.context("failed to end the script")?;
                self.disk.empty().await;
                return Err(failure.into());
            }
        };
        let broken = if status.success() { None } else { self.broken_limit() };
        if let Some(group) = &self.group {
            group.remove().await;
        }
        if let Some(failure) = broken {
            return Err(failure.into());
        }
        if let Err(failure) = self.disk.check().await {
            self.disk.empty().await;
            return Err(failure.into());
        }
        Ok(status)
    }

    /// The limit of memory or processes that the stage has exceeded.
    fn broken_limit(&self) -> Option<Failure> {
        let told = channel::has_too_many_processes(&self.driver).then(cgroup::too_many_processes);
        told.or_else(|| self.group.as_ref()?.broken_limit())
    }

    /// Sends SIGTERM to the script and what it started in its process group.
    pub async fn ask_to_end(&mut self) {
        if let Err(error) = self.driver.write_all(channel::END).await {
            tracing::warn!(%error, "failed to ask the sandbox to end");
        }
    }

    /// Ends everything in the sandbox at once.
    pub fn kill(&mut self) -> std::io::Result<()> {
        self.child.start_kill()
    }
}

/// Waits until the script runs; the first process hands over its listeners then.
async fn started(child: &mut Child, driver: &UnixStream) -> anyhow::Result<Vec<std::net::TcpListener>> {
    let received = driver.async_io(Interest::READABLE, || channel::receive_started(driver)).await;
    if let Some(listeners) = received.context("failed to hear from the sandbox")? {
        return Ok(listeners);
    }
    let status = child.wait().await.context("failed to wait for bubblewrap")?;
    Err(not_made(&format!("bubblewrap ended with {status}; its message stands above")).into())
}

/// Tries whether this host can make a sandbox.
///
/// # Errors
/// A failure with bubblewrap's own message and what to change.
pub async fn check(path: &str) -> anyhow::Result<()> {
    let view = View {
        links: system_links(),
        init: installed_program()?,
        is_root: is_root(),
        proc: proc_entries(),
        ..View::default()
    };
    let mut command = Command::new(bubblewrap::program());
    command.args(view::arguments(&view)).args([view::INIT, "--version"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.env_clear().env("PATH", path).output().await.map_err(not_started)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(not_made(text.lines().next().unwrap_or("it printed no reason")).into())
}

/// Address and port of the metadata service of instances.
const METADATA: &str = "169.254.169.254/80";
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// Tries whether a program in the sandbox connects with the metadata service of an instance, which gives out the host's credentials.
///
/// # Errors
/// The sandbox or its shell could not be started, or the shell says something else than that there is no way.
pub async fn reaches_metadata(path: &str) -> anyhow::Result<bool> {
    let view = View {
        links: system_links(),
        init: installed_program()?,
        is_root: is_root(),
        proc: proc_entries(),
        ..View::default()
    };
    let connect = format!("exec 3<>/dev/tcp/{METADATA}");
    let mut command = Command::new(bubblewrap::program());
    command.args(view::arguments(&view)).args(["bash", "-c", &connect]).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.env_clear().envs([("PATH", path), ("LC_ALL", "C")]).output();
    let output =
        tokio::time::timeout(ANSWERED_WITHIN, output).await.context("the connection had no answer within 3 s")?;
    let output = output.map_err(not_started)?;
    if output.status.success() {
        return Ok(true);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("unreachable") {
        return Ok(false);
    }
    Err(anyhow::anyhow!("the shell in the sandbox ended otherwise: {}", text.lines().next().unwrap_or_default()))
}

const OFF: &str = "`sandbox.enabled = false` in the operator's file runs the host stages without it, and jobs can then run commands as the runner's user";

fn not_started(error: std::io::Error) -> Failure {
    let failure =
        Failure::system(format!("failed to start `{BUBBLEWRAP}`, which the sandbox of the host stages needs"));
    // `EMFILE` and `ENFILE`.
    if matches!(error.raw_os_error(), Some(23 | 24)) {
        let change = "raise the limit of open files of the runner's service (`LimitNOFILE=` in its systemd unit), and of the host";
        return failure.hint(change).caused_by(error);
    }
    failure.hint(format!("install the package `bubblewrap` on the runner host, and have `{BUBBLEWRAP}` in the PATH of the runner's service; {OFF}")).caused_by(error)
}

fn not_made(why: &str) -> Failure {
    Failure::system(format!("failed to make the sandbox of the host stages: {why}")).hint(format!(
        "let the runner's user make user namespaces: `user.max_user_namespaces` above 0, `kernel.unprivileged_userns_clone = 1` where it exists, on \
         Ubuntu 24.04 an AppArmor profile for `{BUBBLEWRAP}`; {OFF}"
    ))
}

fn view_of(
    script: &SandboxedScript<'_>,
    settings: &SandboxSettings,
    environment: &Environment,
    own: &OwnProgram,
) -> View {
    let named = view::NAMED_FILES.iter().filter_map(|name| environment.get(name)).map(PathBuf::from);
    let readable = settings.readable.iter().cloned().chain(named).filter(|path| path.is_absolute());
    // A link is followed outside, where it leads to the program.
    let placed = script.programs.iter().filter(|path| !path.starts_with("/usr"));
    let placed = placed.filter_map(|path| Some((path.canonicalize().ok()?, path.clone())));
    let beside =
        script.programs.iter().filter_map(|path| path.canonicalize().ok()).filter(|path| !path.starts_with("/usr"));
    View {
        links: system_links(),
        init: own.path.clone(),
        is_root: is_root(),
        proc: proc_entries(),
        readable: readable.chain(beside).chain(script.files.iter().cloned()).collect(),
        placed: placed.chain(script.ssh_config.iter().cloned()).collect(),
        writable: script.writable.clone(),
    }
}

fn system_links() -> Vec<(PathBuf, Option<PathBuf>)> {
    let existing = view::system_links().filter(|path| path.exists());
    existing.map(|path| (path.to_owned(), std::fs::read_link(path).ok())).collect()
}

fn proc_entries() -> Vec<PathBuf> {
    view::proc_entries().map(Path::to_owned).filter(|path| path.exists()).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn upstreams(environment: &Environment) -> Upstreams {
    let get = |names: [&str; 2]| names.iter().find_map(|name| environment.get(name)).map(str::to_owned);
    let proxy = |names| get(names).as_deref().and_then(Upstream::parse);
    Upstreams {
        http: proxy(["http_proxy", "HTTP_PROXY"]),
        https: proxy(["https_proxy", "HTTPS_PROXY"]),
        no_proxy: get(["no_proxy", "NO_PROXY"]).unwrap_or_default(),
    }
}
