//! Lists a directory tree depth first, without following links.
//!
//! Every directory is opened by its name in the one above it, so no path is resolved again. Memory and open files are bounded: one open
//! directory a level, at most [`DEEPEST`] levels, and no list of directories to visit.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Most directories in one another that a descent enters.
pub const DEEPEST: usize = 256;

/// A running descent, at the entry that [`Descent::advance`] returned last.
pub struct Descent {
    /// The open directories, from the top, with the lengths of their paths.
    open: Vec<(Dir, usize)>,
    path: Vec<u8>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: CString,
    pub kind: FileType,
}

impl Descent {
    /// Starts in the directory.
    pub fn of(top: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { open: vec![(list(top)?, 0)], path: Vec::new() })
    }

    /// The next entry of the directory that was entered last, or else of the one above it; `None` at the end.
    pub fn advance(&mut self) -> Option<io::Result<Found>> {
        loop {
            let (directory, length) = self.open.last_mut()?;
            self.path.truncate(*length);
            let found = match directory.read() {
                Some(Ok(entry)) => entry,
                // The directory was removed meanwhile.
                None | Some(Err(Errno::NOENT)) => {
                    self.open.pop();
                    continue;
                }
                Some(Err(error)) => {
                    self.open.pop();
                    return Some(Err(error.into()));
                }
            };
            let name = found.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match (found.file_type(), directory.fd()) {
                (FileType::Unknown, Ok(above)) => kind_of(above, &name),
                (kind, _) => kind,
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            return Some(Ok(Found { name, kind }));
        }
    }

    /// Path of the last entry below the top.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The directory of the last entry.
    pub fn above(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.open.last().ok_or(Errno::BADF)?.0.fd()?)
    }

    /// True when the last entry lies too deep to be entered.
    pub fn is_deepest(&self) -> bool {
        self.open.len() >= DEEPEST
    }

    /// Enters the last entry, which must be a directory. Adds the permissions `needed` to its mode where the user may.
    pub fn enter(&mut self, found: &Found, needed: u32) -> io::Result<()> {
        let directory = open_unlocked(self.above()?, &found.name, needed)?;
        self.enter_at(directory.as_fd())
    }

    /// Enters the last entry, opened before.
    pub fn enter_at(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        self.open.push((list(directory)?, self.path.len()));
        Ok(())
    }
}

fn kind_of(above: BorrowedFd<'_>, name: &CString) -> FileType {
    let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

/// Opens a directory by name, for use as a place and not for listing. Follows no link, and needs no permission of the directory itself.
pub fn open(above: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(above, name, flags, Mode::empty())?)
}

/// As [`open`]; adds the permissions `needed` to the directory's mode where the user may.
pub fn open_unlocked(above: BorrowedFd<'_>, name: impl rustix::path::Arg, needed: u32) -> io::Result<OwnedFd> {
    let directory = open(above, name)?;
    unlock(directory.as_fd(), needed)?;
    Ok(directory)
}

/// Adds permissions to the mode of an open directory. That the user may not shows in the later access.
pub fn unlock(directory: BorrowedFd<'_>, needed: u32) -> io::Result<()> {
    if needed == 0 {
        return Ok(());
    }
    let mode = rustix::fs::fstat(directory)?.st_mode & 0o7777;
    if mode & needed != needed {
        let _ = change_mode(directory, mode | needed);
    }
    Ok(())
}

/// Changes the mode of an entry opened with `O_PATH`, which `fchmod` does not accept.
pub fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}

/// Opens the directory for listing; a descriptor opened with `O_PATH` cannot be listed.
pub(super) fn list(directory: BorrowedFd<'_>) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(Dir::new(rustix::fs::openat(directory, ".", flags, Mode::empty())?)?)
}

/// True when the entry has gone, or is no directory any more.
pub fn has_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_tree_is_listed_without_what_links_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        let top = File::open(folder.path()).unwrap();
        let (mut descent, mut paths) = (Descent::of(top.as_fd()).unwrap(), Vec::new());
        while let Some(found) = descent.advance() {
            let found = found.unwrap();
            paths.push(String::from_utf8_lossy(descent.path()).into_owned());
            if found.kind == FileType::Directory {
                descent.enter(&found, 0).unwrap();
            } else if found.kind == FileType::Symlink {
                assert!(has_gone(&descent.enter(&found, 0).unwrap_err()));
            }
        }
        paths.sort();
        assert_eq!(paths, ["a", "a/b", "a/b/file", "link"]);
    }
}
