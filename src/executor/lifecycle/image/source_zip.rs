//! The files of a project that git tracks, as one zip file: the same bytes for the same files.
//!
//! Names and modes come from git's index, contents from the folder, so that files of Git LFS are whole. Files that git does not track are
//! left out, and submodules too. Every file is hashed first: a zip that is stored already is not made again.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::plain;
use crate::cloud::Sha256Hash;
use crate::config::env::Environment;
use crate::lifecycle::package::git::{IndexEntry, Repository};

/// Most bytes that S3 takes in one request.
const MOST_BYTES: u64 = 5 << 30;
/// Files of this size need the fields of zip64; a little less than 4 GiB, because compressing may add some bytes.
const LARGE: u64 = 0xfff0_0000;
/// The fastest: the zip is read once, in the region of its bucket.
const LEVEL: i64 = 1;
const CHUNK: usize = 128 << 10;
/// Begin of the pointer that stands for a file of Git LFS, and the most bytes of one.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
const LARGEST_POINTER: u64 = 1024;
/// Most names that are told.
const MOST_TOLD: usize = 3;

/// Limits of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceLimits {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    File,
    Executable,
    Link,
}

/// A file that git tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TrackedFile {
    /// Relative to the folder, in UTF-8.
    path: String,
    kind: SourceKind,
}

/// A source before it is packed.
#[derive(Debug)]
pub(super) struct ProjectSource {
    folder: PathBuf,
    files: Vec<TrackedFile>,
    hash: Sha256Hash,
    pub(super) bytes: u64,
    /// Sentences about what is not as somebody may expect.
    pub(super) warnings: Vec<String>,
}

/// A zip file in `TMPDIR`, which is gone with the value.
#[derive(Debug)]
pub(super) struct PackedSource {
    pub(super) file: tempfile::NamedTempFile,
    pub(super) bytes: u64,
    pub(super) sha256: Sha256Hash,
}

impl ProjectSource {
    /// Hashes the files below a folder that git tracks. Blocks.
    ///
    /// # Errors
    /// Failures of the user: the folder is in no repository, a file is missing or unmerged, a name is not UTF-8, or there is more than
    /// the limits.
    pub(super) fn read(folder: &Path, env: &Environment, limits: SourceLimits) -> anyhow::Result<Self> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries = Repository::of(folder, env).tracked()?;
        let (files, submodules) = select(entries)?;
        if files.len() as u64 > limits.files {
            return Err(too_large(&format!("{} files", limits.files), "image.context_limit_files").into());
        }
        let mut source = Self { folder: folder.to_owned(), files, hash: [0; 32], bytes: 0, warnings: Vec::new() };
        let mut pointers = Vec::new();
        let mut hash = SourceHash::default();
        source.bytes = source.visit(&mut hash, limits.bytes, &mut |file, start| {
            if start.starts_with(LFS_POINTER) {
                pointers.push(file.path.clone());
            }
            Ok(())
        })?;
        source.hash = hash.finish();
        if !submodules.is_empty() {
            source.warnings.push(format!(
                "{} left out: {}",
                count(&submodules, "submodule is", "submodules are"),
                names(&submodules)
            ));
        }
        if !pointers.is_empty() {
            source.warnings.push(format!(
                "{} only, so that the build does not have the content: {}; set `GIT_LFS_SKIP_SMUDGE: \"0\"` in the job, whose image needs git-lfs",
                count(&pointers, "file is a pointer of Git LFS", "files are pointers of Git LFS"),
                names(&pointers)
            ));
        }
        Ok(source)
    }

    /// The same for the same names, kinds and contents.
    pub(super) fn sha256(&self) -> &Sha256Hash {
        &self.hash
    }

    pub(super) fn number_of_files(&self) -> usize {
        self.files.len()
    }

    /// Tells whether git tracks a file of this name.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).is_ok()
    }

    /// Writes the zip. Blocks.
    ///
    /// # Errors
    /// A file changed since it was hashed, there is no room in `TMPDIR`, or the zip is larger than S3 takes.
    pub(super) fn pack(&self) -> anyhow::Result<PackedSource> {
        let file = tempfile::NamedTempFile::new().map_err(|error| no_room(error.into()))?;
        let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 20, file.as_file()));
        let mut hash = SourceHash::default();
        self.write(&mut zip, &mut hash)?;
        if hash.finish() != self.hash {
            return Err(Failure::user("files of the project changed while they were packed")
                .hint("run the command when nothing writes into the project's folder")
                .into());
        }
        let mut written = zip.finish().map_err(|error| no_room(error.into()))?;
        written.flush().map_err(|error| no_room(error.into()))?;
        drop(written);
        let (bytes, sha256) = hashed(file.path())?;
        if bytes > MOST_BYTES {
            let (size, most) = (human_bytes(bytes), human_bytes(MOST_BYTES));
            let failure = Failure::user(format!(
                "the project's files are a zip of {size}; S3 takes at most {most} in one request"
            ));
            return Err(failure.hint("remove large files from git: put data into S3, and read it in the build").into());
        }
        Ok(PackedSource { file, bytes, sha256 })
    }

    fn write(&self, zip: &mut ZipWriter<BufWriter<&File>>, hash: &mut SourceHash) -> anyhow::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let base = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(LEVEL))
            .last_modified_time(DateTime::default());
        for file in &self.files {
            if file.kind == SourceKind::Link {
                let target = link(&self.folder, file)?;
                hash.add(file, &Sha256::digest(&target).into());
                let target = String::from_utf8(target).map_err(|_| not_text(&file.path))?;
                zip.add_symlink(file.path.as_str(), target, base).map_err(|error| no_room(error.into()))?;
                continue;
            }
            let (mut content, bytes) = open(&self.folder, file)?;
            let mode = if file.kind == SourceKind::Executable { 0o755 } else { 0o644 };
            let options = base.unix_permissions(mode).large_file(bytes >= LARGE);
            zip.start_file(file.path.as_str(), options).map_err(|error| no_room(error.into()))?;
            let mut of_file = Sha256::new();
            loop {
                let length = content.read(&mut buffer).with_context(|| failed_to_read(&file.path))?;
                let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { break };
                of_file.update(part);
                zip.write_all(part).map_err(|error| no_room(error.into()))?;
            }
            hash.add(file, &of_file.finalize().into());
        }
        Ok(())
    }

    /// Reads every file; `seen` gets the begin of each small one. Gives back the bytes of all.
    fn visit(
        &self,
        hash: &mut SourceHash,
        most: u64,
        seen: &mut dyn FnMut(&TrackedFile, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut buffer = vec![0; CHUNK];
        let mut all = 0;
        for file in &self.files {
            if file.kind == SourceKind::Link {
                hash.add(file, &Sha256::digest(link(&self.folder, file)?).into());
                continue;
            }
            let (mut content, bytes) = open(&self.folder, file)?;
            all += bytes;
            if all > most {
                return Err(too_large(&human_bytes(most), "image.context_limit_mb").into());
            }
            let mut of_file = Sha256::new();
            loop {
                let length = content.read(&mut buffer).with_context(|| failed_to_read(&file.path))?;
                let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { break };
                if bytes <= LARGEST_POINTER {
                    seen(file, part)?;
                }
                of_file.update(part);
            }
            hash.add(file, &of_file.finalize().into());
        }
        Ok(all)
    }
}

/// Hash of names, kinds and contents, in the order of the names.
#[derive(Debug, Default)]
struct SourceHash(Sha256);

impl SourceHash {
    fn add(&mut self, file: &TrackedFile, content: &Sha256Hash) {
        let kind = match file.kind {
            SourceKind::File => b"f",
            SourceKind::Executable => b"x",
            SourceKind::Link => b"l",
        };
        self.0.update(kind);
        self.0.update((file.path.len() as u64).to_be_bytes());
        self.0.update(file.path.as_bytes());
        self.0.update(content);
    }

    fn finish(self) -> Sha256Hash {
        self.0.finalize().into()
    }
}

/// Files in the order of their names, and the names of submodules.
fn select(entries: Vec<IndexEntry>) -> anyhow::Result<(Vec<TrackedFile>, Vec<String>)> {
    let (mut files, mut submodules) = (Vec::new(), Vec::new());
    for IndexEntry { mode, stage, path } in entries {
        let path = String::from_utf8(path).map_err(|error| not_text(&String::from_utf8_lossy(error.as_bytes())))?;
        if stage != "0" {
            let shown = plain::line(&path, 300);
            return Err(Failure::user(format!("{shown} has a conflict of a merge"))
                .hint("resolve it, and commit")
                .into());
        }
        let kind = match mode.as_str() {
            "160000" => {
                submodules.push(path);
                continue;
            }
            "120000" => SourceKind::Link,
            "100755" => SourceKind::Executable,
            _ => SourceKind::File,
        };
        files.push(TrackedFile { path, kind });
    }
    if files.is_empty() {
        return Err(Failure::user("git tracks no file in the project's folder")
            .hint("commit the files that the build needs: exactly those that git tracks are sent")
            .into());
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok((files, submodules))
}

/// The folder of a file, and the file's name in it. No part of the path may be a link: git tracks nothing behind one.
fn place<'a>(folder: &Path, file: &'a TrackedFile) -> anyhow::Result<(OwnedFd, &'a str)> {
    let (parents, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let refused = |error: rustix::io::Errno| not_there(&file.path, &error.into());
    let mut at = rustix::fs::open(folder, flags, Mode::empty()).map_err(refused)?;
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            return Err(refused(rustix::io::Errno::ACCESS));
        }
        at = rustix::fs::openat(&at, part, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(refused)?;
    }
    Ok((at, name))
}

fn open(folder: &Path, file: &TrackedFile) -> anyhow::Result<(File, u64)> {
    let (parent, name) = place(folder, file)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = rustix::fs::openat(&parent, name, flags, Mode::empty()).map(File::from);
    let opened = opened.map_err(|error| not_there(&file.path, &error.into()))?;
    let found = opened.metadata().with_context(|| failed_to_read(&file.path))?;
    if !found.is_file() {
        return Err(not_there(&file.path, &io::Error::other("it is no regular file")));
    }
    Ok((opened, found.len()))
}

/// The target of a link. Where the system has no links, git writes it into a file.
fn link(folder: &Path, file: &TrackedFile) -> anyhow::Result<Vec<u8>> {
    let (parent, name) = place(folder, file)?;
    match rustix::fs::readlinkat(&parent, name, Vec::new()) {
        Ok(target) => Ok(target.into_bytes()),
        Err(rustix::io::Errno::INVAL) => {
            let mut target = Vec::new();
            open(folder, file)?.0.take(LARGEST_POINTER * 4).read_to_end(&mut target)?;
            Ok(target)
        }
        Err(error) => Err(not_there(&file.path, &error.into())),
    }
}

fn hashed(path: &Path) -> anyhow::Result<(u64, Sha256Hash)> {
    let mut file = File::open(path).context("failed to read the packed source")?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let length = file.read(&mut buffer).context("failed to read the packed source")?;
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        bytes += length as u64;
    }
    Ok((bytes, hash.finalize().into()))
}

fn too_large(limit: &str, key: &str) -> Failure {
    Failure::user(format!("the project's files are more than {limit}"))
        .hint(format!("remove files from git that the build does not need, or raise `{key}` in the manifest"))
}

fn not_there(path: &str, error: &io::Error) -> anyhow::Error {
    let shown = plain::line(path, 300);
    Failure::user(format!("git tracks {shown}, and it cannot be read: {error}"))
        .hint("restore it with `git checkout`, or remove it from git; a sparse checkout lacks files")
        .into()
}

fn not_text(path: &str) -> anyhow::Error {
    let shown = plain::line(path, 300);
    Failure::user(format!("{shown} has a name or a target that is not UTF-8, which no zip file can have"))
        .hint("rename it")
        .into()
}

fn failed_to_read(path: &str) -> String {
    format!("failed to read {}", plain::line(path, 300))
}

fn no_room(error: anyhow::Error) -> anyhow::Error {
    Failure::system("the project's files cannot be packed")
        .hint("free space in the folder of `TMPDIR`, or set it to another one: the zip of the files needs room there")
        .caused_by(error)
        .into()
}

fn count(all: &[String], one: &str, several: &str) -> String {
    if all.len() == 1 { format!("1 {one}") } else { format!("{} {several}", all.len()) }
}

fn names(all: &[String]) -> String {
    let told: Vec<_> = all.iter().take(MOST_TOLD).map(|name| plain::line(name, 100)).collect();
    let more = all.len().saturating_sub(told.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    told.join(", ") + &more
}

#[cfg(test)]
mod tests;
