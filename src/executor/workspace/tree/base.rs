//! Opens directories below an operator's directory without following links.
//!
//! The operator's path (`runner.builds_dir`, `runner.cache_dir`) may contain links and is resolved once. Everything below it was made
//! by jobs: links there are never followed, neither for reading nor for writing.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::fs::change_mode;
use crate::base::failure::Failure;
use crate::workspace::path::masked;

const OPEN: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const STEP: OFlags = OPEN.union(OFlags::NOFOLLOW);

/// An open directory of the operator.
#[derive(Debug)]
pub struct Base {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Base {
    /// Opens the directory; `None` when it does not exist.
    pub fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        match rustix::fs::open(path, OPEN, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: path.to_owned() })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to open the directory {}", path.display())),
        }
    }

    /// Opens the directory and makes it when it is missing.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("failed to create the directory {}", path.display()))?;
        Self::open(path)?.with_context(|| format!("failed to open the directory {}: it vanished", path.display()))
    }

    /// Opens the directory `path` below this one; `None` when it does not exist. Fails when a link is on the way.
    pub fn directory(&self, path: &Path) -> anyhow::Result<Option<OwnedFd>> {
        match open(self.fd.as_fd(), self.relative(path)?) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.explain(path, error)),
        }
    }

    /// Opens the directory `path`, making missing directories on the way.
    pub fn make(&self, path: &Path) -> anyhow::Result<OwnedFd> {
        let mut at = self.fd.try_clone()?;
        for name in self.relative(path)?.components() {
            let made = match rustix::fs::mkdirat(&at, name.as_os_str(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(&at, name.as_os_str(), STEP, Mode::empty()),
                Err(error) => Err(error),
            };
            at = made.map_err(|error| self.explain(path, error))?;
        }
        Ok(at)
    }

    /// Restores the owner's permissions of `path` and the directories on the way to it, which a job may have removed.
    pub fn unlock(&self, path: &Path) -> anyhow::Result<()> {
        const OWNERS: u32 = 0o700;
        let mut at = self.fd.try_clone()?;
        for name in self.relative(path)?.components() {
            at = match rustix::fs::openat(&at, name.as_os_str(), STEP, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(self.explain(path, error)),
            };
            let mode = rustix::fs::fstat(&at)?.st_mode & 0o7777;
            if mode & OWNERS != OWNERS {
                // Another user's directory cannot be changed; the later access reports it.
                let _ = change_mode(at.as_fd(), mode | OWNERS);
            }
        }
        Ok(())
    }

    /// Removes a file, pipe or socket in the place of `path` or of a directory on the way to it: the next stage makes directories there. A
    /// link stays, to be refused.
    pub(super) fn clear_way(&self, path: &Path) -> anyhow::Result<()> {
        let failed = || format!("failed to remove what is in the way of the directory {}", masked(path));
        let mut at = self.fd.try_clone()?;
        for name in self.relative(path)?.components() {
            let name = name.as_os_str();
            at = match rustix::fs::openat(&at, name, STEP, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => return Ok(()),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let found = rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW).with_context(failed)?;
                    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
                        rustix::fs::unlinkat(&at, name, AtFlags::empty()).with_context(failed)?;
                    }
                    return Ok(());
                }
                Err(error) => return Err(self.explain(path, error)),
            };
        }
        Ok(())
    }

    /// Fails when `path` or a directory on the way to it is a link. Missing components are no links.
    pub fn check(&self, path: &Path) -> anyhow::Result<()> {
        self.links_to(path)?.first().map_or(Ok(()), |link| Err(refused(path, link)))
    }

    /// The first link on the way to `path`, including `path`; the way behind it is not searched.
    pub(super) fn links_to(&self, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut at = self.fd.try_clone()?;
        let mut seen = self.path.clone();
        for name in self.relative(path)?.components() {
            seen.push(name);
            let kind = match rustix::fs::statat(&at, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error).with_context(|| format!("failed to look at {}", masked(&seen))),
            };
            match kind {
                FileType::Symlink => return Ok(vec![seen]),
                FileType::Directory => at = rustix::fs::openat(&at, name.as_os_str(), STEP, Mode::empty())?,
                _ => break,
            }
        }
        Ok(Vec::new())
    }

    /// `path` relative to this directory. Fails unless all components are plain names: `..` could lead out.
    pub(super) fn relative<'p>(&self, path: &'p Path) -> anyhow::Result<&'p Path> {
        let below = path.strip_prefix(&self.path).ok();
        below
            .filter(|below| below.components().all(|part| matches!(part, Component::Normal(_))))
            .with_context(|| format!("the directory {} does not lie below {}", masked(path), self.path.display()))
    }

    fn explain(&self, path: &Path, error: Errno) -> anyhow::Error {
        match self.links_to(path).unwrap_or_default().first() {
            Some(link) => refused(path, link),
            None => anyhow::Error::from(error).context(format!("failed to open the directory {}", masked(path))),
        }
    }
}

pub(super) fn refused(path: &Path, link: &Path) -> anyhow::Error {
    Failure::user(format!("the directory {} is refused: {} is a link", masked(path), masked(link)))
        .hint("let the job make no links there; the executor removes them before the next job. Only the paths in `runner.builds_dir` and `runner.cache_dir` themselves may lead through links")
        .into()
}

/// Opens a directory below `base` without following links. Where `openat2` is missing (kernels before 5.6, some sandboxes), opens it
/// component by component.
pub(super) fn open(base: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match rustix::fs::openat2(base, name, OPEN, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::AGAIN) => open_by_names(base, path),
        opened => opened,
    }
}

fn open_by_names(base: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let mut at = rustix::fs::openat(base, ".", OPEN, Mode::empty())?;
    for name in path.components() {
        let Component::Normal(name) = name else { return Err(Errno::XDEV) };
        at = rustix::fs::openat(&at, name, STEP, Mode::empty())?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use test_case::test_case;

    use super::*;

    /// The operator's directory is reached through a link; below it lie plain directories, and links that a job made.
    fn world() -> (tempfile::TempDir, Base) {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for directory in ["disk/builds/7/slot/p", "elsewhere/p"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        symlink("disk/builds", at("builds")).unwrap();
        symlink(at("elsewhere"), at("builds/7/out")).unwrap();
        symlink("slot", at("builds/7/same")).unwrap();
        symlink("nowhere", at("builds/7/slot/dangling")).unwrap();
        let base = Base::open(&at("builds")).unwrap().unwrap();
        (folder, base)
    }

    #[test_case("builds/7/slot/p", Ok(true))]
    #[test_case("builds", Ok(true); "the operators own")]
    #[test_case("builds/7/absent/p", Ok(false))]
    #[test_case("builds/7/out/p", Err("builds/7/out is a link"); "leads out")]
    #[test_case("builds/7/same/p", Err("builds/7/same is a link"); "leads to a neighbor")]
    #[test_case("builds/7/slot/dangling", Err("builds/7/slot/dangling is a link"); "leads nowhere")]
    #[test_case("elsewhere/p", Err("does not lie below"); "not below")]
    #[test_case("builds/7/../7/slot", Err("does not lie below"); "leaves and comes back")]
    fn only_plain_directories_are_opened(path: &str, expected: Result<bool, &str>) {
        let (folder, base) = world();
        let path = folder.path().join(path);
        let text = |error: &anyhow::Error| format!("{error:#}");
        match (base.directory(&path), expected) {
            (Ok(found), Ok(is_there)) => assert_eq!(found.is_some(), is_there),
            (Err(error), Err(why)) => assert!(text(&error).contains(why), "{error:#}"),
            (found, _) => panic!("{found:?}"),
        }
        let by_names = path.strip_prefix(&base.path).map(|below| open_by_names(base.fd.as_fd(), below));
        if let Ok(by_names) = by_names {
            assert_eq!(by_names.is_ok(), expected == Ok(true), "without openat2: {by_names:?}");
        }
    }

    #[test]
    fn directories_are_made_through_no_link() {
        let (folder, base) = world();
        base.make(&folder.path().join("builds/7/new/deep")).unwrap();
        assert!(folder.path().join("disk/builds/7/new/deep").is_dir());
        for path in ["builds/7/out/new", "builds/7/slot/dangling", "builds/7/same/new"] {
            let error = base.make(&folder.path().join(path)).unwrap_err();
            assert!(format!("{error:#}").contains("is a link"), "{error:#}");
        }
        assert!(!folder.path().join("elsewhere/new").exists() && !folder.path().join("builds/7/slot/new").exists());
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_holds_no_links() {
        let (folder, base) = world();
        let at = |path: &str| folder.path().join(path);
        fs::write(at("builds/7/slot/p.tmp"), "").unwrap();
        for path in ["builds/7/slot/p.tmp", "builds/7/slot/p.tmp/x"] {
            base.check_all(&at(path)).unwrap();
            assert!(base.remove_links_below(&at(path)).unwrap().is_empty());
        }
        assert!(base.check_all(&at("builds/7/out")).is_err(), "a link is no file");
    }

    #[test]
    fn what_is_too_deep_for_a_search_goes() {
        let (folder, base) = world();
        let at = |path: &str| folder.path().join(path);
        let above = base.directory(&at("builds/7/slot")).unwrap().unwrap();
        let mut deep = rustix::fs::openat(&above, ".", OPEN, Mode::empty()).unwrap();
        let name = "d".repeat(100);
        for _ in 0..400 {
            rustix::fs::mkdirat(&deep, &name, Mode::RWXU).unwrap();
            deep = rustix::fs::openat(&deep, &name, OPEN, Mode::empty()).unwrap();
        }
        rustix::fs::symlinkat("/", &deep, "link").unwrap();
        let removed = base.remove_links_below(&at("builds/7/slot")).unwrap();
        assert_eq!(removed.len(), 1, "the dangling link: {removed:?}");
        base.check_all(&at("builds/7/slot")).unwrap();
    }

    #[test]
    fn the_name_of_a_link_stays_on_one_line() {
        let (folder, base) = world();
        let at = |path: &str| folder.path().join(path);
        symlink("/etc", at("builds/7/x\nerror: forged")).unwrap();
        let error = base.check(&at("builds/7/x\nerror: forged")).unwrap_err();
        assert!(!format!("{error:#}").contains("\nerror: forged"), "{error:#}");
        assert!(base.remove_links_below(&at("builds/7")).unwrap().iter().all(|line| !line.contains('\n')));
    }

    #[test]
    fn links_are_found_and_removed_and_what_they_lead_to_stays() {
        let (folder, base) = world();
        let at = |path: &str| folder.path().join(path);
        base.check(&at("builds/7/slot/p")).unwrap();
        base.check(&at("builds/7/not/there")).unwrap();
        assert!(base.check(&at("builds/7/out/p")).is_err());
        assert!(base.check_all(&at("builds/7")).is_err());
        let named = format!("the link {}", at("builds/7/out").display());
        assert_eq!(base.remove_links_to(&at("builds/7/out/p"), &at("builds/7")).unwrap(), [named]);
        assert!(at("elsewhere/p").is_dir() && !at("builds/7/out").exists());
        // The operator may have made a project's own folder a link.
        symlink("7", at("builds/8")).unwrap();
        assert!(base.remove_links_to(&at("builds/8/slot"), &at("builds/8")).unwrap().is_empty());
        assert_eq!(base.remove_links_below(&at("builds/7")).unwrap().len(), 2);
        base.check_all(&at("builds/7")).unwrap();
        assert!(at("builds/7/slot/p").is_dir());
    }
}
