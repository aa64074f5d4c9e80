//! The state of an entry in the file system, to detect changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

use crate::workspace::manifest::{Entry, EntryKind, Timestamp, Tree};

/// File systems store times in steps of up to 10 ms.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// Some store whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// Identifies a file's path and state; a change of the content changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StateId(pub(crate) [u8; 16]);

/// The attributes that show whether an entry changed: every change of content or attributes changes at least `ctime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub(crate) kind: EntryKind,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    ctime: Timestamp,
    inode: u64,
}

impl FileStat {
    /// `None` for sockets, FIFOs and devices, which are never transferred.
    pub(crate) fn of(stat: &Stat) -> Option<Self> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => EntryKind::Directory,
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Link,
            _ => return None,
        };
        Some(Self {
            kind,
            mode: stat.st_mode & 0o7777,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: mtime(stat),
            ctime: Timestamp { seconds: stat.st_ctime, nanos: u32::try_from(stat.st_ctime_nsec).unwrap_or(0) },
            inode: stat.st_ino,
        })
    }

    /// The state of an entry that has changed since, whatever is there now.
    pub(crate) fn changed(kind: EntryKind) -> Self {
        let never = Timestamp::default();
        Self { kind, mode: u32::MAX, size: 0, mtime: never, ctime: never, inode: 0 }
    }

    /// The state of an entry that another machine has sent.
    pub(crate) fn sent(entry: &Entry) -> Self {
        let Entry { kind, mode, size, mtime, .. } = *entry;
        Self { kind, mode, size, mtime, ctime: Timestamp::default(), inode: 0 }
    }

    /// The id of this state of the file at `path`. `None` while a further change might not show in the attributes.
    pub(crate) fn state(&self, path: &[u8]) -> Option<StateId> {
        if self.is_fresh() {
            return None;
        }
        let mut hash = blake3::Hasher::new();
        hash.update(&self.mode.to_le_bytes());
        hash.update(&self.size.to_le_bytes());
        hash.update(&self.inode.to_le_bytes());
        for time in [self.mtime, self.ctime] {
            hash.update(&time.seconds.to_le_bytes());
            hash.update(&time.nanos.to_le_bytes());
        }
        hash.update(path);
        let mut id = [0; 16];
        hash.finalize_xof().fill(&mut id);
        Some(StateId(id))
    }

    /// True when the entry changed so recently that a further change might not show in the attributes.
    pub(crate) fn is_fresh(&self) -> bool {
        let changed = Duration::new(u64::try_from(self.ctime.seconds).unwrap_or(0), self.ctime.nanos);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let tick = if self.ctime.nanos == 0 { COARSE_TICK } else { TICK };
        now.checked_sub(changed).is_none_or(|age| age < tick)
    }

    /// True for the same state of the same entry. Size and inode of a directory are ignored.
    pub(crate) fn is_same(&self, other: &FileStat) -> bool {
        match (self.kind, other.kind) {
            (EntryKind::Directory, EntryKind::Directory) => self.mode == other.mode && self.mtime == other.mtime,
            _ => self == other,
        }
    }

    pub(crate) fn entry(&self, tree: Tree, path: Vec<u8>, target: Vec<u8>) -> Entry {
        Entry { tree, kind: self.kind, path, mode: self.mode, mtime: self.mtime, size: self.size, target }
    }
}

pub(crate) fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// The state of all entries when the workspace was received; [`crate::workspace::send_changes`] finds the changes since.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(crate) stats: Arc<HashMap<(Tree, Vec<u8>), FileStat>>,
}
