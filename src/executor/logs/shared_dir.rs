//! The directory that the drivers of a host share: subscriptions, feeds, and the election lock.
//!
//! A driver has `<key>.json` (its subscription, replaced as a whole), `<key>.alive` (locked while the driver lives), `<key>.feed`
//! (its events: the reader appends, the driver empties, each under the file's lock) and `<key>.floors` (its progress). The elected
//! reader holds `reader.lock` and touches `reader.state` while it works. This module never waits for a lock and makes no decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::subscription::{Subscription, VERSION};
use crate::base::failure::Failure;
use crate::base::files::{self, Durability};
use crate::cloud::LogEvent;

/// Above this size of a feed nothing is read for it until its driver has caught up.
pub(super) const FEED_BYTES: u64 = 16 << 20;
/// A driver takes its feed in pieces of this size, or one longer line.
const PIECE_BYTES: u64 = 256 << 10;
/// Granularity of a directory's modification time: changes within this time may not show.
const CLOCK_STEP: Duration = Duration::from_millis(50);
/// Age at which files without a subscription are removed: left by a driver killed while it joined or left.
const LEFT_OVER: Duration = Duration::from_hours(1);
const EXTENSIONS: [&str; 4] = ["json", "feed", "floors", "alive"];

/// One line of a feed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Event { stream: String, timestamp: u64, id: String, message: String },
    Floors(BTreeMap<String, u64>),
}

/// The reader's state, for all drivers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReaderState {
    /// Start of the time without a successful request: epoch milliseconds.
    #[serde(default)]
    pub(super) unserved_since: Option<u64>,
    /// Error that the operator has to fix.
    #[serde(default)]
    pub(super) trouble: Option<String>,
}

/// The shared directory of one scope.
#[derive(Debug, Clone)]
pub(super) struct SharedDir {
    dir: PathBuf,
}

impl SharedDir {
    /// Opens the directory of `scope` below `state_dir`; makes it (mode 0700) when it is missing.
    pub(super) fn open(state_dir: &Path, scope: &str) -> anyhow::Result<Self> {
        let hash = blake3::hash(scope.as_bytes()).to_hex();
        let dir = state_dir.join("logs").join(hash.get(..16).unwrap_or_default());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| {
            Failure::system(format!("failed to create {}", dir.display()))
                .hint("make `runner.state_dir` writable for the user of the runner")
                .caused_by(error)
        })?;
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn file(&self, key: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{key}.{extension}"))
    }

    /// Takes the lock of the elected reader, if it is free.
    pub(super) fn try_lead(&self) -> anyhow::Result<Option<File>> {
        let path = self.path("reader.lock");
        let file = writable().create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("failed to open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("failed to lock {}", path.display())),
        }
    }

    /// Writes the reader's state for the drivers.
    pub(super) fn write_state(&self, state: &ReaderState) -> anyhow::Result<()> {
        self.replace("reader.state", &serde_json::to_vec(state)?).context("failed to write the state of the log reader")
    }

    /// Sets the reader's heartbeat.
    pub(super) fn beat(&self, now: SystemTime) {
        let touched = writable().open(self.path("reader.state")).and_then(|file| file.set_modified(now));
        if let Err(error) = touched {
            tracing::debug!(%error, "failed to touch the state of the log reader");
        }
    }

    /// Reads the reader's state and the time of its last heartbeat; `None` before the first reader.
    pub(super) fn state(&self) -> Option<(ReaderState, SystemTime)> {
        let path = self.path("reader.state");
        let beat = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
        let state = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Some((state, beat))
    }

    fn replace(&self, name: &str, text: &[u8]) -> std::io::Result<()> {
        files::replace(&self.path(name), text, Durability::Eventual)
    }

    /// Writes a driver's subscription and its other files.
    pub(super) fn subscribe(&self, subscription: &Subscription) -> anyhow::Result<SubscriptionGuard> {
        let failed = || format!("failed to subscribe to the log of {} in {}", subscription.job, self.dir.display());
        // The subscription is written last: without it the other files are ignored.
        let alive = tempfile::Builder::new()
            .prefix(&format!("{}@", subscription.job))
            .suffix(".alive")
            .tempfile_in(&self.dir)
            .with_context(failed)?;
        let key = alive.path().file_stem().and_then(|stem| stem.to_str()).map(str::to_owned).with_context(failed)?;
        alive.as_file().try_lock().with_context(failed)?;
        let feed = writable().read(true).create(true).truncate(true).open(self.file(&key, "feed"));
        let (alive, _) = alive.keep().with_context(failed)?;
        let guard = SubscriptionGuard { shared: self.clone(), key, alive, feed: feed.with_context(failed)?, taken: 0 };
        guard.rewrite(subscription)?;
        Ok(guard)
    }

    /// Removes a driver's files, the subscription first.
    fn remove(&self, key: &str) {
        for extension in EXTENSIONS {
            let path = self.file(key, extension);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::debug!(%error, path = %path.display(), "failed to remove a file of the log reader");
                }
                _ => {}
            }
        }
    }

    /// False when the driver was killed: its lock is free.
    fn is_alive(&self, key: &str) -> bool {
        match File::open(self.file(key, "alive")) {
            Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Reads the floors that the driver published last; empty when the file is damaged.
    pub(super) fn reached(&self, key: &str) -> BTreeMap<String, u64> {
        let text = fs::read_to_string(self.file(key, "floors")).unwrap_or_default();
        let Some((hash, json)) = text.split_once(' ') else { return BTreeMap::new() };
        if hash != blake3::hash(json.as_bytes()).to_hex().as_str() {
            return BTreeMap::new();
        }
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Appends events and floors to the driver's feed, all or nothing; returns the feed's size. `WouldBlock` means that the driver
    /// holds the lock to take its events.
    pub(super) fn append(
        &self,
        key: &str,
        events: &[LogEvent],
        floors: &BTreeMap<String, u64>,
    ) -> std::io::Result<u64> {
        let mut feed = OpenOptions::new().read(true).append(true).open(self.file(key, "feed"))?;
        let mut text = Vec::new();
        let events = events.iter().map(|event| Line::Event {
            stream: event.stream.clone(),
            timestamp: event.timestamp,
            id: event.id.clone(),
            message: event.message.clone(),
        });
        for line in events.chain((!floors.is_empty()).then(|| Line::Floors(floors.clone()))) {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        feed.try_lock()?;
        let before = feed.metadata()?.len();
        if before > 0 {
            // Ends a line that a killed reader left unfinished.
            let mut last = [0];
            feed.seek(SeekFrom::Start(before - 1))?;
            feed.read_exact(&mut last)?;
            if last != *b"\n" {
                text.insert(0, b'\n');
            }
        }
        if let Err(error) = feed.write_all(&text) {
            feed.set_len(before)?;
            return Err(error);
        }
        Ok(before + text.len() as u64)
    }

    /// Size of the driver's feed in bytes.
    pub(super) fn feed_bytes(&self, key: &str) -> std::io::Result<u64> {
        Ok(fs::metadata(self.file(key, "feed"))?.len())
    }
}

/// A driver's own files; removed when dropped.
#[derive(Debug)]
pub(super) struct SubscriptionGuard {
    shared: SharedDir,
    key: String,
    /// The kernel releases its lock when the process ends, in whatever way.
    #[cfg_attr(not(test), expect(dead_code, reason = "held for its lock"))]
    alive: File,
    feed: File,
    /// Bytes from the start of the feed that were taken.
    taken: u64,
}

/// One piece of a driver's feed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) events: Vec<LogEvent>,
    pub(super) floors: BTreeMap<String, u64>,
    /// A line was incomplete: events may be missing.
    pub(super) torn: bool,
    /// The feed's file was removed.
    pub(super) lost: bool,
}

impl SubscriptionGuard {
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Replaces the subscription.
    pub(super) fn rewrite(&self, subscription: &Subscription) -> anyhow::Result<()> {
        let name = format!("{}.json", self.key);
        self.shared
            .replace(&name, &serde_json::to_vec(subscription)?)
            .with_context(|| format!("failed to write the subscription {} in {}", name, self.shared.dir.display()))
    }

    /// Writes the driver's floors, for a reader that is elected later.
    pub(super) fn publish(&self, floors: &BTreeMap<String, u64>) -> anyhow::Result<()> {
        let json = serde_json::to_string(floors)?;
        let text = format!("{} {json}", blake3::hash(json.as_bytes()).to_hex());
        let path = self.shared.file(&self.key, "floors");
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Takes the next piece of the feed. Returns nothing while the reader holds the lock.
    pub(super) fn take(&mut self) -> anyhow::Result<Taken> {
        self.take_piece().with_context(|| format!("failed to take the log of {}", self.key))
    }

    fn take_piece(&mut self) -> std::io::Result<Taken> {
        let metadata = self.feed.metadata()?;
        if metadata.nlink() == 0 {
            return Ok(Taken { lost: true, ..Taken::default() });
        }
        if metadata.len() == 0 {
            self.taken = 0;
            return Ok(Taken::default());
        }
        match self.feed.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Taken::default()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let taken = self.take_locked();
        self.feed.unlock()?;
        taken
    }

    fn take_locked(&mut self) -> std::io::Result<Taken> {
        let end = self.feed.metadata()?.len();
        self.feed.seek(SeekFrom::Start(self.taken))?;
        let mut text = Vec::new();
        let mut taken = Taken::default();
        let whole = loop {
            let got = (&self.feed).take(PIECE_BYTES).read_to_end(&mut text)?;
            match text.iter().rposition(|byte| *byte == b'\n') {
                Some(at) => break at + 1,
                None if got == 0 => break 0,
                None => {}
            }
        };
        for line in text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(Line::Event { stream, timestamp, id, message }) => {
                    taken.events.push(LogEvent { stream, timestamp, id, message });
                }
                Ok(Line::Floors(floors)) => taken.floors.extend(floors),
                Err(_) => taken.torn = true,
            }
        }
        self.taken += whole as u64;
        // Writers hold the lock until a line is whole, so an incomplete line stays incomplete.
        let rest = self.taken + (text.len() - whole) as u64 >= end;
        if rest && !text.ends_with(b"\n") {
            taken.torn = taken.torn || !text.is_empty();
            self.taken = end;
        }
        if self.taken >= end {
            self.feed.set_len(0)?;
            self.taken = 0;
        }
        Ok(taken)
    }

    /// Simulates `kill -9`: the locks are released, the files stay.
    #[cfg(test)]
    pub(super) fn kill(self) {
        let guard = std::mem::ManuallyDrop::new(self);
        guard.alive.unlock().unwrap();
    }
}

impl Drop for SubscriptionGuard {
    fn drop(&mut self) {
        self.shared.remove(&self.key);
    }
}

/// The subscriptions that the reader knows.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Inode and modification time of each subscription that was read.
    stamps: BTreeMap<String, (u64, SystemTime)>,
    /// The directory's modification time at the last check.
    dir: Option<SystemTime>,
}

/// Changes since the last check.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Key, subscription, and the floors that the driver published.
    pub(super) subscribed: Vec<(String, Subscription, BTreeMap<String, u64>)>,
    pub(super) gone: Vec<String>,
}

impl Subscriptions {
    /// Looks for new and changed subscriptions, of all drivers or of one.
    pub(super) fn look(&mut self, shared: &SharedDir, only: Option<&str>, now: SystemTime) -> std::io::Result<Changes> {
        let changed = fs::metadata(&shared.dir)?.modified()?;
        let settled = now.duration_since(changed).is_ok_and(|age| age > CLOCK_STEP);
        if self.dir == Some(changed) {
            return Ok(Changes::default());
        }
        // A change within the clock's step of this one would not show in the directory's time.
        self.dir = settled.then_some(changed);
        let mut found = Changes::default();
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&shared.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            if only.is_some_and(|only| only != key) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            present.insert(key.to_owned());
            let stamp = (metadata.ino(), metadata.modified()?);
            if self.stamps.get(key) == Some(&stamp) {
                continue;
            }
            let Ok(text) = fs::read(entry.path()) else { continue };
            let first = self.stamps.insert(key.to_owned(), stamp).is_none();
            match serde_json::from_slice::<Subscription>(&text) {
                Ok(subscription) if subscription.version <= VERSION => {
                    let reached = if first { shared.reached(key) } else { BTreeMap::new() };
                    found.subscribed.push((key.to_owned(), subscription, reached));
                }
                Ok(subscription) => {
                    tracing::warn!(version = subscription.version, "a subscription for a log is of a newer version");
                }
                Err(error) => tracing::warn!(%error, "failed to understand a subscription for a log"),
            }
        }
        self.stamps.retain(|key, _| {
            let stays = present.contains(key);
            if !stays {
                found.gone.push(key.clone());
            }
            stays
        });
        Ok(found)
    }

    /// Removes the files of killed drivers.
    pub(super) fn remove_dead(shared: &SharedDir, now: SystemTime) -> std::io::Result<()> {
        let mut others = BTreeSet::new();
        let mut subscriptions = BTreeSet::new();
        for entry in fs::read_dir(&shared.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((key, extension)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            if extension == "json" {
                subscriptions.insert(key.to_owned());
            } else if extension == "tmp" {
                let old = |time| now.duration_since(time).is_ok_and(|age| age > LEFT_OVER);
                if entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(old) {
                    fs::remove_file(entry.path())?;
                }
            } else if EXTENSIONS.contains(&extension) {
                let old = |time| now.duration_since(time).is_ok_and(|age| age > LEFT_OVER);
                if entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(old) {
                    others.insert(key.to_owned());
                }
            }
        }
        let killed = subscriptions.iter().filter(|key| !shared.is_alive(key));
        let left = others.difference(&subscriptions).filter(|key| !shared.is_alive(key));
        killed.chain(left).for_each(|key| shared.remove(key));
        Ok(())
    }
}

/// Removes the files of all drivers of a job from every shared directory.
pub fn forget(state_dir: &Path, job: &str) -> anyhow::Result<()> {
    let own = format!("{job}@");
    let failed = || format!("failed to remove what the log reader kept of {job} in {}", state_dir.display());
    for scope in entries(&state_dir.join("logs")).with_context(failed)? {
        for file in entries(&scope).with_context(failed)? {
            if file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(own.as_bytes())) {
                match fs::remove_file(&file) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(failed),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Paths in a directory; none when it does not exist.
fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}
