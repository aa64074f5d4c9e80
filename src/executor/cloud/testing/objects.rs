//! Fake of the object store. No delays, no limits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::faults::Fake;
use crate::base::clock::{Clock, HostClock};
use crate::cloud::{
    CloudError, CloudErrorKind, Content, InputData, InputPrefix, Listed, ObjectStore, ObjectSurvey, Retention,
    Sha256Hash, SourceObject, SourceObjects, StoredHash, SurveyPage,
};

/// Objects in a map.
pub type MemoryObjects = Fake<ObjectsState>;

#[derive(Debug, Default)]
pub struct ObjectsState {
    objects: BTreeMap<String, Vec<u8>>,
    /// Dates new objects; without it, a listing shows the time of the listing.
    clock: Option<Arc<dyn Clock>>,
    /// Modification times, by the clock or set by tests.
    aged: BTreeMap<String, SystemTime>,
    /// Of the objects that were written with one.
    hashes: BTreeMap<String, Sha256Hash>,
    retention: Retention,
    /// The store tells no hash of an object.
    is_mute: bool,
}

impl ObjectsState {
    fn write(&mut self, key: &str, body: Vec<u8>) {
        match &self.clock {
            Some(clock) => self.aged.insert(key.to_owned(), clock.now()),
            None => self.aged.remove(key),
        };
        self.objects.insert(key.to_owned(), body);
    }

    fn now(&self) -> SystemTime {
        self.clock.as_ref().map_or_else(|| HostClock.now(), |clock| clock.now())
    }

    fn listed(&self, prefix: &str) -> impl Iterator<Item = Listed> {
        let own = self.objects.iter().filter(move |(key, _)| key.starts_with(prefix));
        own.map(|(key, body)| Listed {
            key: key.clone(),
            bytes: body.len() as u64,
            modified: Some(self.aged.get(key).copied().unwrap_or_else(|| self.now())),
        })
    }
}

impl MemoryObjects {
    /// Removes an object, as a lifecycle rule does.
    pub fn expire(&self, key: &str) {
        self.inner().service.objects.remove(key);
    }

    /// Sets the modification time that listings show.
    pub fn set_modified(&self, key: &str, modified: SystemTime) {
        self.inner().service.aged.insert(key.to_owned(), modified);
    }

    /// Dates the objects that are written from now on, and tells the time.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        self.inner().service.clock = Some(clock);
    }

    /// Sets what the bucket does with old versions.
    pub fn set_retention(&self, retention: Retention) {
        self.inner().service.retention = retention;
    }

    /// Tells no hash any more.
    pub fn tell_no_hashes(&self) {
        self.inner().service.is_mute = true;
    }

    /// Stores an object without recording a call.
    pub fn insert(&self, key: &str, body: impl Into<Vec<u8>>) {
        let service = &mut self.inner().service;
        service.hashes.remove(key);
        service.write(key, body.into());
    }

    /// Stores an object as if its content had this hash.
    pub fn insert_as(&self, key: &str, hash: Sha256Hash) {
        self.insert(key, "");
        self.inner().service.hashes.insert(key.to_owned(), hash);
    }

    /// Reads an object without recording a call.
    pub fn contents(&self, key: &str) -> Option<Vec<u8>> {
        self.inner().service.objects.get(key).cloned()
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.inner().service.objects.keys().cloned().collect()
    }
}

/// Knows the bucket of [`ObjectStore::uri`] alone.
#[async_trait]
impl InputData for MemoryObjects {
    async fn find(&self, bucket: &str, prefix: &str) -> Result<InputPrefix, CloudError> {
        let is_here = self.uri("") == format!("s3://{bucket}/");
        let keys: Vec<String> = self.keys().into_iter().filter(|key| key.starts_with(prefix)).collect();
        let answer = match keys.as_slice() {
            _ if !is_here => InputPrefix::NoBucket,
            [] => InputPrefix::Empty,
            [one] if one == prefix => InputPrefix::Object,
            _ => InputPrefix::Found,
        };
        self.call("find", prefix, |_| Ok(answer)).await
    }

    async fn find_bucket(&self, bucket: &str, _: Option<&str>) -> Result<InputPrefix, CloudError> {
        let is_here = self.uri("") == format!("s3://{bucket}/");
        let answer = if is_here { InputPrefix::Found } else { InputPrefix::NoBucket };
        self.call("find_bucket", bucket, |_| Ok(answer)).await
    }
}

/// Knows the bucket of [`ObjectStore::uri`] alone.
#[async_trait]
impl SourceObjects for MemoryObjects {
    async fn look(&self, bucket: &str, key: &str) -> Result<Option<SourceObject>, CloudError> {
        let act = |service: &mut ObjectsState| {
            Ok(service.objects.get(key).map(|body| SourceObject {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                bytes: body.len() as u64,
                etag: String::new(),
                hash: service.hashes.get(key).copied(),
            }))
        };
        self.call("look", key, act).await
    }

    async fn hash(&self, source: &SourceObject) -> Result<Sha256Hash, CloudError> {
        let act = |service: &mut ObjectsState| {
            Ok(Sha256::digest(service.objects.get(&source.key).map(Vec::as_slice).unwrap_or_default()).into())
        };
        self.call("hash", &source.key, act).await
    }

    async fn copy(&self, source: &SourceObject, key: &str) -> Result<(), CloudError> {
        let act = |service: &mut ObjectsState| {
            let body = service.objects.get(&source.key).cloned().unwrap_or_default();
            service.hashes.insert(key.to_owned(), Sha256::digest(&body).into());
            service.objects.insert(key.to_owned(), body);
            Ok(())
        };
        self.call("copy", key, act).await
    }
}

#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        self.call("get", key, |service| Ok(service.objects.get(key).cloned())).await
    }

    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        let part = |body: &Vec<u8>| {
            let start = usize::try_from(start).unwrap_or(usize::MAX).min(body.len());
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(body.len() - start);
            Bytes::copy_from_slice(&body[start..start + length])
        };
        self.call("get_range", key, |service| Ok(service.objects.get(key).map(part))).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        self.call("size", key, |service| Ok(service.objects.get(key).map(|body| body.len() as u64))).await
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        let act = |service: &mut ObjectsState| {
            service.hashes.remove(key);
            service.write(key, body);
            Ok(())
        };
        self.call("put", key, act).await
    }

    async fn put_with_hash(&self, key: &str, content: Content<'_>, hash: &Sha256Hash) -> Result<(), CloudError> {
        let act = |service: &mut ObjectsState| {
            let body = match content {
                Content::Bytes(bytes) => Ok(bytes.to_vec()),
                Content::File(path) => std::fs::read(path).map_err(|error| error.to_string()),
            };
            let is_own = |body: &Vec<u8>| Sha256::digest(body).as_slice() == hash;
            let checked = body.and_then(|body| Some(body).filter(is_own).ok_or_else(|| "BadDigest".to_owned()));
            let body = checked.map_err(|message| CloudError {
                kind: CloudErrorKind::Other,
                operation: format!("put object s3://memory/{key}"),
                message,
                action: "",
            })?;
            service.write(key, body);
            service.hashes.insert(key.to_owned(), *hash);
            Ok(())
        };
        self.call("put_with_hash", key, act).await
    }

    async fn stored_hash(&self, key: &str) -> Result<StoredHash, CloudError> {
        let act = |service: &mut ObjectsState| {
            let known = service.hashes.get(key).filter(|_| !service.is_mute);
            Ok(match service.objects.get(key) {
                None => StoredHash::Absent,
                Some(_) => known.map_or(StoredHash::Unknown, |hash| StoredHash::Known(*hash)),
            })
        };
        self.call("stored_hash", key, act).await
    }

    async fn retention(&self) -> Result<Retention, CloudError> {
        self.call("retention", "", |service| Ok(service.retention.clone())).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        let act = |service: &mut ObjectsState| {
            let is_absent = !service.objects.contains_key(key);
            if is_absent {
                service.write(key, body.into());
            }
            Ok(is_absent)
        };
        self.call("put_if_absent", key, act).await
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        let act = |service: &mut ObjectsState| Ok(service.listed(prefix).collect());
        self.call("list", prefix, act).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        let act = |service: &mut ObjectsState| {
            service.objects.retain(|key, _| !keys.contains(key));
            Ok(())
        };
        self.call("delete", &keys.join(" "), act).await
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://memory/{key}")
    }
}

/// Objects of a page.
const PAGE: usize = 1000;

#[async_trait]
impl ObjectSurvey for MemoryObjects {
    async fn folders(&self, prefix: &str) -> Result<Vec<String>, CloudError> {
        let act = |service: &mut ObjectsState| {
            let below = service.objects.keys().filter_map(|key| key.strip_prefix(prefix)?.split_once('/'));
            let names: BTreeSet<_> = below.map(|(folder, _)| format!("{prefix}{folder}/")).collect();
            Ok(names.into_iter().collect())
        };
        self.call("folders", prefix, act).await
    }

    async fn page(&self, prefix: &str, after: Option<&str>) -> Result<SurveyPage, CloudError> {
        let act = |service: &mut ObjectsState| {
            let mut left =
                service.listed(prefix).filter(|listed| after.is_none_or(|after| listed.key.as_str() > after));
            let objects = left.by_ref().take(PAGE).collect();
            Ok(SurveyPage { objects, has_more: left.next().is_some() })
        };
        self.call("page", prefix, act).await
    }

    async fn now(&self) -> Result<SystemTime, CloudError> {
        self.call("now", "", |service| Ok(service.now())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn objects_are_kept_listed_and_deleted() {
        let objects = MemoryObjects::default();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert!(objects.put_if_absent("a/1", b"one".as_slice().into()).await.unwrap());
        assert!(!objects.put_if_absent("a/1", b"two".as_slice().into()).await.unwrap());
        objects.put("b", b"bee".to_vec()).await.unwrap();
        std::fs::write(&file, "one").unwrap();
        let hash = Sha256::digest("one").into();
        objects.put_with_hash("a/2", Content::File(&file), &hash).await.unwrap();
        assert!(objects.put_with_hash("a/2", Content::Bytes(b"two"), &hash).await.is_err());
        assert_eq!(objects.stored_hash("a/2").await.unwrap(), StoredHash::Known(hash));
        assert_eq!(objects.get("a/2").await.unwrap().as_deref(), Some(b"one".as_slice()));
        assert_eq!(objects.size("b").await.unwrap(), Some(3));
        assert_eq!(objects.list("a/").await.unwrap(), ["a/1", "a/2"]);
        objects.delete(&["a/1".to_owned(), "absent".to_owned()]).await.unwrap();
        assert_eq!(objects.keys(), ["a/2", "b"]);
        assert_eq!(objects.get("a/1").await.unwrap(), None);
    }
}
