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
    pub fn none() -> Self {
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
    /// Bytes of paths and targets, and of the keys of packs.
    names: u64,
    /// Parts of a tree's manifest.
    parts: u64,
    limits: TransferLimits,
    /// How the job can send less.
    less: &'static str,
}

impl Quota {
    pub(crate) fn new(limits: &TransferLimits) -> Self {
        Self {
            bytes: limits.max_bytes,
            entries: limits.max_files,
            fetched: limits.max_bytes.saturating_add(FETCH_SLACK),
            names: limits.max_names,
            parts: limits.max_files.saturating_add(1),
            limits: limits.clone(),
            less: SELECT_LESS,
        }
    }

    /// The quota of what is held in memory of the manifest of a whole project, which a container has sent.
    pub(crate) fn of_a_tree(limits: &TransferLimits) -> Self {
        Self { less: "let the script leave fewer files in the project", ..Self::new(limits) }
    }

    /// Returns the quota of content that became void.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: u64, entry: &Entry) -> anyhow::Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| self.too_large(entry))?;
        Ok(())
    }

    /// Counts fetched bytes: a manifest could name little content and cause large fetches.
    pub(crate) fn fetch(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.fetched = self.fetched.checked_sub(bytes).context("the manifest asks for more than its content needs")?;
        Ok(())
    }

    pub(crate) fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| self.too_many("entries"))?;
        self.name(entry.path.len() + entry.target.len())
    }

    /// Counts the key of a pack that is held in memory.
    pub(crate) fn pack(&mut self, key: &str) -> anyhow::Result<()> {
        self.name(key.len())
    }

    /// Counts a part of a manifest that is read to its end.
    pub(crate) fn part(&mut self) -> anyhow::Result<()> {
        self.parts = self.parts.checked_sub(1).ok_or_else(|| self.too_many("parts of the manifest"))?;
        Ok(())
    }

    fn name(&mut self, length: usize) -> anyhow::Result<()> {
        self.names = self.names.checked_sub(length as u64).ok_or_else(|| {
            let most = self.limits.max_names >> 20;
            Failure::system(format!("the names of the manifest have more than {most} MiB together")).hint(self.less)
        })?;
        Ok(())
    }

    fn too_many(&self, of: &str) -> anyhow::Error {
        let message = format!("there are more than {} {of}, which are the most that may come", self.limits.max_files);
        self.refused(message, "limits.results_max_files")
    }

    fn too_large(&self, entry: &Entry) -> anyhow::Error {
        let name = shown(&entry.path);
        let message = format!("with {name} the content exceeds the {} bytes that may come", self.limits.max_bytes);
        self.refused(message, "limits.results_max_bytes")
    }

    fn refused(&self, message: String, key: &str) -> anyhow::Error {
        Failure::user(message).hint(format!("{}, or ask the operator to raise `{key}`", self.less)).into()
    }
}

const SELECT_LESS: &str = "select less with the job's `artifacts` and `cache` paths";
