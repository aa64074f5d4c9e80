//! Fake of the object store. No delays, no limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use super::faults::Fake;
use crate::base::clock::{Clock as _, HostClock};
use crate::cloud::{CloudError, CloudErrorKind, Listed, ObjectStore};

/// Objects in a map.
pub type MemoryObjects = Fake<ObjectsState>;

#[derive(Debug, Default)]
pub struct ObjectsState {
    objects: BTreeMap<String, Vec<u8>>,
    /// Modification times set by tests.
    aged: BTreeMap<String, SystemTime>,
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

    /// Stores an object without recording a call.
    pub fn insert(&self, key: &str, body: impl Into<Vec<u8>>) {
        self.inner().service.objects.insert(key.to_owned(), body.into());
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
            service.aged.remove(key);
            service.objects.insert(key.to_owned(), body);
            Ok(())
        };
        self.call("put", key, act).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), CloudError> {
        let act = |service: &mut ObjectsState| {
            let body = std::fs::read(path).map_err(|error| CloudError {
                kind: CloudErrorKind::Other,
                operation: format!("put object s3://memory/{key}"),
                message: format!("{}: {error}", path.display()),
                action: "",
            })?;
            service.objects.insert(key.to_owned(), body);
            Ok(())
        };
        self.call("put_file", key, act).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        let act = |service: &mut ObjectsState| {
            let is_absent = !service.objects.contains_key(key);
            if is_absent {
                service.objects.insert(key.to_owned(), body.into());
            }
            Ok(is_absent)
        };
        self.call("put_if_absent", key, act).await
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        let act = |service: &mut ObjectsState| {
            let own = service.objects.iter().filter(|(key, _)| key.starts_with(prefix));
            let listed = own.map(|(key, body)| Listed {
                key: key.clone(),
                bytes: body.len() as u64,
                modified: Some(service.aged.get(key).copied().unwrap_or_else(|| HostClock.now())),
            });
            Ok(listed.collect())
        };
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
        objects.put_file("a/2", &file).await.unwrap();
        assert_eq!(objects.get("a/2").await.unwrap().as_deref(), Some(b"one".as_slice()));
        assert_eq!(objects.size("b").await.unwrap(), Some(3));
        assert_eq!(objects.list("a/").await.unwrap(), ["a/1", "a/2"]);
        objects.delete(&["a/1".to_owned(), "absent".to_owned()]).await.unwrap();
        assert_eq!(objects.keys(), ["a/2", "b"]);
        assert_eq!(objects.get("a/1").await.unwrap(), None);
    }
}
