//! Walks a directory tree from one open directory, component by component, without following links.
//!
//! Every path passed to the kernel is a single name below an open directory. So a link planted in the tree causes an error instead
//! of a write elsewhere, and no path is too long for the kernel.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::base::Base;
use super::fs::{change_mode, is_absent};
use super::stat::FileStat;
use crate::base::failure::Failure;
use crate::workspace::manifest::{Entry, EntryKind, Tree};
use crate::workspace::path::{LONGEST_PATH, join, shown, split};
use crate::workspace::task::Stop;
use crate::workspace::warnings::{LeftOut, Warnings};

/// Most bytes of the paths of directories that a walk has yet to visit.
const MOST_WAITING: usize = 64 << 20;

/// The open directory of a tree.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    fd: Arc<OwnedFd>,
}

impl Root {
    /// Opens the directory; `None` when it does not exist. Follows links on the way: for a container, whose image may have some.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self::of(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to open the directory {}", path.display())),
        }
    }

    /// Opens the directory, following links only on the way to `base`.
    pub(crate) fn open_below(base: &Path, path: &Path) -> anyhow::Result<Option<Self>> {
        let Some(base) = Base::open(base)? else { return Ok(None) };
        Ok(base.directory(path)?.map(Self::of))
    }

    /// [`Root::open_below`]; makes the directory when it is missing.
    pub(crate) fn create_below(base: &Path, path: &Path) -> anyhow::Result<Self> {
        let made = Base::create(base)?.make(path);
        Ok(Self::of(made.with_context(|| format!("failed to create the directory {}", path.display()))?))
    }

    fn of(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// As [`Root::open`], but `None` too when a script replaced the directory: a link in its place is not followed.
    pub(crate) fn open_after_script(path: &Path) -> anyhow::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self::of(fd))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(Failure::user(format!("failed to open the directory {}", path.display()))
                .hint("leave the directories above the project as they are")
                .caused_by(error)
                .into()),
        }
    }

    /// Opens the directory and makes it when it is missing.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("failed to create the directory {}", path.display()))?;
        Self::open(path)?.with_context(|| format!("failed to open the directory {}: it vanished", path.display()))
    }
}

const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The scope of [`Walker::walk`].
pub(crate) struct Scope<'a> {
    pub(crate) tree: Tree,
    /// The directory whose content is walked.
    pub(crate) top: &'a [u8],
    /// True for a path to skip, with everything below it.
    pub(crate) skip: &'a dyn Fn(&[u8]) -> bool,
    pub(crate) stop: &'a Stop,
}

impl<'a> Scope<'a> {
    /// The project without the paths for which `skip` is true.
    pub(crate) fn project(skip: &'a dyn Fn(&[u8]) -> bool, stop: &'a Stop) -> Self {
        Self { tree: Tree::Project, top: b"", skip, stop }
    }
}

/// Walks one tree. Keeps the last directory open, since entries come in order.
pub(crate) struct Walker {
    root: Root,
    at: Option<(Vec<u8>, OwnedFd)>,
    /// Owner's permission bits that a directory is given when it lacks them.
    needed: u32,
    /// The former modes of such directories, by path.
    unlocked: BTreeMap<Vec<u8>, u32>,
}

impl Walker {
    pub(crate) fn new(root: &Root) -> Self {
        Self { root: root.clone(), at: None, needed: 0, unlocked: BTreeMap::new() }
    }

    /// A walker that adds the owner's read permission where it is missing, unless it is root; the permission stays.
    pub(crate) fn reading(root: &Root) -> Self {
        let needed = if rustix::process::geteuid().is_root() { 0 } else { 0o500 };
        Self { needed, ..Self::new(root) }.with_root_unlocked()
    }

    /// A walker that adds the owner's permissions to directories; [`Walker::relock`] removes them again.
    pub(crate) fn unlocking(root: &Root) -> Self {
        Self { needed: 0o700, ..Self::new(root) }.with_root_unlocked()
    }

    fn with_root_unlocked(mut self) -> Self {
        let root = self.root.clone();
        self.unlock(root.fd.as_fd(), b"");
        self
    }

    /// Adds the needed permissions. A failure shows in the later access.
    fn unlock(&mut self, fd: BorrowedFd<'_>, path: &[u8]) {
        if self.needed == 0 {
            return;
        }
        let Ok(mode) = rustix::fs::fstat(fd).map(|stat| stat.st_mode & 0o7777) else { return };
        if mode & self.needed != self.needed && change_mode(fd, mode | self.needed).is_ok() {
            self.unlocked.entry(path.to_vec()).or_insert(mode);
        }
    }

    /// Closes the last directory: a component of its path may have been replaced.
    pub(crate) fn forget(&mut self) {
        self.at = None;
    }

    /// Opens the directory `path` without following links; with `make`, makes missing directories.
    pub(crate) fn directory(&mut self, path: &[u8], make: bool) -> io::Result<BorrowedFd<'_>> {
        if path.is_empty() {
            return Ok(self.root.fd.as_fd());
        }
        let (mut fd, mut done) = match self.at.take() {
            Some((at, fd)) if path == at || (path.starts_with(&at) && path.get(at.len()) == Some(&b'/')) => {
                (Some(fd), at.len())
            }
            _ => (None, 0),
        };
        while done < path.len() {
            let start = if done == 0 { 0 } else { done + 1 };
            let end = path[start..].iter().position(|&byte| byte == b'/').map_or(path.len(), |length| start + length);
            let name = &path[start..end];
            let above = fd.as_ref().map_or(self.root.fd.as_fd(), AsFd::as_fd);
            let next = match rustix::fs::openat(above, name, STEP, Mode::empty()) {
                Err(Errno::NOENT) if make => {
                    rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o755))?;
                    rustix::fs::openat(above, name, STEP, Mode::empty())?
                }
                other => other?,
            };
            self.unlock(next.as_fd(), &path[..end]);
            fd = Some(next);
            done = end;
        }
        match fd {
            Some(fd) => Ok(self.at.insert((path.to_vec(), fd)).1.as_fd()),
            None => Ok(self.root.fd.as_fd()),
        }
    }

    /// The directory has got its final mode: [`Walker::relock`] does not change it.
    pub(crate) fn settle(&mut self, path: &[u8]) {
        self.unlocked.remove(path);
    }

    /// Restores the modes of the directories that were given permissions, the deepest first.
    pub(crate) fn relock(&mut self) -> io::Result<()> {
        for (path, mode) in std::mem::take(&mut self.unlocked).into_iter().rev() {
            self.forget();
            match self.directory(&path, false) {
                Ok(fd) => change_mode(fd, mode)?,
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The entry's own attributes (a link's, not its target's); `None` when it or a directory above it does not exist.
    pub(crate) fn stat(&mut self, path: &[u8]) -> io::Result<Option<Stat>> {
        let (directory, name) = split(path);
        let found = self
            .directory(directory, false)
            .and_then(|fd| Ok(rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?));
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn target(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        let (directory, name) = split(path);
        let fd = self.directory(directory, false)?;
        Ok(rustix::fs::readlinkat(fd, name, Vec::new())?.into_bytes())
    }

    /// Opens a file for reading; a walker that may unlock adds the permission. The file may have been replaced since it was listed: check it
    /// with `fstat`.
    pub(crate) fn open_file(&mut self, path: &[u8]) -> io::Result<File> {
        let (directory, name) = split(path);
        let may_unlock = self.needed != 0;
        let fd = self.directory(directory, false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut opened = rustix::fs::openat(fd, name, flags, Mode::empty());
        if may_unlock && matches!(opened, Err(Errno::ACCESS)) {
            let own = rustix::fs::openat(fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let mode = rustix::fs::fstat(&own)?.st_mode;
            if FileType::from_raw_mode(mode) == FileType::RegularFile {
                change_mode(own.as_fd(), (mode | 0o400) & 0o7777)?;
                opened = rustix::fs::openat(fd, name, flags, Mode::empty());
            }
        }
        Ok(opened?.into())
    }

    /// The names in the directory, with their types.
    pub(crate) fn names(&mut self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        names(self.directory(path, false)?)
    }

    /// Calls `found` for every entry in `scope`, parents first. Skips entries that vanish meanwhile; warns about those that cannot be
    /// transferred.
    pub(crate) fn walk(
        &mut self,
        scope: &Scope<'_>,
        warnings: &mut Warnings,
        found: &mut dyn FnMut(Entry, FileStat) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut open = vec![scope.top.to_vec()];
        let mut waiting = 0;
        while let Some(directory) = open.pop() {
            scope.stop.check()?;
            waiting -= directory.len().min(waiting);
            let mut names = match self.names(&directory) {
                Ok(names) => names,
                Err(error) if is_absent(&error) && directory != scope.top => continue,
                Err(error) => return Err(error).with_context(|| format!("failed to list {}", shown(&directory))),
            };
            // A stable order keeps neighboring files together in packs.
            names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            let own = open.len();
            for (name, _) in names {
                let path = join(&directory, &name);
                if (scope.skip)(&path) {
                    continue;
                }
                anyhow::ensure!(path.len() <= LONGEST_PATH, "failed to pack {}: path longer than 16 KiB", shown(&path));
                let Some(stat) = self.stat(&path).with_context(|| format!("failed to look at {}", shown(&path)))?
                else {
                    continue;
                };
                let Some(stat) = FileStat::of(&stat) else {
                    warnings.leave_out(LeftOut::Special, &path);
                    continue;
                };
                let mut target = Vec::new();
                match stat.kind {
                    EntryKind::Link => match self.target(&path) {
                        Ok(link) => target = link,
                        Err(error) if is_absent(&error) => continue,
                        Err(error) => {
                            return Err(error).with_context(|| format!("failed to read the link {}", shown(&path)));
                        }
                    },
                    EntryKind::Directory => {
                        waiting += path.len();
                        open.push(path.clone());
                    }
                    EntryKind::File | EntryKind::Deleted | EntryKind::Special => {}
                }
                found(stat.entry(scope.tree, path, target), stat)?;
            }
            open[own..].reverse();
            if waiting > MOST_WAITING {
                return Err(Failure::user(format!("too many directories with long paths at {}", shown(&directory)))
                    .hint("keep fewer directories in the project, or less deep ones")
                    .into());
            }
        }
        Ok(())
    }

    /// Lists the entries of [`Walker::walk`], sorted by path.
    pub(crate) fn list(
        &mut self,
        scope: &Scope<'_>,
        warnings: &mut Warnings,
    ) -> anyhow::Result<Vec<(Entry, FileStat)>> {
        let mut listed = Vec::new();
        self.walk(scope, warnings, &mut |entry, stat| {
            listed.push((entry, stat));
            Ok(())
        })?;
        listed.sort_unstable_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        Ok(listed)
    }
}

fn names(fd: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    // `fd` was opened with `O_PATH` and cannot be listed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for item in Dir::new(rustix::fs::openat(fd, ".", flags, Mode::empty())?)? {
        let item = item?;
        let name = item.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        let mut kind = item.file_type();
        if kind == FileType::Unknown
            && let Ok(stat) = rustix::fs::statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW)
        {
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        names.push((name, kind));
    }
    Ok(names)
}
