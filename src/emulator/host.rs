//! Runs one training container on this machine: namespaces by bubblewrap (or `unshare`), or a container engine.
//!
//! A container has its own processes, IPC, host name and files, and shares the machine's network: the agent talks to the
//! emulator on loopback. It is root inside with the usual capabilities of a container, and its entrypoint is PID 1.
//! Without bubblewrap and without an engine nothing runs. This module never writes outside the two directories
//! it is given, never leaves a mount on the host (mounts live in a namespace that ends with the container), and knows
//! nothing of training jobs: `/opt/ml` is a directory that somebody else has filled.
//!
//! Limits: as an ordinary user only uid 0 exists inside, so `chown` to others, package managers that switch users and images
//! with a user of their own fail; `sudo` fails everywhere, since bubblewrap forbids new privileges. A container of another user
//! is built by `unshare` and `chroot`, because bubblewrap as root cannot change the user.

mod engine;
mod process;
mod profile;
mod rootfs;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::process::{Control, HostProcess};
pub(super) use self::profile::parse_size;
pub use self::profile::{Profile, User};
use self::rootfs::{Layout, quote};
use crate::error::SetupError;

/// What to run and where.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Names the container to an engine; letters, digits, `-`, `_` and `.`.
    pub id: String,
    pub root: Image,
    /// What the image says beside its files.
    pub profile: Profile,
    /// Program and leading arguments; must not be empty unless an engine's image has its own.
    pub entrypoint: Vec<String>,
    pub arguments: Vec<String>,
    /// Set over the image's own variables, and over `PATH` and `HOME` (and `PWD`, which bubblewrap sets).
    pub environment: BTreeMap<String, String>,
    pub hostname: String,
    /// Directory of the host that appears at `/opt/ml`, writable.
    pub opt_ml: PathBuf,
    /// A directory of the host for this container alone: what it writes outside `/opt/ml` lands here. The caller removes
    /// it; [`discard`] does so even for what a container made unreadable.
    pub scratch: PathBuf,
}

/// Which files a container starts from. All of them are copy-on-write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// The host's own root; `/tmp`, `/var/tmp`, `/run` and the runner's directories appear empty.
    Host,
    /// An unpacked root directory.
    Root(PathBuf),
    /// An image name for podman or docker; the image's own environment and working directory apply.
    Engine(String),
}

/// How the entrypoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerExit {
    /// The exit code; 128 + signal when killed by one; 126 or 127 when the entrypoint could not be executed.
    pub code: i32,
}

/// What this machine offers to build a container without an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// `bwrap` is on `PATH`.
    pub bubblewrap: bool,
    /// A private mount namespace that may hold an overlay file system.
    pub overlay: Option<Namespace>,
    /// A private mount namespace without an overlay; used only when bubblewrap is missing.
    pub unshare: Option<Namespace>,
}

/// How a private mount namespace is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// As root: all user ids exist inside.
    Mount,
    /// As an ordinary user: the user is root inside, nobody else exists.
    UserAndMount,
}

impl Namespace {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Namespace::Mount => &["--mount"],
            Namespace::UserAndMount => &["--user", "--map-root-user", "--mount"],
        }
    }
}

impl Means {
    /// Tries out what works here; `scratch` must exist, as an overlay depends on its file system. Takes some milliseconds.
    pub async fn detect(scratch: &Path) -> anyhow::Result<Self> {
        let probe = scratch.join("probe");
        for part in ["lower", "upper", "work", "root"] {
            let dir = probe.join(part);
            fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
        }
        let mut overlay = None;
        let mut unshare = None;
        for namespace in [Namespace::Mount, Namespace::UserAndMount] {
            let xattr = rootfs::overlay_flags(namespace);
            let mount = format!("mount -t overlay overlay -o {xattr}lowerdir=lower,upperdir=upper,workdir=work root");
            if overlay.is_none() && answers("unshare", namespace.flags(), &["sh", "-c", &mount], &probe).await {
                overlay = Some(namespace);
            }
            if unshare.is_none() && answers("unshare", namespace.flags(), &["true"], &probe).await {
                unshare = Some(namespace);
            }
        }
        let bubblewrap = answers("bwrap", &["--version"], &[], &probe).await;
        discard(&probe)?;
        Ok(Self { bubblewrap, overlay, unshare })
    }
}

/// Whether the program exists and ends well within five seconds.
async fn answers(program: &str, flags: &[&str], arguments: &[&str], directory: &Path) -> bool {
    let mut command = tokio::process::Command::new(program);
    command.args(flags).args(arguments).current_dir(directory).kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let status = tokio::time::timeout(Duration::from_secs(5), command.status()).await;
    matches!(status, Ok(Ok(status)) if status.success())
}

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
    let signals = Signals { stop, kill, grace };
    if let Image::Engine(image) = &spec.root {
        return engine::run(&spec, image, output, &signals).await;
    }
    let means = Means::detect(&spec.scratch).await?;
    run_with(spec, means, output, signals).await
}

/// The wishes of whoever owns a container.
#[derive(Debug, Clone)]
pub struct Signals {
    /// SIGTERM to PID 1, SIGKILL after `grace`.
    pub stop: CancellationToken,
    /// SIGKILL at once.
    pub kill: CancellationToken,
    pub grace: Duration,
}

/// [`run`] for [`Image::Host`] and [`Image::Root`] with the given means, so that each way can be taken on purpose.
pub async fn run_with(
    spec: ContainerSpec,
    means: Means,
    output: mpsc::Sender<Vec<u8>>,
    signals: Signals,
) -> anyhow::Result<ContainerExit> {
    anyhow::ensure!(!spec.entrypoint.is_empty(), "failed to start container {}: it has no entrypoint", spec.id);
    anyhow::ensure!(
        spec.opt_ml.is_dir(),
        "failed to start container {}: {} is not a directory",
        spec.id,
        spec.opt_ml.display()
    );
    let means = spec.profile.fit(&spec.id, means)?;
    let setup = {
        let spec = spec.clone();
        let task = tokio::task::spawn_blocking(move || prepare(&spec, means));
        task.await.context("failed to prepare the container's root")??
    };
    let process = HostProcess::spawn(setup.command).await.context("failed to start the container")?;
    let status = setup.status;
    let control = if means.bubblewrap { Control::Bubblewrap { status } } else { Control::Unshare { status } };
    let outcome = process::supervise(process, &control, output, &signals).await?;
    if outcome.set_up || outcome.killed {
        return Ok(ContainerExit { code: outcome.code });
    }
    let said = String::from_utf8_lossy(&outcome.head);
    let failure = SetupError::new(format!("failed to set up container {}: {}", spec.id, said.trim()))
        .hint("allow user namespaces on this host (`sysctl user.max_user_namespaces`, and `kernel.apparmor_restrict_unprivileged_userns` on Ubuntu), or run as root");
    Err(failure.into())
}

/// Removes a container's scratch directory, with what the container made read-only; an absent one is success.
pub fn discard(scratch: &Path) -> anyhow::Result<()> {
    rootfs::remove_tree(scratch).with_context(|| format!("failed to remove {}", scratch.display()))
}

struct Setup {
    command: Command,
    /// Where the launcher tells that the container exists.
    status: PathBuf,
}

/// Lays out the root and writes the launch script. Blocking.
fn prepare(spec: &ContainerSpec, means: Means) -> anyhow::Result<Setup> {
    let scratch = fs::canonicalize(&spec.scratch).context("failed to find the container's scratch directory")?;
    // Fresh at each start, and closed to other users: a container's root may have left setuid programs there.
    let scratch = scratch.join("container");
    discard(&scratch)?;
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&scratch)
        .with_context(|| format!("failed to create {}", scratch.display()))?;
    let opt_ml = fs::canonicalize(&spec.opt_ml).context("failed to find the container's `/opt/ml`")?;
    if !means.bubblewrap && means.unshare.is_none() {
        return Err(no_means().into());
    }
    if means.overlay.is_none() {
        tracing::info!(
            container = spec.id,
            "no overlay file system here; system directories are read-only in the container"
        );
    }
    let namespace = means.overlay.or(if means.bubblewrap { None } else { means.unshare });
    let layout = Layout::prepare(spec, &scratch, &opt_ml, means.overlay)?;
    let script = if means.bubblewrap {
        with_bubblewrap(spec, &layout, namespace, &scratch)?
    } else {
        with_unshare(spec, &layout)
    };
    let launch = scratch.join("launch.sh");
    fs::write(&launch, script).with_context(|| format!("failed to write {}", launch.display()))?;
    let mut command = match namespace {
        Some(namespace) => {
            let mut command = Command::new("unshare");
            command.args(namespace.flags());
            if !means.bubblewrap {
                command.args(["--pid", "--fork", "--kill-child", "--ipc", "--uts"]);
            }
            command.arg("sh");
            command
        }
        None => Command::new("sh"),
    };
    command.arg(&launch).args(&spec.entrypoint).args(&spec.arguments).current_dir(&scratch);
    Ok(Setup { command, status: scratch.join("status") })
}

fn no_means() -> SetupError {
    SetupError::new("failed to start a container: neither `bwrap` nor a working `unshare` is on PATH")
        .hint("install the package `bubblewrap`, or give the emulator an image for podman or docker")
}

/// What docker grants by default, without the making of device nodes.
const CAPABILITIES: &[&str] = &[
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_raw",
    "sys_chroot",
    "audit_write",
    "setfcap",
];

fn with_bubblewrap(
    spec: &ContainerSpec,
    layout: &Layout,
    namespace: Option<Namespace>,
    scratch: &Path,
) -> anyhow::Result<String> {
    let mut arguments: Vec<String> =
        ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--die-with-parent"]
            .map(String::from)
            .to_vec();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(ToString::to_string));
    if namespace.is_none() && !rustix::process::geteuid().is_root() {
        add(&["--unshare-user", "--uid", "0", "--gid", "0"]);
    }
    add(&["--hostname", &spec.hostname, "--chdir", "/", "--clearenv", "--cap-drop", "ALL"]);
    for capability in CAPABILITIES {
        add(&["--cap-add", &format!("CAP_{}", capability.to_uppercase())]);
    }
    for (name, value) in environment(spec) {
        add(&["--setenv", name, value]);
    }
    add(&["--bind", text(&layout.root)?, "/", "--dev", "/dev", "--proc", "/proc"]);
    for bind in &layout.binds {
        add(&[if bind.writable { "--bind" } else { "--ro-bind" }, text(&bind.from)?, text(&bind.at)?]);
    }
    let mut packed = Vec::new();
    for argument in &arguments {
        anyhow::ensure!(
            !argument.contains('\0'),
            "failed to start container {}: a setting contains a NUL byte",
            spec.id
        );
        packed.extend_from_slice(argument.as_bytes());
        packed.push(0);
    }
    // In a file rather than on the command line: an environment may be long, and `ps` shows command lines to everybody.
    let file = scratch.join("arguments");
    rootfs::write_private(&file, &packed)?;
    Ok(format!(
        "set -e\n{}exec bwrap --args 4 --json-status-fd 3 -- \"$@\" 3>status 4<arguments\n",
        layout.overlay_script()
    ))
}

/// The same container from util-linux alone: the script is PID 1 of a fresh PID namespace and becomes the entrypoint.
/// It keeps mistakes in, not malice: a root process can leave a `chroot` on purpose.
fn with_unshare(spec: &ContainerSpec, layout: &Layout) -> String {
    use std::fmt::Write as _;
    let mut script = format!("set -e\nPATH=\"$PATH:/usr/sbin:/sbin\"\n{}", layout.overlay_script());
    script.push_str(
        "mkdir -p root/proc root/dev\nmount -t proc proc root/proc\nmount -t tmpfs -o mode=755 tmpfs root/dev\n",
    );
    script.push_str("mkdir root/dev/shm root/dev/pts\nchmod 1777 root/dev/shm\n");
    script.push_str(
        "for n in null zero full random urandom tty; do : >root/dev/$n; mount --bind /dev/$n root/dev/$n; done\n",
    );
    script.push_str("ln -s /proc/self/fd root/dev/fd; ln -s fd/0 root/dev/stdin; ln -s fd/1 root/dev/stdout; ln -s fd/2 root/dev/stderr\n");
    for bind in &layout.binds {
        let at = quote(&layout.inside(&bind.at));
        let from = quote(&bind.from);
        let _ = writeln!(
            script,
            "if [ -d {from} ]; then mkdir -p {at}; else [ -e {at} ] || : >{at}; fi; mount --rbind {from} {at}"
        );
        if !bind.writable {
            let _ = writeln!(
                script,
                "mount -o remount,bind,ro {at} 2>/dev/null || mount -o remount,bind,ro,nosuid,nodev,noexec {at}"
            );
        }
    }
    let _ = writeln!(
        script,
        "hostname {} 2>/dev/null || echo {0} >/proc/sys/kernel/hostname",
        quote(Path::new(&spec.hostname))
    );
    script.push_str("bound=\nif command -v setpriv >/dev/null; then bound='setpriv --no-new-privs --bounding-set=-all");
    for capability in CAPABILITIES {
        let _ = write!(script, ",+{capability}");
    }
    script.push_str("'; fi\necho started >status\n");
    // `chroot` is named with its full path: after `env -i` the search path is the container's.
    script.push_str("change=$(command -v chroot)\nexec $bound env -i");
    for (name, value) in environment(spec) {
        let _ = write!(script, " {}", quote(Path::new(&format!("{name}={value}"))));
    }
    script.push_str(" \"$change\"");
    if let Some(User { uid, gid }) = spec.profile.user {
        let _ = write!(script, " --userspec=+{uid}:+{gid} --groups=");
    }
    script.push_str(" root \"$@\"\n");
    script
}

fn environment(spec: &ContainerSpec) -> BTreeMap<&str, &str> {
    // An engine looks the home directory up in the image, and takes this one for a user that the image does not know.
    let home = if spec.profile.user.is_some_and(|user| user.uid != 0) { "/" } else { "/root" };
    let defaults = [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", home)];
    let mut all = BTreeMap::from(defaults);
    for layer in [&spec.profile.environment, &spec.environment] {
        all.extend(layer.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
    all
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("failed to hand {} to bubblewrap: the path is not UTF-8", path.display()))
}
