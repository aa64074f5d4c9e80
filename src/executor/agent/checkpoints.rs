//! Counts the files that stand in the folder of checkpoints when the container starts: SageMaker restores them before.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType};

use crate::base::descent::{self, Descent};
use crate::cloud::CHECKPOINTS_DIR;
use crate::protocol::mailbox::CheckpointFolder;

/// Blocks. `None`, with a line in the container's log, when the folder cannot be read.
pub(super) fn look() -> Option<CheckpointFolder> {
    let content = content(Path::new(CHECKPOINTS_DIR));
    content.inspect_err(|error| tracing::warn!(%error, "failed to list {CHECKPOINTS_DIR}")).ok()
}

/// The regular files in the folder and in those below it.
fn content(folder: &Path) -> io::Result<CheckpointFolder> {
    let mut found = CheckpointFolder::default();
    let mut descent = Descent::of(descent::open(CWD, folder)?.as_fd())?;
    while let Some(entry) = descent.advance() {
        let entry = entry?;
        match entry.kind {
            FileType::Directory if !descent.is_deepest() => descent.enter(&entry, 0)?,
            FileType::RegularFile => {
                let stat = rustix::fs::statat(descent.above()?, &entry.name, AtFlags::SYMLINK_NOFOLLOW)?;
                found.files += 1;
                found.bytes += u64::try_from(stat.st_size).unwrap_or_default();
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_at_any_depth_are_counted_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(content(folder.path()).unwrap(), CheckpointFolder::default());
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("one"), "12345").unwrap();
        std::fs::write(folder.path().join("a/b/two"), "123").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("a/root")).unwrap();
        assert_eq!(content(folder.path()).unwrap(), CheckpointFolder { files: 2, bytes: 8 });
        assert!(content(&folder.path().join("absent")).is_err());
    }
}
