//! Stores received results on the host in a private directory, until all of them were checked.
//!
//! A file's name is its number in the manifest, with a thousand files per directory. An interrupted transfer leaves the directory;
//! content with the right hash is not fetched again.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::entry_hashes::EntryPath;
use super::judge::judge_alone;
use super::sink::{Incoming, Sink, WriteState};
use crate::workspace::manifest::Entry;
use crate::workspace::store::{ChunkHash, LARGEST};
use crate::workspace::tree::FileEnd;

/// The bits of a mode without set-id and sticky.
const PERMISSIONS: u32 = 0o777;

/// The received entries, and the names of the files' contents.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) entries: Vec<Entry>,
    /// Name of the content of each file, by its position in `entries`.
    pub(crate) contents: BTreeMap<usize, String>,
}

pub(crate) struct Staging {
    path: PathBuf,
    fd: OwnedFd,
    /// The directory existed: it may have content of an earlier transfer.
    is_old: bool,
    staged: Mutex<Staged>,
    /// Tells paths in a `.git` that no container may write.
    is_git: fn(&[u8]) -> bool,
    /// The only entries that are received, of a transfer of more; `None`: all.
    chosen: Option<HashSet<EntryPath>>,
}

impl Staging {
    /// Opens the directory, or makes it for this user alone.
    pub(crate) fn open(path: &Path, is_git: fn(&[u8]) -> bool) -> anyhow::Result<Self> {
        let made = std::fs::DirBuilder::new().mode(0o700).create(path);
        let is_old = match made {
            Ok(()) => false,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => true,
            Err(error) => return Err(error).with_context(|| format!("failed to create {}", path.display())),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("failed to open {}", path.display()))?;
        Ok(Self { path: path.to_owned(), fd, is_old, staged: Mutex::default(), is_git, chosen: None })
    }

    /// Receives only these entries, without set-id and sticky bits, which results do not have; `deleted` are deletions to apply besides.
    pub(crate) fn choosing(self, chosen: HashSet<EntryPath>, deleted: Vec<Entry>) -> Self {
        let staged = Mutex::new(Staged { entries: deleted, contents: BTreeMap::new() });
        Self { staged, chosen: Some(chosen), ..self }
    }

    fn mode(&self, sent: u32) -> u32 {
        if self.chosen.is_some() { sent & PERMISSIONS } else { sent }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes all received entries.
    pub(crate) fn take(&self) -> Staged {
        std::mem::take(&mut *self.staged.lock())
    }

    /// Reads the content of a finished file, up to `most` bytes.
    pub(crate) fn read(&self, name: &str, most: u64) -> anyhow::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut content = Vec::new();
        File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?).take(most).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Replaces the content of a finished file.
    pub(crate) fn rewrite(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?).write_all(content)?)
    }

    /// Removes the directory. A failure is logged only: it is removed with the session.
    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "failed to remove {}", self.path.display());
        }
    }

    /// Opens the content of a finished file by its name.
    pub(crate) fn open_to_read(&self, name: &str) -> anyhow::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    fn open_to_write(&self, file: &Incoming) -> anyhow::Result<File> {
        // Private to this user until it is moved in place, whatever its final mode.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.fd, name(file), flags, Mode::from_raw_mode(0o600));
        let opened = match open() {
            Err(Errno::NOENT) => match rustix::fs::mkdirat(&self.fd, folder(file), Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(error) => Err(error),
            },
            opened => opened,
        };
        Ok(opened?.into())
    }
}

/// Several directories, because writers to one directory wait for each other and large directories are slow.
fn folder(file: &Incoming) -> String {
    (file.number / 1000).to_string()
}

fn name(file: &Incoming) -> String {
    format!("{}/{}", folder(file), file.number)
}

impl Sink for Staging {
    fn choose(&self, entry: Entry) -> Option<Entry> {
        let path = (entry.tree, entry.path.clone());
        let is_chosen = self.chosen.as_ref().is_none_or(|chosen| chosen.contains(&path));
        is_chosen.then(|| Entry { mode: self.mode(entry.mode), ..entry })
    }

    fn judge(&self, entry: &Entry) -> Result<(), &'static str> {
        judge_alone(entry, self.is_git)
    }

    fn entry(&self, entry: Entry) -> anyhow::Result<()> {
        self.staged.lock().entries.push(entry);
        Ok(())
    }

    fn has(&self, file: &Incoming, offset: u64, length: u32, hash: ChunkHash) -> bool {
        if !self.is_old || length as usize > LARGEST {
            return false;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(open) = rustix::fs::openat(&self.fd, name(file), flags, Mode::empty()) else { return false };
        let mut content = vec![0; length as usize];
        File::from(open).read_exact_at(&mut content, offset).is_ok() && ChunkHash::of(&content) == hash
    }

    fn write(&self, file: &Incoming, offset: u64, content: &[u8]) -> anyhow::Result<()> {
        let open = self.open_to_write(file)?;
        *file.state() = WriteState::Made;
        Ok(open.write_all_at(content, offset)?)
    }

    fn finish(&self, file: &Incoming, end: &FileEnd) -> anyhow::Result<()> {
        self.open_to_write(file)?.set_len(end.size)?;
        let mut staged = self.staged.lock();
        let at = staged.entries.len();
        staged.contents.insert(at, name(file));
        let FileEnd { size, mode, mtime } = *end;
        staged.entries.push(Entry { mode: self.mode(mode), mtime, size, ..file.entry.clone() });
        Ok(())
    }

    fn restart(&self, file: &Incoming) -> anyhow::Result<()> {
        *file.state() = WriteState::Announced;
        Ok(self.open_to_write(file)?.set_len(0)?)
    }

    fn drop(&self, file: &Incoming) -> anyhow::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name(file), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
