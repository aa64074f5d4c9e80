//! The model and the metrics of a version in the environment's bucket, under the hash of their content.
//!
//! A version refers to nothing else, so that no other command deletes or replaces what it needs.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::folder::{self, FilesHash, files_hash};
use super::packing::{self, PackedModel};
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::cloud::{Content, ObjectStore, Sha256Hash, SourceObject, SourceObjects, StoredHash};
use crate::lifecycle::gate::MetricsSource;
use crate::lifecycle::hex::hex;
use crate::lifecycle::target::ProjectTarget;

/// Most bytes that S3 takes or copies in one request.
pub(crate) const MOST_BYTES: u64 = 5 << 30;
/// Most bytes of one file of metrics, as for the gate.
const MOST_METRICS_BYTES: u64 = 4 << 20;
/// Most files of metrics.
const MOST_METRICS: usize = 10;

/// A model before it is stored.
#[derive(Debug)]
pub(super) enum ModelOrigin {
    Folder(PathBuf, FilesHash),
    Object(SourceObject, Sha256Hash),
    /// An archive that lies under its hash already.
    Stored {
        /// The hash by which the model differs from others, with its kind.
        identity: String,
        hash: Sha256Hash,
    },
}

/// The `model.tar.gz` of a model.
#[derive(Debug)]
pub(super) struct ModelArchive {
    pub(super) hash: Sha256Hash,
    /// Unless it is stored.
    packed: Option<PackedModel>,
}

impl ModelOrigin {
    /// Hashes the manifest's folder, or looks at the object that the manifest names.
    ///
    /// # Errors
    /// There is no such model, it is empty, or it is too large.
    pub(super) async fn find(target: &ProjectTarget, objects: &dyn SourceObjects) -> anyhow::Result<Self> {
        let path = &target.model()?.path;
        let Some(uri) = path.strip_prefix("s3://") else {
            let folder = target.folder.join(path);
            let hashed =
                tokio::task::spawn_blocking(move || files_hash(&folder).map(|hash| Self::Folder(folder, hash)));
            return hashed.await.context("failed to read the model")?;
        };
        let source = look(uri, objects).await?;
        if source.bytes > MOST_BYTES {
            let (size, most) = (human_bytes(source.bytes), human_bytes(MOST_BYTES));
            let failure =
                Failure::user(format!("the model {path} has {size}; a version's `model.tar.gz` has at most {most}"));
            return Err(failure.hint("make the model smaller: S3 takes and copies no more in one request").into());
        }
        let hash = match source.hash {
            Some(hash) => hash,
            None => objects.hash(&source).await?,
        };
        Ok(Self::Object(source, hash))
    }

    /// The hash by which this model differs from others, without packing it.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Folder(_, files) => format!("files {files}"),
            Self::Object(_, hash) => format!("object {}", hex(hash)),
            Self::Stored { identity, .. } => identity.clone(),
        }
    }

    /// Key of the object that says which `model.tar.gz` the folder's files make.
    pub(super) fn index_key(&self) -> Option<String> {
        match self {
            Self::Folder(_, files) => Some(format!("models/files/{files}")),
            Self::Object(..) | Self::Stored { .. } => None,
        }
    }

    /// The model's archive: the stored one that the same files made before, or one that is packed now.
    pub(super) async fn archive(&self, to: &dyn ObjectStore) -> anyhow::Result<ModelArchive> {
        let (folder, files) = match self {
            Self::Object(_, hash) | Self::Stored { hash, .. } => return Ok(ModelArchive { hash: *hash, packed: None }),
            Self::Folder(folder, files) => (folder.clone(), *files),
        };
        if let Some(hash) = self.indexed(to).await?
            && to.stored_hash(&archive_key(&hash)).await? == StoredHash::Known(hash)
        {
            return Ok(ModelArchive { hash, packed: None });
        }
        let packed = tokio::task::spawn_blocking(move || {
            let packed = packing::pack(&folder, MOST_BYTES)?;
            if packed.files == files { Ok(packed) } else { Err(folder::changed(&folder)) }
        });
        let packed = packed.await.context("failed to pack the model")??;
        Ok(ModelArchive { hash: packed.hash, packed: Some(packed) })
    }

    async fn indexed(&self, to: &dyn ObjectStore) -> anyhow::Result<Option<Sha256Hash>> {
        let Some(key) = self.index_key() else { return Ok(None) };
        let text = to.get(&key).await?.unwrap_or_default();
        Ok(blake3::Hash::from_hex(&text).ok().map(Sha256Hash::from))
    }

    /// Stores the archive unless it is there.
    pub(super) async fn store(
        &self,
        archive: &ModelArchive,
        to: &dyn ObjectStore,
        sources: &dyn SourceObjects,
    ) -> anyhow::Result<()> {
        let key = archive_key(&archive.hash);
        let is_stored = to.stored_hash(&key).await? == StoredHash::Known(archive.hash);
        match self {
            Self::Folder(..) => {
                if let Some(packed) = archive.packed.as_ref().filter(|_| !is_stored) {
                    to.put_with_hash(&key, Content::File(&packed.path()), &packed.hash).await?;
                }
                // Written last: what it names is there.
                if let Some(index) = self.index_key()
                    && self.indexed(to).await? != Some(archive.hash)
                {
                    to.put(&index, hex(&archive.hash).into_bytes()).await?;
                }
            }
            Self::Object(..) | Self::Stored { .. } if is_stored => {}
            Self::Stored { .. } => {
                let failure = Failure::system(format!("the model {} is gone from the bucket", to.uri(&key)));
                return Err(failure.hint("run the same command again, which stores it again").into());
            }
            // The object is the stored one already, of which the store keeps no hash.
            Self::Object(source, _) if format!("s3://{}/{}", source.bucket, source.key) == to.uri(&key) => {}
            Self::Object(source, hash) => {
                sources.copy(source, &key).await?;
                if let StoredHash::Known(stored) = to.stored_hash(&key).await?
                    && stored != *hash
                {
                    let failure =
                        Failure::system(format!("s3://{}/{} changed while it was copied", source.bucket, source.key));
                    return Err(failure.hint("run the same command again").into());
                }
            }
        }
        Ok(())
    }
}

impl ModelArchive {
    /// The URI under which it is stored.
    pub(super) fn uri(&self, to: &dyn ObjectStore) -> String {
        to.uri(&archive_key(&self.hash))
    }
}

/// Key of a model's archive with this hash.
pub(crate) fn archive_key(hash: &Sha256Hash) -> String {
    format!("models/{}/model.tar.gz", hex(hash))
}

async fn look(uri: &str, objects: &dyn SourceObjects) -> anyhow::Result<SourceObject> {
    let refused = |what: &str| {
        Failure::user(format!("s3://{uri} {what}"))
            .hint("set `model.path` in the manifest to the URI of one object, a `model.tar.gz`, or to a folder of the project")
    };
    let (bucket, key) = uri
        .split_once('/')
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .ok_or_else(|| refused("names no object"))?;
    if key.ends_with('/') {
        return Err(refused("names a prefix").into());
    }
    match objects.look(bucket, key).await? {
        Some(source) if source.bytes == 0 => Err(refused("is empty").into()),
        Some(source) => Ok(source),
        None => Err(refused("does not exist").into()),
    }
}

/// A file of metrics, to be stored under its hash.
#[derive(Debug)]
pub(crate) struct MetricsFile {
    name: String,
    pub(super) key: String,
    hash: Sha256Hash,
    content: Vec<u8>,
}

impl MetricsFile {
    pub(super) fn digest(&self) -> String {
        format!("sha256:{}", hex(&self.hash))
    }

    /// As the gate reads it.
    pub(crate) fn source(&self) -> MetricsSource {
        MetricsSource { name: self.name.clone(), bytes: self.content.clone() }
    }

    pub(super) fn content_type(&self) -> &'static str {
        if Path::new(&self.key).extension().is_some_and(|ending| ending == "json") {
            "application/json"
        } else {
            "text/plain"
        }
    }

    pub(super) async fn store(&self, to: &Arc<dyn ObjectStore>) -> anyhow::Result<()> {
        if to.stored_hash(&self.key).await? != StoredHash::Known(self.hash) {
            to.put_with_hash(&self.key, Content::Bytes(&self.content), &self.hash).await?;
        }
        Ok(())
    }
}

/// Reads the manifest's files of metrics.
pub(crate) fn metrics(target: &ProjectTarget) -> anyhow::Result<Vec<MetricsFile>> {
    let files = &target.model()?.metrics;
    check_metrics(files)?;
    files.iter().map(|file| read_metrics(&target.folder.join(file))).collect()
}

/// Refuses more files of metrics than a version has.
pub(crate) fn check_metrics(files: &[String]) -> Result<(), Failure> {
    if files.len() <= MOST_METRICS {
        return Ok(());
    }
    Err(Failure::user(format!("`model.metrics` names {} files; a version has at most {MOST_METRICS}", files.len()))
        .hint("name fewer files in `model.metrics` of the manifest"))
}

/// Refuses a file of metrics that is too large.
pub(crate) fn check_metrics_size(name: &str, bytes: u64) -> Result<(), Failure> {
    if bytes <= MOST_METRICS_BYTES { Ok(()) } else { Err(refused_metrics(name, "has more than 4 MiB")) }
}

impl MetricsFile {
    /// A file of metrics with this name and content.
    ///
    /// # Errors
    /// It has more than 4 MiB.
    pub(crate) fn new(name: String, content: Vec<u8>) -> Result<Self, Failure> {
        check_metrics_size(&name, content.len() as u64)?;
        let hash: Sha256Hash = Sha256::digest(&content).into();
        let ending = if Path::new(&name).extension().is_some_and(|ending| ending == "json") { "json" } else { "txt" };
        let key = format!("metrics/{}.{ending}", hex(&hash));
        Ok(Self { name, key, hash, content })
    }
}

fn refused_metrics(name: &str, what: &str) -> Failure {
    Failure::user(format!("the file of metrics {name} {what}"))
        .hint("name files that the job has in `model.metrics` of the manifest")
}

fn read_metrics(path: &Path) -> anyhow::Result<MetricsFile> {
    let name = path.display().to_string();
    let metadata =
        std::fs::metadata(path).map_err(|error| refused_metrics(&name, "cannot be read").caused_by(error))?;
    if !metadata.is_file() {
        return Err(refused_metrics(&name, "is no file").into());
    }
    let opened =
        std::fs::File::open(path).map_err(|error| refused_metrics(&name, "cannot be read").caused_by(error))?;
    let mut content = Vec::new();
    let read = opened.take(MOST_METRICS_BYTES + 1).read_to_end(&mut content);
    read.map_err(|error| refused_metrics(&name, "cannot be read").caused_by(error))?;
    Ok(MetricsFile::new(name, content)?)
}
