//! The specification of a container, its exit, and the signals that end it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::network::ContainerNetwork;
use super::profile::Profile;

/// The specification of a container.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Names the container to an engine; letters, digits, `-`, `_` and `.`.
    pub id: String,
    pub root: ContainerImage,
    /// The image's settings beside its files.
    pub profile: Profile,
    /// Program and leading arguments, in place of the image's; when both are empty, the first of `arguments` is the program.
    pub entrypoint: Vec<String>,
    pub arguments: Vec<String>,
    /// Set over the image's own variables, and over `PATH` and `HOME` (and `PWD`, which bubblewrap sets).
    pub environment: BTreeMap<String, String>,
    pub hostname: String,
    /// The hosts that the container knows by name, its own among them. All are addresses of this machine's loopback.
    pub hosts: Vec<(String, Ipv4Addr)>,
    pub network: ContainerNetwork,
    /// Directory of the host that appears at `/opt/ml`, writable.
    pub opt_ml: PathBuf,
    /// Further directories of the host, at `/opt/ml` or elsewhere.
    pub mounts: Vec<BindMount>,
    /// A directory of the host for this container alone: what it writes outside `/opt/ml` lands here. The caller removes
    /// it; [`super::discard`] does so even for what a container made unreadable.
    pub scratch: PathBuf,
    /// The files that an earlier container with this scratch directory has left, which the new one finds.
    pub leftovers: Leftovers,
}

/// The files outside `/opt/ml` that a container finds of the one before; an engine leaves none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    None,
    /// Those in its temporary directories: the image is another one.
    Temporary,
    All,
}

/// A directory or file of the host at a path of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    pub from: PathBuf,
    pub at: PathBuf,
    pub writable: bool,
}

/// The root file system of a container; always copy-on-write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerImage {
    /// The host's own root; `/tmp`, `/var/tmp`, `/run` and the runner's directories appear empty.
    Host,
    /// An unpacked root directory.
    Root(PathBuf),
    /// The host's own root with the files of a directory over it.
    Overlaid(PathBuf),
    /// An image name for podman or docker; the image's own environment and working directory apply.
    Engine(String),
}

/// The files and settings of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSetup {
    pub root: ContainerImage,
    pub profile: Profile,
}

/// The exit of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerExit {
    /// The exit code; 128 + signal when killed by one; 126 or 127 when the entrypoint could not be executed.
    pub code: i32,
    /// `false` when the entrypoint could not be executed.
    pub started: bool,
}

/// The signals by which the owner of a container ends it.
#[derive(Debug, Clone)]
pub struct StopSignals {
    /// SIGTERM to PID 1, SIGKILL after `grace`.
    pub stop: CancellationToken,
    /// SIGKILL at once.
    pub kill: CancellationToken,
    pub grace: Duration,
}

/// All variables of the container: the usual ones, the image's, the job's.
pub(super) fn environment(spec: &ContainerSpec) -> BTreeMap<&str, &str> {
    // An engine looks the home directory up in the image, and takes this one for a user that the image does not know.
    let home = if spec.profile.user.is_some_and(|user| user.uid != 0) { "/" } else { "/root" };
    let defaults = [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", home)];
    let mut all = BTreeMap::from(defaults);
    for layer in [&spec.profile.environment, &spec.environment] {
        all.extend(layer.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
    all
}
