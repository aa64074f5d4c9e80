//! The files of a context: selected by `.dockerignore`, copied into a folder of the build, and hashed on the way.
//!
//! The builder gets the copy alone, so it sees the bytes that were hashed. Modes are 0755 or 0644, as in git: two clones of a commit whose
//! umask differs are one context. Folders without files, `.git` at the top and the folders of builds are left out.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::fingerprint::{ContextEntry, ContextHash};
use super::ignore_file::IgnoreFile;
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::plain;

/// Names of the file with patterns; the first that is there counts.
const IGNORE_FILES: [&str; 2] = [".containerignore", ".dockerignore"];
/// Largest file with patterns.
const LARGEST_IGNORE_FILE: u64 = 1 << 20;
/// Prefix of the names of the folders of builds.
pub(super) const BUILD_FOLDER: &str = "image-build-";
const CHUNK: usize = 128 << 10;

/// Limits of a context.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContextLimits {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// A context that was copied.
#[derive(Debug)]
pub(super) struct CopiedContext {
    pub(super) hash: ContextHash,
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// Copies the files of `folder` that the context has into `copy`, an empty folder in the folder of the build. Blocks, until `canceled` at
/// most. `output` is a file that the command writes itself, so that it belongs to no context.
///
/// # Errors
/// Failures of the user: the folder cannot be read, has more than the limits, has something that is no file, folder or link, or has the
/// folder of the build.
pub(super) fn copy(
    folder: &Path,
    copy: &Path,
    limits: ContextLimits,
    output: Option<&Path>,
    canceled: &CancellationToken,
) -> anyhow::Result<CopiedContext> {
    if !folder.is_dir() {
        return Err(Failure::user(format!("the context {} is no folder", folder.display()))
            .hint("change `image.context` in the manifest, or `--context`")
            .into());
    }
    let ignored = ignore_file(folder)?;
    let below = |file: &Path| {
        let (name, above) = (file.file_name()?, file.parent().filter(|above| !above.as_os_str().is_empty()));
        let above = above.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(above.strip_prefix(folder.canonicalize().ok()?).ok()?.join(name))
    };
    let builds = builds_inside(folder, copy, &ignored)?;
    let mut copying = Copying {
        builds,
        canceled,
        folder,
        copy,
        limits,
        ignored,
        output: output.and_then(below),
        done: CopiedContext { hash: ContextHash::default(), bytes: 0, files: 0 },
        buffer: vec![0; CHUNK],
    };
    copying.walk()?;
    Ok(copying.done)
}

/// The folder below the context, relative to it, that has the folders of builds: `TMPDIR`.
///
/// # Errors
/// The patterns do not leave it out, so that a step could copy passwords and secrets of this and other builds into the image.
fn builds_inside(folder: &Path, copy: &Path, ignored: &IgnoreFile) -> anyhow::Result<Option<PathBuf>> {
    let (folder, copy) = (folder.canonicalize(), copy.canonicalize());
    let (folder, copy) = (folder.context("failed to find the context")?, copy.context("failed to find its copy")?);
    let Some(build) = copy.parent().and_then(|build| build.strip_prefix(&folder).ok()) else { return Ok(None) };
    if !ignored.leaves_out(&build.to_string_lossy()) {
        let place = build.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let shown = plain::line(if place.is_empty() { "." } else { &place }, 200);
        return Err(Failure::user(format!("the folder for temporary files, {shown}, is inside of the context"))
            .hint("set `TMPDIR` to a folder outside of the context, such as `/tmp`, or name the folder in `.dockerignore`")
            .into());
    }
    Ok(build.parent().map(Path::to_owned))
}

fn ignore_file(folder: &Path) -> anyhow::Result<IgnoreFile> {
    for name in IGNORE_FILES {
        let path = folder.join(name);
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !metadata.is_file() || metadata.len() > LARGEST_IGNORE_FILE {
            let failure = Failure::user(format!("{} is no file of at most 1 MiB", path.display()));
            return Err(failure.hint(format!("write patterns into {name}, one a line")).into());
        }
        let text = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        return Ok(IgnoreFile::parse(name, &String::from_utf8_lossy(&text))?);
    }
    Ok(IgnoreFile::default())
}

struct Copying<'a> {
    /// The folder with the folders of builds, relative to the context.
    builds: Option<PathBuf>,
    canceled: &'a CancellationToken,
    folder: &'a Path,
    copy: &'a Path,
    limits: ContextLimits,
    ignored: IgnoreFile,
    /// Relative to the folder.
    output: Option<PathBuf>,
    done: CopiedContext,
    buffer: Vec<u8>,
}

impl Copying<'_> {
    /// Walks the folder in the order of the names, without recursion.
    fn walk(&mut self) -> anyhow::Result<()> {
        let mut open = vec![self.names(Path::new(""))?];
        while let Some(last) = open.last_mut() {
            let Some(path) = last.pop() else {
                open.pop();
                continue;
            };
            let source = self.folder.join(&path);
            let metadata = fs::symlink_metadata(&source).with_context(|| failed_to_read(&source))?;
            if self.is_build(&path) {
                continue;
            }
            let is_out = path == Path::new(".git") || self.ignored.leaves_out(&path.to_string_lossy());
            if metadata.is_dir() {
                if path != Path::new(".git") && (!is_out || self.ignored.has_exceptions()) {
                    open.push(self.names(&path)?);
                }
            } else if !is_out && self.output.as_ref() != Some(&path) {
                self.entry(&path, &source, &metadata)?;
            }
        }
        Ok(())
    }

    /// Tells that a path is the folder of a build, of this one or another: an exception of the patterns may name its files.
    fn is_build(&self, path: &Path) -> bool {
        let is_named = || path.file_name().is_some_and(|name| name.as_bytes().starts_with(BUILD_FOLDER.as_bytes()));
        self.builds.is_some() && path.parent() == self.builds.as_deref() && is_named()
    }

    /// The paths in a folder, the last name first.
    fn names(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let source = self.folder.join(folder);
        let entries = fs::read_dir(&source).with_context(|| failed_to_read(&source))?;
        let names: io::Result<Vec<OsString>> = entries.map(|entry| Ok(entry?.file_name())).collect();
        let mut names = names.with_context(|| failed_to_read(&source))?;
        names.sort_by(|one, other| other.as_bytes().cmp(one.as_bytes()));
        Ok(names.into_iter().map(|name| folder.join(name)).collect())
    }

    fn entry(&mut self, path: &Path, source: &Path, metadata: &fs::Metadata) -> anyhow::Result<()> {
        self.done.files += 1;
        self.check_limits(if metadata.is_file() { metadata.len() } else { 0 })?;
        let target = self.copy.join(path);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).with_context(|| failed_to_write(folder))?;
        }
        let (kind, hash) = if metadata.is_symlink() {
            let text = fs::read_link(source).with_context(|| failed_to_read(source))?;
            std::os::unix::fs::symlink(&text, &target).with_context(|| failed_to_write(&target))?;
            (ContextEntry::Link, Sha256::digest(text.as_os_str().as_bytes()).into())
        } else if metadata.is_file() {
            let is_executable = metadata.permissions().mode() & 0o100 != 0;
            let kind = if is_executable { ContextEntry::Executable } else { ContextEntry::File };
            (kind, self.file(source, &target, is_executable)?)
        } else {
            let shown = plain::line(&path.to_string_lossy(), 200);
            return Err(Failure::user(format!("the context has {shown}, which is no file, folder or link"))
                .hint("remove it, or name it in `.dockerignore`")
                .into());
        };
        self.done.hash.add(path.as_os_str().as_bytes(), kind, &hash);
        Ok(())
    }

    fn file(&mut self, source: &Path, target: &Path, is_executable: bool) -> anyhow::Result<[u8; 32]> {
        let mut from = File::open(source).with_context(|| failed_to_read(source))?;
        let mut into = File::create_new(target).with_context(|| failed_to_write(target))?;
        let mut hash = Sha256::new();
        loop {
            let length = from.read(&mut self.buffer).with_context(|| failed_to_read(source))?;
            let Some(bytes) = self.buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
            hash.update(bytes);
            into.write_all(bytes).with_context(|| failed_to_write(target))?;
            self.done.bytes += bytes.len() as u64;
            self.check_limits(0)?;
        }
        let mode = if is_executable { 0o755 } else { 0o644 };
        into.set_permissions(Permissions::from_mode(mode)).with_context(|| failed_to_write(target))?;
        Ok(hash.finalize().into())
    }

    /// `more` bytes are about to be copied.
    fn check_limits(&self, more: u64) -> Result<(), Failure> {
        if self.canceled.is_cancelled() {
            return Err(Failure::canceled("interrupted").hint("run the same command again"));
        }
        let ContextLimits { bytes, files } = self.limits;
        let (what, key) = if self.done.files > files {
            (format!("{files} files"), "image.context_limit_files")
        } else if self.done.bytes.saturating_add(more) > bytes {
            (human_bytes(bytes), "image.context_limit_mb")
        } else {
            return Ok(());
        };
        Err(Failure::user(format!("the context {} has more than {what}, which is its limit", self.folder.display()))
            .hint(format!("name what the image does not need in `.dockerignore`, or raise `{key}` in the manifest")))
    }
}

fn failed_to_read(path: &Path) -> String {
    format!("failed to read {} for the context", plain::line(&path.to_string_lossy(), 300))
}

fn failed_to_write(path: &Path) -> String {
    format!("failed to write {} for the context", plain::line(&path.to_string_lossy(), 300))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure;

    const LIMITS: ContextLimits = ContextLimits { bytes: 1 << 20, files: 10 };

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "run.sh", "x");
        write(folder.path(), "data/a.csv", "1");
        write(folder.path(), "data/keep.csv", "2");
        write(folder.path(), ".git/config", "secret");
        write(folder.path(), ".dockerignore", "data\n!data/keep.csv\n");
        fs::create_dir(folder.path().join("empty")).unwrap();
        std::os::unix::fs::symlink("run.sh", folder.path().join("link")).unwrap();
        fs::set_permissions(folder.path().join("run.sh"), Permissions::from_mode(0o700)).unwrap();
        folder
    }

    fn copied(folder: &Path, limits: ContextLimits) -> anyhow::Result<(tempfile::TempDir, CopiedContext)> {
        let place = tempfile::tempdir().unwrap();
        let done =
            copy(folder, place.path(), limits, Some(&folder.join("data/../image.env")), &CancellationToken::new())?;
        Ok((place, done))
    }

    fn tag(hash: &ContextHash) -> String {
        let (args, bases) = (std::collections::BTreeMap::new(), []);
        let inputs = super::super::fingerprint::BuildInputs {
            dockerfile: b"",
            target: None,
            args: &args,
            bases: &bases,
            platform: "",
        };
        super::super::fingerprint::context_tag(hash, &inputs)
    }

    #[test]
    fn wanted_files_are_copied_with_the_modes_of_git() {
        let folder = project();
        let (copy, done) = copied(folder.path(), LIMITS).unwrap();
        assert_eq!((done.files, done.bytes), (4, 2 + 20));
        let mode = |name: &str| fs::symlink_metadata(copy.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("run.sh"), mode("data/keep.csv"), mode(".dockerignore")), (0o755, 0o644, 0o644));
        assert_eq!(fs::read_link(copy.path().join("link")).unwrap(), Path::new("run.sh"));
        for absent in ["data/a.csv", ".git", "empty"] {
            assert!(!copy.path().join(absent).exists(), "{absent}");
        }
    }

    #[test]
    fn the_hash_follows_what_is_copied() {
        let folder = project();
        let hash = || tag(&copied(folder.path(), LIMITS).unwrap().1.hash);
        let first = hash();
        write(folder.path(), ".git/index", "1");
        write(folder.path(), "data/b.csv", "1");
        write(folder.path(), "image.env", "1");
        fs::set_permissions(folder.path().join("run.sh"), Permissions::from_mode(0o777)).unwrap();
        assert_eq!(hash(), first, "nothing of the context changed");
        fs::set_permissions(folder.path().join("run.sh"), Permissions::from_mode(0o644)).unwrap();
        let second = hash();
        write(folder.path(), "data/keep.csv", "3");
        let third = hash();
        fs::remove_file(folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink("data", folder.path().join("link")).unwrap();
        assert_eq!(std::collections::BTreeSet::from([first, second, third, hash()]).len(), 4);
    }

    #[test]
    fn a_context_above_its_limit_names_the_key() {
        let folder = project();
        let said = |limits| failure::render(&copied(folder.path(), limits).unwrap_err());
        let files = said(ContextLimits { files: 3, ..LIMITS });
        assert!(files.contains("has more than 3 files") && files.contains("`image.context_limit_files`"), "{files}");
        let bytes = said(ContextLimits { bytes: 21, ..LIMITS });
        assert!(bytes.contains("`image.context_limit_mb`"), "{bytes}");
    }

    #[test]
    fn a_large_file_is_refused_before_it_is_copied() {
        let folder = project();
        File::create(folder.path().join("sparse")).unwrap().set_len(5 << 40).unwrap();
        let place = tempfile::tempdir().unwrap();
        let error = copy(folder.path(), place.path(), LIMITS, None, &CancellationToken::new()).unwrap_err();
        assert!(failure::render(&error).contains("`image.context_limit_mb`"), "{error:?}");
        assert!(!place.path().join("sparse").exists());
    }

    #[test]
    fn a_signal_ends_the_copy() {
        let (folder, place, canceled) = (project(), tempfile::tempdir().unwrap(), CancellationToken::new());
        canceled.cancel();
        let error = copy(folder.path(), place.path(), LIMITS, None, &canceled).unwrap_err();
        assert_eq!(failure::kind_of(&error), failure::Kind::Canceled);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_of_builds_belong_to_no_context() {
        let folder = project();
        let own = folder.path().join("tmp/image-build-a/context");
        let tried = || {
            let _ = fs::remove_dir_all(&own);
            fs::create_dir_all(&own).unwrap();
            copy(folder.path(), &own, LIMITS, None, &CancellationToken::new())
        };
        write(folder.path(), "tmp/image-build-b/secret-x", "s3cret");
        let said = failure::render(&tried().unwrap_err());
        assert!(said.contains("temporary files, tmp, is inside") && said.contains("`TMPDIR`"), "{said}");
        write(folder.path(), ".dockerignore", "tmp\n!tmp/image-build-b/secret-x\n!tmp/kept\n");
        write(folder.path(), "tmp/kept", "1");
        let first = tag(&tried().unwrap().hash);
        assert!(own.join("tmp/kept").exists() && !own.join("tmp/image-build-b").exists());
        write(folder.path(), "tmp/image-build-b/secret-x", "other");
        assert_eq!(tag(&tried().unwrap().hash), first);
    }

    #[test]
    fn what_is_no_file_is_an_error_and_is_not_waited_for() {
        let folder = project();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(failure::render(&copied(folder.path(), LIMITS).unwrap_err()).contains("the context has pipe"));
        write(folder.path(), ".dockerignore", "pipe");
        copied(folder.path(), LIMITS).unwrap();
        assert!(copied(&folder.path().join("absent"), LIMITS).is_err());
    }
}
