//! The open directories of the trees of a transfer.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::walker::Root;
use crate::protocol::project::Trees;
use crate::workspace::manifest::Tree;
use crate::workspace::warnings::Warnings;

impl Trees {
    pub(crate) fn open(&self, path: &Path) -> anyhow::Result<Option<Root>> {
        self.host.as_ref().map_or_else(|| Root::open(path), |host| Root::open_below(&host.base, path))
    }

    pub(crate) fn create(&self, path: &Path) -> anyhow::Result<Root> {
        self.host.as_ref().map_or_else(|| Root::create(path), |host| Root::create_below(&host.base, path))
    }
}

/// Both trees, open.
pub(crate) struct Roots {
    /// The project's path as scripts see it: links and paths of artifacts name it.
    path: PathBuf,
    /// `None` only in a container whose script has removed it.
    pub(crate) project: Option<Root>,
    pub(crate) tmp: Option<Root>,
}

impl Roots {
    pub(crate) fn open(trees: &Trees) -> anyhow::Result<Self> {
        let project = trees
            .open(trees.project_here())?
            .with_context(|| format!("the project directory {} does not exist", trees.project_here().display()))?;
        Ok(Self { path: trees.project.clone(), project: Some(project), tmp: trees.open(trees.tmp_here())? })
    }

    pub(crate) fn create(trees: &Trees) -> anyhow::Result<Self> {
        let (project, tmp) = (trees.create(trees.project_here())?, trees.create(trees.tmp_here())?);
        Ok(Self { path: trees.project.clone(), project: Some(project), tmp: Some(tmp) })
    }

    /// Opens the trees after a script ran: a directory that it removed or replaced counts as empty.
    pub(crate) fn open_after_script(trees: &Trees, warnings: &mut Warnings) -> anyhow::Result<Self> {
        let project = Root::open_after_script(&trees.project)?;
        if project.is_none() {
            warnings.add(format!(
                "{} is no longer a directory: the script removed or replaced it, so its files count as deleted",
                trees.project.display()
            ));
        }
        Ok(Self { path: trees.project.clone(), project, tmp: Root::open_after_script(&trees.tmp)? })
    }

    pub(crate) fn project(&self) -> anyhow::Result<&Root> {
        self.project.as_ref().with_context(|| format!("the project directory {} does not exist", self.path.display()))
    }

    pub(crate) fn get(&self, tree: Tree) -> Option<&Root> {
        match tree {
            Tree::Project => self.project.as_ref(),
            Tree::Tmp => self.tmp.as_ref(),
        }
    }

    pub(crate) fn existing(&self, tree: Tree) -> anyhow::Result<&Root> {
        self.get(tree).context("the temporary directory does not exist")
    }

    pub(crate) fn project_bytes(&self) -> &[u8] {
        self.path.as_os_str().as_bytes()
    }
}
