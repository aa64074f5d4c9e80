//! All buckets of the account.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use parking_lot::{Mutex, RwLock};

use super::bucket::Bucket;
use super::listing::ObjectPage;
use super::object::{Attributes, FileSegment, Object, Precondition, StoreError, Stored, Upload, tag_of};
use crate::clock;

/// All buckets below one folder.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
    pub(super) uploads: Mutex<BTreeMap<String, Upload>>,
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
        if !bucket.index.lock().objects.is_empty() {
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

    pub(crate) fn has_bucket(&self, name: &str) -> bool {
        self.buckets.read().contains_key(name)
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
        object: Object,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        let bucket = self.bucket(bucket)?;
        let stored = Arc::new(Stored::new(object, bucket.folder.join("data"), true));
        let mut index = bucket.index.lock();
        index.check(key, precondition)?;
        index.record(key, Some(&stored.object))?;
        stored.keep();
        let replaced = index.objects.insert(key.to_owned(), stored);
        drop(index);
        if let Some(replaced) = replaced {
            replaced.doom();
        }
        Ok(())
    }

    /// The object of a key.
    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Arc<Stored>, StoreError> {
        self.bucket(bucket)?.index.lock().objects.get(key).cloned().ok_or(StoreError::NoSuchKey)
    }

    /// Deletes a key; a missing one is fine unless the precondition wants it.
    pub(crate) fn delete(&self, bucket: &str, key: &str, precondition: &Precondition) -> Result<(), StoreError> {
        let bucket = self.bucket(bucket)?;
        let mut index = bucket.index.lock();
        index.check(key, precondition)?;
        if index.objects.contains_key(key) {
            index.record(key, None)?;
            let removed = index.objects.remove(key);
            drop(index);
            if let Some(removed) = removed {
                removed.doom();
            }
        }
        Ok(())
    }

    /// Deletes all objects whose key starts with `prefix`; returns their number.
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
        };
        self.commit(bucket, key, object, &Precondition::None)
    }

    pub(super) fn fresh_name(&self) -> String {
        format!("{:x}-{:x}", self.run, self.names.fetch_add(1, Ordering::Relaxed))
    }
}
