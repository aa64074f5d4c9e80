//! The files of a model's folder: their walk in one order, and the hash that tells equal folders without packing them.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use crate::base::failure::Failure;
use crate::base::plain;

/// Most problems that are told at once.
const MOST_TOLD: usize = 10;
/// Deepest folder.
const DEEPEST: usize = 100;

/// An entry of a folder.
#[derive(Debug)]
pub(super) enum PackedEntry {
    Folder,
    File(PackedFile),
    Link(PathBuf),
}

/// A file that was opened, with what an archive keeps of it.
#[derive(Debug)]
pub(super) struct PackedFile {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) mode: u32,
}

/// Visits every entry, sorted by name in each folder. Keeps the names of the folders around the current entry, and no more.
///
/// # Errors
/// The folder has no file, or something that cannot be packed: all of these in one error. The visit fails.
pub(super) fn walk(
    top: &Path,
    visit: &mut dyn FnMut(&Path, &mut PackedEntry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let kind = fs::symlink_metadata(top);
    if !kind.as_ref().is_ok_and(Metadata::is_dir) {
        let what = if kind.is_ok() { "is no folder" } else { "does not exist" };
        return Err(failure(top, what).into());
    }
    let mut walk = FolderWalk { top, visit, has_file: false, told: Vec::new(), problems: 0 };
    walk.list(Path::new(""), 0)?;
    if walk.problems > 0 {
        let more = walk.problems - walk.told.len();
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        let told = walk.told.join("\n  ");
        return Err(failure(top, "holds what no model can").quoting(Some(format!("  {told}{more}"))).into());
    }
    if !walk.has_file {
        return Err(failure(top, "has no file").into());
    }
    Ok(())
}

pub(super) fn failure(folder: &Path, what: &str) -> Failure {
    let shown = plain::line(&folder.to_string_lossy(), 300);
    Failure::user(format!("the model's folder {shown} {what}"))
        .hint("set `model.path` in the manifest to the folder with the model's files, or to the `s3://` URI of a `model.tar.gz`")
}

/// A file has another size than when it was opened.
pub(super) fn changed(path: &Path) -> anyhow::Error {
    Failure::user(format!("{} changed while it was read", plain::line(&path.to_string_lossy(), 300)))
        .hint("let nothing write the model's files while they are registered")
        .into()
}

struct FolderWalk<'a> {
    top: &'a Path,
    visit: &'a mut dyn FnMut(&Path, &mut PackedEntry) -> anyhow::Result<()>,
    has_file: bool,
    told: Vec<String>,
    problems: usize,
}

impl FolderWalk<'_> {
    fn list(&mut self, below: &Path, depth: usize) -> anyhow::Result<()> {
        if depth > DEEPEST {
            self.problem(below, "lies too deep");
            return Ok(());
        }
        let mut names = match names(&self.top.join(below)) {
            Ok(names) => names,
            Err(error) => {
                self.problem(below, &format!("cannot be read: {error}"));
                return Ok(());
            }
        };
        names.sort_unstable();
        for name in names {
            let path = below.join(name);
            match entry(self.top, &path) {
                Ok(mut entry) => {
                    self.has_file |= matches!(entry, PackedEntry::File(_));
                    // The folder is refused anyway: only further problems are of interest.
                    if self.problems == 0 {
                        (self.visit)(&path, &mut entry)?;
                    }
                    if matches!(entry, PackedEntry::Folder) {
                        self.list(&path, depth + 1)?;
                    }
                }
                Err(what) => self.problem(&path, &what),
            }
        }
        Ok(())
    }

    fn problem(&mut self, path: &Path, what: &str) {
        self.problems += 1;
        if self.told.len() < MOST_TOLD {
            let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            self.told.push(format!("{} {what}", plain::line(&shown.to_string_lossy(), 300)));
        }
    }
}

fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

/// The entry, or why it cannot be packed.
fn entry(top: &Path, path: &Path) -> Result<PackedEntry, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let full = top.join(path);
    let kind = fs::symlink_metadata(&full).map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Ok(PackedEntry::Folder);
    }
    if kind.is_symlink() {
        let target = fs::read_link(&full).map_err(unreadable)?;
        let stays = stays_below(path, &target);
        return if stays { Ok(PackedEntry::Link(target)) } else { Err("is a link that leaves the folder".to_owned()) };
    }
    if !kind.is_file() {
        return Err(if kind.is_socket() { "is a socket" } else { "is a pipe or a device" }.to_owned());
    }
    let file = File::open(&full).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    Ok(PackedEntry::File(PackedFile { file, size: metadata.len(), mode }))
}

/// Whether the target of a link stays in the folder, by its words alone.
fn stays_below(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count() - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Hash of the names, contents and execute bits of a folder.
pub(super) type FilesHash = blake3::Hash;

/// Hashes a folder's entries in the order of [`walk`].
#[derive(Debug, Default)]
pub(super) struct FolderHasher(blake3::Hasher);

impl FolderHasher {
    /// Adds an entry; of a file, the hash of its content.
    pub(super) fn add(&mut self, path: &Path, entry: &PackedEntry, content: Option<blake3::Hash>) {
        let (kind, text) = match entry {
            PackedEntry::Folder => (0, Vec::new()),
            PackedEntry::Link(target) => (1, target.as_os_str().as_bytes().to_vec()),
            PackedEntry::File(PackedFile { size, mode, .. }) => (2, format!("{mode:o} {size}").into_bytes()),
        };
        self.0.update(&[kind]);
        // A length before each text keeps neighbors apart.
        for text in [path.as_os_str().as_bytes(), &text] {
            self.0.update(&(text.len() as u64).to_le_bytes()).update(text);
        }
        if let Some(hash) = content {
            self.0.update(hash.as_bytes());
        }
    }

    pub(super) fn finish(&self) -> FilesHash {
        self.0.finalize()
    }
}

/// Hashes the folder, reading each file once.
///
/// # Errors
/// As [`walk`], or a file changes while it is read.
pub(super) fn files_hash(folder: &Path) -> anyhow::Result<FilesHash> {
    let mut folder_hash = FolderHasher::default();
    walk(folder, &mut |path, entry| {
        let content = match entry {
            PackedEntry::File(PackedFile { file, size, .. }) => {
                let mut content = blake3::Hasher::new();
                content.update_reader(file.take(size.saturating_add(1)))?;
                if content.count() != *size {
                    return Err(changed(path));
                }
                Some(content.finalize())
            }
            PackedEntry::Folder | PackedEntry::Link(_) => None,
        };
        folder_hash.add(path, entry, content);
        Ok(())
    })?;
    Ok(folder_hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_in_the_folder_by_its_words() {
        for (link, target, stays) in [
            ("a", "b", true),
            ("a", "../b", false),
            ("d/a", "../b", true),
            ("d/a", "../../b", false),
            ("d/a", "x/../../b", true),
            ("d/a", "./y", true),
        ] {
            assert_eq!(stays_below(Path::new(link), Path::new(target)), stays, "{link} {target}");
        }
    }
}
