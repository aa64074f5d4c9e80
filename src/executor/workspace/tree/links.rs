//! Finds, refuses and removes links that jobs made in the operator's directories.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::base::{Base, open, refused};
use crate::base::descent::{self, Descent, Found, has_gone};
use crate::base::removal;
use crate::workspace::path::masked;

/// Most removed links of one directory that are named.
const MOST: usize = 10;

impl Base {
    /// Fails when there is a link on the way to the directory `path`, or anywhere below it.
    pub fn check_all(&self, path: &Path) -> anyhow::Result<()> {
        self.check(path)?;
        self.with_links_below(path, &mut |_, _, link| Err(refused(path, &link)))
    }

    /// Removes the links on the way to `path` that lie below `own`, which [`Base::check`] would refuse; returns a text about each.
    /// Their targets are not touched.
    pub fn remove_links_to(&self, path: &Path, own: &Path) -> anyhow::Result<Vec<String>> {
        let links: Vec<_> =
            self.links_to(path)?.into_iter().filter(|link| link.starts_with(own) && link != own).collect();
        for link in &links {
            let (Some(above), Some(name)) = (link.parent(), link.file_name()) else { continue };
            let Some(above) = self.directory(above)? else { continue };
            descent::unlock(above.as_fd(), 0o700)?;
            unlink(above.as_fd(), name, link)?;
        }
        Ok(links.iter().map(|link| named(link)).collect())
    }

    /// Removes the links anywhere below the directory `path`, and directories too deep to be searched. Returns a text about each: the first
    /// ones, and the number of others.
    pub fn remove_links_below(&self, path: &Path) -> anyhow::Result<Vec<String>> {
        let mut removed = Vec::new();
        let mut more = 0_u64;
        self.with_links_below(path, &mut |descent, found, link| {
            unlink(descent.above()?, &found.name, &link)?;
            if removed.len() < MOST {
                removed.push(named(&link));
            } else {
                more += 1;
            }
            Ok(())
        })?;
        removed.extend((more > 0).then(|| format!("the rest of the links in {} ({more})", masked(path))));
        Ok(removed)
    }

    /// Calls `act` for each link below `path`, which need not be a directory. Removes directories too deep to be searched.
    fn with_links_below(
        &self,
        path: &Path,
        act: &mut dyn FnMut(&Descent, &Found, PathBuf) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // A job may have taken the permissions of a directory.
        const NEEDED: u32 = 0o700;
        if self.is_in_the_way(path)? {
            return Ok(());
        }
        let Some(top) = self.directory(path)? else { return Ok(()) };
        let failed = || format!("failed to list the directories in {}", masked(path));
        descent::unlock(top.as_fd(), NEEDED)?;
        let mut descent = Descent::of(top.as_fd()).with_context(failed)?;
        while let Some(found) = descent.advance() {
            let found = found.with_context(failed)?;
            match found.kind {
                FileType::Symlink => {
                    let link = path.join(OsStr::from_bytes(descent.path()));
                    act(&descent, &found, link)?;
                }
                FileType::Directory if descent.is_deepest() => {
                    removal::remove(descent.above()?, &found.name)
                        .with_context(|| format!("failed to remove deep directories in {}", masked(path)))?;
                }
                FileType::Directory => match descent.enter(&found, NEEDED) {
                    Err(error) if !has_gone(&error) => return Err(error).with_context(failed),
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// True when `path` or a directory above it is a file: nothing lies below it, and the next stage removes it.
    fn is_in_the_way(&self, path: &Path) -> anyhow::Result<bool> {
        let opened = open(self.fd.as_fd(), self.relative(path)?);
        Ok(matches!(opened, Err(Errno::NOTDIR)) && self.links_to(path)?.is_empty())
    }
}

/// Removes a link, if it still exists: another job of the project may have removed it.
fn unlink(above: BorrowedFd<'_>, name: impl rustix::path::Arg, link: &Path) -> anyhow::Result<()> {
    match rustix::fs::unlinkat(above, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to remove the link {}", masked(link))),
    }
}

fn named(link: &Path) -> String {
    format!("the link {}", masked(link))
}
