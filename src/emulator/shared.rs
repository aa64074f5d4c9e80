//! State that all services share: configuration, faults, access keys, policies, tags, identifiers, tasks and the signal that ends them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::authorization::Authority;
use super::clock;
use super::config::EmulatorConfig;
use super::credentials::AccessKeys;
use super::faults::Faults;
use super::quirks::mixed;
use super::tags::Tags;

/// Path of the configurations of images, by their digest; it stands for presigned addresses.
pub(crate) const LAYERS_PATH: &str = "/_emulator/layers/";

/// Handed to each service; state of one service alone is in that service.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: EmulatorConfig,
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    pub(crate) faults: Faults,
    pub(crate) keys: AccessKeys,
    pub(crate) authority: Authority,
    pub(crate) tags: Tags,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    numbers: AtomicU64,
    started_ms: u64,
}

impl Shared {
    pub(crate) fn new(config: EmulatorConfig, endpoint: String) -> anyhow::Result<Self> {
        let authority = Authority::new(&config)?;
        Ok(Self {
            faults: Faults::new(config.faults.clone(), config.seed),
            keys: AccessKeys::new(authority.accounts(), &config.account)?,
            config,
            endpoint,
            authority,
            tags: Tags::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            numbers: AtomicU64::new(1),
            started_ms: clock::now_ms(),
        })
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// An identifier in the form of a UUID, never the same twice.
    pub(crate) fn next_id(&self) -> String {
        let number = self.next_number();
        let (high, low) = (mixed(self.started_ms, "id", number), mixed(number, "id", self.started_ms));
        let hex = format!("{high:016x}{low:016x}");
        let cut = |from, to| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", cut(0, 8), cut(8, 12), cut(12, 16), cut(16, 20), cut(20, 32))
    }

    /// The account's quota of instances of a name: a type, or `spot:` or `warm-pool:` and a type.
    pub(crate) fn instance_quota(&self, name: &str) -> Option<u64> {
        self.faults.instance_quota(name).or_else(|| self.config.instance_quotas.get(name).copied())
    }

    /// Whether a resource is visible by now; the fault plan can hide new ones for a while.
    pub(crate) fn is_visible(&self, created_ms: u64) -> bool {
        clock::now_ms() >= created_ms.saturating_add(self.faults.hidden_ms())
    }
}
