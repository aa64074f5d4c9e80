//! Finds, refuses and removes links that jobs made in the operator's directories.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::io::Errno;

use super::base::{Base, open, refused};
use super::walker::{Root, Scope, Walker};
use super::write::delete;
use crate::workspace::manifest::{Entry, EntryKind};
use crate::workspace::task::Stop;
use crate::workspace::warnings::Warnings;

impl Base {
    /// Fails when there is a link on the way to the directory `path`, or anywhere below it.
    pub fn check_all(&self, path: &Path) -> anyhow::Result<()> {
        self.check(path)?;
        self.links_below(path)?.first().map_or(Ok(()), |link| Err(refused(path, link)))
    }

    /// Removes the links on the way to `path` that lie below `own`, which [`Base::check`] would refuse; returns them. Their targets are
    /// not touched.
    pub fn remove_links_to(&self, path: &Path, own: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let links: Vec<_> =
            self.links_to(path)?.into_iter().filter(|link| link.starts_with(own) && link != own).collect();
        for link in &links {
            let (Some(above), Some(name)) = (link.parent(), link.file_name()) else { continue };
            let Some(root) = Root::open_below(&self.path, above)? else { continue };
            remove(&mut Walker::unlocking(&root), above, name.as_bytes())?;
        }
        Ok(links)
    }

    /// Removes the links anywhere below the directory `path`; returns them.
    pub fn remove_links_below(&self, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
        self.with_links_below(path, |walker, link| remove(walker, path, link))
    }

    fn links_below(&self, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
        self.with_links_below(path, |_, _| Ok(()))
    }

    /// Calls `act` for each link below `path`; `path` need not be a directory.
    fn with_links_below(
        &self,
        path: &Path,
        act: impl Fn(&mut Walker, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<PathBuf>> {
        if self.is_in_the_way(path)? {
            return Ok(Vec::new());
        }
        let Some(root) = Root::open_below(&self.path, path)? else { return Ok(Vec::new()) };
        let mut links = Vec::new();
        // A job may have taken the permissions of a directory.
        let (mut walker, mut ignored) = (Walker::unlocking(&root), Warnings::default());
        let mut note = |entry: Entry, _| {
            if entry.kind == EntryKind::Link {
                links.push(entry.path);
            }
            Ok(())
        };
        let found = walker.walk(&Scope::project(&|_| false, &Stop::default()), &mut ignored, &mut note);
        let done = found.and_then(|()| links.iter().try_for_each(|link| act(&mut walker, link)));
        walker.relock().with_context(|| format!("failed to restore the modes of directories in {}", path.display()))?;
        done?;
        Ok(links.iter().map(|link| path.join(OsStr::from_bytes(link))).collect())
    }

    /// True when `path` or a directory above it is a file: nothing lies below it, and the next stage removes it.
    fn is_in_the_way(&self, path: &Path) -> anyhow::Result<bool> {
        let opened = open(self.fd.as_fd(), self.relative(path)?);
        Ok(matches!(opened, Err(Errno::NOTDIR)) && self.links_to(path)?.is_empty())
    }
}

/// Removes a link, if it still exists: another job of the project may have removed it.
pub(crate) fn remove(walker: &mut Walker, above: &Path, link: &[u8]) -> anyhow::Result<()> {
    let path = || above.join(OsStr::from_bytes(link));
    delete(walker, link).with_context(|| format!("failed to remove the link {}", path().display()))
}
