//! The root file system of a container: its overlay layers and bind mounts, and the commands that mount them.
//!
//! Copy-on-write by overlay file systems whose upper layers are in the container's scratch directory. As root one overlay
//! covers `/`, and one more each file system mounted below it. In a user namespace the kernel refuses an overlay over a directory that has
//! mounts below it, so there each directory without such mounts gets its own. Without overlays the host's
//! directories appear read-only, with writable ones where jobs usually build, and a root directory is copied.
//! Nothing here mounts: [`RootLayout::overlay_script`] is run inside the container's own mount namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{XattrFlags, setxattr};

use super::files::{create_dir, mount_points, quote};
use super::isolation::Namespace;
use super::spec::{BindMount, ContainerImage, ContainerSpec};

/// Directories that a container gets fresh, never the host's.
const OWN: &[&str] = &["/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp"];
/// Where runners keep jobs' files and their own secrets: empty in a container.
const HIDDEN: &[&str] = &["/builds", "/cache", "/etc/gitlab-runner", "/home/gitlab-runner", "/var/lib/gitlab-runner"];
/// Without overlays: writable directories whose entries are the host's, read-only.
const OPEN: &[&str] = &[
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/srv",
    "/usr/local",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
];
/// Files and directories of the host's kernel, read-only: the container's root may be the host's, and bubblewrap leaves some of them open.
const KERNEL: &[&str] = &["/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Kinds of file systems that hold no files of an image.
const PSEUDO: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
];
/// Depth up to which a container in a user namespace can write to directories of other users (in its own layer).
const OPEN_DEPTH: usize = 3;

/// The plan of the container's root.
pub(super) struct RootLayout {
    /// Directory of the host on which everything is mounted.
    pub(super) root: PathBuf,
    /// In the order in which they are to be mounted, after the overlays.
    pub(super) binds: Vec<BindMount>,
    /// Lower directory by its path in the container; the position names its layers.
    overlays: Vec<(PathBuf, PathBuf)>,
    scratch: PathBuf,
    overlay: Option<Namespace>,
    mounts: BTreeMap<PathBuf, String>,
    /// Bytes for all upper layers together.
    size: Option<u64>,
}

impl RootLayout {
    /// Creates the layers in `scratch`. Both directories must be canonical.
    pub(super) fn prepare(
        spec: &ContainerSpec,
        scratch: &Path,
        opt_ml: &Path,
        overlay: Option<Namespace>,
    ) -> anyhow::Result<Self> {
        let root = scratch.join("root");
        create_dir(&root, 0o755)?;
        let mounts =
            mount_points(&fs::read_to_string("/proc/self/mountinfo").context("failed to read the list of mounts")?);
        let size = spec.profile.root_size;
        let mut layout = RootLayout {
            root,
            binds: Vec::new(),
            overlays: Vec::new(),
            scratch: scratch.to_owned(),
            overlay,
            mounts,
            size,
        };
        match &spec.root {
            ContainerImage::Host => layout.cover_host(scratch.parent().unwrap_or(scratch))?,
            ContainerImage::Overlaid(directory) => {
                layout.cover_host(scratch.parent().unwrap_or(scratch))?;
                anyhow::ensure!(
                    layout.overlay.is_some(),
                    "failed to lay {} over this machine's root: no overlay file system works here",
                    directory.display()
                );
                layout.lay_over(directory, Path::new("/"))?;
            }
            ContainerImage::Root(directory) => {
                layout.cover_directory(directory)?;
                if size.is_some() {
                    layout.replace(Path::new("/tmp"), 0o1777)?;
                }
            }
            ContainerImage::Engine(name) => anyhow::bail!("failed to unpack image {name}: only an engine can"),
        }
        for kernel in KERNEL.iter().map(Path::new).filter(|kernel| kernel.exists()) {
            layout.binds.push(BindMount { from: kernel.to_owned(), at: kernel.to_owned(), writable: false });
        }
        for (at, mode) in [
            ("/tmp", 0o1777),
            ("/var/tmp", 0o1777),
            ("/root", 0o700),
            ("/opt/ml", 0o755),
            ("/proc", 0o555),
            ("/dev", 0o755),
            ("/sys", 0o555),
        ] {
            layout.ensure_dir(Path::new(at), mode)?;
        }
        layout.name_hosts(spec)?;
        layout.binds.push(BindMount { from: opt_ml.to_owned(), at: "/opt/ml".into(), writable: true });
        for mount in &spec.mounts {
            if !mount.at.starts_with("/opt/ml") {
                layout.ensure_dir(&mount.at, 0o755)?;
            }
            layout.binds.push(mount.clone());
        }
        Ok(layout)
    }

    /// Shell lines that mount the overlays below the working directory `scratch`; they fail as a whole under `set -e`.
    pub(super) fn overlay_script(&self) -> String {
        let mut script = String::new();
        let Some(namespace) = self.overlay else { return script };
        let mut layers = "";
        if let Some(size) = self.size {
            // The layers were filled before; what is written from now on counts as well.
            let _ = writeln!(
                script,
                "mkdir small; mount -t tmpfs -o size={size},mode=700 tmpfs small; cp -a upper work small/"
            );
            layers = "small/";
        }
        for (number, (at, lower)) in self.overlays.iter().enumerate() {
            let point = quote(&self.inside(at));
            let from = quote(lower);
            // Relative names keep the option string free of what it gives a meaning to: `,`, `:` and `\`.
            let plain = lower.to_str().is_some_and(|lower| !lower.contains([',', ':', '\\']));
            let name = if plain {
                from.clone()
            } else {
                let _ = writeln!(script, "mkdir -p lower/{number}; mount --bind {from} lower/{number}");
                format!("lower/{number}")
            };
            let flags = namespace.overlay_flags();
            // A few kinds of file systems cannot be a lower layer: they appear read-only.
            let _ = writeln!(
                script,
                "mount -t overlay overlay -o {flags}lowerdir={name},upperdir={layers}upper/{number},workdir={layers}work/{number} {point} \
                 || {{ mount --rbind {from} {point}; mount -o remount,bind,ro {point}; }}"
            );
        }
        script
    }

    /// The host's path of a container's path while its root is being mounted.
    pub(super) fn inside(&self, at: &Path) -> PathBuf {
        self.root.join(at.strip_prefix("/").unwrap_or(at))
    }

    fn cover_host(&mut self, scratch: &Path) -> anyhow::Result<()> {
        self.cover(Path::new("/"))?;
        for (at, mode) in [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755)] {
            self.replace(Path::new(at), mode)?;
        }
        for at in HIDDEN.iter().filter(|at| fs::symlink_metadata(at).is_ok_and(|found| found.is_dir())) {
            self.replace(Path::new(at), 0o755)?;
        }
        if !["/tmp", "/var/tmp", "/run"].iter().any(|own| scratch.starts_with(own)) && fs::read_dir(scratch).is_ok() {
            self.replace(scratch, 0o755)?;
        }
        Ok(())
    }

    /// Copies the files of a directory into the writable layers.
    fn lay_over(&self, from: &Path, at: &Path) -> anyhow::Result<()> {
        let failed = || format!("failed to lay {} over this machine's root", from.display());
        let Some(layer) = self.layer_dir(at, 0o755)? else {
            anyhow::bail!("{}: {} is a link or a file here", failed(), at.display());
        };
        for entry in fs::read_dir(from).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let (path, target) = (entry.path(), layer.join(entry.file_name()));
            let kind = entry.file_type().with_context(failed)?;
            if kind.is_dir() {
                self.lay_over(&path, &at.join(entry.file_name()))?;
            } else if kind.is_symlink() {
                let _ = fs::remove_file(&target);
                symlink(fs::read_link(&path).with_context(failed)?, &target).with_context(failed)?;
            } else {
                fs::copy(&path, &target).with_context(failed)?;
            }
        }
        Ok(())
    }

    fn cover_directory(&mut self, directory: &Path) -> anyhow::Result<()> {
        let directory = fs::canonicalize(directory)
            .with_context(|| format!("failed to find the container's root directory {}", directory.display()))?;
        anyhow::ensure!(
            directory.is_dir(),
            "failed to use {} as a container's root: it is not a directory",
            directory.display()
        );
        if self.overlay.is_some() {
            return self.cover(&directory);
        }
        let output = std::process::Command::new("cp").arg("-a").arg(directory.join(".")).arg(&self.root).output();
        let output = output.context("failed to run `cp`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "failed to copy {}: {}", directory.display(), said.trim());
        Ok(())
    }

    /// Shows the directory `base` of the host as the container's `/`.
    fn cover(&mut self, base: &Path) -> anyhow::Result<()> {
        if self.overlay != Some(Namespace::Mount) {
            return self.compose(base, Path::new("/"));
        }
        self.add_overlay(base, Path::new("/"))?;
        let below: Vec<PathBuf> =
            self.below(base).filter(|(_, kind)| !PSEUDO.contains(kind)).map(|(at, _)| at.to_owned()).collect();
        for mount in below.iter().filter(|mount| mount.is_dir()) {
            let at = Path::new("/").join(mount.strip_prefix(base).unwrap_or(mount));
            if !is_own(&at) {
                self.add_overlay(mount, &at)?;
            }
        }
        Ok(())
    }

    /// Mounts strictly below a directory, with the kind of their file system.
    fn below<'a>(&'a self, base: &'a Path) -> impl Iterator<Item = (&'a Path, &'a str)> {
        self.mounts
            .iter()
            .map(|(at, kind)| (at.as_path(), kind.as_str()))
            .filter(move |(at, _)| *at != base && at.starts_with(base))
    }

    /// Shows `from` at `at`: by one overlay when possible, else a directory of ours with entry after entry.
    fn compose(&mut self, from: &Path, at: &Path) -> anyhow::Result<()> {
        let Ok(entries) = fs::read_dir(from) else {
            return self.add_empty(at); // Not readable for us.
        };
        if self.overlay.is_some() && self.below(from).next().is_none() {
            return self.add_overlay(from, at);
        }
        let mode = fs::metadata(from).map_or(0o755, |found| found.mode() | 0o700);
        create_dir(&self.inside(at), mode)?;
        let names: BTreeSet<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        for name in names {
            let (from, at) = (from.join(&name), at.join(&name));
            let Ok(found) = fs::symlink_metadata(&from) else { continue };
            if is_own(&at) || is_named(&at) {
                continue;
            }
            if found.is_symlink() {
                let target = fs::read_link(&from).with_context(|| format!("failed to read {}", from.display()))?;
                symlink(target, self.inside(&at)).with_context(|| format!("failed to create link {}", at.display()))?;
            } else if found.is_dir() && (self.overlay.is_some() || is_open(&at)) {
                self.compose(&from, &at)?;
            } else if found.is_dir() || found.is_file() {
                self.binds.push(BindMount { from, at, writable: false });
            }
        }
        Ok(())
    }

    /// A writable directory, empty unless a container before has left files in it; kept like the layer of an overlay.
    fn add_empty(&mut self, at: &Path) -> anyhow::Result<()> {
        let from = self.scratch.join("upper").join(format!("empty-{}", self.binds.len()));
        create_dir(&from, 0o755)?;
        create_dir(&self.inside(at), 0o755)?;
        self.binds.push(BindMount { from, at: at.to_owned(), writable: true });
        Ok(())
    }

    fn add_overlay(&mut self, lower: &Path, at: &Path) -> anyhow::Result<()> {
        let number = self.overlays.len().to_string();
        let upper = self.scratch.join("upper").join(&number);
        create_dir(&self.scratch.join("work").join(&number), 0o700)?;
        // One that is left of a container before is ready, and its entries could lead to the host's own files.
        if !upper.exists() {
            self.add_upper(lower, &upper, at)?;
        }
        if self.overlays.is_empty() || !self.overlays.iter().any(|(covered, _)| at.starts_with(covered)) {
            create_dir(&self.inside(at), 0o755)?;
        }
        self.overlays.push((at.to_owned(), lower.to_owned()));
        Ok(())
    }

    fn add_upper(&self, lower: &Path, upper: &Path, at: &Path) -> anyhow::Result<()> {
        let found = fs::metadata(lower).with_context(|| format!("failed to read {}", lower.display()))?;
        create_dir(upper, found.mode() | 0o700)?;
        match self.overlay {
            Some(Namespace::UserAndMount) => open_up(lower, upper, OPEN_DEPTH.saturating_sub(at.components().count())),
            Some(Namespace::Mount) => {
                chown(upper, Some(found.uid()), Some(found.gid())).context("failed to set an owner")
            }
            None => Ok(()),
        }
    }

    /// A writable directory in place of the host's; empty unless a container before has left files in it.
    fn replace(&mut self, at: &Path, mode: u32) -> anyhow::Result<()> {
        let from = self.scratch.join("own").join(self.binds.len().to_string());
        create_dir(&from, mode)?;
        self.ensure_dir(at, 0o755)?;
        self.binds.push(BindMount { from, at: at.to_owned(), writable: true });
        Ok(())
    }

    /// The layer into which a path of the container is written, and what lies below it.
    fn layers(&self, at: &Path) -> (PathBuf, Option<PathBuf>) {
        let covering = self.overlays.iter().enumerate().filter(|(_, (covered, _))| at.starts_with(covered));
        match covering.max_by_key(|(_, (covered, _))| covered.components().count()) {
            Some((number, (covered, lower))) => {
                let rest = at.strip_prefix(covered).unwrap_or(at);
                (self.scratch.join("upper").join(number.to_string()).join(rest), Some(lower.join(rest)))
            }
            None => (self.inside(at), None),
        }
    }

    /// Makes sure that a directory exists in the container, without hiding what is there.
    fn ensure_dir(&self, at: &Path, mode: u32) -> anyhow::Result<()> {
        if self.layers(at).1.is_some_and(|below| fs::symlink_metadata(below).is_ok()) {
            return Ok(());
        }
        self.layer_dir(at, mode).map(|_| ())
    }

    /// A directory in the writable layer, and its parents, each like the one below it. `None` when the image has a link or a
    /// file on the way: following it here could lead to the host's own files.
    fn layer_dir(&self, at: &Path, mode: u32) -> anyhow::Result<Option<PathBuf>> {
        let mut path = PathBuf::new();
        for component in at.components() {
            path.push(component);
            let (layer, lower) = self.layers(&path);
            let below = lower.and_then(|lower| fs::symlink_metadata(lower).ok());
            let present = fs::symlink_metadata(&layer).ok();
            if [&below, &present].into_iter().flatten().any(|found| !found.is_dir()) {
                return Ok(None);
            }
            match (present, below) {
                (Some(_), _) => {}
                (None, Some(below)) => {
                    create_dir(&layer, below.mode() | 0o700)?;
                    if self.overlay == Some(Namespace::Mount) {
                        chown(&layer, Some(below.uid()), Some(below.gid())).context("failed to set an owner")?;
                    }
                }
                (None, None) => create_dir(&layer, if path == at { mode } else { 0o755 })?,
            }
        }
        Ok(Some(self.layers(at).0))
    }

    /// Writes `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, as every container runtime does.
    fn name_hosts(&self, spec: &ContainerSpec) -> anyhow::Result<()> {
        let known = match spec.root {
            ContainerImage::Host | ContainerImage::Overlaid(_) => fs::read_to_string("/etc/hosts").unwrap_or_default(),
            ContainerImage::Root(_) | ContainerImage::Engine(_) => "127.0.0.1 localhost\n::1 localhost\n".to_owned(),
        };
        let lines: Vec<String> = spec.hosts.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        let hosts = lines.concat();
        let Some(etc) = self.layer_dir(Path::new("/etc"), 0o755)? else { return Ok(()) };
        let contents = [
            ("hosts", format!("{}\n{hosts}", known.trim_end())),
            ("hostname", format!("{}\n", spec.hostname)),
            ("resolv.conf", fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        ];
        for (name, content) in contents {
            let path = etc.join(name);
            let _ = fs::remove_file(&path); // A copied image may have a link here.
            fs::write(&path, content).with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(())
    }
}

fn is_own(at: &Path) -> bool {
    OWN.iter().any(|own| at.starts_with(own))
}

fn is_named(at: &Path) -> bool {
    ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].iter().any(|named| at == Path::new(named))
}

fn is_open(at: &Path) -> bool {
    OPEN.iter().any(|open| at == Path::new(open)) || at == Path::new("/usr") || at.parent() == Some(Path::new("/home"))
}

/// In a user namespace the owners of the host's directories do not exist, so nobody may create entries in them; directories of
/// the same names in the upper layer belong to the container's root. One that we cannot read is cut off from what lies below.
fn open_up(lower: &Path, upper: &Path, depth: usize) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(lower) else {
        return setxattr(upper, "user.overlay.opaque", b"y", XattrFlags::empty())
            .with_context(|| format!("failed to cut off {}", upper.display()));
    };
    if depth == 0 {
        return Ok(());
    }
    for entry in entries.flatten() {
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() && found.uid() != rustix::process::geteuid().as_raw() {
            let upper = upper.join(entry.file_name());
            create_dir(&upper, found.mode() | 0o700)?;
            open_up(&entry.path(), &upper, depth - 1)?;
        }
    }
    Ok(())
}
