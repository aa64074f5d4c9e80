//! Bounds the bytes and files that the directories of a stage hold. The kernel is asked often how full their file systems are, which is cheap,
//! and the files are counted when one has grown.

use std::fs::{Metadata, ReadDir};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::time::Instant;

use crate::base::failure::Failure;

/// Interval of the looks at the file systems.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time between two counts, since other jobs may free what this one takes; longer where a count takes long.
const COUNT_AGAIN: Duration = Duration::from_mins(1);
/// The files are counted when a file system has grown by the limit divided by this.
const STEPS: u64 = 16;
/// Most bytes of the paths of directories that a count has yet to visit.
const MOST_WAITING: usize = 64 << 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// Watches the directories of one stage.
pub(super) struct DiskWatch {
    directories: Vec<PathBuf>,
    most: Amount,
    /// What each directory's file system held at the last count, or less where it has shrunk since.
    seen: Vec<Amount>,
    count_again: Instant,
}

impl DiskWatch {
    pub(super) fn new(directories: Vec<PathBuf>, most: Amount) -> Self {
        let seen = directories.iter().map(|directory| held_by_file_system(directory)).collect();
        Self { directories, most, seen, count_again: Instant::now() + COUNT_AGAIN }
    }

    /// Completes when the directories hold too much.
    pub(super) async fn exceeded(&mut self) -> Failure {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(failure) = self.check().await {
                return failure;
            }
        }
    }

    /// Removes what the directories hold: the next job would exceed the limit from its start, and the disk would stay as full.
    pub(super) async fn empty(&self) {
        let directories = self.directories.clone();
        let emptied =
            tokio::task::spawn_blocking(move || directories.iter().for_each(|directory| empty(directory))).await;
        if let Err(error) = emptied {
            tracing::warn!(%error, "failed to empty the directories of a job");
        }
    }

    /// Counts the files if a file system has grown.
    pub(super) async fn check(&mut self) -> Result<(), Failure> {
        let now: Vec<_> = self.directories.iter().map(|directory| held_by_file_system(directory)).collect();
        if !has_grown(&self.seen, &now, self.most) && Instant::now() < self.count_again {
            let least = |(seen, now): (&Amount, Amount)| Amount {
                bytes: seen.bytes.min(now.bytes),
                files: seen.files.min(now.files),
            };
            self.seen = self.seen.iter().zip(now).map(least).collect();
            return Ok(());
        }
        let began = Instant::now();
        let (directories, most) = (self.directories.clone(), self.most);
        let counted = tokio::task::spawn_blocking(move || count(directories, most)).await;
        self.seen = now;
        self.count_again = Instant::now() + COUNT_AGAIN.max(began.elapsed() * 20);
        counted.unwrap_or(Ok(()))
    }
}

fn held_by_file_system(directory: &Path) -> Amount {
    rustix::fs::statvfs(directory).map_or(Amount::default(), |stat| Amount {
        bytes: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize),
        files: stat.f_files.saturating_sub(stat.f_ffree),
    })
}

fn has_grown(before: &[Amount], now: &[Amount], most: Amount) -> bool {
    before.iter().zip(now).any(|(before, now)| {
        now.bytes.saturating_sub(before.bytes) > most.bytes / STEPS
            || now.files.saturating_sub(before.files) > most.files / STEPS
    })
}

fn empty(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %path.display(), "failed to empty the directory of a job");
        }
    }
}

/// Counts until a limit is exceeded. A file with several names counts in parts, one for each.
fn count(mut waiting: Vec<PathBuf>, most: Amount) -> Result<(), Failure> {
    let (mut held, mut waiting_bytes) = (Amount::default(), 0);
    while let Some(directory) = waiting.pop() {
        waiting_bytes -= directory.as_os_str().len().min(waiting_bytes);
        let entries = match open(&directory) {
            Ok(entries) => entries,
            Err(error) if has_gone(&error) => continue,
            Err(error) => return Err(not_counted(&directory).caused_by(error)),
        };
        for entry in entries.flatten() {
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(error) if has_gone(&error) => continue,
                Err(error) => return Err(not_counted(&directory).caused_by(error)),
            };
            held.bytes = held.bytes.saturating_add(size_on_disk(&meta));
            held.files += 1;
            if held.bytes > most.bytes || held.files > most.files {
                return Err(too_much(held, most));
            }
            if meta.is_dir() {
                let path = entry.path();
                waiting_bytes += path.as_os_str().len();
                waiting.push(path);
            }
        }
        if waiting_bytes > MOST_WAITING {
            return Err(not_counted(&directory));
        }
    }
    Ok(())
}

fn size_on_disk(meta: &Metadata) -> u64 {
    meta.blocks().saturating_mul(512) / meta.nlink().clamp(1, if meta.is_dir() { 1 } else { u64::MAX })
}

/// Opens a directory, also one that its owner, who is this user, has closed.
fn open(directory: &Path) -> io::Result<ReadDir> {
    let mode = directory.symlink_metadata()?.mode();
    if mode & 0o500 != 0o500 && !rustix::process::geteuid().is_root() {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty())?;
        let mode = std::fs::Permissions::from_mode(mode & 0o7777 | 0o500);
        std::fs::set_permissions(format!("/proc/self/fd/{}", opened.as_raw_fd()), mode)?;
    }
    std::fs::read_dir(directory)
}

/// The stage works on while its files are counted.
fn has_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory) || error.raw_os_error() == Some(libc::ELOOP)
}

fn too_much(held: Amount, most: Amount) -> Failure {
    let (limit, key) = if held.bytes > most.bytes {
        (format!("{} bytes", most.bytes), "sandbox.max_bytes")
    } else {
        (format!("{} files", most.files), "sandbox.max_files")
    };
    Failure::user(format!("the job's directories on the runner host hold more than {limit}, so they are emptied")).hint(
        format!("keep less in the project, its cache and its artifacts; the limit is `{key}` of the operator's file"),
    )
}

fn not_counted(directory: &Path) -> Failure {
    Failure::user(format!("failed to count the files in {} on the runner host", directory.display())).hint(
        "`sandbox.max_bytes` and `sandbox.max_files` of the operator's file need directories that the runner's user can read, \
         with paths of at most 4096 bytes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Amount = Amount { bytes: u64::MAX, files: u64::MAX };

    fn counted(folder: &tempfile::TempDir, most: Amount) -> String {
        count(vec![folder.path().to_owned()], most).map_or_else(|failure| format!("{failure:?}"), |()| String::new())
    }

    #[test]
    fn files_are_counted_in_all_directories() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        assert_eq!(counted(&folder, Amount { files: 4, ..NONE }), "");
        let text = counted(&folder, Amount { files: 3, ..NONE });
        assert!(text.contains("more than 3 files") && text.contains("`sandbox.max_files`"), "{text}");
    }

    #[test]
    fn bytes_are_those_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        std::fs::File::create(folder.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        for name in ["second", "third"] {
            std::fs::hard_link(&file, folder.path().join(name)).unwrap();
        }
        assert_eq!(counted(&folder, Amount { bytes: (1 << 20) + (64 << 10), ..NONE }), "");
        let text = counted(&folder, Amount { bytes: 1 << 19, ..NONE });
        assert!(text.contains("more than 524288 bytes") && text.contains("`sandbox.max_bytes`"), "{text}");
    }

    #[test]
    fn a_closed_directory_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::write(closed.join("file"), "x").unwrap();
        for mode in [0o300, 0o400, 0] {
            std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(counted(&folder, Amount { files: 1, ..NONE }).contains("more than 1 files"), "{mode:o}");
        }
    }

    #[tokio::test]
    async fn a_job_that_exceeds_a_limit_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        DiskWatch::new(vec![folder.path().to_owned()], NONE).empty().await;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_gone_holds_nothing() {
        count(vec!["/nowhere/at/all".into()], Amount::default()).unwrap();
    }

    #[test]
    fn files_are_counted_when_a_file_system_has_grown_by_a_step() {
        let most = Amount { bytes: 1600, files: 160 };
        let before = [Amount { bytes: 1000, files: 1000 }; 2];
        let after = |bytes, files| has_grown(&before, &[before[0], Amount { bytes, files }], most);
        assert!(!after(1100, 1010) && !after(500, 500));
        assert!(after(1101, 1000) && after(500, 1011));
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_counted_now_and_then_in_any_case() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = DiskWatch::new(vec![folder.path().to_owned()], Amount { bytes: u64::MAX, files: 2 });
        // No step of files: the file system is this machine's own, and others use it.
        watch.seen = vec![NONE];
        for name in ["a", "b", "c"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        watch.check().await.unwrap();
        watch.seen = vec![NONE];
        tokio::time::advance(COUNT_AGAIN).await;
        assert!(watch.check().await.is_err());
    }
}
