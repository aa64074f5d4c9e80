//! Files that are replaced whole: a reader sees the old content or the new, also when the writer is killed. And files to which lines are appended.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Mode of a file for everybody; set in full, where the umask takes its part of others.
const PUBLIC: u32 = 0o644;

/// When the new content must be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the system writes it.
    Eventual,
    /// On return: it survives a power failure.
    Synced,
}

/// Replaces the file by a rename. Its directory must exist; the new file has mode 0600. A writer that is killed leaves at most a
/// file `<name>.<random>.tmp` beside it.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    replace_with_mode(path, content, durability, 0o600)
}

/// As [`replace`] without a wait for the disk; the umask decides who may read the new file.
pub fn replace_shared(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with_mode(path, content, Durability::Eventual, 0o666)
}

/// As [`replace`] without a wait for the disk; everybody may read the new file, whatever the umask is.
pub fn replace_public(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with_mode(path, content, Durability::Eventual, PUBLIC)
}

/// Opens a file to append to it, and makes it with this mode. It never waits: a pipe or a terminal is refused, whose reader may be absent or slow.
///
/// # Errors
/// Those of the system, and [`io::ErrorKind::InvalidInput`] for what is neither a regular file nor `/dev/null`.
pub fn open_to_append(path: &Path, mode: u32) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = File::options().create(true).append(true).mode(mode).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    let is_null =
        meta.file_type().is_char_device() && (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())) == (1, 3);
    if meta.is_file() || is_null { Ok(file) } else { Err(not_regular()) }
}

/// Reads a regular file of at most `most` bytes. It never waits for the writer of a pipe.
///
/// # Errors
/// Those of the system, and [`io::ErrorKind::InvalidInput`] for what is no regular file or is longer.
pub fn read_small(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let meta = path.metadata()?;
    if !meta.is_file() {
        return Err(not_regular());
    }
    if meta.len() > most {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it has {} bytes; {most} are the limit", meta.len()),
        ));
    }
    std::fs::read(path)
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

fn replace_with_mode(path: &Path, content: &[u8], durability: Durability, mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp").permissions(Permissions::from_mode(mode));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(content)?;
    if mode == PUBLIC {
        file.as_file().set_permissions(Permissions::from_mode(PUBLIC))?;
    }
    if durability == Durability::Synced {
        file.as_file().sync_all()?;
    }
    file.persist(path).map_err(|error| error.error)?;
    if durability == Durability::Synced {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        for (content, durability) in [("first, and longer", Durability::Eventual), ("second", Durability::Synced)] {
            replace(&path, content.as_bytes(), durability).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(replace(&dir.path().join("absent/file"), b"", Durability::Eventual).is_err());
    }

    #[test]
    fn a_pipe_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(open_to_append(&pipe, 0o600).is_err(), "nobody reads it");
        assert_eq!(read_small(&pipe, 10).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let _reader = rustix::fs::open(&pipe, flags, mode).unwrap();
        assert_eq!(open_to_append(&pipe, 0o600).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(open_to_append(Path::new("/dev/null"), 0o600).is_ok());
        let plain = dir.path().join("plain");
        for _ in 0..2 {
            open_to_append(&plain, 0o640).unwrap().write_all(b"line\n").unwrap();
        }
        assert_eq!(read_small(&plain, 10).unwrap(), b"line\nline\n");
        assert!(read_small(&plain, 9).is_err());
    }

    #[test]
    fn the_umask_decides_who_reads_a_shared_file() {
        let dir = tempfile::tempdir().unwrap();
        let [shared, usual] = ["shared", "usual"].map(|name| dir.path().join(name));
        replace_shared(&shared, b"text").unwrap();
        std::fs::write(&usual, "text").unwrap();
        assert_eq!(shared.metadata().unwrap().permissions(), usual.metadata().unwrap().permissions());
    }
}
