//! A file that gets its name when it is whole: a writer that is killed before leaves nothing.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use tempfile::{Builder, NamedTempFile, TempPath};

use crate::lifecycle::fetching::path_of;

/// Mode of the file, before the umask.
const MODE: u32 = 0o666;

/// A file that is being written. It has no name, where the file system has such files, else `NAME.RANDOM.tmp`.
#[derive(Debug)]
pub(super) struct UnplacedFile {
    file: File,
    path: Option<TempPath>,
}

impl UnplacedFile {
    /// `name` is the begin of the name that the file has in the meantime.
    pub(super) fn new(folder: &Path, name: &str) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, folder, flags, Mode::from_raw_mode(MODE)) {
            Ok(file) => Ok(Self { file: file.into(), path: None }),
            // Errors of file systems and kernels without such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => Self::named(folder, name),
            Err(error) => Err(error.into()),
        }
    }

    fn named(folder: &Path, name: &str) -> io::Result<Self> {
        let (file, path) =
            builder(&prefix(name)).permissions(Permissions::from_mode(MODE)).tempfile_in(folder)?.into_parts();
        Ok(Self { file, path: Some(path) })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name, in the place of a file that has it.
    pub(super) fn place(self, folder: &Path, name: &str) -> io::Result<()> {
        let path = match self.path {
            Some(path) => path,
            // No system call replaces a file by one without a name.
            None => link(&self.file, folder, name)?.into_temp_path(),
        };
        path.persist(folder.join(name)).map_err(|error| error.error)
    }
}

fn link(file: &File, folder: &Path, name: &str) -> io::Result<NamedTempFile<()>> {
    let from = path_of(file);
    builder(&prefix(name))
        .make_in(folder, |path| Ok(rustix::fs::linkat(CWD, &from, CWD, path, AtFlags::SYMLINK_FOLLOW)?))
}

fn prefix(name: &str) -> String {
    format!("{name}.")
}

fn builder(prefix: &str) -> Builder<'_, 'static> {
    let mut builder = Builder::new();
    builder.prefix(prefix).suffix(".tmp");
    builder
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    type Make = fn(&Path, &str) -> io::Result<UnplacedFile>;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        for make in [UnplacedFile::new as Make, UnplacedFile::named as Make] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("usual"), "").unwrap();
            for text in ["first, and longer", "second"] {
                let mut unplaced = make(folder.path(), "x.zip").unwrap();
                unplaced.file.write_all(text.as_bytes()).unwrap();
                unplaced.place(folder.path(), "x.zip").unwrap();
                assert_eq!(std::fs::read_to_string(folder.path().join("x.zip")).unwrap(), text);
            }
            drop(make(folder.path(), "x.zip").unwrap());
            let mut left = names(folder.path());
            left.sort();
            assert_eq!(left, ["usual", "x.zip"]);
            let mode = |name: &str| folder.path().join(name).metadata().unwrap().permissions();
            assert_eq!(mode("x.zip"), mode("usual"));
        }
    }

    #[test]
    fn a_file_without_a_name_is_left_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let unplaced = UnplacedFile::new(folder.path(), "x.zip").unwrap();
        // Some file systems have no such files.
        assert_eq!(names(folder.path()).len(), usize::from(unplaced.path.is_some()));
    }
}
