//! Lists a tree and converts it to the view that a selection searches.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::task::Stop;
use super::warnings::Warnings;
use crate::protocol::project::Selection;
use crate::workspace::manifest::{Entry, EntryKind};
use crate::workspace::select::{Effort, Node, TreeView};
use crate::workspace::tree::{FileStat, Root, Scope, Walker};

impl Selection {
    /// The paths in `project` (an absolute directory) that the selection matches now, relative to it, sorted. Excludes everything in a
    /// `.git`. Fails when the directory cannot be read.
    pub fn list(&self, project: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let Some(root) = Root::open(project)? else { return Ok(Vec::new()) };
        let (mut warnings, stop) = (Warnings::default(), Stop::default());
        let listed = Walker::new(&root).list(&Scope::project(&self.stays_with_git(), &stop), &mut warnings)?;
        let wanted = self.wanted(view(project.as_os_str().as_bytes(), &listed), b"", Effort::Container);
        let paths = listed.iter().map(|(entry, _)| &entry.path);
        Ok(paths.filter(|path| wanted.wants(path)).map(|path| OsStr::from_bytes(path).into()).collect())
    }
}

/// The view of a listed tree.
pub(crate) fn view<'a>(project: &[u8], listed: &'a [(Entry, FileStat)]) -> TreeView<'a> {
    TreeView::new(project, listed.iter().map(|(entry, _)| (entry.path.as_slice(), node(entry))))
}

pub(crate) fn node(entry: &Entry) -> Node<'_> {
    match entry.kind {
        EntryKind::Directory => Node::Directory,
        EntryKind::Link => Node::Link(&entry.target),
        EntryKind::File | EntryKind::Deleted | EntryKind::Special => Node::Other,
    }
}
