//! Buckets and objects on disk: atomic conditional writes, listing in key order, multipart uploads without copying.
//!
//! Each bucket is a folder with `data/` (bodies, written once, never changed) and `index.jsonl` (one line per change, the
//! last one of a key wins). The index lives in memory; every check-and-write happens under its lock. This module knows no
//! HTTP.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::clock;

/// What a store operation can answer besides success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the specified bucket does not exist")]
    NoSuchBucket,
    #[error("the specified key does not exist")]
    NoSuchKey,
    #[error("the specified upload does not exist")]
    NoSuchUpload,
    #[error("one or more of the specified parts could not be found or do not match")]
    InvalidPart,
    #[error("the list of parts was not in ascending order")]
    InvalidPartOrder,
    #[error("at least one of the preconditions did not hold")]
    Precondition,
    #[error("failed to access the disk of the emulator: {0}")]
    Io(#[from] std::io::Error),
}

/// What must hold for a write or a delete to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    None,
    /// No object under the key.
    Absent,
    /// Some object under the key.
    Present,
    /// An object with this entity tag under the key.
    Tag(String),
}

/// A piece of a body: a file of the bucket's data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) file: String,
    pub(crate) bytes: u64,
}

/// What the writer said about an object; returned with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) encryption: Option<String>,
    pub(crate) kms_key: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) crc32: Option<String>,
    pub(crate) crc32c: Option<String>,
    pub(crate) crc64nvme: Option<String>,
    pub(crate) sha1: Option<String>,
    pub(crate) sha256: Option<String>,
}

/// An object's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) tag: String,
    pub(crate) bytes: u64,
    pub(crate) modified_ms: u64,
    pub(crate) segments: Vec<Segment>,
    #[serde(default)]
    pub(crate) attributes: Attributes,
}

/// An object in the store. Its files vanish when it has been replaced and the last reader is gone.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) object: Object,
    data: PathBuf,
    doomed: AtomicBool,
}

impl Stored {
    /// The files of the body in order, with their lengths.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        self.object.segments.iter().map(|segment| (self.data.join(&segment.file), segment.bytes)).collect()
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire) {
            for segment in &self.object.segments {
                // A file that cannot be removed only costs space.
                drop(std::fs::remove_file(self.data.join(&segment.file)));
            }
        }
    }
}

/// One line of a bucket's index: the object of a key from now on, or its end.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: String,
    object: Option<Object>,
}

#[derive(Debug)]
struct Index {
    objects: BTreeMap<String, Arc<Stored>>,
    journal: File,
}

#[derive(Debug)]
struct Bucket {
    folder: PathBuf,
    created_ms: u64,
    index: Mutex<Index>,
}

/// A multipart upload in progress; lost when the emulator ends.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) attributes: Attributes,
    pub(crate) started_ms: u64,
    pub(crate) parts: BTreeMap<i32, Part>,
}

/// A part of an upload.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) tag: String,
    pub(crate) segment: Segment,
    pub(crate) modified_ms: u64,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Arc<Stored>)>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, when there is one.
    pub(crate) next: Option<String>,
}

/// All buckets below one folder.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
    uploads: Mutex<BTreeMap<String, Upload>>,
    names: AtomicU64,
    run: u64,
}

impl Store {
    /// Opens the buckets below `root`, dropping bodies that no index names.
    pub(crate) fn open(root: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&root).with_context(|| format!("failed to create the folder {}", root.display()))?;
        let mut buckets = BTreeMap::new();
        let entries = std::fs::read_dir(&root).with_context(|| format!("failed to list {}", root.display()))?;
        for entry in entries {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.file_type()?.is_dir()
            {
                let bucket = Bucket::open(entry.path())
                    .with_context(|| format!("failed to open the bucket {name} in {}", root.display()))?;
                buckets.insert(name, Arc::new(bucket));
            }
        }
        Ok(Self {
            root,
            buckets: RwLock::new(buckets),
            uploads: Mutex::default(),
            names: AtomicU64::new(0),
            run: clock::now_ms(),
        })
    }

    /// Creates a bucket; `false` when it exists already.
    pub(crate) fn create_bucket(&self, name: &str) -> Result<bool, StoreError> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        if buckets.contains_key(name) {
            return Ok(false);
        }
        buckets.insert(name.to_owned(), Arc::new(Bucket::open(self.root.join(name))?));
        Ok(true)
    }

    /// Removes a bucket; `false` when it still holds objects.
    pub(crate) fn delete_bucket(&self, name: &str) -> Result<bool, StoreError> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get(name).ok_or(StoreError::NoSuchBucket)?;
        if !bucket.lock().objects.is_empty() {
            return Ok(false);
        }
        std::fs::remove_dir_all(&bucket.folder)?;
        buckets.remove(name);
        Ok(true)
    }

    /// Names and creation times.
    pub(crate) fn buckets(&self) -> Vec<(String, u64)> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.iter().map(|(name, bucket)| (name.clone(), bucket.created_ms)).collect()
    }

    pub(crate) fn has_bucket(&self, name: &str) -> bool {
        self.buckets.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    fn bucket(&self, name: &str) -> Result<Arc<Bucket>, StoreError> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.get(name).cloned().ok_or(StoreError::NoSuchBucket)
    }

    /// A fresh file name in a bucket with its path, for a body that is about to be written.
    pub(crate) fn fresh_file(&self, bucket: &str) -> Result<(String, PathBuf), StoreError> {
        let bucket = self.bucket(bucket)?;
        let name = self.fresh_name();
        let path = bucket.folder.join("data").join(&name);
        Ok((name, path))
    }

    /// Makes a written body the object of a key, if the precondition holds at that moment; else its files are removed.
    pub(crate) fn commit(
        &self,
        bucket: &str,
        key: &str,
        object: Object,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        let bucket = self.bucket(bucket)?;
        let stored = Arc::new(Stored { object, data: bucket.folder.join("data"), doomed: AtomicBool::new(true) });
        let mut index = bucket.lock();
        index.check(key, precondition)?;
        index.record(key, Some(&stored.object))?;
        stored.doomed.store(false, Ordering::Release);
        let replaced = index.objects.insert(key.to_owned(), stored);
        drop(index);
        doom(replaced);
        Ok(())
    }

    /// The object of a key.
    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Arc<Stored>, StoreError> {
        self.bucket(bucket)?.lock().objects.get(key).cloned().ok_or(StoreError::NoSuchKey)
    }

    /// Deletes a key; a missing one is fine unless the precondition wants it.
    pub(crate) fn delete(&self, bucket: &str, key: &str, precondition: &Precondition) -> Result<(), StoreError> {
        let bucket = self.bucket(bucket)?;
        let mut index = bucket.lock();
        index.check(key, precondition)?;
        if index.objects.contains_key(key) {
            index.record(key, None)?;
            let removed = index.objects.remove(key);
            drop(index);
            doom(removed);
        }
        Ok(())
    }

    /// Takes every object away whose key starts with `prefix`; tells how many there were.
    pub(crate) fn expire(&self, bucket: &str, prefix: &str) -> Result<usize, StoreError> {
        let page = self.list(bucket, prefix, None, None, usize::MAX)?;
        for (key, _) in &page.objects {
            self.delete(bucket, key, &Precondition::None)?;
        }
        Ok(page.objects.len())
    }

    /// Keys with a prefix behind `after`, in order; with a delimiter, what lies below one is folded into a prefix.
    pub(crate) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        delimiter: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        use std::ops::Bound;
        let bucket = self.bucket(bucket)?;
        let index = bucket.lock();
        let mut page = Page::default();
        let mut from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after.to_owned()),
            None => Bound::Included(prefix.to_owned()),
        };
        let mut last = None;
        'folds: loop {
            for (key, stored) in index.objects.range::<String, _>((from.clone(), Bound::Unbounded)) {
                let Some(rest) = key.strip_prefix(prefix) else { break 'folds };
                let fold = delimiter.filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
                    rest.split_once(delimiter).map(|(name, _)| format!("{prefix}{name}{delimiter}"))
                });
                if fold.as_deref().is_some_and(|fold| after.is_some_and(|after| after.starts_with(fold))) {
                    // A page ended with this prefix.
                    from = Bound::Included(successor(&fold.unwrap_or_default()));
                    continue 'folds;
                }
                if page.objects.len() + page.prefixes.len() == limit {
                    page.next = last;
                    break 'folds;
                }
                if let Some(fold) = fold {
                    last = Some(fold.clone());
                    from = Bound::Included(successor(&fold));
                    page.prefixes.push(fold);
                    continue 'folds;
                }
                last = Some(key.clone());
                page.objects.push((key.clone(), Arc::clone(stored)));
            }
            break;
        }
        Ok(page)
    }

    /// Starts a multipart upload.
    pub(crate) fn start_upload(&self, bucket: &str, key: &str, attributes: Attributes) -> Result<String, StoreError> {
        self.bucket(bucket)?;
        let id = self.fresh_name();
        let upload = Upload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            attributes,
            started_ms: clock::now_ms(),
            parts: BTreeMap::new(),
        };
        self.uploads().insert(id.clone(), upload);
        Ok(id)
    }

    /// The upload of an id, when it belongs to this key.
    pub(crate) fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<Upload, StoreError> {
        let uploads = self.uploads();
        let upload = uploads.get(id).filter(|upload| upload.bucket == bucket && upload.key == key);
        upload.cloned().ok_or(StoreError::NoSuchUpload)
    }

    /// Adds or replaces a part.
    pub(crate) fn add_part(&self, id: &str, number: i32, part: Part) -> Result<(), StoreError> {
        let mut uploads = self.uploads();
        let upload = uploads.get_mut(id).ok_or(StoreError::NoSuchUpload)?;
        let replaced = upload.parts.insert(number, part);
        let bucket = upload.bucket.clone();
        drop(uploads);
        self.remove_parts(&bucket, replaced);
        Ok(())
    }

    /// Ends an upload: with the chosen parts as an object, or with an error and the upload as it was.
    pub(crate) fn complete_upload(
        &self,
        id: &str,
        chosen: &[(i32, Option<String>)],
        precondition: &Precondition,
    ) -> Result<Object, StoreError> {
        let upload = self.uploads().get(id).cloned().ok_or(StoreError::NoSuchUpload)?;
        let mut segments = Vec::with_capacity(chosen.len());
        let mut tags = blake3::Hasher::new();
        let mut previous = 0;
        for (number, tag) in chosen {
            if *number <= previous {
                return Err(StoreError::InvalidPartOrder);
            }
            previous = *number;
            let part = upload.parts.get(number).ok_or(StoreError::InvalidPart)?;
            if tag.as_ref().is_some_and(|tag| *tag != part.tag) {
                return Err(StoreError::InvalidPart);
            }
            tags.update(part.tag.as_bytes());
            segments.push(part.segment.clone());
        }
        if segments.is_empty() {
            return Err(StoreError::InvalidPart);
        }
        let object = Object {
            tag: format!("{}-{}", tag_of(&tags), segments.len()),
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            modified_ms: clock::now_ms(),
            segments,
            attributes: upload.attributes.clone(),
        };
        // Only one of two racing completions gets the upload.
        let Some(taken) = self.uploads().remove(id) else { return Err(StoreError::NoSuchUpload) };
        let bucket = self.bucket(&upload.bucket)?;
        let refused = bucket.lock().check(&upload.key, precondition);
        if refused.is_err() {
            self.uploads().insert(id.to_owned(), taken);
            return refused.map(|()| object);
        }
        self.commit(&upload.bucket, &upload.key, object.clone(), precondition)?;
        let unused = taken.parts.into_values().filter(|part| !object.segments.contains(&part.segment));
        self.remove_parts(&upload.bucket, unused);
        Ok(object)
    }

    /// Forgets an upload and its parts.
    pub(crate) fn abort_upload(&self, id: &str) -> Result<(), StoreError> {
        let upload = self.uploads().remove(id).ok_or(StoreError::NoSuchUpload)?;
        self.remove_parts(&upload.bucket, upload.parts.into_values());
        Ok(())
    }

    /// Uploads of a bucket by id.
    pub(crate) fn uploads_of(&self, bucket: &str) -> Vec<(String, Upload)> {
        let uploads = self.uploads();
        uploads.iter().filter(|(_, one)| one.bucket == bucket).map(|(id, one)| (id.clone(), one.clone())).collect()
    }

    /// Takes a file of the host as an object; blocks.
    pub(crate) fn put_file(&self, bucket: &str, key: &str, source: &Path) -> Result<(), StoreError> {
        let (file, path) = self.fresh_file(bucket)?;
        let bytes = std::fs::copy(source, &path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(&path)?)?;
        let object = Object {
            tag: tag_of(&hasher),
            bytes,
            modified_ms: clock::now_ms(),
            segments: vec![Segment { file, bytes }],
            attributes: Attributes::default(),
        };
        self.commit(bucket, key, object, &Precondition::None)
    }

    fn remove_parts(&self, bucket: &str, parts: impl IntoIterator<Item = Part>) {
        if let Ok(bucket) = self.bucket(bucket) {
            for part in parts {
                // A file that cannot be removed only costs space.
                drop(std::fs::remove_file(bucket.folder.join("data").join(part.segment.file)));
            }
        }
    }

    fn uploads(&self) -> MutexGuard<'_, BTreeMap<String, Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh_name(&self) -> String {
        format!("{:x}-{:x}", self.run, self.names.fetch_add(1, Ordering::Relaxed))
    }
}

/// The entity tag of a hashed body. Like that of a KMS-encrypted object it is not the MD5 of the content.
pub(crate) fn tag_of(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex().chars().take(32).collect()
}

impl Bucket {
    fn open(folder: PathBuf) -> std::io::Result<Self> {
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
        let named: std::collections::BTreeSet<&str> =
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
        let stored = |object| Arc::new(Stored { object, data: data.clone(), doomed: AtomicBool::new(false) });
        let objects = objects.into_iter().map(|(key, object)| (key, stored(object))).collect();
        Ok(Self { folder, created_ms: clock::now_ms(), index: Mutex::new(Index { objects, journal }) })
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn check(&self, key: &str, precondition: &Precondition) -> Result<(), StoreError> {
        let existing = self.objects.get(key);
        match (precondition, existing) {
            (Precondition::None, _) | (Precondition::Absent, None) | (Precondition::Present, Some(_)) => Ok(()),
            (Precondition::Tag(tag), Some(stored)) if stored.object.tag == *tag => Ok(()),
            (Precondition::Tag(_), None) => Err(StoreError::NoSuchKey),
            _ => Err(StoreError::Precondition),
        }
    }

    fn record(&mut self, key: &str, object: Option<&Object>) -> std::io::Result<()> {
        self.journal.write_all(&line_of(key, object))
    }
}

fn line_of(key: &str, object: Option<&Object>) -> Vec<u8> {
    let record = Record { key: key.to_owned(), object: object.cloned() };
    let mut line = serde_json::to_vec(&record).expect("a record has string keys and plain values only");
    line.push(b'\n');
    line
}

fn doom(stored: Option<Arc<Stored>>) {
    if let Some(stored) = stored {
        stored.doomed.store(true, Ordering::Release);
    }
}

/// The smallest key that does not begin with a prefix and is greater than all that do.
fn successor(prefix: &str) -> String {
    let mut letters: Vec<char> = prefix.chars().collect();
    while let Some(last) = letters.pop() {
        if let Some(next) = (u32::from(last) + 1..=0x0010_FFFF).find_map(char::from_u32) {
            letters.push(next);
            return letters.into_iter().collect();
        }
    }
    char::MAX.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Store, key: &str, body: &str, precondition: &Precondition) -> Result<(), StoreError> {
        let (file, path) = store.fresh_file("b")?;
        std::fs::write(path, body)?;
        let bytes = body.len() as u64;
        let object = Object {
            tag: format!("tag-{body}"),
            bytes,
            modified_ms: 1,
            segments: vec![Segment { file, bytes }],
            attributes: Attributes::default(),
        };
        store.commit("b", key, object, precondition)
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        assert!(store.create_bucket("b").unwrap());
        (folder, store)
    }

    fn names(page: &Page) -> (Vec<&str>, Vec<&str>) {
        (page.objects.iter().map(|(key, _)| key.as_str()).collect(), page.prefixes.iter().map(String::as_str).collect())
    }

    #[test]
    fn only_one_of_many_racing_writers_creates_a_key() {
        let (folder, store) = store();
        let won = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|index| {
                    let store = &store;
                    scope.spawn(move || put(store, "k", &index.to_string(), &Precondition::Absent).is_ok())
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
        assert_eq!(std::fs::read_dir(folder.path().join("b/data")).unwrap().count(), 1, "losers leave no file");
    }

    #[test]
    fn a_replaced_body_stays_readable_until_its_reader_is_gone() {
        let (_folder, store) = store();
        put(&store, "k", "old", &Precondition::None).unwrap();
        let reader = store.get("b", "k").unwrap();
        put(&store, "k", "new", &Precondition::Tag("tag-old".into())).unwrap();
        let (path, _) = reader.files().remove(0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        drop(reader);
        assert!(!path.exists());
        assert!(matches!(put(&store, "k", "x", &Precondition::Tag("tag-old".into())), Err(StoreError::Precondition)));
    }

    #[test]
    fn objects_survive_a_restart_and_orphans_do_not() {
        let (folder, store) = store();
        put(&store, "a", "1", &Precondition::None).unwrap();
        put(&store, "gone", "2", &Precondition::None).unwrap();
        store.delete("b", "gone", &Precondition::None).unwrap();
        drop(store);
        std::fs::write(folder.path().join("b/data/orphan"), "x").unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        assert_eq!(names(&store.list("b", "", None, None, 10).unwrap()).0, ["a"]);
        assert_eq!(std::fs::read_dir(folder.path().join("b/data")).unwrap().count(), 1);
    }

    #[test]
    fn listing_folds_at_the_delimiter_and_pages_across_folds() {
        let (_folder, store) = store();
        for key in ["a", "d/1", "d/2", "d/e/3", "d", "z"] {
            put(&store, key, "x", &Precondition::None).unwrap();
        }
        let page = store.list("b", "", None, Some("/"), 10).unwrap();
        assert_eq!(names(&page), (vec!["a", "d", "z"], vec!["d/"]));
        let mut seen = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = store.list("b", "", after.as_deref(), Some("/"), 1).unwrap();
            let (objects, prefixes) = names(&page);
            seen.extend(objects.iter().chain(&prefixes).map(|name| (*name).to_owned()));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert_eq!(seen, ["a", "d", "d/", "z"]);
        assert_eq!(names(&store.list("b", "d/", Some("d/1"), None, 10).unwrap()).0, ["d/2", "d/e/3"]);
    }

    #[test]
    fn parts_become_one_object_in_order() {
        let (_folder, store) = store();
        let id = store.start_upload("b", "big", Attributes::default()).unwrap();
        for (number, body) in [(2, "world"), (1, "hello ")] {
            let (file, path) = store.fresh_file("b").unwrap();
            std::fs::write(path, body).unwrap();
            let segment = Segment { file, bytes: body.len() as u64 };
            store.add_part(&id, number, Part { tag: body.into(), segment, modified_ms: 1 }).unwrap();
        }
        let wrong = [(2, None), (1, None)];
        assert!(matches!(store.complete_upload(&id, &wrong, &Precondition::None), Err(StoreError::InvalidPartOrder)));
        let chosen = [(1, Some("hello ".to_owned())), (2, None)];
        store.complete_upload(&id, &chosen, &Precondition::Absent).unwrap();
        let body: String = store
            .get("b", "big")
            .unwrap()
            .files()
            .iter()
            .map(|(path, _)| std::fs::read_to_string(path).unwrap())
            .collect();
        assert_eq!(body, "hello world");
    }
}
