//! Writes single entries of a tree: makes directories and links, moves files in place, deletes.
//!
//! Never follows a link. A file or link replaces the old entry by a rename; modes and times are set last. `receive::judge` decides
//! beforehand whether an entry may be written.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use anyhow::Context as _;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::fs::{change_mode, is_absent, times};
use super::stat::FileStat;
use super::walker::Walker;
use crate::workspace::manifest::{Entry, Timestamp};
use crate::workspace::path::split;

/// Attributes of a finished file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileEnd {
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) mtime: Timestamp,
}

pub(crate) fn make_directory(walker: &mut Walker, path: &[u8]) -> io::Result<()> {
    let (above, name) = split(path);
    let fd = walker.directory(above, true)?;
    match rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => return Ok(()),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        rustix::fs::unlinkat(fd, name, AtFlags::empty())?;
        rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

pub(crate) fn finish_directory(walker: &mut Walker, entry: &Entry) -> io::Result<Option<FileStat>> {
    walker.forget();
    let fd = walker.directory(&entry.path, false)?;
    let now = rustix::fs::fstat(fd)?.st_mode & 0o7777;
    // Keep the special bits of the host's directory, such as set-group-id.
    let mode = if entry.mode & 0o7000 == 0 { (now & 0o7000) | entry.mode } else { entry.mode };
    if mode != now {
        change_mode(fd, mode)?;
    }
    rustix::fs::utimensat(fd, "", &times(entry.mtime), AtFlags::EMPTY_PATH).or_else(|_| {
        // Older kernels do not accept an empty path.
        rustix::fs::utimensat(fd, ".", &times(entry.mtime), AtFlags::empty())
    })?;
    let stat = FileStat::of(&rustix::fs::fstat(fd)?);
    walker.settle(&entry.path);
    Ok(stat)
}

pub(crate) fn write_link(walker: &mut Walker, entry: &Entry) -> io::Result<Option<FileStat>> {
    let (above, name) = split(&entry.path);
    let fd = walker.directory(above, true)?;
    let temporary = temporary_name();
    rustix::fs::symlinkat(entry.target.as_slice(), fd, &temporary)?;
    let placed = rustix::fs::utimensat(fd, &temporary, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .and_then(|()| move_in_place(fd, temporary.as_bytes(), fd, name))
        .and_then(|()| rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW));
    if placed.is_err() {
        drop_temporary(fd, &temporary);
    }
    Ok(FileStat::of(&placed?))
}

/// Opens a file of a tree for writing, under its final name: only for a tree that is not read yet. With `make`, replaces the entry of
/// that name by a new file.
pub(crate) fn open_new(walker: &mut Walker, path: &[u8], make: bool) -> io::Result<File> {
    let (above, name) = split(path);
    let fd = walker.directory(above, true)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !make {
        return Ok(rustix::fs::openat(fd, name, flags, Mode::empty())?.into());
    }
    let (flags, mode) = (flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o600));
    match rustix::fs::openat(fd, name, flags, mode) {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(fd, name, AtFlags::empty())?;
            Ok(rustix::fs::openat(fd, name, flags, mode)?.into())
        }
        other => Ok(other?.into()),
    }
}

/// Sets size, mode and time of a file with complete content.
pub(crate) fn settle_file(file: &File, end: &FileEnd) -> io::Result<Option<FileStat>> {
    let stat = rustix::fs::fstat(file)?;
    if u64::try_from(stat.st_size).ok() != Some(end.size) {
        file.set_len(end.size)?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(end.mode))?;
    rustix::fs::futimens(file, &times(end.mtime))?;
    Ok(FileStat::of(&rustix::fs::fstat(file)?))
}

/// Moves a finished file from another directory, replacing the entry of that name; copies it when it is on another file system. Sets
/// mode and time last.
pub(crate) fn place_file(
    walker: &mut Walker,
    path: &[u8],
    from: BorrowedFd<'_>,
    name: &str,
    end: &FileEnd,
) -> anyhow::Result<()> {
    let (above, own) = split(path);
    let fd = walker.directory(above, true)?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    match move_in_place(from, name.as_bytes(), fd, own) {
        Err(Errno::XDEV) => {}
        other => {
            other?;
            settle_file(&source, end)?;
            return Ok(());
        }
    }
    let temporary = temporary_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(fd, &temporary, flags, Mode::from_raw_mode(0o600))?);
    let placed = io::copy(&mut source, &mut copy)
        .and_then(|_| settle_file(&copy, end))
        .and_then(|_| Ok(move_in_place(fd, temporary.as_bytes(), fd, own)?));
    if placed.is_err() {
        drop_temporary(fd, &temporary);
    }
    placed.context("failed to copy it from another file system")
}

/// Deletes one path that the container deleted. Missing entries, entries below a non-directory, and directories that are not empty
/// are left alone.
pub(crate) fn delete(walker: &mut Walker, path: &[u8]) -> io::Result<()> {
    let (above, name) = split(path);
    let fd = match walker.directory(above, false) {
        Ok(fd) => fd,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => match rustix::fs::unlinkat(fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                walker.forget();
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        },
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Renames the entry; removes an empty directory at the destination first.
fn move_in_place(from: BorrowedFd<'_>, temporary: &[u8], to: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat(from, temporary, to, name) {
        Err(Errno::ISDIR) => {
            rustix::fs::unlinkat(to, name, AtFlags::REMOVEDIR)?;
            rustix::fs::renameat(from, temporary, to, name)
        }
        other => other,
    }
}

fn drop_temporary(fd: BorrowedFd<'_>, name: impl rustix::path::Arg) {
    // An error is about to be reported; another one would add nothing.
    let _ = rustix::fs::unlinkat(fd, name, AtFlags::empty());
}

/// A random name, so that it does not clash with an entry of the project.
fn temporary_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nonce = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    format!(".sagemaker-executor-{nonce:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
