//! All buckets of the account.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use parking_lot::{Mutex, RwLock};

use super::bucket::{Bucket, BucketIndex};
use super::listing::ObjectPage;
use super::object::{Attributes, FileSegment, Object, PartialUpload, Precondition, StoreError, Stored, tag_of};
use super::versions::{BucketSettings, NULL_VERSION, VersionPage, VersionQuery, Versioning, version_id};
use crate::clock;

/// All buckets below one folder.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
    pub(super) uploads: Mutex<BTreeMap<String, PartialUpload>>,
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
        let mut buckets = self.buckets.write();
        if buckets.contains_key(name) {
            return Ok(false);
        }
        buckets.insert(name.to_owned(), Arc::new(Bucket::open(self.root.join(name))?));
        Ok(true)
    }

    /// Removes a bucket; `false` when it still holds objects.
    pub(crate) fn delete_bucket(&self, name: &str) -> Result<bool, StoreError> {
        let mut buckets = self.buckets.write();
        let bucket = buckets.get(name).ok_or(StoreError::NoSuchBucket)?;
        let is_empty = |index: &BucketIndex| index.objects.is_empty() && index.histories.is_empty();
        if !is_empty(&bucket.index.lock()) {
            return Ok(false);
        }
        std::fs::remove_dir_all(&bucket.folder)?;
        buckets.remove(name);
        Ok(true)
    }

    /// Names and creation times.
    pub(crate) fn buckets(&self) -> Vec<(String, u64)> {
        let buckets = self.buckets.read();
        buckets.iter().map(|(name, bucket)| (name.clone(), bucket.created_ms)).collect()
    }

    pub(super) fn bucket(&self, name: &str) -> Result<Arc<Bucket>, StoreError> {
        let buckets = self.buckets.read();
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
        mut object: Object,
        precondition: &Precondition,
    ) -> Result<Arc<Stored>, StoreError> {
        let bucket = self.bucket(bucket)?;
        let mut index = bucket.index.lock();
        object.version = self.next_version(&index);
        let stored = Arc::new(Stored::new(object, bucket.folder.join("data"), true));
        index.check(key, precondition)?;
        index.put(key, Arc::clone(&stored))?;
        Ok(stored)
    }

    /// The object of a key, or one of its versions.
    pub(crate) fn get(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<Arc<Stored>, StoreError> {
        let bucket = self.bucket(bucket)?;
        let index = bucket.index.lock();
        let current = index.objects.get(key);
        let mut history = index.histories.get(key).into_iter().flatten();
        let Some(id) = version else {
            let newest = history.next_back().filter(|newest| newest.stored.is_none());
            let absent = newest
                .map_or(StoreError::NoSuchKey, |marker| StoreError::DeleteMarker { id: marker.id(), asked: false });
            return current.cloned().ok_or(absent);
        };
        if let Some(current) = current.filter(|current| version_id(&current.object) == id) {
            return Ok(Arc::clone(current));
        }
        let found = history.find(|one| one.id() == id).ok_or(StoreError::NoSuchVersion)?;
        found.stored.clone().ok_or_else(|| StoreError::DeleteMarker { id: id.to_owned(), asked: true })
    }

    /// Deletes a key; a missing one is fine unless the precondition wants it. In a bucket that has versions nothing goes: a
    /// delete marker is put, whose id is returned.
    pub(crate) fn delete(
        &self,
        bucket: &str,
        key: &str,
        precondition: &Precondition,
    ) -> Result<Option<String>, StoreError> {
        let bucket = self.bucket(bucket)?;
        let mut index = bucket.index.lock();
        index.check(key, precondition)?;
        if index.settings.versioning == Versioning::Off {
            index.remove_current(key)?;
            return Ok(None);
        }
        let id = self.next_version(&index);
        index.mark(key, id.clone(), clock::now_ms())?;
        Ok(Some(id.unwrap_or_else(|| NULL_VERSION.to_owned())))
    }

    /// Deletes a version for good; a missing one is fine. Returns whether it was a delete marker.
    pub(crate) fn delete_version(&self, bucket: &str, key: &str, id: &str) -> Result<bool, StoreError> {
        let id = Some(id).filter(|id| *id != NULL_VERSION);
        Ok(self.bucket(bucket)?.index.lock().remove_version(key, id)?.unwrap_or(false))
    }

    /// Versions and delete markers, from the newest of each key on.
    pub(crate) fn versions(&self, bucket: &str, query: &VersionQuery) -> Result<VersionPage, StoreError> {
        let bucket = self.bucket(bucket)?;
        let index = bucket.index.lock();
        Ok(VersionPage::of(&index.objects, &index.histories, query))
    }

    /// The settings of a bucket.
    pub(crate) fn settings(&self, bucket: &str) -> Result<BucketSettings, StoreError> {
        Ok(self.bucket(bucket)?.index.lock().settings.clone())
    }

    /// Changes the settings of a bucket.
    pub(crate) fn change_settings(
        &self,
        bucket: &str,
        change: impl FnOnce(&mut BucketSettings),
    ) -> Result<(), StoreError> {
        let bucket = self.bucket(bucket)?;
        let mut index = bucket.index.lock();
        let mut settings = index.settings.clone();
        change(&mut settings);
        Ok(index.set(settings)?)
    }

    /// The id of the next version of a bucket; `None` for the version `null`.
    fn next_version(&self, index: &BucketIndex) -> Option<String> {
        (index.settings.versioning == Versioning::Enabled).then(|| self.fresh_name())
    }

    /// Deletes all objects whose key starts with `prefix`; returns their number.
    pub(crate) fn expire(&self, bucket: &str, prefix: &str) -> Result<usize, StoreError> {
        let page = self.list(bucket, prefix, None, None, usize::MAX)?;
        for (key, _) in &page.objects {
            self.delete(bucket, key, &Precondition::None)?;
        }
        Ok(page.objects.len())
    }

    /// Makes all objects whose key starts with `prefix` older; returns their number. A restart forgets it.
    pub(crate) fn age(&self, bucket: &str, prefix: &str, ms: u64) -> Result<usize, StoreError> {
        Ok(self.bucket(bucket)?.index.lock().age(prefix, ms))
    }

    /// Keys with a prefix behind `after`, in order; with a delimiter, what lies below one is folded into a prefix.
    pub(crate) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        delimiter: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, StoreError> {
        Ok(ObjectPage::of(&self.bucket(bucket)?.index.lock().objects, prefix, after, delimiter, limit))
    }

    /// Stores a file of the host as an object; blocks.
    pub(crate) fn put_file(&self, bucket: &str, key: &str, source: &Path) -> Result<(), StoreError> {
        let (file, path) = self.fresh_file(bucket)?;
        let bytes = std::fs::copy(source, &path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(&path)?)?;
        let object = Object {
            tag: tag_of(&hasher),
            bytes,
            modified_ms: clock::now_ms(),
            segments: vec![FileSegment { file, bytes }],
            attributes: Attributes::default(),
            version: None,
        };
        self.commit(bucket, key, object, &Precondition::None).map(drop)
    }

    pub(super) fn fresh_name(&self) -> String {
        format!("{:x}-{:x}", self.run, self.names.fetch_add(1, Ordering::Relaxed))
    }
}
