//! Places files into a folder, all of them or none, and never over another.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use crate::base::failure::Failure;
use crate::base::plain;

/// Places the files into the folder, which need not exist; that around it must.
///
/// # Errors
/// Failures of the user that name each file in the way; nothing was placed then.
pub(super) fn place(folder: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    refuse_others(folder, files)?;
    let failed = |error: io::Error| {
        Failure::user(format!("failed to make the project in {}", folder.display()))
            .hint("make the folder of `--output-dir`, and let the job write in it")
            .caused_by(error)
    };
    let made = tempfile::Builder::new().prefix(".sagemaker-executor.").tempdir_in(beside(folder)).map_err(failed)?;
    let whole = made.path().join("project");
    write(&whole, files).map_err(failed)?;
    match rustix::fs::renameat_with(CWD, &whole, CWD, folder, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => add(&whole, folder, files).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Where the files are written first: in a folder that exists, because it may be a mount, else beside it.
fn beside(folder: &Path) -> &Path {
    if folder.is_dir() {
        return folder;
    }
    folder.parent().filter(|around| !around.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Refuses what is in the way of a file, or of a folder of one.
fn refuse_others(folder: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    let is_no_folder = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
    if is_no_folder(folder) {
        let failure = Failure::user(format!("{} exists, and is no folder", folder.display()));
        return Err(failure.hint("choose another name, or another `--output-dir`"));
    }
    let folders = files.iter().flat_map(|(file, _)| Path::new(file).ancestors().skip(1));
    let mut in_the_way: Vec<PathBuf> =
        folders.filter(|inner| is_no_folder(&folder.join(inner))).map(Path::to_owned).collect();
    let files = files.iter().map(|(file, _)| PathBuf::from(file));
    in_the_way.extend(files.filter(|file| folder.join(file).symlink_metadata().is_ok()));
    in_the_way.sort();
    in_the_way.dedup();
    if in_the_way.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = in_the_way.iter().map(|path| plain::line(&folder.join(path).to_string_lossy(), 300)).collect();
    Err(Failure::user(format!("these files exist, and are not replaced: {}", names.join(", ")))
        .hint("choose another name, or another `--output-dir`; nothing was written"))
}

fn write(folder: &Path, files: &[(&str, String)]) -> io::Result<()> {
    for (file, text) in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Adds the files to a folder that exists. Takes back what was added when one cannot be.
fn add(whole: &Path, folder: &Path, files: &[(&str, String)]) -> io::Result<()> {
    let mut added = Vec::new();
    let result = files.iter().try_for_each(|(file, _)| {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        // A link is never made over another file.
        fs::hard_link(whole.join(file), &path)?;
        added.push(path);
        Ok(())
    });
    if result.is_err() {
        for path in added {
            // The first error is told.
            let _ = fs::remove_file(path);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<(&'static str, String)> {
        vec![("a", "1".to_owned()), ("b/c", "2".to_owned()), ("d", "3".to_owned())]
    }

    #[test]
    fn files_are_placed_in_a_new_folder_and_in_one_that_exists() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("project");
        place(&folder, &files()).unwrap();
        assert_eq!(fs::read_to_string(folder.join("b/c")).unwrap(), "2");
        let cloned = around.path().join("cloned");
        fs::create_dir_all(cloned.join(".git")).unwrap();
        place(&cloned, &files()).unwrap();
        assert_eq!(fs::read_dir(&cloned).unwrap().count(), 4);
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn the_files_of_a_folder_that_exists_never_leave_its_file_system() {
        let around = tempfile::tempdir().unwrap();
        assert_eq!(beside(&around.path().join("absent")), around.path());
        assert_eq!(beside(around.path()), around.path());
        assert_eq!(beside(Path::new("absent")), Path::new("."));
    }

    #[test]
    fn everything_in_the_way_is_named_and_nothing_is_written() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("project");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), "mine").unwrap();
        std::os::unix::fs::symlink("/nowhere", folder.join("d")).unwrap();
        std::os::unix::fs::symlink("/tmp", folder.join("b")).unwrap();
        let message = place(&folder, &files()).unwrap_err().message().to_owned();
        let names: Vec<_> = ["a", "b", "d"].map(|name| folder.join(name).display().to_string()).into();
        assert_eq!(message, format!("these files exist, and are not replaced: {}", names.join(", ")));
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        let error = place(&around.path().join("absent/project"), &files()).unwrap_err();
        assert!(error.message().starts_with("failed to make the project"), "{error}");
    }

    #[test]
    fn a_file_that_comes_meanwhile_takes_back_what_was_added() {
        let around = tempfile::tempdir().unwrap();
        let [whole, folder] = ["whole", "project"].map(|name| around.path().join(name));
        write(&whole, &files()).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("d"), "mine").unwrap();
        assert!(add(&whole, &folder, &files()).is_err());
        assert!(!folder.join("a").exists() && !folder.join("b/c").exists());
        assert_eq!(fs::read_to_string(folder.join("d")).unwrap(), "mine");
    }
}
