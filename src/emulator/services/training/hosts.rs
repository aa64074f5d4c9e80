//! The hosts of a job, and their folders on this machine, which containers have written to.
//!
//! All functions block and run on the blocking pool.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::host::{BindMount, Leftovers, discard};

/// The folders of the platform below `/opt/ml`; another container never finds anything in them.
const FOLDERS: &[&str] = &["input", "model", "output"];

/// The network interface of all containers: the addresses of nodes are on it, and of isolated ones it is the only one.
pub(super) const INTERFACE: &str = "lo";
/// The cache that containers of one warm pool share.
pub(super) const POOL_CACHE: &str = "/opt/ml/sagemaker/warmpoolcache";

/// The group of a job whose instances are of one type.
pub(super) const ONE_GROUP: &str = "homogeneousCluster";

/// Hosts of one type.
#[derive(Debug, Clone)]
pub(crate) struct HostGroup {
    pub(crate) name: String,
    pub(crate) instance_type: String,
    pub(crate) count: usize,
}

impl HostGroup {
    #[cfg(test)]
    pub(crate) fn plain(count: usize) -> [Self; 1] {
        [Self { name: ONE_GROUP.to_owned(), instance_type: "ml.m5.large".to_owned(), count }]
    }
}

/// One of the hosts of a job.
#[derive(Debug, Clone)]
pub(crate) struct HostPlace {
    /// Counted from 0.
    pub(crate) index: usize,
    pub(crate) count: usize,
    /// All groups of the job; their hosts are counted through.
    pub(crate) groups: Vec<HostGroup>,
    /// Directory that becomes `/opt/ml`.
    pub(crate) opt_ml: PathBuf,
    /// Files of another job that it holds.
    pub(crate) leftovers: Leftovers,
    /// Files of its container besides `/opt/ml`.
    pub(crate) mounts: Vec<BindMount>,
}

impl HostPlace {
    /// A host whose files lie in a folder of its own.
    pub(crate) fn new(index: usize, groups: &[HostGroup], folder: &Path) -> Self {
        Self {
            index,
            count: groups.iter().map(|group| group.count).sum(),
            groups: groups.to_vec(),
            opt_ml: folder.join("opt-ml"),
            leftovers: Leftovers::None,
            mounts: Vec::new(),
        }
    }

    /// `algo-1` and so on.
    pub(crate) fn hostname(&self) -> String {
        format!("algo-{}", self.index + 1)
    }

    /// Every host of the job with its address, which no other job of this machine has: a port is free on each of them, as on
    /// instances of their own.
    pub(crate) fn addresses(&self, job: &str) -> Vec<(String, Ipv4Addr)> {
        let mut hasher = std::hash::DefaultHasher::new();
        // The process, because several emulators of one machine may have jobs of one name.
        (std::process::id(), job).hash(&mut hasher);
        let [high, low, ..] = hasher.finish().to_be_bytes();
        // 127.0.0.x and 127.1.x.x are those that programs of this machine use.
        let network = u32::from_be_bytes([127, 2 + high % 250, low, 0]);
        let address = |number: usize| Ipv4Addr::from_bits(network + u32::try_from(number).unwrap_or(0));
        (1..=self.count).map(|number| (format!("algo-{number}"), address(number))).collect()
    }

    /// The folder of its files.
    pub(crate) fn folder(&self) -> PathBuf {
        self.opt_ml.parent().unwrap_or(&self.opt_ml).to_owned()
    }
}

/// Removes the platform's folders, so that neither a job of the same warm pool nor a later one finds what was in them.
pub(super) fn empty(place: &HostPlace) -> anyhow::Result<()> {
    FOLDERS.iter().try_for_each(|folder| discard(&place.opt_ml.join(folder)))?;
    discard(&place.folder().join("views"))
}

/// An empty folder below one that a container may have written to: what is there goes, and no link is followed.
pub(super) fn fresh_folder(base: &Path, below: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(base).with_context(|| format!("failed to create {}", base.display()))?;
    let mut path = base.to_owned();
    for part in Path::new(below).components() {
        let Component::Normal(part) = part else { bail!("failed to create {below}: it is not a plain path") };
        path.push(part);
        if !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            discard(&path)?;
            std::fs::create_dir(&path).with_context(|| format!("failed to create {}", path.display()))?;
        }
    }
    for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
        discard(&entry.path())?;
    }
    Ok(path)
}

/// Files, folders and links below a folder that a container could write to, by their relative path. Follows no link, not even
/// on the way to the folder: it could lead to the host's own files.
pub(super) fn files_below(base: &Path, folder: &str) -> io::Result<BTreeMap<PathBuf, PathBuf>> {
    let (mut path, mut files) = (base.to_owned(), BTreeMap::new());
    for part in Path::new(folder).components() {
        path.push(part);
        if !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            return Ok(files);
        }
    }
    gather(&path, Path::new(""), &mut files)?;
    Ok(files)
}

fn gather(folder: &Path, relative: &Path, files: &mut BTreeMap<PathBuf, PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = relative.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            gather(&entry.path(), &name, files)?;
        }
        if kind.is_dir() || kind.is_file() || kind.is_symlink() {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_an_address_of_its_own() {
        let place = HostPlace::new(0, &HostGroup::plain(100), Path::new(""));
        let of_job = |job: &str| place.addresses(job);
        let all: BTreeMap<_, _> = of_job("one").into_iter().chain(of_job("two")).map(|(name, ip)| (ip, name)).collect();
        assert_eq!((all.len(), of_job("one")), (200, of_job("one")));
        assert!(all.keys().all(Ipv4Addr::is_loopback));
    }

    #[test]
    fn a_folder_is_fresh_even_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (base, elsewhere) = (folder.path().join("ml"), folder.path().join("elsewhere"));
        std::fs::create_dir_all(elsewhere.join("checkpoints")).unwrap();
        std::fs::write(elsewhere.join("checkpoints/file"), "x").unwrap();
        std::fs::create_dir_all(&base).unwrap();
        std::os::unix::fs::symlink(&elsewhere, base.join("state")).unwrap();
        let fresh = fresh_folder(&base, "state/checkpoints").unwrap();
        assert_eq!(std::fs::read_dir(fresh).unwrap().count(), 0);
        assert!(elsewhere.join("checkpoints/file").exists());
        assert!(fresh_folder(&base, "../elsewhere").is_err());
    }

    #[test]
    fn a_link_in_place_of_a_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (opt_ml, elsewhere) = (folder.path().join("ml"), folder.path().join("elsewhere"));
        std::fs::create_dir_all(elsewhere.join("data")).unwrap();
        std::fs::write(elsewhere.join("data/secret"), "x").unwrap();
        std::fs::create_dir_all(&opt_ml).unwrap();
        std::os::unix::fs::symlink(&elsewhere, opt_ml.join("output")).unwrap();
        assert!(files_below(&opt_ml, "output/data").unwrap().is_empty());
        assert_eq!(files_below(&elsewhere, "data").unwrap().len(), 1);
    }
}
