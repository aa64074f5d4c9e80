//! Packs a model's folder into a `model.tar.gz` that depends on names, contents and execute bits alone.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::Sha256Hash;

/// Time of every entry: the beginning of 1980, because `tar` warns of 1970.
const MTIME: u64 = 315_532_800;
/// The byte in the head of gzip that names no system.
const ANY_SYSTEM: u8 = 255;
/// Most problems that are told at once.
const MOST_TOLD: usize = 10;
/// Deepest folder.
const DEEPEST: usize = 100;

/// A packed model, in a file that has no name: it is gone with the process.
#[derive(Debug)]
pub(super) struct PackedModel {
    file: File,
    pub(super) bytes: u64,
    pub(super) hash: Sha256Hash,
}

impl PackedModel {
    /// A path to the file, for as long as the value lives.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Packs the folder. Memory stays bounded for files of any size.
///
/// # Errors
/// The folder has no file, or something that cannot be packed: all of these in one error.
pub(super) fn pack(folder: &Path) -> anyhow::Result<PackedModel> {
    let mut found = Found::default();
    let kind = fs::symlink_metadata(folder);
    if !kind.as_ref().is_ok_and(Metadata::is_dir) {
        let what = if kind.is_ok() { "is no folder" } else { "does not exist" };
        return Err(failure(folder, what).into());
    }
    found.list(folder, Path::new(""), 0);
    if !found.problems.is_empty() {
        let more = found.problems.len().saturating_sub(MOST_TOLD);
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        found.problems.truncate(MOST_TOLD);
        let told = found.problems.join("\n  ");
        return Err(failure(folder, "holds what no model can").quoting(Some(format!("  {told}{more}"))).into());
    }
    if !found.entries.iter().any(|entry| matches!(entry.kind, Kind::File(_))) {
        return Err(failure(folder, "has no file").into());
    }
    write(folder, &found.entries).with_context(|| format!("failed to pack the folder {}", folder.display()))
}

fn failure(folder: &Path, what: &str) -> Failure {
    let shown = plain::line(&folder.to_string_lossy(), 300);
    Failure::user(format!("the model's folder {shown} {what}"))
        .hint("set `model.path` in the manifest to the folder with the model's files, or to the `s3://` URI of a `model.tar.gz`")
}

/// An entry of the archive, relative to the folder.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder,
    File(Metadata),
    Link(PathBuf),
}

/// The entries of a folder in their order, and what cannot be packed.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<Entry>,
    problems: Vec<String>,
}

impl Found {
    fn list(&mut self, top: &Path, below: &Path, depth: usize) {
        if depth > DEEPEST {
            return self.problem(below, "lies too deep");
        }
        let names = fs::read_dir(top.join(below)).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let mut names = match names {
            Ok(names) => names,
            Err(error) => return self.problem(below, &format!("cannot be read: {error}")),
        };
        names.sort();
        for name in names {
            let path = below.join(name);
            self.add(top, path, depth);
        }
    }

    fn add(&mut self, top: &Path, path: PathBuf, depth: usize) {
        let full = top.join(&path);
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            Err(error) => return self.problem(&path, &format!("cannot be read: {error}")),
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.entries.push(Entry { path: path.clone(), kind: Kind::Folder });
            self.list(top, &path, depth + 1);
        } else if kind.is_symlink() {
            match fs::read_link(&full) {
                Ok(target) if stays_below(&path, &target) => {
                    self.entries.push(Entry { path, kind: Kind::Link(target) });
                }
                Ok(_) => self.problem(&path, "is a link that leaves the folder"),
                Err(error) => self.problem(&path, &format!("cannot be read: {error}")),
            }
        } else if kind.is_file() {
            match File::open(&full) {
                Ok(_) => self.entries.push(Entry { path, kind: Kind::File(metadata) }),
                Err(error) => self.problem(&path, &format!("cannot be read: {error}")),
            }
        } else {
            let what = if kind.is_socket() { "is a socket" } else { "is a pipe or a device" };
            self.problem(&path, what);
        }
    }

    fn problem(&mut self, path: &Path, what: &str) {
        let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.problems.push(format!("{} {what}", plain::line(&shown.to_string_lossy(), 300)));
    }
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

fn write(folder: &Path, entries: &[Entry]) -> anyhow::Result<PackedModel> {
    let file = tempfile::tempfile().context("failed to make a file in `TMPDIR`")?;
    let sink = Hashed { file: BufWriter::new(file), hash: Sha256::new(), bytes: 0 };
    // Weights hardly get smaller; the fastest level costs a tenth of the time of the best.
    let gzip = GzBuilder::new().mtime(0).operating_system(ANY_SYSTEM).write(sink, Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    for Entry { path, kind } in entries {
        let (entry_type, mode, size) = match kind {
            Kind::Folder => (EntryType::Directory, 0o755, 0),
            Kind::Link(_) => (EntryType::Symlink, 0o777, 0),
            Kind::File(metadata) => {
                let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                (EntryType::Regular, mode, metadata.len())
            }
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(entry_type);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(MTIME);
        header.set_uid(0);
        header.set_gid(0);
        match kind {
            Kind::Folder => archive.append_data(&mut header, path, io::empty())?,
            Kind::Link(target) => archive.append_link(&mut header, path, target)?,
            Kind::File(_) => {
                let mut content = File::open(folder.join(path))?.take(size.saturating_add(1));
                archive.append_data(&mut header, path, &mut content)?;
                // One byte more was allowed: a file that is as long as before has left it.
                if content.limit() != 1 {
                    return Err(Failure::user(format!("{} changed while it was packed", path.display())).into());
                }
            }
        }
    }
    let sink = archive.into_inner()?.finish()?;
    let file = sink.file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(PackedModel { file, bytes: sink.bytes, hash: sink.hash.finalize().into() })
}

/// A file that is hashed while it is written.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::base::failure::render;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn names(packed: &PackedModel) -> Vec<String> {
        let gzip = flate2::read::GzDecoder::new(File::open(packed.path()).unwrap());
        let mut archive = tar::Archive::new(gzip);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|entry| entry.path().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_same_files_give_the_same_archive() {
        let files = [("model.json", "{}"), ("code/inference.py", "x"), ("a/b/c", "deep")];
        let (one, other) = (folder(&files), folder(&[files[2], files[0], files[1]]));
        symlink("../model.json", one.path().join("code/link")).unwrap();
        symlink("../model.json", other.path().join("code/link")).unwrap();
        fs::set_permissions(other.path().join("model.json"), fs::Permissions::from_mode(0o600)).unwrap();
        let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7);
        File::options().write(true).open(other.path().join("a/b/c")).unwrap().set_modified(later).unwrap();
        let (one, other) = (pack(one.path()).unwrap(), pack(other.path()).unwrap());
        assert_eq!((one.hash, one.bytes), (other.hash, other.bytes));
        assert_eq!(names(&one), ["a", "a/b", "a/b/c", "code", "code/inference.py", "code/link", "model.json"]);
        let content = fs::read(one.path()).unwrap();
        assert_eq!((content.len() as u64, Sha256::digest(&content).as_slice()), (one.bytes, one.hash.as_slice()));
    }

    #[test]
    fn contents_and_execute_bits_change_it() {
        let hash = |text: &str, mode: u32| {
            let folder = folder(&[("serve", text)]);
            fs::set_permissions(folder.path().join("serve"), fs::Permissions::from_mode(mode)).unwrap();
            pack(folder.path()).unwrap().hash
        };
        assert_ne!(hash("x", 0o644), hash("y", 0o644));
        assert_ne!(hash("x", 0o644), hash("x", 0o755));
    }

    #[test]
    fn everything_that_cannot_be_packed_is_one_error() {
        let folder = folder(&[("model.json", "{}")]);
        let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
        symlink("../../etc/passwd", folder.path().join("out")).unwrap();
        symlink("/etc/passwd", folder.path().join("root")).unwrap();
        let text = render(&pack(folder.path()).unwrap_err());
        for line in ["  out is a link that leaves the folder", "  root is a link that leaves", "  socket is a socket"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.contains("`model.path`"), "{text}");
    }

    #[test]
    fn an_empty_model_is_refused() {
        let folder = folder(&[]);
        fs::create_dir(folder.path().join("empty")).unwrap();
        for (path, end) in [(folder.path().to_owned(), "has no file"), (folder.path().join("no"), "does not exist")] {
            let error = pack(&path).unwrap_err();
            assert!(error.to_string().ends_with(end), "{error}");
        }
    }

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
