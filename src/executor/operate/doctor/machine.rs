//! Port of this machine, as the checks see it: files, disks, programs, the sandbox. And its implementation.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::Access;

use crate::base::failure::render;
use crate::config::env::Environment;
use crate::sandbox;

/// Longest time of a program that tells its version.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Longest time in which the sandbox is made.
pub(super) const MADE_WITHIN: Duration = Duration::from_secs(5);
/// Most entries of a directory that are looked at.
const MOST_ENTRIES: usize = 10_000;
/// Largest file that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// The machine, looked at and not changed.
#[async_trait]
pub(super) trait HostMachine: Send + Sync {
    /// A text file of at most 4 MiB.
    fn read(&self, path: &Path) -> io::Result<String>;
    fn look(&self, path: &Path) -> io::Result<PathSight>;
    /// Entries of a directory, links themselves and not their targets; none when it cannot be read.
    fn entries(&self, path: &Path) -> Vec<(PathBuf, PathSight)>;
    /// The file system that a path is on, which exists.
    fn disk(&self, path: &Path) -> io::Result<DiskSight>;
    /// The path without links; itself where nothing is there.
    fn resolve(&self, path: &Path) -> PathBuf;
    /// The program of a name in these folders, with `:` between them, or in this process's `PATH`.
    fn find(&self, program: &str, path: Option<&str>) -> Option<PathBuf>;
    /// Standard output of a program; its end with an error is none of ours.
    async fn output(&self, program: &str, arguments: &[&str]) -> io::Result<String>;
    /// Tries to make the sandbox of the host stages; the text says why not.
    async fn try_sandbox(&self) -> Result<(), String>;
    /// Tells whether a program in the sandbox connects with the metadata service; the text says why nobody knows.
    async fn reaches_metadata(&self) -> Result<bool, String>;
    /// User id of this process.
    fn user(&self) -> u32;
    fn variable(&self, name: &str) -> Option<String>;
    /// The file of this program.
    fn own_program(&self) -> PathBuf;
}

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathSight {
    pub(super) is_dir: bool,
    /// Permission bits, and those of set-user-id and the sticky bit.
    pub(super) mode: u32,
    pub(super) owner: u32,
    /// Device and number: equal for two paths of one file.
    pub(super) file: (u64, u64),
    /// This process may write it; a directory also be read and entered.
    pub(super) is_writable: bool,
    /// A program that this process may start.
    pub(super) is_executable: bool,
}

/// Free room of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskSight {
    pub(super) free_bytes: u64,
    /// `None` where the file system has no fixed number of them.
    pub(super) free_inodes: Option<u64>,
}

fn sight(path: &Path, meta: &std::fs::Metadata) -> PathSight {
    let whole = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let access = if meta.is_dir() { whole } else { Access::WRITE_OK };
    PathSight {
        is_dir: meta.is_dir(),
        mode: meta.permissions().mode() & 0o7777,
        owner: meta.uid(),
        file: (meta.dev(), meta.ino()),
        is_writable: rustix::fs::access(path, access).is_ok(),
        is_executable: meta.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok(),
    }
}

/// The machine that this program runs on.
pub(super) struct ThisMachine<'a> {
    pub(super) env: &'a Environment,
}

#[async_trait]
impl HostMachine for ThisMachine<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        let meta = std::fs::metadata(path)?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        if meta.len() > LARGEST {
            return Err(io::Error::other("the file is larger than 4 MiB"));
        }
        std::fs::read_to_string(path)
    }

    fn look(&self, path: &Path) -> io::Result<PathSight> {
        Ok(sight(path, &std::fs::metadata(path)?))
    }

    fn entries(&self, path: &Path) -> Vec<(PathBuf, PathSight)> {
        let entries = std::fs::read_dir(path).into_iter().flatten().take(MOST_ENTRIES).filter_map(Result::ok);
        entries.filter_map(|entry| Some((entry.path(), sight(&entry.path(), &entry.metadata().ok()?)))).collect()
    }

    fn disk(&self, path: &Path) -> io::Result<DiskSight> {
        let disk = rustix::fs::statvfs(path)?;
        Ok(DiskSight {
            free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            free_inodes: (disk.f_files > 0).then_some(disk.f_favail),
        })
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
    }

    fn find(&self, program: &str, path: Option<&str>) -> Option<PathBuf> {
        let is_executable = |file: &PathBuf| self.look(file).is_ok_and(|sight| sight.is_executable);
        path.unwrap_or(self.env.path()).split(':').map(|folder| Path::new(folder).join(program)).find(is_executable)
    }

    async fn output(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.env_clear().envs(self.env.for_host_scripts());
        let output = tokio::time::timeout(ANSWERED_WITHIN, command.output()).await;
        let output = output.map_err(|_| io::Error::other("no answer within 3 s"))??;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn try_sandbox(&self) -> Result<(), String> {
        let made = tokio::time::timeout(MADE_WITHIN, sandbox::check(self.env.path())).await;
        made.map_err(|_| "bubblewrap made no sandbox within 5 s".to_owned())?.map_err(|error| render(&error))
    }

    async fn reaches_metadata(&self) -> Result<bool, String> {
        sandbox::reaches_metadata(self.env.path()).await.map_err(|error| format!("{error:#}"))
    }

    fn user(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.env.get(name).map(str::to_owned)
    }

    fn own_program(&self) -> PathBuf {
        std::fs::read_link("/proc/self/exe").unwrap_or_default()
    }
}
