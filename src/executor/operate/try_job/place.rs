//! Where a try keeps what it makes.

use std::path::PathBuf;

/// GitLab numbers projects from 1, so this one is nobody's.
pub(super) const PROJECT_ID: u64 = 0;

/// Folders and files of one try, removed at its end.
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) operator_file: PathBuf,
    pub(super) payload: PathBuf,
    pub(super) exit_code: PathBuf,
    pub(super) origin: PathBuf,
}

impl Place {
    pub(super) fn project(&self) -> PathBuf {
        // A state directory of its own: the first slot is free.
        self.root.join("builds").join(PROJECT_ID.to_string()).join("0").join("try").join("project")
    }
}
