//! Privileges that the first process of root's sandbox needs for an instant, and gives up.

use anyhow::Context as _;
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

/// The capabilities in words of bubblewrap; they hold inside the sandbox alone.
pub(super) const NEEDED: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];
const HELD: [CapabilitySet; 2] = [CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP];
/// The devices that bubblewrap shows.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Makes the devices read-only, and drops every capability, for ever. The devices are the host's own files, and root, as their owner, could change
/// their modes; data can be written to a device all the same. bubblewrap's own options would make them unusable.
pub(super) fn give_up() -> anyhow::Result<()> {
    for device in DEVICES {
        match protect(device) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("failed to protect {device}")),
        }
    }
    for capability in HELD {
        remove_capability_from_bounding_set(capability).context("failed to drop a capability for good")?;
    }
    clear_ambient_capability_set().context("failed to drop the ambient capabilities")?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .context("failed to drop the capabilities")
}

fn protect(device: &str) -> Result<(), Errno> {
    // Flags that the mount has already; without them the kernel refuses.
    let has = rustix::fs::statvfs(device)?.f_flag;
    let same = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = same.iter().filter(|(of_file, _)| has.contains(*of_file)).map(|(_, of_mount)| *of_mount);
    rustix::mount::mount_remount(device, kept.fold(MountFlags::BIND | MountFlags::RDONLY, MountFlags::union), c"")
}
