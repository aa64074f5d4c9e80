//! The object store of a container without network: SageMaker has copied the objects into input channels, and uploads what is written
//! after the container has ended. See [`isolation`].

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use crate::cloud::{
    CloudError, CloudErrorKind, Content, Listed, MOST_BYTES, ObjectStore, Retention, Sha256Hash, StoredHash,
};
use crate::protocol::isolation;

/// Objects as files, each at its key below one of the directories.
#[derive(Debug, Clone)]
pub(super) struct ChannelStore {
    output: PathBuf,
    channels: Vec<PathBuf>,
}

impl ChannelStore {
    /// The directories of a training container.
    pub(super) fn of_container() -> Self {
        Self { output: PathBuf::from(isolation::OUTPUT_DIR), channels: isolation::channel_dirs() }
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.output).chain(&self.channels).map(PathBuf::as_path)
    }

    /// The object's file, open.
    fn open(&self, key: &str) -> io::Result<Option<File>> {
        for directory in self.directories() {
            match File::open(directory.join(key)) {
                Ok(file) if file.metadata()?.is_file() => return Ok(Some(file)),
                Ok(_) => {}
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn read(&self, key: &str, start: u64, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open(key)? else { return Ok(None) };
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes the file whole: SageMaker may upload what a killed agent has left.
    fn write(&self, key: &str, body: &[u8], if_absent: bool) -> io::Result<bool> {
        let path = self.output.join(key);
        if if_absent && path.exists() {
            return Ok(false);
        }
        let folder = path.parent().unwrap_or(&self.output);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(body)?;
        file.persist(&path)?;
        Ok(true)
    }

    /// Of the channels only the first: what the container of the stage before has written, no later one finds.
    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut found = Vec::new();
        for directory in self.directories().take(2) {
            gather(directory, folder, &mut found)?;
        }
        found.retain(|listed| listed.key.starts_with(prefix));
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }

    fn remove(&self, keys: &[String]) -> io::Result<()> {
        for key in keys {
            match fs::remove_file(self.output.join(key)) {
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Does the work on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        operation: String,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, CloudError> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        let message = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(CloudError { kind: CloudErrorKind::Other, operation, message, action: "" })
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn gather(directory: &Path, folder: &str, found: &mut Vec<Listed>) -> io::Result<()> {
    let entries = match fs::read_dir(directory.join(folder)) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        // All keys are ASCII.
        let Some(name) = name.to_str() else { continue };
        let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let meta = entry.metadata()?;
        if meta.is_dir() {
            gather(directory, &key, found)?;
        } else if meta.is_file() {
            found.push(Listed { key, bytes: meta.len(), modified: meta.modified().ok() });
        }
    }
    Ok(())
}

#[async_trait]
impl ObjectStore for ChannelStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        let path = key.to_owned();
        let found = self.on_disk(format!("read {key}"), move |store| store.read(&path, 0, MOST_BYTES + 1)).await?;
        match found {
            Some(bytes) if bytes.len() as u64 > MOST_BYTES => Err(CloudError {
                kind: CloudErrorKind::Other,
                operation: format!("read {key}"),
                message: format!("it has more than {MOST_BYTES} bytes"),
                action: "",
            }),
            found => Ok(found),
        }
    }

    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        let path = key.to_owned();
        let most = length.min(MOST_BYTES);
        let read = self.on_disk(format!("read {key}"), move |store| store.read(&path, start, most));
        Ok(read.await?.map(Bytes::from))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        let path = key.to_owned();
        let size = move |store: &Self| store.open(&path)?.map(|file| Ok(file.metadata()?.len())).transpose();
        self.on_disk(format!("look at {key}"), size).await
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        let path = key.to_owned();
        self.on_disk(format!("write {key}"), move |store| store.write(&path, &body, false)).await.map(drop)
    }

    async fn put_with_hash(&self, key: &str, content: Content<'_>, _: &Sha256Hash) -> Result<(), CloudError> {
        let (path, operation) = (key.to_owned(), format!("write {key}"));
        match content {
            Content::Bytes(bytes) => self.put(key, bytes.to_vec()).await,
            Content::File(file) => {
                let file = file.to_owned();
                let copy = move |store: &Self| store.write(&path, &fs::read(file)?, false);
                self.on_disk(operation, copy).await.map(drop)
            }
        }
    }

    async fn stored_hash(&self, key: &str) -> Result<StoredHash, CloudError> {
        Ok(if self.size(key).await?.is_some() { StoredHash::Unknown } else { StoredHash::Absent })
    }

    async fn retention(&self) -> Result<Retention, CloudError> {
        Ok(Retention::default())
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        let path = key.to_owned();
        self.on_disk(format!("write {key}"), move |store| store.write(&path, &body, true)).await
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        let text = prefix.to_owned();
        self.on_disk(format!("list {prefix}"), move |store| store.list(&text)).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        let keys = keys.to_vec();
        self.on_disk("delete".to_owned(), move |store| store.remove(&keys)).await
    }

    fn uri(&self, key: &str) -> String {
        key.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn objects_are_read_from_the_channels_and_written_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let [output, one, two] = ["output", "one", "two"].map(|name| folder.path().join(name));
        for (channel, key, text) in
            [(&one, "s/open", "key"), (&one, "p/packs/a", "aaaa"), (&two, "p/packs/b", "bb"), (&two, "s/open", "no")]
        {
            fs::create_dir_all(channel.join(key).parent().unwrap()).unwrap();
            fs::write(channel.join(key), text).unwrap();
        }
        let store = ChannelStore { output: output.clone(), channels: vec![one.clone(), two] };
        assert_eq!(store.get("s/open").await.unwrap().unwrap(), b"key", "the first channel's");
        assert_eq!(store.get("s/absent").await.unwrap(), None);
        assert_eq!(store.get("s").await.unwrap(), None, "a folder is no object");
        assert_eq!(store.get_range("p/packs/a", 1, 2).await.unwrap().unwrap(), &b"aa"[..]);
        assert!(store.put_if_absent("p/packs/c", Bytes::from_static(b"c")).await.unwrap());
        assert!(!store.put_if_absent("p/packs/c", Bytes::from_static(b"x")).await.unwrap());
        let keys = ObjectStore::list(&store, "p/packs/").await.unwrap();
        assert_eq!(keys, ["p/packs/a", "p/packs/c"], "not those of the stage before");
        assert_eq!(store.get("p/packs/b").await.unwrap().unwrap(), b"bb");
        assert_eq!(ObjectStore::list(&store, "q/").await.unwrap(), [""; 0]);
        store.put("s/open", b"mine".to_vec()).await.unwrap();
        assert_eq!(store.get("s/open").await.unwrap().unwrap(), b"mine");
        assert_eq!(
            (fs::read(one.join("s/open")).unwrap(), store.size("s/open").await.unwrap()),
            (b"key".into(), Some(4))
        );
        store.delete(&["s/open".to_owned(), "s/absent".to_owned()]).await.unwrap();
        assert_eq!(store.get("s/open").await.unwrap().unwrap(), b"key");
        let files = fs::read_dir(output.join("p/packs")).unwrap().count();
        assert_eq!(files, 1, "no temporary file stays");
    }
}
