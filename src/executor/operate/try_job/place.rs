//! The folders and files of one try.

use std::cell::Cell;
use std::path::PathBuf;

/// GitLab numbers projects from 1, so this one is nobody's.
pub(super) const PROJECT_ID: u64 = 0;

/// Folders and files of one try, removed at its end.
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) operator_file: PathBuf,
    pub(super) payload: PathBuf,
    pub(super) exit_code: PathBuf,
    /// The current directory.
    pub(super) origin: PathBuf,
    /// Whether the folder stays.
    pub(super) keep: Cell<bool>,
}

impl Place {
    pub(super) fn new(root: PathBuf, origin: PathBuf, keep: bool) -> Self {
        Self {
            operator_file: root.join("sagemaker-executor.toml"),
            payload: root.join("response.json"),
            exit_code: root.join("build_exit_code"),
            root,
            origin,
            keep: Cell::new(keep),
        }
    }

    pub(super) fn project(&self) -> PathBuf {
        // A state directory of its own: the first slot is free.
        self.root.join("builds").join(PROJECT_ID.to_string()).join("0").join("try").join("project")
    }

    /// Paths of the files that the job gets, with a NUL after each.
    pub(super) fn sources(&self) -> PathBuf {
        self.root.join("sources")
    }

    /// Paths of the files that the job made or changed, likewise.
    pub(super) fn changed(&self) -> PathBuf {
        self.root.join("changed")
    }
}
