//! The user that runner and driver run as: the suite's own, or an ordinary one when root runs the suite.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// User and group id of the runner's account in scenarios that ask for an ordinary user. No account of that id needs to exist.
pub(crate) const ORDINARY: u32 = 1500;

/// The account of the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account(Option<u32>);

impl Account {
    /// The user of the suite.
    pub(crate) fn own() -> Self {
        Self(None)
    }

    /// [`ORDINARY`] when root runs the suite, else its own user, which is an ordinary one already.
    pub(crate) fn ordinary() -> Self {
        Self(rustix::process::geteuid().is_root().then_some(ORDINARY))
    }

    /// Hands a file or directory that the suite made to the account.
    pub(crate) fn give(self, path: &Path) {
        if let Some(id) = self.0 {
            chown(path, Some(id), Some(id)).unwrap();
        }
    }

    /// Lets the command run as the account, in no further group.
    pub(crate) fn become_of(self, command: &mut Command) {
        if let Some(id) = self.0 {
            command.uid(id).gid(id);
        }
    }

    /// The program itself, or a copy of it if the account cannot reach it. Made once for each program.
    pub(crate) fn reachable(self, program: &Path) -> PathBuf {
        static COPIES: Mutex<Vec<(PathBuf, PathBuf)>> = Mutex::new(Vec::new());
        let others_may = |path: &Path| path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
        if self.0.is_none() || program.ancestors().filter(|path| !path.as_os_str().is_empty()).all(others_may) {
            return program.to_owned();
        }
        let mut copies = COPIES.lock().unwrap();
        if let Some((_, copy)) = copies.iter().find(|(of, _)| of == program) {
            return copy.clone();
        }
        let folder = tempfile::Builder::new().prefix("programs").tempdir().unwrap().keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy = folder.join(program.file_name().unwrap());
        std::fs::copy(program, &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
        copies.push((program.to_owned(), copy.clone()));
        copy
    }
}
