//! Keeps the container for a time after its script has failed, so that people can look into it.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::volume;
use crate::base::clock::Clock;

/// Folder of the file that ends the wait. Every user of the container may write to it.
const FOLDER: &str = "sagemaker-keep";
const FILE: &str = "release";
/// Interval between two looks for the file.
const LOOK: Duration = Duration::from_millis(500);

/// The wish to keep the container.
#[derive(Clone)]
pub(super) struct KeepOnFailure {
    pub(super) limit: Duration,
    pub(super) clock: Arc<dyn Clock>,
    /// Told when a wait begins.
    pub(super) begun: UnboundedSender<KeepBegun>,
}

/// A wait that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeepBegun {
    pub(super) code: i32,
    /// Size of the script's output.
    pub(super) bytes: u64,
    /// Milliseconds since 1970.
    pub(super) until: u64,
    /// The wait ends when this file is there.
    pub(super) release: PathBuf,
}

impl KeepOnFailure {
    /// Waits after a script that exited with `code`. Returns at once when there is no place for the file that ends the wait.
    pub(super) async fn keep(&self, code: i32, bytes: u64, cancel: &CancellationToken) {
        let release = match volume::for_everyone(place_in) {
            Ok(release) => release,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the container is not kept");
                return;
            }
        };
        let end = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.limit;
        let until = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        // The receiver lives as long as the run.
        let _ = self.begun.send(KeepBegun { code, bytes, until, release: release.clone() });
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(self.limit) => {}
            () = is_there(&release) => {}
        }
    }
}

async fn is_there(file: &Path) {
    while std::fs::symlink_metadata(file).is_err() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Makes the folder, for every user, and returns the path of the file, which is not there.
fn place_in(place: &Path) -> io::Result<PathBuf> {
    let folder = place.join(FOLDER);
    match std::fs::DirBuilder::new().mode(0o777).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // The mask of the process limits the mode above.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    let file = folder.join(FILE);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::base::clock::HostClock;

    #[test]
    fn every_user_may_write_the_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place_in(place.path()).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(place_in(place.path()).unwrap(), file);
        assert!(!file.exists(), "a file of an earlier run does not end the wait");
        let mode = file.parent().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777);
    }

    #[tokio::test]
    async fn the_file_and_a_cancel_end_the_wait() {
        for is_canceled in [true, false] {
            let (begun, mut told) = mpsc::unbounded_channel();
            let keep = KeepOnFailure { limit: Duration::from_hours(1), clock: Arc::new(HostClock), begun };
            let cancel = CancellationToken::new();
            let release = async {
                let begun = told.recv().await.unwrap();
                assert_eq!(begun.code, 3);
                if is_canceled { cancel.cancel() } else { std::fs::write(begun.release, "").unwrap() }
            };
            tokio::join!(keep.keep(3, 0, &cancel), release);
        }
    }
}
