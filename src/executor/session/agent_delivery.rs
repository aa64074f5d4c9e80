//! Delivers the agent to the container: uploads this executable once per version, as an input channel.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::base::backoff::backoff;
use crate::base::failure::{Failure, render};
use crate::base::files::{self, Durability};
use crate::base::trusted_roots;
use crate::cloud::{CloudError, CloudErrorKind, Content, ObjectStore, Sha256Hash, StoredHash};
use crate::config::settings::Settings;
use crate::protocol::{bootstrap, keys};
use crate::ui::Printer;

const PAUSES: ExponentialBuilder = backoff(Duration::from_millis(500), Duration::from_secs(8));
/// Longest wait for another driver that uploads the agent.
const SENT_WITHIN: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);
/// Bytes of one request, when a stored file is read to compare it.
const PIECE: u64 = 8 << 20;

/// Ensures that the bucket holds the agent's files as this driver would write them, and returns their key prefix,
/// `agents/<hash>`. Retries while S3 throttles: many jobs that begin together reach its limits.
pub async fn deliver_until(
    objects: &dyn ObjectStore,
    settings: &Settings,
    printer: &Printer,
    until: Instant,
) -> anyhow::Result<String> {
    let is_throttled = |error: &CloudError| error.kind == CloudErrorKind::Throttled;
    (|| deliver(objects, settings, printer, until))
        .retry(PAUSES)
        .when(|error| error.downcast_ref().is_some_and(is_throttled))
        .adjust(|_, pause| Some(pause?.mul_f64(0.5 + fastrand::f64())).filter(|pause| Instant::now() + *pause < until))
        .notify(|error, _| {
            tracing::debug!(error = format!("{error:#}"), "failed to put the agent into the bucket; trying again");
        })
        .await
}

/// How the bucket holds the agent of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredAgent {
    /// As this program would write it.
    Whole,
    /// The first job of this version writes it.
    Absent,
    /// Someone else wrote this object.
    Foreign { uri: String },
}

/// This program as an agent. Hashing it takes a while, and holds up nothing else.
///
/// # Errors
/// A file of `aws.ca_bundle` that cannot be read, and errors of the system.
pub async fn own(settings: &Settings) -> anyhow::Result<AgentParts> {
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || AgentParts::of(&settings, false)).await?
}

/// Compares the agent in the bucket with this program, and changes nothing.
pub async fn look(objects: &dyn ObjectStore, parts: &AgentParts) -> anyhow::Result<StoredAgent> {
    let files = parts.files();
    let compared = compare(objects, &files).await?;
    if let Some((file, _)) = files.iter().zip(&compared).find(|(_, stored)| **stored == Comparison::Foreign) {
        return Ok(StoredAgent::Foreign { uri: objects.uri(&file.key) });
    }
    Ok(if compared.contains(&Comparison::Absent) { StoredAgent::Absent } else { StoredAgent::Whole })
}

/// The link itself: it stays readable after an upgrade replaced the file.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Contents of the agent's files, and the place in the bucket that follows from them.
#[derive(Debug)]
pub struct AgentParts {
    start: String,
    bundle: Vec<u8>,
    sha256: Sha256Hash,
    prefix: String,
}

impl AgentParts {
    /// With `is_noted`, later calls take the hashes of the executable from a note in the state directory.
    fn of(settings: &Settings, is_noted: bool) -> anyhow::Result<Self> {
        let bundle = ca_bundle(settings)?;
        let start = bootstrap::start_script();
        let own = binary_hashes(Path::new(OWN_PROGRAM), &settings.runner.state_dir, is_noted)?;
        let mut hash = blake3::Hasher::new();
        for part in [own.hash.as_bytes(), start.as_bytes(), &bundle] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let prefix = keys::agent(&hash.finalize().to_hex()[..32]);
        Ok(Self { start, bundle, sha256: own.sha256, prefix })
    }

    fn files(&self) -> [AgentFile<'_>; 3] {
        let key = |name: &str| keys::agent_file(&self.prefix, name);
        let binary = Content::File(Path::new(OWN_PROGRAM));
        [
            AgentFile { key: key(bootstrap::BINARY), content: binary, hash: self.sha256 },
            AgentFile::of_bytes(key(bootstrap::START), self.start.as_bytes()),
            AgentFile::of_bytes(key(bootstrap::CA_BUNDLE), &self.bundle),
        ]
    }
}

async fn deliver(
    objects: &dyn ObjectStore,
    settings: &Settings,
    printer: &Printer,
    until: Instant,
) -> anyhow::Result<String> {
    let parts = AgentParts::of(settings, true)?;
    let (files, prefix) = (parts.files(), parts.prefix.clone());
    if compare(objects, &files).await?.iter().all(|stored| *stored == Comparison::Own) {
        return Ok(prefix);
    }
    // After an upgrade one of the drivers that begin together uploads, and the others find its files.
    let _turn = turn(&settings.runner.state_dir, until).await;
    for (file, stored) in files.iter().zip(compare(objects, &files).await?) {
        if stored == Comparison::Foreign {
            printer.warn(replaced(&objects.uri(&file.key)));
        }
        match stored {
            Comparison::Own => {}
            Comparison::Foreign if file.is_absent() => objects.delete(std::slice::from_ref(&file.key)).await?,
            Comparison::Absent | Comparison::Foreign => {
                objects.put_with_hash(&file.key, file.content, &file.hash).await?;
            }
        }
    }
    Ok(prefix)
}

/// A file of the agent as the bucket must hold it.
struct AgentFile<'a> {
    key: String,
    /// Without a byte when the container must not find the file.
    content: Content<'a>,
    hash: Sha256Hash,
}

impl<'a> AgentFile<'a> {
    fn of_bytes(key: String, bytes: &'a [u8]) -> Self {
        Self { key, content: Content::Bytes(bytes), hash: Sha256::digest(bytes).into() }
    }

    fn is_absent(&self) -> bool {
        matches!(self.content, Content::Bytes([]))
    }
}

/// The object of an [`AgentFile`], compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// As this driver would write it.
    Own,
    Absent,
    /// Another writer's.
    Foreign,
}

async fn compare(objects: &dyn ObjectStore, files: &[AgentFile<'_>]) -> Result<Vec<Comparison>, CloudError> {
    match futures::future::try_join_all(files.iter().map(|file| compare_one(objects, file))).await {
        Err(error) => Err(explained(objects, files, error).await),
        compared => compared,
    }
}

/// The same error in the words of a reply that has any: S3 answers a failed HEAD with a status alone.
async fn explained(objects: &dyn ObjectStore, files: &[AgentFile<'_>], error: CloudError) -> CloudError {
    match files.first() {
        Some(file) if !error.kind.may_pass() => objects.get_range(&file.key, 0, 1).await.err().unwrap_or(error),
        _ => error,
    }
}

async fn compare_one(objects: &dyn ObjectStore, file: &AgentFile<'_>) -> Result<Comparison, CloudError> {
    let is_same = match objects.stored_hash(&file.key).await? {
        StoredHash::Absent if file.is_absent() => return Ok(Comparison::Own),
        StoredHash::Absent => return Ok(Comparison::Absent),
        _ if file.is_absent() => false,
        StoredHash::Known(hash) => hash == file.hash,
        StoredHash::Unknown => hash_content(objects, &file.key).await? == file.hash,
    };
    Ok(if is_same { Comparison::Own } else { Comparison::Foreign })
}

/// Downloads the object and hashes it: some stores keep no hashes.
async fn hash_content(objects: &dyn ObjectStore, key: &str) -> Result<Sha256Hash, CloudError> {
    let (mut hash, mut at) = (Sha256::new(), 0);
    while let Some(piece) = objects.get_range(key, at, PIECE).await?.filter(|piece| !piece.is_empty()) {
        hash.update(&piece);
        at += piece.len() as u64;
    }
    Ok(hash.finalize().into())
}

fn replaced(uri: &str) -> String {
    let failure = Failure::system(format!("{uri} was not this program's own file, and was replaced: someone else can write there"))
        .hint("set a bucket policy that allows `s3:PutObject` below `agents/` to the runner host's role alone, as `runner-config/iam/bucket-policy.json` does");
    let text = render(&failure.into());
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

/// Takes the lock for uploading the agent. Without the lock file, or when another driver holds it for too long, this
/// driver uploads too.
async fn turn(state_dir: &Path, until: Instant) -> Option<fs::File> {
    let file = fs::File::options().create(true).append(true).open(state_dir.join("agent.lock")).ok()?;
    let until = until.min(Instant::now() + SENT_WITHIN);
    while file.try_lock().is_err() {
        if Instant::now() >= until {
            return None;
        }
        tokio::time::sleep(POLL.mul_f64(0.5 + fastrand::f64())).await;
    }
    Some(file)
}

fn ca_bundle(settings: &Settings) -> anyhow::Result<Vec<u8>> {
    if let Some(path) = &settings.aws.ca_bundle {
        return fs::read(path).with_context(|| format!("failed to read `aws.ca_bundle` {}", path.display()));
    }
    let plain_http = settings.aws.endpoint_url.as_ref().is_some_and(|url| url.starts_with("http://"));
    if plain_http {
        return Ok(Vec::new());
    }
    Ok(trusted_roots::file().and_then(|path| fs::read(path).ok()).unwrap_or_default())
}

/// Cached hashes of the executable, so that not every job computes them.
#[derive(Debug, Serialize, Deserialize)]
struct HashNote {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// BLAKE3, in hex.
    hash: String,
    sha256: Sha256Hash,
}

fn binary_hashes(binary: &Path, state_dir: &Path, is_noted: bool) -> anyhow::Result<HashNote> {
    let note_path = state_dir.join("agent.json");
    let mut file = fs::File::open(binary).with_context(|| format!("failed to open {}", binary.display()))?;
    let meta = file.metadata()?;
    let fresh = |note: &HashNote| {
        (note.device, note.inode, note.size) == (meta.dev(), meta.ino(), meta.size())
            && note.modified == (meta.mtime(), meta.mtime_nsec())
    };
    let note = fs::read(&note_path).ok().and_then(|text| serde_json::from_slice::<HashNote>(&text).ok());
    if let Some(note) = note.filter(fresh) {
        return Ok(note);
    }
    let (mut hash, mut sha256) = (blake3::Hasher::new(), Sha256::new());
    let mut buffer = vec![0; 1 << 18];
    loop {
        let piece = match file.read(&mut buffer)? {
            0 => break,
            length => buffer.get(..length).unwrap_or_default(),
        };
        hash.update(piece);
        sha256.update(piece);
    }
    let note = HashNote {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        hash: hash.finalize().to_hex().to_string(),
        sha256: sha256.finalize().into(),
    };
    // Only a cache: without it the next job hashes again.
    if is_noted && let Ok(text) = serde_json::to_vec(&note) {
        drop(files::replace(&note_path, &text, Durability::Eventual));
    }
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::Memory;

    struct Delivery {
        memory: Memory,
        settings: Settings,
        _dir: tempfile::TempDir,
    }

    impl Delivery {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let bundle = dir.path().join("ca.pem");
            fs::write(&bundle, "authorities").unwrap();
            let text = format!(
                "[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = {:?}\n[aws]\nca_bundle = {bundle:?}\n",
                dir.path()
            );
            Self { memory: Memory::new(), settings: toml::from_str(&text).unwrap(), _dir: dir }
        }

        /// Key prefix of the files, and the warnings.
        async fn run(&self) -> (String, String) {
            let (printer, captured) = Printer::captured();
            let until = Instant::now() + Duration::from_mins(1);
            let prefix = deliver_until(&*self.memory.objects, &self.settings, &printer, until).await.unwrap();
            (prefix, captured.text())
        }

        fn puts(&self) -> usize {
            self.memory.objects.calls().iter().filter(|call| call.starts_with("put_with_hash ")).count()
        }
    }

    #[tokio::test]
    async fn the_agent_is_uploaded_once_and_compared_before_each_use() {
        let delivery = Delivery::new();
        let (prefix, warnings) = delivery.run().await;
        let file = |name: &str| keys::agent_file(&prefix, name);
        assert_eq!(delivery.memory.objects.contents(&file(bootstrap::CA_BUNDLE)).unwrap(), b"authorities");
        assert_eq!((delivery.puts(), warnings.as_str()), (3, ""));
        let before = delivery.memory.objects.calls().len();
        assert_eq!(delivery.run().await, (prefix, String::new()));
        assert_eq!(delivery.memory.objects.calls().len() - before, 3, "one request for each file");
    }

    #[tokio::test]
    async fn a_file_of_another_writer_is_replaced_with_a_warning() {
        for keeps_hashes in [true, false] {
            let delivery = Delivery::new();
            let (prefix, _) = delivery.run().await;
            if !keeps_hashes {
                delivery.memory.objects.tell_no_hashes();
            }
            for name in [bootstrap::BINARY, bootstrap::START, bootstrap::CA_BUNDLE] {
                let (key, before) = (keys::agent_file(&prefix, name), delivery.puts());
                let own = delivery.memory.objects.contents(&key).unwrap();
                delivery.memory.objects.insert(&key, "another's");
                let (_, warnings) = delivery.run().await;
                assert!(warnings.contains(&key) && warnings.contains("bucket-policy.json"), "{warnings}");
                assert!(delivery.memory.objects.contents(&key).unwrap() == own, "{name}");
                assert_eq!(delivery.puts() - before, 1);
            }
            assert_eq!(delivery.run().await.1, "");
        }
    }

    #[tokio::test]
    async fn authorities_that_the_host_does_not_trust_are_deleted() {
        let mut delivery = Delivery::new();
        delivery.settings.aws.ca_bundle = None;
        delivery.settings.aws.endpoint_url = Some("http://127.0.0.1:1".to_owned());
        let (prefix, _) = delivery.run().await;
        let key = keys::agent_file(&prefix, bootstrap::CA_BUNDLE);
        delivery.memory.objects.insert(&key, "another's authorities");
        assert!(delivery.run().await.1.contains(&key));
        assert_eq!(delivery.memory.objects.contents(&key), None);
    }
}
