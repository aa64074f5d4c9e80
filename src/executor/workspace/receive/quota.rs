//! Limits the size of a received transfer.

use anyhow::Context as _;

use crate::base::failure::Failure;
use crate::workspace::manifest::Entry;
use crate::workspace::path::shown;

/// Limits of a container's results, set by the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferLimits {
    /// Uncompressed size. Default 100 GiB.
    pub max_bytes: u64,
    /// Number of entries: files, directories, links and deletions. Default 1,000,000.
    pub max_files: u64,
    /// Bytes of paths and targets, which are held in memory until all are judged. Default 128 MiB.
    pub max_names: u64,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self { max_bytes: 100 << 30, max_files: 1_000_000, max_names: 128 << 20 }
    }
}

impl TransferLimits {
    /// No limits, for transfers from the host.
    pub(crate) fn none() -> Self {
        Self { max_bytes: u64::MAX, max_files: u64::MAX, max_names: u64::MAX }
    }
}

/// Bytes that a transfer may fetch beyond its content's size.
const FETCH_SLACK: u64 = 1 << 30;

/// The remaining quota of a transfer.
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
            names: limits.max_names,
            limits: limits.clone(),
        }
    }

    /// Returns the quota of content that became void.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: u64, entry: &Entry) -> anyhow::Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| too_large(entry, &self.limits))?;
        Ok(())
    }

    /// Counts fetched bytes: a manifest could name little content and cause large fetches.
    pub(crate) fn fetch(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.fetched = self.fetched.checked_sub(bytes).context("the manifest asks for more than its content needs")?;
        Ok(())
    }

    pub(crate) fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| too_many(&self.limits))?;
        let name = (entry.path.len() + entry.target.len()) as u64;
        self.names = self.names.checked_sub(name).with_context(|| {
            format!("the names of the manifest have more than {} MiB together", self.limits.max_names >> 20)
        })?;
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
