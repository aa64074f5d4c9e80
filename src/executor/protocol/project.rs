//! What of the job's project travels between host and container. The rules are applied by `workspace`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The trees that travel: the project directory and, beside it, its temporary directory `<project>.tmp`. Absolute, and
/// the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trees {
    pub project: PathBuf,
    pub tmp: PathBuf,
    /// The operator's directory that both lie below on the host: from there on no link is followed. A container has none, for links on the
    /// way to its trees are its image's own.
    #[serde(skip)]
    pub base: Option<PathBuf>,
}

/// What later host stages read of the project directory: what any of the rules wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    pub rules: Vec<Rule>,
    /// Everything that changed.
    pub everything: bool,
    /// Links that lead out of the project come back as well. They are written as links and never followed.
    pub outside_links: bool,
}

/// One definition of artifacts, a report or a cache, as it stands in the job.
///
/// Relative paths start at the project directory. The helper expands paths as a shell would within double quotes, with the
/// environment of its stage, so backslashes count twice, and a path with a `$` or a backquote that is left wants
/// everything: what it comes to is known to the host stage alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Files, directories (with all they hold) and patterns.
    pub include: Vec<String>,
    /// Files and patterns. A directory is left out with what it holds by a pattern such as `out/**` alone.
    pub exclude: Vec<String>,
    /// Files that git does not track: everything but `exclude`.
    pub untracked: bool,
    /// The content of a link that is taken is read through it, as in a report that is uploaded raw.
    pub follow: bool,
    /// Names of variables whose values stand in the paths already. Should `gitlab_runner_env` speak of one, the rule wants
    /// everything.
    pub variables: Vec<String>,
}
