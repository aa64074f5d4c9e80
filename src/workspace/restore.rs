//! Between trees and packs: reads files into a pack, writes a pack's entries into the trees.
//!
//! Writing never passes through a link, replaces a file by renaming a finished one over it, and sets modes and times
//! last. Nothing here decides whether an entry may be written: `artifacts` does, beforehand.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{Entry, Kind, Mark, Place, mtime, shown, split};
use super::pack::{Content, PIECE, Reader, Writer};
use super::tree::{Root, Walker, change_mode, is_absent, times};
use super::{Roots, Stop, Summary, Warnings, count};

/// How often a file that changes under the reader is read before the reader gives up.
const TRIES: u32 = 4;

/// What to do with a file that changes while it is read, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsteady {
    /// On the way up nothing should run: an error.
    Refuse,
    /// On the way back a process may still write its log: keep what was read, with a warning.
    Keep,
}

/// How files are put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Into a tree that nobody reads yet: under their own name at once.
    Fresh,
    /// Beside the old one, then renamed over it.
    Replace,
}

/// Both trees with everything in them, the trees' own directories first.
pub(super) fn list_all(roots: &Roots, warnings: &mut Warnings, stop: &Stop) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for place in [Place::Project, Place::Tmp] {
        let Some(root) = roots.get(place) else { continue };
        let mut walker = Walker::new(root);
        let stat = rustix::fs::fstat(walker.directory(b"", false)?)?;
        entries.extend(Mark::of(&stat).map(|mark| mark.entry(place, Vec::new(), Vec::new())));
        let listed = walker.list(place, b"", &|_| false, warnings, stop)?;
        entries.extend(listed.into_iter().map(|(entry, _)| entry));
    }
    Ok(entries)
}

/// Reads the content of every file among `entries` into the pack.
pub(super) fn read(
    writer: &mut Writer,
    entries: &[Entry],
    roots: &Roots,
    unsteady: Unsteady,
    summary: &mut Summary,
    warnings: &mut Warnings,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut walkers: HashMap<Place, Walker> = HashMap::new();
    let mut buffer = Vec::new();
    for entry in entries {
        count(summary, entry);
        if entry.kind != Kind::File {
            continue;
        }
        let walker = walker(&mut walkers, roots, entry.place, Walker::new)?;
        writer.begin();
        let content = read_one(writer, walker, entry, unsteady, &mut buffer, warnings, stop)
            .with_context(|| format!("failed to read {}", shown(&entry.path)))?;
        if let Some(content) = content {
            summary.bytes += content.size;
            writer.end(&content).context("failed to write the pack")?;
        } else {
            summary.files -= 1;
            warnings.add(format!("skipped: {}: it vanished while it was read", shown(&entry.path)));
            writer.gone().context("failed to write the pack")?;
        }
    }
    Ok(())
}

/// `None` when the file is gone and that is no error.
fn read_one(
    writer: &mut Writer,
    walker: &mut Walker,
    entry: &Entry,
    unsteady: Unsteady,
    buffer: &mut Vec<u8>,
    warnings: &mut Warnings,
    stop: &Stop,
) -> anyhow::Result<Option<Content>> {
    for left in (0..TRIES).rev() {
        let mut file = match walker.open_file(&entry.path) {
            Ok(file) => file,
            Err(error) if is_absent(&error) && unsteady == Unsteady::Keep => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let before = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
            match unsteady {
                Unsteady::Keep => return Ok(None),
                Unsteady::Refuse => bail!("it became something else than a file"),
            }
        }
        // What is appended meanwhile is not followed, or a busy log would never end.
        let expected = u64::try_from(before.st_size).unwrap_or(0);
        let mut size = 0u64;
        buffer.resize(usize::try_from(expected).unwrap_or(PIECE).clamp(1, PIECE), 0);
        while size < expected {
            stop.check()?;
            let wanted = usize::try_from(expected - size).unwrap_or(PIECE).min(buffer.len());
            let length = match file.read(&mut buffer[..wanted]) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            size += length as u64;
            writer.piece(&buffer[..length]).context("failed to write the pack")?;
        }
        let after = rustix::fs::fstat(&file)?;
        let content = Content { size, mode: mode_of(entry, after.st_mode), mtime: mtime(&after) };
        if size == expected && Mark::of(&before) == Mark::of(&after) {
            return Ok(Some(content));
        }
        if left == 0 {
            match unsteady {
                Unsteady::Keep => {
                    warnings.add(format!("changed while it was read: {}", shown(&entry.path)));
                    return Ok(Some(content));
                }
                Unsteady::Refuse => {
                    bail!("it changes while it is read; is a process of an earlier stage still running?")
                }
            }
        }
        writer.again().context("failed to write the pack")?;
    }
    bail!("it could not be read in {TRIES} tries")
}

/// The mode now, within what the entry's own mode shows may travel: a way back strips set-id and sticky bits.
fn mode_of(entry: &Entry, now: u32) -> u32 {
    if entry.mode & 0o7000 == 0 { now & 0o777 } else { now & 0o7777 }
}

fn walker<'a>(
    walkers: &'a mut HashMap<Place, Walker>,
    roots: &Roots,
    place: Place,
    new: impl FnOnce(&Root) -> Walker,
) -> anyhow::Result<&'a mut Walker> {
    let root = roots.get(place).context("the temporary directory does not exist")?;
    Ok(walkers.entry(place).or_insert_with(|| new(root)))
}

/// Writes the entries for which `wanted` says so: directories, files as their contents arrive, links, then the modes
/// and times of directories. Deletions are not done here. Returns the state in which each entry was left.
pub(super) fn write(
    reader: &mut Reader,
    entries: &[Entry],
    wanted: &[bool],
    roots: &Roots,
    manner: Manner,
    summary: &mut Summary,
    stop: &Stop,
) -> anyhow::Result<HashMap<(Place, Vec<u8>), Mark>> {
    let mut marks = HashMap::new();
    let mut walkers = HashMap::new();
    let chosen = || entries.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(entry, _)| entry);
    let failed = |entry: &Entry| format!("failed to write {}", shown(&entry.path));

    for entry in chosen().filter(|entry| entry.kind == Kind::Directory && !entry.path.is_empty()) {
        let walker = walker(&mut walkers, roots, entry.place, Walker::unlocking)?;
        make_directory(walker, &entry.path).with_context(|| failed(entry))?;
    }
    for (entry, wanted) in entries.iter().zip(wanted).filter(|(entry, _)| entry.kind == Kind::File) {
        stop.check()?;
        if !*wanted {
            reader.content(entry, |_| Ok(()))?;
            continue;
        }
        let walker = walker(&mut walkers, roots, entry.place, Walker::unlocking)?;
        if let Some((mark, size)) = write_file(reader, walker, entry, manner, stop).with_context(|| failed(entry))? {
            marks.insert((entry.place, entry.path.clone()), mark);
            summary.bytes += size;
            count(summary, entry);
        }
    }
    for entry in chosen().filter(|entry| entry.kind == Kind::Link) {
        let walker = walker(&mut walkers, roots, entry.place, Walker::unlocking)?;
        let mark = write_link(walker, entry).with_context(|| failed(entry))?;
        marks.extend(mark.map(|mark| ((entry.place, entry.path.clone()), mark)));
        count(summary, entry);
    }
    for entry in entries.iter().zip(wanted).rev().filter(|(_, wanted)| **wanted).map(|(entry, _)| entry) {
        if entry.kind == Kind::Directory {
            let walker = walker(&mut walkers, roots, entry.place, Walker::unlocking)?;
            let mark = finish_directory(walker, entry).with_context(|| failed(entry))?;
            marks.extend(mark.map(|mark| ((entry.place, entry.path.clone()), mark)));
        }
    }
    for walker in walkers.values_mut() {
        walker.relock().context("failed to restore the modes of directories")?;
    }
    Ok(marks)
}

fn make_directory(walker: &mut Walker, path: &[u8]) -> io::Result<()> {
    let (above, name) = split(path);
    let fd = walker.directory(above, true)?;
    match rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => return Ok(()),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        rustix::fs::unlinkat(fd, name, AtFlags::empty())?;
        rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

fn finish_directory(walker: &mut Walker, entry: &Entry) -> io::Result<Option<Mark>> {
    walker.forget();
    let fd = walker.directory(&entry.path, false)?;
    let now = rustix::fs::fstat(fd)?.st_mode & 0o7777;
    // Bits that the host itself set stay: a set-group-id directory is its business.
    let mode = if entry.mode & 0o7000 == 0 { (now & 0o7000) | entry.mode } else { entry.mode };
    if mode != now {
        change_mode(fd, mode)?;
    }
    rustix::fs::utimensat(fd, "", &times(entry.mtime), AtFlags::EMPTY_PATH).or_else(|_| {
        // Older kernels do not take an empty path here.
        rustix::fs::utimensat(fd, ".", &times(entry.mtime), AtFlags::empty())
    })?;
    let mark = Mark::of(&rustix::fs::fstat(fd)?);
    walker.settle(&entry.path);
    Ok(mark)
}

fn write_link(walker: &mut Walker, entry: &Entry) -> io::Result<Option<Mark>> {
    let (above, name) = split(&entry.path);
    let fd = walker.directory(above, true)?;
    let temporary = temporary_name();
    rustix::fs::symlinkat(entry.target.as_slice(), fd, &temporary)?;
    let placed = rustix::fs::utimensat(fd, &temporary, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .and_then(|()| put_in_place(fd, temporary.as_bytes(), name))
        .and_then(|()| rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW));
    if placed.is_err() {
        drop_temporary(fd, &temporary);
    }
    Ok(Mark::of(&placed?))
}

fn write_file(
    reader: &mut Reader,
    walker: &mut Walker,
    entry: &Entry,
    manner: Manner,
    stop: &Stop,
) -> anyhow::Result<Option<(Mark, u64)>> {
    let (above, name) = split(&entry.path);
    let fd = walker.directory(above, true)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (file, created) = match manner {
        Manner::Fresh => match rustix::fs::openat(fd, name, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => (file, name.to_vec()),
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(fd, name, AtFlags::empty())?;
                (rustix::fs::openat(fd, name, flags, Mode::from_raw_mode(0o600))?, name.to_vec())
            }
            Err(error) => return Err(error.into()),
        },
        Manner::Replace => {
            let temporary = temporary_name().into_bytes();
            (rustix::fs::openat(fd, temporary.as_slice(), flags, Mode::from_raw_mode(0o600))?, temporary)
        }
    };
    let mut file = File::from(file);
    let outcome = fill(reader, entry, &mut file, stop).and_then(|content| {
        let Some(content) = content else { return Ok(None) };
        if created != name {
            put_in_place(fd, &created, name)?;
        }
        // Looked at last: renaming counts as a change.
        let mark = Mark::of(&rustix::fs::fstat(&file)?).context("it became something else than a file")?;
        Ok(Some((mark, content.size)))
    });
    if !matches!(outcome, Ok(Some(_))) {
        drop_temporary(fd, created.as_slice());
    }
    outcome
}

/// Content, mode and times; long runs of zeros become holes.
fn fill(reader: &mut Reader, entry: &Entry, file: &mut File, stop: &Stop) -> anyhow::Result<Option<Content>> {
    let mut at = 0u64;
    let content = reader.content(entry, |piece| {
        stop.check()?;
        match piece {
            None => {
                file.set_len(0)?;
                file.rewind()?;
                at = 0;
            }
            Some(piece) if piece.len() >= 4096 && piece.iter().all(|&byte| byte == 0) => at += piece.len() as u64,
            Some(piece) => {
                file.write_all_at(piece, at)?;
                at += piece.len() as u64;
            }
        }
        Ok(())
    })?;
    let Some(content) = content else { return Ok(None) };
    file.flush()?;
    file.set_len(content.size)?;
    rustix::fs::fchmod(&*file, Mode::from_raw_mode(content.mode))?;
    rustix::fs::futimens(&*file, &times(content.mtime))?;
    Ok(Some(content))
}

/// Removes one path that the container deleted. What is not there, or lies below something that is no directory, or is
/// a directory that still holds something, stays as it is.
pub(super) fn delete(walker: &mut Walker, path: &[u8]) -> io::Result<()> {
    let (above, name) = split(path);
    let fd = match walker.directory(above, false) {
        Ok(fd) => fd,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => match rustix::fs::unlinkat(fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                walker.forget();
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        },
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn put_in_place(fd: std::os::fd::BorrowedFd<'_>, temporary: &[u8], name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat(fd, temporary, fd, name) {
        Err(Errno::ISDIR) => {
            rustix::fs::unlinkat(fd, name, AtFlags::REMOVEDIR)?;
            rustix::fs::renameat(fd, temporary, fd, name)
        }
        other => other,
    }
}

fn drop_temporary(fd: std::os::fd::BorrowedFd<'_>, name: impl rustix::path::Arg) {
    // It is being left behind because of an error that is about to be reported; a second one says nothing new.
    let _ = rustix::fs::unlinkat(fd, name, AtFlags::empty());
}

/// A name that nothing of the project has, whatever its neighbours are called.
fn temporary_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nonce = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    format!(".sagemaker-executor-{nonce:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
