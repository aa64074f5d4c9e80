//! System calls that several files of this folder use.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, Timespec, Timestamps};
use rustix::io::Errno;

use crate::workspace::manifest::Timestamp;

/// True when the entry does not exist, because it or a component of its path is missing or not a directory.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Changes the mode of an entry opened with `O_PATH`, which `fchmod` does not accept.
pub(crate) fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}

pub(crate) fn times(mtime: Timestamp) -> Timestamps {
    let at = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: at, last_modification: at }
}

/// A path to an open directory, valid in this process, for functions that take no descriptor.
pub fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
