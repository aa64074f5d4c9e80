//! The script that builds a container: by bubblewrap, or by util-linux alone.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::files::{discard, quote, write_private};
use super::isolation::{Isolation, Namespace};
use super::network::ContainerNetwork;
use super::profile::User;
use super::rootfs::RootLayout;
use super::spec::{ContainerSpec, Leftovers, environment};
use crate::error::SetupError;

pub(super) struct Setup {
    pub(super) command: Command,
    /// File that the launcher writes once the container exists.
    pub(super) status: PathBuf,
}

/// Lays out the root and writes the launch script. Blocking.
pub(super) fn prepare(spec: &ContainerSpec, isolation: Isolation) -> anyhow::Result<Setup> {
    let scratch = fs::canonicalize(&spec.scratch).context("failed to find the container's scratch directory")?;
    // Closed to other users: a container's root may have left setuid programs there.
    let scratch = scratch.join("container");
    clear(&scratch, spec.leftovers)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&scratch)
        .with_context(|| format!("failed to create {}", scratch.display()))?;
    let opt_ml = fs::canonicalize(&spec.opt_ml).context("failed to find the container's `/opt/ml`")?;
    if !isolation.bubblewrap && isolation.unshare.is_none() {
        return Err(no_isolation().into());
    }
    if isolation.overlay.is_none() {
        tracing::info!(
            container = spec.id,
            "no overlay file system here; system directories are read-only in the container"
        );
    }
    let namespace = isolation.overlay.or(if isolation.bubblewrap { None } else { isolation.unshare });
    let layout = RootLayout::prepare(spec, &scratch, &opt_ml, isolation.overlay)?;
    let script = if isolation.bubblewrap {
        with_bubblewrap(spec, &layout, namespace, &scratch)?
    } else {
        with_unshare(spec, &layout)
    };
    let launch = scratch.join("launch.sh");
    fs::write(&launch, script).with_context(|| format!("failed to write {}", launch.display()))?;
    let mut command = match namespace {
        Some(namespace) => {
            let mut command = entered(&spec.network, "unshare");
            command.args(namespace.flags());
            if !isolation.bubblewrap {
                command.args(["--pid", "--fork", "--kill-child", "--ipc", "--uts"]);
                command.args((spec.network == ContainerNetwork::Loopback).then_some("--net"));
            }
            command.arg("sh");
            command
        }
        None => entered(&spec.network, "sh"),
    };
    command.arg(&launch).args(&spec.entrypoint).args(&spec.arguments).current_dir(&scratch);
    Ok(Setup { command, status: scratch.join("status") })
}

/// The program, in the network that the containers share.
fn entered(network: &ContainerNetwork, program: &str) -> Command {
    let ContainerNetwork::Shared(namespace) = network else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    if !rustix::process::geteuid().is_root() {
        // Only those in the user namespace that owns the network may enter it.
        command.arg(format!("--user={}", namespace.with_file_name("user").display())).arg("--preserve-credentials");
    }
    command.arg(format!("--net={}", namespace.display())).arg("--").arg(program);
    command
}

/// Removes what an earlier container left, but for the layers that the next one is to find.
fn clear(scratch: &Path, leftovers: Leftovers) -> anyhow::Result<()> {
    let kept: &[&str] = match leftovers {
        Leftovers::None => &[],
        Leftovers::Temporary => &["own"],
        Leftovers::All => &["own", "upper"],
    };
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        if !kept.iter().any(|kept| entry.file_name() == *kept) {
            discard(&entry.path())?;
        }
    }
    Ok(())
}

fn no_isolation() -> SetupError {
    SetupError::new("failed to start a container: neither `bwrap` nor a working `unshare` is on PATH")
        .hint("install the package `bubblewrap`, or use podman or docker (`engine:IMAGE` as the image)")
}

/// Docker's default capabilities, without `mknod`.
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
    layout: &RootLayout,
    namespace: Option<Namespace>,
    scratch: &Path,
) -> anyhow::Result<String> {
    let mut arguments: Vec<String> =
        ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--die-with-parent"]
            .map(String::from)
            .to_vec();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(ToString::to_string));
    if spec.network == ContainerNetwork::Loopback {
        add(&["--unshare-net"]);
    }
    if namespace.is_none() && !rustix::process::geteuid().is_root() {
        add(&["--unshare-user", "--uid", "0", "--gid", "0"]);
    }
    let directory = spec.profile.directory.as_deref().unwrap_or("/");
    add(&["--hostname", &spec.hostname, "--chdir", directory, "--clearenv", "--cap-drop", "ALL"]);
    if spec.profile.is_privileged {
        add(&["--cap-add", "ALL"]);
    }
    for capability in CAPABILITIES.iter().filter(|_| !spec.profile.is_privileged) {
        add(&["--cap-add", &format!("CAP_{}", capability.to_uppercase())]);
    }
    for (name, value) in environment(spec) {
        add(&["--setenv", name, value]);
    }
    add(&["--bind", text(&layout.root)?, "/", "--dev", "/dev", "--proc", "/proc"]);
    for bind in &layout.binds {
        add(&[if bind.writable { "--bind" } else { "--ro-bind" }, text(&bind.from)?, text(&bind.at)?]);
    }
    if directory != "/" {
        add(&["--dir", directory]);
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
    write_private(&file, &packed)?;
    Ok(format!(
        "set -e\n{}exec bwrap --args 4 --json-status-fd 3 -- \"$@\" 3>status 4<arguments\n",
        layout.overlay_script()
    ))
}

/// The same container from util-linux alone: the script is PID 1 of a fresh PID namespace and becomes the entrypoint.
/// It isolates by accident only: a root process can leave a `chroot` on purpose.
fn with_unshare(spec: &ContainerSpec, layout: &RootLayout) -> String {
    use std::fmt::Write as _;
    let mut script = format!("set -e\nPATH=\"$PATH:/usr/sbin:/sbin\"\n{}", layout.overlay_script());
    if spec.network == ContainerNetwork::Loopback {
        script.push_str("ip link set lo up\n");
    }
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
    script.push_str("bound=\n");
    if !spec.profile.is_privileged {
        script.push_str("if command -v setpriv >/dev/null; then bound='setpriv --no-new-privs --bounding-set=-all");
        for capability in CAPABILITIES {
            let _ = write!(script, ",+{capability}");
        }
        script.push_str("'; fi\n");
    }
    script.push_str("echo started >status\n");
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

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("failed to hand {} to bubblewrap: the path is not UTF-8", path.display()))
}
