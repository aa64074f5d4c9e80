//! How much may come.

use anyhow::Context as _;

use crate::base::failure::Failure;
use crate::workspace::manifest::Entry;
use crate::workspace::path::shown;

/// How much a container may send back. The operator sets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferLimits {
    /// Bytes of uncompressed content. Default 100 GiB.
    pub max_bytes: u64,
    /// Entries: files, directories, links and deletions. Default 1,000,000.
    pub max_files: u64,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self { max_bytes: 100 << 30, max_files: 1_000_000 }
    }
}

impl TransferLimits {
    /// For what comes from the host itself.
    pub(crate) fn none() -> Self {
        Self { max_bytes: u64::MAX, max_files: u64::MAX }
    }
}

/// A transfer may fetch so many bytes more than its content has.
const FETCH_SLACK: u64 = 1 << 30;
/// Most bytes of paths and targets of a transfer that is not trusted: they are held in memory until all are judged.
const NAMES: u64 = 128 << 20;

/// What may still come.
pub(crate) struct Quota {
    bytes: u64,
    entries: u64,
    fetched: u64,
    /// Bytes of paths and targets.
    names: u64,
    limits: TransferLimits,
}

impl Quota {
    pub(crate) fn new(limits: &TransferLimits) -> Self {
        Self {
            bytes: limits.max_bytes,
            entries: limits.max_files,
            fetched: limits.max_bytes.saturating_add(FETCH_SLACK),
            names: if *limits == TransferLimits::none() { u64::MAX } else { NAMES },
            limits: limits.clone(),
        }
    }

    /// Content that is void counts no more.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: u64, entry: &Entry) -> anyhow::Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| too_large(entry, &self.limits))?;
        Ok(())
    }

    /// Content can ask for little and make us fetch much; whoever does that is stopped.
    pub(crate) fn fetch(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.fetched = self.fetched.checked_sub(bytes).context("the manifest asks for more than its content needs")?;
        Ok(())
    }

    pub(crate) fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| too_many(&self.limits))?;
        let name = (entry.path.len() + entry.target.len()) as u64;
        self.names =
            self.names.checked_sub(name).context("the names of the manifest have more than 128 MiB together")?;
        Ok(())
    }
}

const FEWER: &str = "select less with the job's `artifacts` and `cache` paths, or ask the operator for a higher limit";

fn too_many(limits: &TransferLimits) -> anyhow::Error {
    let message = format!("there are more than {} entries, which are the most that may come", limits.max_files);
    Failure::user(message).hint(FEWER).into()
}

fn too_large(entry: &Entry, limits: &TransferLimits) -> anyhow::Error {
    let name = shown(&entry.path);
    let message = format!("with {name} the content exceeds the {} bytes that may come", limits.max_bytes);
    Failure::user(message).hint(FEWER).into()
}
