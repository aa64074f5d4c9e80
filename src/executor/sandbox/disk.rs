//! Bounds the bytes and files that the directories of a stage hold. The kernel is asked often how full their file systems are, which is cheap,
//! and the files are counted when one has grown.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{AtFlags, CWD, FileType, Stat};
use tokio::time::Instant;

use crate::base::descent::{self, Descent, has_gone};
use crate::base::failure::Failure;
use crate::base::removal;

/// Interval of the looks at the file systems.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time between two counts, since other jobs may free what this one takes; longer where a count takes long.
const COUNT_AGAIN: Duration = Duration::from_mins(1);
/// The files are counted when a file system has grown by the limit divided by this.
const STEPS: u64 = 16;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Amount {
    fn exceeds(self, most: Self) -> bool {
        self.bytes > most.bytes || self.files > most.files
    }
}

/// A directory of the stage. It is opened once: what jobs do to names has no effect on the watch.
struct Watched {
    path: PathBuf,
    fd: OwnedFd,
}

impl Watched {
    fn open(path: PathBuf) -> anyhow::Result<Self> {
        let fd = descent::open(CWD, &path).with_context(|| format!("failed to open {}", path.display()))?;
        Ok(Self { path, fd })
    }
}

/// Watches the directories of one stage.
pub(super) struct DiskWatch {
    directories: Arc<[Watched]>,
    most: Amount,
    /// Use of each directory's file system at the last count, or less where it has shrunk since.
    seen: Vec<Amount>,
    count_again: Instant,
}

impl DiskWatch {
    pub(super) fn new(directories: Vec<PathBuf>, most: Amount) -> anyhow::Result<Self> {
        let directories = directories.into_iter().map(Watched::open).collect::<anyhow::Result<Arc<[_]>>>()?;
        let seen = directories.iter().map(held_by_file_system).collect();
        Ok(Self { directories, most, seen, count_again: Instant::now() + COUNT_AGAIN })
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
        let directories = Arc::clone(&self.directories);
        let emptied = tokio::task::spawn_blocking(move || directories.iter().for_each(empty)).await;
        if let Err(error) = emptied {
            tracing::warn!(%error, "failed to empty the directories of a job");
        }
    }

    /// Counts the files if a file system has grown.
    pub(super) async fn check(&mut self) -> Result<(), Failure> {
        let now: Vec<_> = self.directories.iter().map(held_by_file_system).collect();
        if !has_grown(&self.seen, &now, self.most) && Instant::now() < self.count_again {
            let least = |(seen, now): (&Amount, Amount)| Amount {
                bytes: seen.bytes.min(now.bytes),
                files: seen.files.min(now.files),
            };
            self.seen = self.seen.iter().zip(now).map(least).collect();
            return Ok(());
        }
        let began = Instant::now();
        let (directories, most) = (Arc::clone(&self.directories), self.most);
        let counted = tokio::task::spawn_blocking(move || count(&directories, most)).await;
        self.seen = now;
        self.count_again = Instant::now() + COUNT_AGAIN.max(began.elapsed() * 20);
        counted.unwrap_or(Ok(()))
    }
}

fn held_by_file_system(directory: &Watched) -> Amount {
    rustix::fs::fstatvfs(&directory.fd).map_or(Amount::default(), |stat| Amount {
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

fn empty(directory: &Watched) {
    if let Err(error) = removal::empty(directory.fd.as_fd()) {
        tracing::warn!(%error, path = %directory.path.display(), "failed to empty the directory of a job");
    }
}

/// Counts until a limit is exceeded. A file with several names counts in parts, one for each.
fn count(directories: &[Watched], most: Amount) -> Result<(), Failure> {
    let mut held = Amount::default();
    directories.iter().try_for_each(|directory| {
        let counted = count_in(directory, most, &mut held);
        counted.map_err(|error| not_counted(directory).caused_by(error))?;
        if held.exceeds(most) { Err(too_much(held, most)) } else { Ok(()) }
    })
}

/// Adds to `held` until it exceeds the limit. The stage works on meanwhile.
fn count_in(directory: &Watched, most: Amount, held: &mut Amount) -> io::Result<()> {
    // Root may list any directory.
    let needed = if rustix::process::geteuid().is_root() { 0 } else { 0o500 };
    descent::unlock(directory.fd.as_fd(), needed)?;
    let mut descent = match Descent::of(directory.fd.as_fd()) {
        Err(error) if has_gone(&error) => return Ok(()),
        descent => descent?,
    };
    while !held.exceeds(most)
        && let Some(found) = descent.advance()
    {
        let found = found?;
        let looked = rustix::fs::statat(descent.above()?, &found.name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = match looked.map_err(io::Error::from) {
            Err(error) if has_gone(&error) => continue,
            stat => stat?,
        };
        held.bytes = held.bytes.saturating_add(size_on_disk(&stat));
        held.files += 1;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            continue;
        }
        if descent.is_deepest() {
            return Err(io::Error::other(format!("more than {} directories in one another", descent::DEEPEST)));
        }
        match descent.enter(&found, needed) {
            Err(error) if !has_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn size_on_disk(stat: &Stat) -> u64 {
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    // Its type differs between processors.
    let names = if is_directory { 1 } else { u64::try_from(i128::from(stat.st_nlink)).unwrap_or(1).max(1) };
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) / names
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

fn not_counted(directory: &Watched) -> Failure {
    Failure::user(format!("failed to count the files in {} on the runner host", directory.path.display())).hint(
        "`sandbox.max_bytes` and `sandbox.max_files` of the operator's file need directories that the runner's user can read, \
         at most 256 in one another",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NONE: Amount = Amount { bytes: u64::MAX, files: u64::MAX };

    fn counted(folder: &tempfile::TempDir, most: Amount) -> String {
        let watched = [Watched::open(folder.path().to_owned()).unwrap()];
        count(&watched, most).map_or_else(|failure| format!("{failure:?}"), |()| String::new())
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

    #[test]
    fn what_is_too_deep_is_not_counted_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut at = descent::open(CWD, folder.path()).unwrap();
        let name = "d".repeat(100);
        for _ in 0..400 {
            rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
            at = descent::open(at.as_fd(), &name).unwrap();
        }
        assert!(counted(&folder, NONE).contains("256 in one another"));
        empty(&Watched::open(folder.path().to_owned()).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_that_a_job_closed_are_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::write(closed.join("file"), "x").unwrap();
        for path in [closed.as_path(), folder.path()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o555)).unwrap();
        }
        empty(&Watched::open(folder.path().to_owned()).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_was_replaced_by_a_link_is_not_left() {
        let folder = tempfile::tempdir().unwrap();
        let (job, other) = (folder.path().join("job"), folder.path().join("other"));
        for path in [&job, &other] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(other.join("file"), "").unwrap();
        let watched = Watched::open(job.clone()).unwrap();
        std::fs::rename(&job, folder.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(&other, &job).unwrap();
        count(std::slice::from_ref(&watched), Amount { files: 0, ..NONE }).unwrap();
        empty(&watched);
        assert!(other.join("file").exists());
    }

    #[tokio::test]
    async fn a_job_that_exceeds_a_limit_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        DiskWatch::new(vec![folder.path().to_owned()], NONE).unwrap().empty().await;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_gone_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let watched = [Watched::open(folder.path().to_owned()).unwrap()];
        drop(folder);
        count(&watched, Amount::default()).unwrap();
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
        let mut watch = DiskWatch::new(vec![folder.path().to_owned()], Amount { bytes: u64::MAX, files: 2 }).unwrap();
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
