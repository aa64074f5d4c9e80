//! Removes directory trees that jobs left: of any depth, with any modes, without following links.
//!
//! Deep directories are moved to the top of the tree and emptied there. So a few open files are enough, and no list of directories is
//! kept.

use std::ffi::{CStr, CString};
use std::hash::BuildHasher as _;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::descent::{self, Descent, Found, has_gone};

/// Permissions of a directory's owner, which removing its entries needs.
const OWNERS: u32 = 0o700;

/// Levels of directories that are emptied where they are.
const LEVELS: usize = 32;

/// Removes the entry of that name with what it holds. It need not exist.
pub fn remove(above: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(above, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let emptied = empty(descent::open(above, name)?.as_fd());
    match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(emptied.err().unwrap_or_else(|| error.into())),
    }
}

/// Removes what the directory holds. Goes on after an error, and returns the first one.
pub fn empty(top: BorrowedFd<'_>) -> io::Result<()> {
    descent::unlock(top, OWNERS)?;
    let nonce = std::hash::RandomState::new().hash_one(std::process::id());
    let mut removal = Removal { top, prefix: format!(".removed-{nonce:016x}-"), moved: 0, failed: None };
    removal.clear(top, LEVELS)?;
    let mut next = 0;
    while next < removal.moved {
        let name = removal.name(next)?;
        let removed = removal.remove_directory(top, &name, LEVELS);
        removal.note(removed);
        next += 1;
    }
    removal.failed.map_or(Ok(()), Err)
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    /// Start of the names of the directories that were moved to the top; a number follows.
    prefix: String,
    moved: u64,
    failed: Option<io::Error>,
}

impl Removal<'_> {
    fn name(&self, number: u64) -> io::Result<CString> {
        Ok(CString::new(format!("{}{number}", self.prefix))?)
    }

    fn note(&mut self, done: io::Result<()>) {
        match done {
            Err(error) if !has_gone(&error) => {
                self.failed.get_or_insert(error);
            }
            _ => {}
        }
    }

    /// Removes what the directory holds, down to `levels` below it; moves deeper directories to the top.
    fn clear(&mut self, directory: BorrowedFd<'_>, levels: usize) -> io::Result<()> {
        let mut entries = Descent::of(directory)?;
        while let Some(found) = entries.advance() {
            let Found { name, kind } = found?;
            let removed = match kind {
                FileType::Directory if name.to_bytes().starts_with(self.prefix.as_bytes()) => continue,
                FileType::Directory if levels == 0 => self.move_to_top(directory, &name),
                FileType::Directory => self.remove_directory(directory, &name, levels - 1),
                _ => unlink(directory, &name, AtFlags::empty()),
            };
            self.note(removed);
        }
        Ok(())
    }

    fn remove_directory(&mut self, above: BorrowedFd<'_>, name: &CStr, levels: usize) -> io::Result<()> {
        let directory = descent::open_unlocked(above, name, OWNERS)?;
        self.clear(directory.as_fd(), levels)?;
        unlink(above, name, AtFlags::REMOVEDIR)
    }

    fn move_to_top(&mut self, above: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        // A directory that moves must be writable itself.
        descent::open_unlocked(above, name, OWNERS)?;
        rustix::fs::renameat(above, name, self.top, &self.name(self.moved)?)?;
        self.moved += 1;
        Ok(())
    }
}

fn unlink(above: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(above, name, flags)?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::Mode;

    use super::*;

    fn removed(folder: &tempfile::TempDir, name: &str) {
        let above = File::open(folder.path()).unwrap();
        remove(above.as_fd(), &CString::new(name).unwrap()).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|left| left == "kept"), "{left:?}");
    }

    #[test]
    fn a_tree_of_any_depth_goes() {
        const DEPTH: usize = 1_500;
        let folder = tempfile::tempdir().unwrap();
        let mut at: std::os::fd::OwnedFd = File::open(folder.path()).unwrap().into();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(&at, "ddd", Mode::RWXU).unwrap();
            at = descent::open(at.as_fd(), "ddd").unwrap();
        }
        removed(&folder, "ddd");
    }

    #[test]
    fn closed_directories_go_and_what_links_lead_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kept")).unwrap();
        fs::write(folder.path().join("kept/file"), "").unwrap();
        let inner = folder.path().join("a/b/c");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        symlink(folder.path().join("kept"), inner.join("link")).unwrap();
        for path in ["a/b/c", "a/b", "a"] {
            fs::set_permissions(folder.path().join(path), Permissions::from_mode(0o555)).unwrap();
        }
        removed(&folder, "a");
        symlink("kept", folder.path().join("link")).unwrap();
        removed(&folder, "link");
        removed(&folder, "absent");
        assert!(folder.path().join("kept/file").exists());
    }
}
