//! Where things lie in the container: the project where the host has it, on the volume that is big.
//!
//! SageMaker's volume is behind `/opt/ml` and `/tmp`; other directories are on a small system disk.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::spool::Spool;

/// Big in every training container.
const VOLUME: &str = "/tmp";
/// How much output may wait on the disk for its reader.
const SPOOL_BYTES: u64 = 1 << 30;

/// A private folder for scripts and archives, removed with the value.
pub(super) fn scratch() -> anyhow::Result<tempfile::TempDir> {
    fs::create_dir_all(VOLUME).with_context(|| format!("failed to make {VOLUME}"))?;
    tempfile::Builder::new()
        .prefix("sagemaker-executor-")
        .tempdir_in(VOLUME)
        .context("failed to make a temporary folder")
}

/// A queue on the volume, for output whose reader is slower than its writer: half of the free room at most, and no more than
/// `SPOOL_BYTES`. Where no file can be made the two go at one speed.
pub(super) fn spool() -> Spool {
    let file = fs::create_dir_all(VOLUME).and_then(|()| tempfile::tempfile_in(VOLUME));
    let free = rustix::fs::statvfs(VOLUME).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    match file {
        Ok(file) => Spool::new(Some(file), SPOOL_BYTES.min(free / 2)),
        Err(error) => {
            tracing::warn!(%error, "failed to make a temporary file in {VOLUME}");
            Spool::new(None, 0)
        }
    }
}

/// Makes the project's parents. When they do not exist yet and the volume has more room than the disk they would lie
/// on, the topmost missing one becomes a link to the volume.
pub(super) fn make_room(project: &Path) -> anyhow::Result<()> {
    let Some(parent) = project.parent() else { return Ok(()) };
    if let Some(missing) = topmost_missing(parent)
        && !missing.starts_with(VOLUME)
        && !missing.starts_with("/opt/ml")
        && let Some(existing) = missing.parent()
        && is_roomier(Path::new(VOLUME), existing)
    {
        let target = scratch()?.keep();
        symlink(&target, &missing).with_context(|| format!("failed to make {}", missing.display()))?;
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)
        .with_context(|| format!("failed to make {}", parent.display()))
}

fn topmost_missing(path: &Path) -> Option<PathBuf> {
    path.ancestors().take_while(|path| fs::symlink_metadata(path).is_err()).last().map(Path::to_path_buf)
}

/// On another file system, with more free bytes.
fn is_roomier(volume: &Path, than: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    let free = |path: &Path| rustix::fs::statvfs(path).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    match (device(volume), device(than), free(volume), free(than)) {
        (Ok(a), Ok(b), Ok(on_volume), Ok(there)) => a != b && on_volume > there,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_missing_parent_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(topmost_missing(dir.path()), None);
        assert_eq!(topmost_missing(&dir.path().join("a/b/c")), Some(dir.path().join("a")));
    }

    #[test]
    fn parents_are_made() {
        let dir = tempfile::tempdir().unwrap();
        make_room(&dir.path().join("a/b/project")).unwrap();
        assert!(dir.path().join("a/b").is_dir());
        assert!(!dir.path().join("a/b/project").exists());
    }
}
