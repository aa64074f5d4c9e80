//! The files of a project that are transferred between host and container. `workspace` applies the rules.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::node::NodeId;

/// The directory trees to transfer: the project directory and its temporary directory `<project>.tmp`. Absolute paths, as the job's scripts
/// see them on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trees {
    pub project: PathBuf,
    pub tmp: PathBuf,
    /// `None` in a container, where the trees lie at the paths that scripts see.
    #[serde(skip)]
    pub host: Option<HostTrees>,
}

/// The directories in which a host keeps the trees. The sandbox shows them to scripts under other paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTrees {
    /// The operator's directory that contains both: below it no link is followed. In a container the image may have links on the way.
    pub base: PathBuf,
    pub project: PathBuf,
    pub tmp: PathBuf,
}

impl Trees {
    /// `true` when scripts on the host see the trees under the paths of the sandbox.
    pub fn are_in_sandbox(&self) -> bool {
        self.project != self.project_here()
    }

    /// The trees of files that lie in a folder of the project on this host.
    #[must_use]
    pub fn in_folder(&self, folder: &str) -> Self {
        let base = self.host.as_ref().map_or(&self.project, |host| &host.base).clone();
        let host = HostTrees { base, project: self.project_here().join(folder), tmp: self.tmp_here().to_owned() };
        Self { host: Some(host), ..self.clone() }
    }

    /// The path under which this process finds the project directory.
    pub fn project_here(&self) -> &Path {
        self.host.as_ref().map_or(&self.project, |host| &host.project)
    }

    /// The path under which this process finds the temporary directory.
    pub fn tmp_here(&self) -> &Path {
        self.host.as_ref().map_or(&self.tmp, |host| &host.tmp)
    }
}

/// The files that later host stages read: those that any rule selects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each widens the selection in its own way; none excludes another")]
pub struct Selection {
    pub rules: Vec<Rule>,
    /// Select every changed file.
    pub everything: bool,
    /// Also select links that point out of the project. They are written as links and never followed.
    pub outside_links: bool,
    /// Also select the `.git` of repositories within the project; never the project's own.
    pub nested_repositories: bool,
    /// Every node sends its files, not the first one alone.
    pub every_node: bool,
    /// The tree is this folder of the project, as the job's paths name it: the files of a node that is not the first.
    #[serde(skip)]
    pub folder: Option<String>,
}

impl Selection {
    /// The selection in the tree of one node.
    #[must_use]
    pub fn of_node(&self, node: NodeId) -> Self {
        let folder = (self.every_node && node != NodeId::LEADER).then(|| node.to_string());
        Self { folder, ..self.clone() }
    }
}

/// One definition of artifacts, a report or a cache in the job.
///
/// Relative paths start at the project directory. The runner's helper expands paths as a shell does within double quotes, with the
/// environment of its stage. So a backslash is escaped once more, and a rule with an unexpanded `$` or backquote selects everything:
/// only the host stage knows its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Files, directories (with their content) and patterns.
    pub include: Vec<String>,
    /// Files and patterns. To exclude a directory with its content, a pattern such as `out/**` is needed.
    pub exclude: Vec<String>,
    /// Select all files that git does not track, except `exclude`.
    pub untracked: bool,
    /// Follow a selected link and read its target, as for a report that is uploaded raw.
    pub follow: bool,
    /// Names of the variables whose values are in the paths already. If `gitlab_runner_env` sets one of them, the rule selects everything.
    pub variables: Vec<String>,
}
