//! One bucket on disk: a folder of bodies, and the journal of its index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::object::{Object, Precondition, StoreError, Stored};
use crate::clock;

/// One line of a bucket's journal: the new object of a key, or its deletion.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: String,
    object: Option<Object>,
}

#[derive(Debug)]
pub(super) struct BucketIndex {
    pub(super) objects: BTreeMap<String, Arc<Stored>>,
    journal: File,
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
        let path = folder.join("index.jsonl");
        let mut objects: BTreeMap<String, Object> = BTreeMap::new();
        if path.exists() {
            for line in BufReader::new(File::open(&path)?).lines() {
                // A torn last line is a write that was never acknowledged.
                let Ok(record) = serde_json::from_str::<Record>(&line?) else { break };
                match record.object {
                    Some(object) => objects.insert(record.key, object),
                    None => objects.remove(&record.key),
                };
            }
        }
        let named: BTreeSet<&str> =
            objects.values().flat_map(|object| object.segments.iter().map(|segment| segment.file.as_str())).collect();
        for entry in std::fs::read_dir(&data)? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| !named.contains(name)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        // Rewritten on each start, so that it does not grow for ever.
        let compact = folder.join("index.jsonl.new");
        let mut journal = OpenOptions::new().create(true).write(true).truncate(true).open(&compact)?;
        for (key, object) in &objects {
            journal.write_all(&line_of(key, Some(object)))?;
        }
        std::fs::rename(&compact, &path)?;
        let stored = |object| Arc::new(Stored::new(object, data.clone(), false));
        let objects = objects.into_iter().map(|(key, object)| (key, stored(object))).collect();
        Ok(Self { folder, created_ms: clock::now_ms(), index: Mutex::new(BucketIndex { objects, journal }) })
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

    pub(super) fn record(&mut self, key: &str, object: Option<&Object>) -> std::io::Result<()> {
        self.journal.write_all(&line_of(key, object))
    }
}

fn line_of(key: &str, object: Option<&Object>) -> Vec<u8> {
    let record = Record { key: key.to_owned(), object: object.cloned() };
    let mut line = serde_json::to_vec(&record).expect("a record has string keys and plain values only");
    line.push(b'\n');
    line
}
