//! The files of the current directory that a try sends, and whether there is room for them.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rustix::fs::Access;

use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::config::env::Environment;

const MOST_FILES: usize = 100_000;
const MOST_BYTES: u64 = 10 << 30;

/// Refuses a current directory that a try must not send, or could not write its results to.
pub(super) fn check(origin: &Path, env: &Environment) -> anyhow::Result<()> {
    let elsewhere =
        "change into a directory that holds the project alone, for instance a new one: `mkdir hello && cd hello`";
    let is_home = |home: &str| fs::canonicalize(home).is_ok_and(|home| home == origin);
    if origin == Path::new("/") || env.get("HOME").is_some_and(is_home) {
        let what = if origin == Path::new("/") { "the root directory" } else { "your home directory" };
        return Err(Failure::user(format!("the current directory is {what}, and all of it would be sent to the job"))
            .hint(elsewhere)
            .into());
    }
    rustix::fs::access(origin, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        Failure::user(format!("the current directory, {}, cannot be read and written", origin.display()))
            .hint("the files that the command makes come back to it; change into a directory that you can write")
            .caused_by(error)
            .into()
    })
}

/// The files that a try sends: paths below the current directory.
#[derive(Debug, Default)]
pub(super) struct OriginFiles {
    /// Directories too, each before what it holds.
    paths: Vec<PathBuf>,
    bytes: u64,
}

impl OriginFiles {
    /// Lists what git tracks or would track when `origin` is in a work tree, else everything but `skipped`.
    pub(super) fn list(origin: &Path, skipped: &Path) -> anyhow::Result<Self> {
        let mut sources = Self::default();
        match listed_by_git(origin) {
            Some(paths) => {
                for path in paths.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
                    let path = PathBuf::from(OsStr::from_bytes(path));
                    // A file that was deleted and not yet committed is still listed.
                    let Ok(meta) = origin.join(&path).symlink_metadata() else { continue };
                    if meta.is_dir() {
                        // A repository in the repository.
                        sources.walk(origin, path, skipped)?;
                    } else {
                        sources.add(path, meta.len())?;
                    }
                }
            }
            None => sources.walk(origin, PathBuf::new(), skipped)?,
        }
        Ok(sources)
    }

    fn walk(&mut self, origin: &Path, first: PathBuf, skipped: &Path) -> anyhow::Result<()> {
        let mut directories = vec![first];
        while let Some(directory) = directories.pop() {
            let full = origin.join(&directory);
            let entries = fs::read_dir(&full).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| {
                Failure::user(format!("failed to read {}", full.display()))
                    .hint("all of the current directory is sent; change into a directory that holds the project alone")
                    .caused_by(error)
            })?;
            self.add(directory, 0)?;
            for entry in entries {
                let path = entry.path();
                let inside = path.strip_prefix(origin)?.to_owned();
                match entry.metadata() {
                    Ok(_) if path == skipped => {}
                    Ok(meta) if meta.is_dir() => directories.push(inside),
                    Ok(meta) if meta.is_file() || meta.is_symlink() => self.add(inside, meta.len())?,
                    // A socket, FIFO or device; or it has just gone.
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, bytes: u64) -> anyhow::Result<()> {
        if !path.as_os_str().is_empty() {
            self.paths.push(path);
            self.bytes += bytes;
        }
        if self.paths.len() > MOST_FILES || self.bytes > MOST_BYTES {
            let (files, bytes) = (MOST_FILES, human_bytes(MOST_BYTES));
            return Err(Failure::user(format!("the current directory holds more than {files} files or {bytes}"))
                .hint("change into a directory that holds the project alone, or leave data out with `.gitignore` in a git repository")
                .into());
        }
        Ok(())
    }

    /// Writes the list for `tar --null -T`.
    pub(super) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let mut text = Vec::new();
        for path in &self.paths {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(0);
        }
        fs::File::create(file)
            .and_then(|mut file| file.write_all(&text))
            .with_context(|| format!("failed to write {}", file.display()))
    }

    /// Refuses a folder for temporary files that cannot hold `copies` of the project and of this program.
    pub(super) fn check_space(&self, folder: &Path, copies: u64) -> anyhow::Result<()> {
        let program = fs::metadata("/proc/self/exe").map_or(0, |meta| meta.len());
        let needed = self.bytes.saturating_add(program).saturating_mul(copies);
        let space =
            rustix::fs::statvfs(folder).with_context(|| format!("failed to ask {} for its space", folder.display()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free >= needed {
            return Ok(());
        }
        let (needed, free) = (human_bytes(needed), human_bytes(free));
        Err(Failure::system(format!(
            "{needed} are needed for temporary files, and {} has {free} left",
            folder.display()
        ))
        .hint("set `TMPDIR` to a directory with more space")
        .into())
    }

    /// Those that are not in `project` any more.
    pub(super) fn missing_in<'a>(&'a self, project: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.paths.iter().map(PathBuf::as_path).filter(|path| project.join(path).symlink_metadata().is_err())
    }
}

/// `None` outside of a work tree, and without git.
fn listed_by_git(origin: &Path) -> Option<Vec<u8>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "-co", "--exclude-standard"]).current_dir(origin);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::render;

    fn env(home: &Path) -> Environment {
        Environment::from_pairs([("HOME".into(), home.into())])
    }

    #[test]
    fn a_directory_that_is_no_project_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let said = |origin: &Path| render(&check(origin, &env(home.path())).unwrap_err());
        assert!(said(Path::new("/")).contains("is the root directory"));
        assert!(said(home.path()).contains("is your home directory"));
        assert!(check(tempfile::tempdir().unwrap().path(), &env(home.path())).is_ok());
        let gone = said(Path::new("/no/such/directory"));
        assert!(gone.contains("cannot be read and written"), "{gone}");
    }

    #[test]
    fn everything_is_listed_but_what_is_skipped_and_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a/b", "a/empty", "skipped/x"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("a/b/file"), "12345").unwrap();
        std::os::unix::fs::symlink("/nowhere", path("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let mut sources = OriginFiles::list(folder.path(), &path("skipped")).unwrap();
        sources.paths.sort();
        assert_eq!(sources.paths, ["a", "a/b", "a/b/file", "a/empty", "link"].map(PathBuf::from));
        assert_eq!(sources.missing_in(&path("a")).count(), 5);
    }

    #[test]
    fn a_folder_without_space_is_refused() {
        let sources = OriginFiles { bytes: u64::MAX, ..OriginFiles::default() };
        let said = render(&sources.check_space(Path::new("/"), 4).unwrap_err());
        assert!(said.contains("`TMPDIR`"), "{said}");
    }
}
