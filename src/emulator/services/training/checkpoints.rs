//! Checkpoints of a job: restored before its containers start, and uploaded while they run.
//!
//! As on the service, the folder is compared with what was uploaded: new and changed files go to the job's `S3Uri`, and what the
//! container deleted is deleted there. Objects that others add to the prefix meanwhile do not come to the container.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use serde_json::Value;

use super::download::copy_down;
use super::hosts::{HostPlace, files_below, fresh_folder};
use super::location::S3Location;
use super::platform::PlatformStore;
use crate::host::BindMount;
use crate::protocol::text;

/// Time between two uploads of changed files.
const INTERVAL: Duration = Duration::from_millis(500);

/// The folder that the service uses when a request names none.
const DEFAULT: &str = "/opt/ml/checkpoints";

/// Size, inode and time of change of a file; another value means other content.
type Stamp = (u64, u64, i64, i64);

/// The checkpoint folders of a job's hosts, and what of them is in S3.
#[derive(Clone)]
pub(super) struct CheckpointSync {
    target: S3Location,
    /// Base folder and the path of the checkpoints below it, one a host.
    folders: Vec<(PathBuf, String)>,
    uploaded: Arc<Mutex<BTreeMap<String, Stamp>>>,
}

/// The folder of checkpoints in the container.
pub(super) fn local_path(request: &Value) -> Option<&str> {
    let config = request.get("CheckpointConfig")?;
    Some(text(config, "LocalPath").map_or(DEFAULT, |path| path.trim_end_matches('/')).trim_end_matches('/'))
}

/// The folder of checkpoints on this machine: one that no other container writes to, and its path below that.
fn place_of(request: &Value, place: &HostPlace) -> Option<(PathBuf, String)> {
    let path = local_path(request)?;
    Some(match path.strip_prefix("/opt/ml/") {
        Some(below) => (place.opt_ml.clone(), below.to_owned()),
        None => (place.folder(), "checkpoints".to_owned()),
    })
}

/// The mount for a folder of checkpoints outside `/opt/ml`.
pub(super) fn mount(request: &Value, place: &HostPlace) -> Option<BindMount> {
    let at = local_path(request).filter(|path| !path.starts_with("/opt/ml/"))?;
    let (base, below) = place_of(request, place)?;
    Some(BindMount { from: base.join(below), at: PathBuf::from(at), writable: true })
}

impl CheckpointSync {
    /// Empties the folders and fills them from the job's `S3Uri`; `None` for a job without checkpoints.
    pub(super) fn restore(
        store: &PlatformStore,
        request: &Value,
        places: &[HostPlace],
    ) -> anyhow::Result<Option<Self>> {
        let uri = request.pointer("/CheckpointConfig/S3Uri").and_then(Value::as_str);
        let Some(target) = uri.and_then(S3Location::parse) else { return Ok(None) };
        let target = S3Location { key: target.key.trim_end_matches('/').to_owned(), ..target };
        let from = S3Location { key: prefix(&target), ..target.clone() };
        let mut folders = Vec::new();
        for place in places {
            let Some((base, below)) = place_of(request, place) else { continue };
            let folder = fresh_folder(&base, &below)?;
            copy_down(store, &from, &folder, (0, 1), None).context("failed to restore the checkpoints")?;
            folders.push((base, below));
        }
        let sync = Self { target, folders, uploaded: Arc::default() };
        *sync.uploaded.lock() = sync.stamps()?.into_iter().map(|(key, (_, stamp))| (key, stamp)).collect();
        Ok(Some(sync))
    }

    /// Uploads what changed since the last time, and deletes what is gone. Blocks.
    pub(super) fn upload(&self, store: &PlatformStore) -> anyhow::Result<()> {
        let mut uploaded = self.uploaded.lock();
        let found = self.stamps()?;
        for (key, (path, stamp)) in &found {
            if uploaded.get(key) == Some(stamp) {
                continue;
            }
            store.put_file(&self.target.bucket, key, path).with_context(|| format!("failed to upload {key}"))?;
            uploaded.insert(key.clone(), *stamp);
        }
        let gone: Vec<String> = uploaded.keys().filter(|key| !found.contains_key(*key)).cloned().collect();
        for key in gone {
            if let Err(error) = store.delete(&self.target.bucket, &key) {
                tracing::warn!(key, error = format!("{error:#}"), "failed to delete a checkpoint");
            }
            uploaded.remove(&key);
        }
        Ok(())
    }

    /// Uploads changes until the future is dropped.
    pub(super) async fn keep_uploading(&self, store: PlatformStore) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let (sync, store) = (self.clone(), store.clone());
            // The container may delete a file while it is read: the next time finds that out.
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || sync.upload(&store)).await {
                tracing::debug!(error = format!("{error:#}"), "failed to upload checkpoints");
            }
        }
    }

    fn stamps(&self) -> anyhow::Result<BTreeMap<String, (PathBuf, Stamp)>> {
        let mut found = BTreeMap::new();
        for (base, below) in &self.folders {
            for (relative, path) in files_below(base, below).context("failed to list the checkpoints")? {
                if let Some(stamp) = stamp_of(&path) {
                    found.insert(format!("{}{}", prefix(&self.target), relative.display()), (path, stamp));
                }
            }
        }
        Ok(found)
    }
}

fn prefix(target: &S3Location) -> String {
    if target.key.is_empty() { String::new() } else { format!("{}/", target.key) }
}

/// `None` for what is no plain file, or gone.
fn stamp_of(path: &Path) -> Option<Stamp> {
    let found = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some((found.len(), found.ino(), found.mtime(), found.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::hosts::HostGroup;
    use super::*;
    use crate::store::Store;

    #[test]
    fn changed_files_are_uploaded_and_deleted_ones_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = PlatformStore::unlimited(Store::open(folder.path().join("s3")).unwrap());
        store.store().create_bucket("b").unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, "restored").unwrap();
        for key in ["run/one", "runs/other"] {
            store.put_file("b", key, &source).unwrap();
        }
        let request = json!({"CheckpointConfig": {"S3Uri": "s3://b/run"}});
        let place = HostPlace::new(0, &HostGroup::plain(1), &folder.path().join("1/algo-1"));
        let sync = CheckpointSync::restore(&store, &request, std::slice::from_ref(&place)).unwrap().unwrap();
        let local = place.opt_ml.join("checkpoints");
        assert_eq!(std::fs::read_to_string(local.join("one")).unwrap(), "restored");
        assert!(!local.join("other").exists() && !local.join("s").exists());
        let objects = || {
            let page = store.store().list("b", "run/", None, None, 9).unwrap();
            page.objects
                .into_iter()
                .map(|(key, stored)| (key, stored.object.modified_ms, stored.object.bytes))
                .collect()
        };
        let before: Vec<_> = objects();
        sync.upload(&store).unwrap();
        assert_eq!(objects(), before, "nothing changed");
        std::fs::create_dir(local.join("deep")).unwrap();
        std::fs::write(local.join("deep/two"), "22").unwrap();
        std::fs::remove_file(local.join("one")).unwrap();
        sync.upload(&store).unwrap();
        let after: Vec<_> = objects().into_iter().map(|(key, _, bytes)| (key, bytes)).collect();
        assert_eq!(after, [("run/deep/two".to_owned(), 2)]);
    }

    #[test]
    fn a_folder_outside_is_mounted() {
        let place = HostPlace::new(0, &HostGroup::plain(1), Path::new("/jobs/1/algo-1"));
        let request = |path: &str| json!({"CheckpointConfig": {"S3Uri": "s3://b/x", "LocalPath": path}});
        assert_eq!(mount(&request("/opt/ml/checkpoints/"), &place), None);
        let mount = mount(&request("/mnt/state/"), &place).unwrap();
        assert_eq!((mount.from.to_str(), mount.at.to_str()), (Some("/jobs/1/algo-1/checkpoints"), Some("/mnt/state")));
    }
}
