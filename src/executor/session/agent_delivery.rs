//! Delivers the agent to the container: uploads this executable once per version, as an input channel.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::base::backoff::backoff;
use crate::cloud::{CloudError, CloudErrorKind, ObjectStore};
use crate::config::settings::Settings;
use crate::logs::chance;
use crate::protocol::{bootstrap, keys};

/// CA bundles of common distributions, tried in order: an image may have none of its own.
const CA_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

const PAUSES: ExponentialBuilder = backoff(Duration::from_millis(500), Duration::from_secs(8));
/// Longest wait for another driver that uploads the agent.
const SENT_WITHIN: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

/// Ensures that the agent's files are in the bucket, and returns their key prefix, `agents/<hash>`. Retries while S3
/// throttles: many jobs that begin together reach its limits.
pub async fn deliver_until(objects: &dyn ObjectStore, settings: &Settings, until: Instant) -> anyhow::Result<String> {
    let is_throttled = |error: &CloudError| error.kind == CloudErrorKind::Throttled;
    (|| deliver(objects, settings, until))
        .retry(PAUSES)
        .when(|error| error.downcast_ref().is_some_and(is_throttled))
        .adjust(|_, pause| Some(pause?.mul_f64(0.5 + chance())).filter(|pause| Instant::now() + *pause < until))
        .notify(|error, _| {
            tracing::debug!(error = format!("{error:#}"), "failed to put the agent into the bucket; trying again");
        })
        .await
}

async fn deliver(objects: &dyn ObjectStore, settings: &Settings, until: Instant) -> anyhow::Result<String> {
    // The link itself: it stays readable after an upgrade replaced the file.
    let binary = PathBuf::from("/proc/self/exe");
    let bundle = ca_bundle(settings)?;
    let start = bootstrap::start_script();
    let mut hash = blake3::Hasher::new();
    for part in [binary_hash(&binary, &settings.runner.state_dir)?.as_bytes(), start.as_bytes(), &bundle] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let prefix = keys::agent(&hash.finalize().to_hex()[..32]);
    let key = |name: &str| keys::agent_file(&prefix, name);
    let files = [(bootstrap::START, start.into_bytes()), (bootstrap::CA_BUNDLE, bundle)];
    let is_whole = |there: &[String]| {
        there.contains(&key(bootstrap::BINARY))
            && files.iter().all(|(name, body)| body.is_empty() || there.contains(&key(name)))
    };
    let mut there = objects.list(&key("")).await?;
    if is_whole(&there) {
        return Ok(prefix);
    }
    // After an upgrade one of the drivers that begin together uploads, and the others find its files.
    let _turn = turn(&settings.runner.state_dir, until).await;
    there = objects.list(&key("")).await?;
    let missing = |name: &str| !there.contains(&key(name));
    for (name, body) in &files {
        if missing(name) && !body.is_empty() {
            objects.put(&key(name), body.clone()).await?;
        }
    }
    if missing(bootstrap::BINARY) {
        objects.put_file(&key(bootstrap::BINARY), &binary).await?;
    }
    Ok(prefix)
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
        tokio::time::sleep(POLL.mul_f64(0.5 + chance())).await;
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
    Ok(CA_BUNDLES.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default())
}

/// Cached hash of the executable, so that not every job computes it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HashNote {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    hash: String,
}

fn binary_hash(binary: &Path, state_dir: &Path) -> anyhow::Result<String> {
    let note_path = state_dir.join("agent.json");
    let mut file = fs::File::open(binary).with_context(|| format!("failed to open {}", binary.display()))?;
    let meta = file.metadata()?;
    let fresh = |note: &HashNote| {
        (note.device, note.inode, note.size) == (meta.dev(), meta.ino(), meta.size())
            && note.modified == (meta.mtime(), meta.mtime_nsec())
    };
    let note = fs::read(&note_path).ok().and_then(|text| serde_json::from_slice::<HashNote>(&text).ok());
    if let Some(note) = note.filter(fresh) {
        return Ok(note.hash);
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(buffer.get(..n).unwrap_or_default()),
        };
    }
    let hash = hasher.finalize().to_hex().to_string();
    let note = HashNote {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        hash: hash.clone(),
    };
    // Only a cache: without it the next job hashes again.
    if let Ok(file) = tempfile::NamedTempFile::new_in(state_dir)
        && serde_json::to_writer(&file, &note).is_ok()
    {
        drop(file.persist(&note_path));
    }
    Ok(hash)
}
