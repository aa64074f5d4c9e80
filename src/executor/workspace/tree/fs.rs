//! System calls that several files of this folder use.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Timespec, Timestamps};

pub(crate) use crate::base::descent::{change_mode, has_gone as is_absent};
use crate::workspace::manifest::Timestamp;

pub(crate) fn times(mtime: Timestamp) -> Timestamps {
    let at = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: at, last_modification: at }
}

/// A path to an open directory, valid in this process, for functions that take no descriptor.
pub fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
