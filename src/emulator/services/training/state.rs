//! The state of the training service: its jobs, and the parts of other services that they use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::job::Job;
use crate::host::Means;
use crate::services::logs::Logs;
use crate::shared::Shared;
use crate::store::Store;

/// All training jobs of the account.
#[derive(Debug)]
pub(crate) struct Training {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<Store>,
    pub(super) logs: Arc<Logs>,
    jobs: Mutex<BTreeMap<String, Job>>,
    means: OnceCell<Means>,
}

impl Training {
    pub(crate) fn new(shared: &Arc<Shared>, store: &Arc<Store>, logs: &Arc<Logs>) -> Self {
        Self {
            shared: Arc::clone(shared),
            store: Arc::clone(store),
            logs: Arc::clone(logs),
            jobs: Mutex::default(),
            means: OnceCell::new(),
        }
    }

    /// Jobs by name.
    pub(super) fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this machine offers for containers; tried out once.
    pub(super) async fn means(&self) -> anyhow::Result<Means> {
        self.means.get_or_try_init(|| Means::detect(&self.shared.config.data_dir)).await.copied()
    }
}
