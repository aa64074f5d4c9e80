//! Packs a model's folder into a `model.tar.gz` that depends on names, contents and execute bits alone.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::folder::{FilesHash, FolderHasher, PackedEntry, PackedFile, changed, failure, walk};
use crate::base::human::human_bytes;
use crate::cloud::Sha256Hash;

/// Time of every entry: the beginning of 1980, because `tar` warns of 1970.
const MTIME: u64 = 315_532_800;
/// The byte in the head of gzip that names no system.
const ANY_SYSTEM: u8 = 255;

/// A packed model, in a file that has no name: it is gone with the process.
#[derive(Debug)]
pub(crate) struct PackedModel {
    file: File,
    pub(crate) hash: Sha256Hash,
    /// Hash of the files as they were packed.
    pub(super) files: FilesHash,
}

impl PackedModel {
    /// The file, from its begin.
    pub(crate) fn into_file(mut self) -> io::Result<File> {
        self.file.rewind()?;
        Ok(self.file)
    }

    /// A path to the file, for as long as the value lives.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Packs the folder. Memory stays bounded for files of any size and number.
///
/// # Errors
/// As [`walk`]; the archive has more than `most` bytes, or finds no room in `TMPDIR`.
pub(crate) fn pack(folder: &Path, most: u64) -> anyhow::Result<PackedModel> {
    write(folder, most).map_err(|error| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::FileTooLarge) => {
                let what = format!("makes a `model.tar.gz` of more than {}", human_bytes(most));
                failure(folder, &what).hint("make the model smaller: S3 takes and copies no more in one request").into()
            }
            Some(io::ErrorKind::StorageFull) => {
                failure(folder, "does not fit, packed, into the folder for temporary files")
                    .hint("set `TMPDIR` to a folder with as much room as the model needs")
                    .into()
            }
            Some(_) => error.context(format!("failed to pack the folder {}", folder.display())),
            None => error,
        }
    })
}

fn write(folder: &Path, most: u64) -> anyhow::Result<PackedModel> {
    let file = tempfile::tempfile().context("failed to make a file in `TMPDIR`")?;
    let sink = Hashed { file: BufWriter::new(file), hash: Sha256::new(), left: most };
    // Weights hardly get smaller; the fastest level costs a tenth of the time of the best.
    let gzip = GzBuilder::new().mtime(0).operating_system(ANY_SYSTEM).write(sink, Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    let mut files = FolderHasher::default();
    walk(folder, &mut |path, entry| {
        let content = append(&mut archive, path, entry)?;
        files.add(path, entry, content);
        Ok(())
    })?;
    let sink = archive.into_inner()?.finish()?;
    let file = sink.file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(PackedModel { file, hash: sink.hash.finalize().into(), files: files.finish() })
}

/// Appends an entry, and returns the hash of a file's content.
fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &Path,
    entry: &mut PackedEntry,
) -> anyhow::Result<Option<blake3::Hash>> {
    let (entry_type, mode, size) = match entry {
        PackedEntry::Folder => (EntryType::Directory, 0o755, 0),
        PackedEntry::Link(_) => (EntryType::Symlink, 0o777, 0),
        PackedEntry::File(PackedFile { size, mode, .. }) => (EntryType::Regular, *mode, *size),
    };
    let mut header = Header::new_gnu();
    header.set_entry_type(entry_type);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    match entry {
        PackedEntry::Folder => archive.append_data(&mut header, path, io::empty())?,
        PackedEntry::Link(target) => archive.append_link(&mut header, path, target)?,
        PackedEntry::File(PackedFile { file, .. }) => {
            let mut content = HashedContent { file: file.take(size.saturating_add(1)), hash: blake3::Hasher::new() };
            archive.append_data(&mut header, path, &mut content)?;
            // One byte more was allowed: a file that is as long as before has left it.
            if content.hash.count() != size {
                return Err(changed(path));
            }
            return Ok(Some(content.hash.finalize()));
        }
    }
    Ok(None)
}

/// A file that is hashed while it is read.
struct HashedContent<'a> {
    file: io::Take<&'a mut File>,
    hash: blake3::Hasher,
}

impl Read for HashedContent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// A file that is hashed while it is written, and takes so many bytes.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
    left: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.left = self.left.checked_sub(written as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::super::folder::files_hash;
    use super::*;
    use crate::base::failure::render;

    const MOST: u64 = 1 << 20;

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
        let (one, other) = (pack(one.path(), MOST).unwrap(), pack(other.path(), MOST).unwrap());
        assert_eq!((one.hash, one.files), (other.hash, other.files));
        assert_eq!(names(&one), ["a", "a/b", "a/b/c", "code", "code/inference.py", "code/link", "model.json"]);
        let content = fs::read(one.path()).unwrap();
        assert_eq!(Sha256::digest(&content).as_slice(), one.hash.as_slice());
    }

    #[test]
    fn contents_and_execute_bits_change_it() {
        let hash = |text: &str, mode: u32| {
            let folder = folder(&[("serve", text)]);
            fs::set_permissions(folder.path().join("serve"), fs::Permissions::from_mode(mode)).unwrap();
            let packed = pack(folder.path(), MOST).unwrap();
            assert_eq!(files_hash(folder.path()).unwrap(), packed.files);
            (packed.hash, packed.files)
        };
        let base = hash("x", 0o644);
        for (hash, files) in [hash("y", 0o644), hash("x", 0o755)] {
            assert!(hash != base.0 && files != base.1);
        }
    }

    #[test]
    fn everything_that_cannot_be_packed_is_one_error() {
        let folder = folder(&[("model.json", "{}")]);
        let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
        symlink("../../etc/passwd", folder.path().join("out")).unwrap();
        symlink("/etc/passwd", folder.path().join("root")).unwrap();
        let text = render(&pack(folder.path(), MOST).unwrap_err());
        for line in ["  out is a link that leaves the folder", "  root is a link that leaves", "  socket is a socket"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.contains("`model.path`"), "{text}");
    }

    #[test]
    fn packing_ends_at_the_limit() {
        let noise: String = (0..20_000_u32).map(|at| blake3::hash(&at.to_le_bytes()).to_hex().to_string()).collect();
        let folder = folder(&[("weights", &noise)]);
        let text = render(&pack(folder.path(), 64 << 10).unwrap_err());
        assert!(text.contains("makes a `model.tar.gz` of more than 64"), "{text}");
        assert!(pack(folder.path(), MOST).is_ok());
    }

    #[test]
    fn an_empty_model_is_refused() {
        let folder = folder(&[]);
        fs::create_dir(folder.path().join("empty")).unwrap();
        for (path, end) in [(folder.path().to_owned(), "has no file"), (folder.path().join("no"), "does not exist")] {
            let error = pack(&path, MOST).unwrap_err();
            assert!(error.to_string().ends_with(end), "{error}");
        }
    }
}
