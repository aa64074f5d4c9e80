//! One bucket on disk: a folder of bodies, the journal of its index, and its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::object::{Object, Precondition, StoreError, Stored};
use super::versions::{BucketSettings, History, ObjectVersion};
use crate::clock;

/// One line of a bucket's journal: the new object of a key, its deletion, or a change of its versions.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: String,
    /// The current object after this line.
    object: Option<Object>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<VersionChange>,
}

/// A change in a bucket that has versions, besides a new object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VersionChange {
    /// A delete marker is the newest version now.
    Marked { id: Option<String>, modified_ms: u64 },
    /// A version was deleted for good.
    Removed { id: Option<String> },
}

#[derive(Debug)]
pub(super) struct BucketIndex {
    /// The current objects.
    pub(super) objects: BTreeMap<String, Arc<Stored>>,
    /// Versions that are not current, and delete markers, by key.
    pub(super) histories: BTreeMap<String, History>,
    pub(super) settings: BucketSettings,
    data: PathBuf,
    settings_path: PathBuf,
    /// Absent while the journal is read.
    journal: Option<File>,
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) folder: PathBuf,
    pub(super) created_ms: u64,
    pub(super) index: Mutex<BucketIndex>,
}

impl Bucket {
    pub(super) fn open(folder: PathBuf) -> std::io::Result<Self> {
        let data = folder.join("data");
        std::fs::create_dir_all(&data)?;
        let settings_path = folder.join("settings.json");
        let settings = match std::fs::read(&settings_path) {
            Ok(content) => serde_json::from_slice(&content)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BucketSettings::default(),
            Err(error) => return Err(error),
        };
        let mut index = BucketIndex {
            objects: BTreeMap::new(),
            histories: BTreeMap::new(),
            settings,
            data: data.clone(),
            settings_path,
            journal: None,
        };
        let path = folder.join("index.jsonl");
        if path.exists() {
            for line in BufReader::new(File::open(&path)?).lines() {
                // A torn last line is a write that was never acknowledged.
                let Ok(record) = serde_json::from_str::<Record>(&line?) else { break };
                index.replay(record)?;
            }
        }
        let named: BTreeSet<String> =
            index.stored().flat_map(|one| one.object.segments.iter()).map(|one| one.file.clone()).collect();
        for entry in std::fs::read_dir(&data)? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| !named.contains(name)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        // Rewritten on each start, so that it does not grow for ever.
        let compact = folder.join("index.jsonl.new");
        let mut journal = OpenOptions::new().create(true).write(true).truncate(true).open(&compact)?;
        for line in index.lines() {
            journal.write_all(&line)?;
        }
        std::fs::rename(&compact, &path)?;
        index.journal = Some(journal);
        Ok(Self { folder, created_ms: clock::now_ms(), index: Mutex::new(index) })
    }
}

impl BucketIndex {
    pub(super) fn check(&self, key: &str, precondition: &Precondition) -> Result<(), StoreError> {
        let existing = self.objects.get(key);
        match (precondition, existing) {
            (Precondition::None, _) | (Precondition::Absent, None) | (Precondition::Present, Some(_)) => Ok(()),
            (Precondition::Tag(tag), Some(stored)) if stored.object.tag == *tag => Ok(()),
            (Precondition::Tag(_), None) => Err(StoreError::NoSuchKey),
            _ => Err(StoreError::Precondition),
        }
    }

    /// Makes an object the current one of a key; the one before becomes a version, or goes when it has the same id.
    pub(super) fn put(&mut self, key: &str, stored: Arc<Stored>) -> std::io::Result<()> {
        self.record(key, Some(&stored.object), None)?;
        stored.keep();
        let id = stored.object.version.clone();
        self.retire(key, id.as_deref());
        self.objects.insert(key.to_owned(), stored);
        Ok(())
    }

    /// Deletes the current object of a bucket that never had versions.
    pub(super) fn remove_current(&mut self, key: &str) -> std::io::Result<()> {
        if self.objects.contains_key(key) {
            self.record(key, None, None)?;
            if let Some(removed) = self.objects.remove(key) {
                removed.doom();
            }
        }
        Ok(())
    }

    /// Makes a delete marker the newest version of a key.
    pub(super) fn mark(&mut self, key: &str, id: Option<String>, modified_ms: u64) -> std::io::Result<()> {
        self.record(key, None, Some(VersionChange::Marked { id: id.clone(), modified_ms }))?;
        self.retire(key, id.as_deref());
        self.histories.entry(key.to_owned()).or_default().push(ObjectVersion { id, modified_ms, stored: None });
        Ok(())
    }

    /// Deletes a version for good; tells whether it was a delete marker, or `None` when there is no such version.
    pub(super) fn remove_version(&mut self, key: &str, id: Option<&str>) -> std::io::Result<Option<bool>> {
        let history = self.histories.get(key);
        let at = history.and_then(|history| history.iter().position(|one| one.id.as_deref() == id));
        let is_current = self.objects.get(key).is_some_and(|one| one.object.version.as_deref() == id);
        if at.is_none() && !is_current {
            return Ok(None);
        }
        let removed = if is_current { self.objects.remove(key) } else { None };
        let removed = match (removed, at, self.histories.get_mut(key)) {
            (Some(current), ..) => ObjectVersion::of(current),
            (None, Some(at), Some(history)) => history.remove(at),
            _ => return Ok(None),
        };
        // The newest of those that are left is current again, unless it is a delete marker.
        if !self.objects.contains_key(key)
            && let Some(history) = self.histories.get_mut(key)
            && let Some(stored) = history.pop_if(|newest| newest.stored.is_some()).and_then(|newest| newest.stored)
        {
            self.objects.insert(key.to_owned(), stored);
        }
        if self.histories.get(key).is_some_and(History::is_empty) {
            self.histories.remove(key);
        }
        let now = self.objects.get(key).cloned();
        let id = id.map(str::to_owned);
        self.record(key, now.as_ref().map(|stored| &stored.object), Some(VersionChange::Removed { id }))?;
        if let Some(stored) = &removed.stored {
            stored.doom();
        }
        Ok(Some(removed.stored.is_none()))
    }

    /// Changes the settings, on disk too.
    pub(super) fn set(&mut self, settings: BucketSettings) -> std::io::Result<()> {
        let new = self.settings_path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&settings)?)?;
        std::fs::rename(&new, &self.settings_path)?;
        self.settings = settings;
        Ok(())
    }

    /// Dates the current objects of these keys back, in memory alone.
    pub(super) fn age(&mut self, prefix: &str, ms: u64) -> usize {
        let mut aged = 0;
        for (_, stored) in self.objects.iter_mut().filter(|(key, _)| key.starts_with(prefix)) {
            let modified_ms = stored.object.modified_ms.saturating_sub(ms);
            let object = Object { modified_ms, ..stored.object.clone() };
            *stored = Arc::new(Stored::new(object, self.data.clone(), false));
            aged += 1;
        }
        aged
    }

    /// Takes the current object of a key out of its place, before a version of this id is the newest.
    fn retire(&mut self, key: &str, id: Option<&str>) {
        if let Some(history) = self.histories.get_mut(key)
            && let Some(at) = history.iter().position(|one| one.id.as_deref() == id)
            && let Some(stored) = history.remove(at).stored
        {
            stored.doom();
        }
        let Some(previous) = self.objects.remove(key) else { return };
        if previous.object.version.as_deref() == id {
            previous.doom();
        } else {
            self.histories.entry(key.to_owned()).or_default().push(ObjectVersion::of(previous));
        }
    }

    fn replay(&mut self, record: Record) -> std::io::Result<()> {
        match (record.change, record.object) {
            (Some(VersionChange::Marked { id, modified_ms }), _) => self.mark(&record.key, id, modified_ms),
            (Some(VersionChange::Removed { id }), _) => self.remove_version(&record.key, id.as_deref()).map(drop),
            (None, Some(object)) => self.put(&record.key, Arc::new(Stored::new(object, self.data.clone(), false))),
            (None, None) => self.remove_current(&record.key),
        }
    }

    fn record(&mut self, key: &str, object: Option<&Object>, change: Option<VersionChange>) -> std::io::Result<()> {
        match &mut self.journal {
            Some(journal) => journal.write_all(&line_of(key, object, change)),
            None => Ok(()),
        }
    }

    /// The journal that makes this index.
    fn lines(&self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for (key, version) in self.histories.iter().flat_map(|(key, history)| history.iter().map(move |one| (key, one)))
        {
            let mark = || VersionChange::Marked { id: version.id.clone(), modified_ms: version.modified_ms };
            let object = version.stored.as_ref().map(|stored| &stored.object);
            lines.push(line_of(key, object, object.is_none().then(mark)));
        }
        lines.extend(self.objects.iter().map(|(key, stored)| line_of(key, Some(&stored.object), None)));
        lines
    }

    /// All objects, the current ones and the others.
    fn stored(&self) -> impl Iterator<Item = &Arc<Stored>> {
        let others = self.histories.values().flatten().filter_map(|version| version.stored.as_ref());
        self.objects.values().chain(others)
    }
}

fn line_of(key: &str, object: Option<&Object>, change: Option<VersionChange>) -> Vec<u8> {
    let record = Record { key: key.to_owned(), object: object.cloned(), change };
    let mut line = serde_json::to_vec(&record).expect("a record has string keys and plain values only");
    line.push(b'\n');
    line
}
