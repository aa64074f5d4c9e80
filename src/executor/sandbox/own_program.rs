//! Finds the file of the program that this process runs, which an upgrade may have replaced since the process began.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::{NamedTempFile, TempPath};

/// Opens the program also when its file is gone.
const LINK: &str = "/proc/self/exe";
/// The kernel puts this behind the path of a file that is gone.
const GONE: &str = " (deleted)";

/// A file with this process's program. It stays as long as this value.
pub(super) struct OwnProgram {
    pub(super) path: PathBuf,
    _copy: Option<TempPath>,
}

impl OwnProgram {
    /// The file itself, or a copy in the folder when its path has another file by now. The program in the sandbox and the driver
    /// outside are of one version, because their messages have none.
    ///
    /// # Errors
    /// The copy cannot be written.
    pub(super) fn find(folder: &Path) -> anyhow::Result<Self> {
        Self::of(Path::new(LINK), folder).context("failed to find this program's own file")
    }

    fn of(link: &Path, folder: &Path) -> anyhow::Result<Self> {
        let path = fs::read_link(link)?;
        if is_same(link, &path) {
            return Ok(Self { path, _copy: None });
        }
        let mut copy = NamedTempFile::new_in(folder)?;
        std::io::copy(&mut File::open(link)?, copy.as_file_mut())
            .with_context(|| format!("failed to copy it to {}", folder.display()))?;
        copy.as_file().set_permissions(Permissions::from_mode(0o555))?;
        // Closes the file: one that is open for writing cannot be executed.
        let copy = copy.into_temp_path();
        Ok(Self { path: copy.to_path_buf(), _copy: Some(copy) })
    }
}

/// Path of the program, whichever version lies there by now.
pub(super) fn installed_program() -> anyhow::Result<PathBuf> {
    let path = fs::read_link(LINK).context("failed to find this program's own file")?;
    Ok(match path.to_str().and_then(|path| path.strip_suffix(GONE)) {
        Some(replaced) if !path.exists() => replaced.into(),
        _ => path,
    })
}

fn is_same(link: &Path, path: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    file(path).is_some_and(|there| Some(there) == file(link))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_replaced_program_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let installed = dir.path().join("program");
        fs::write(&installed, "old").unwrap();
        let open = File::open(&installed).unwrap();
        // Links of open files lead to them as that of the program does.
        let link = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let found = OwnProgram::of(&link, dir.path()).unwrap();
        assert_eq!(found.path, installed.canonicalize().unwrap());

        let new = dir.path().join("program.new");
        fs::write(&new, "new").unwrap();
        fs::rename(&new, &installed).unwrap();
        let found = OwnProgram::of(&link, dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&found.path).unwrap(), "old");
        assert_eq!(fs::metadata(&found.path).unwrap().mode() & 0o777, 0o555);
        let copy = found.path.clone();
        drop(found);
        assert!(!copy.exists());
    }
}
