//! The state of the training service: its jobs, and the state of other services that they use.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::job::{Job, Phase};
use super::warm_hosts::WarmHosts;
use crate::authorization::RoleSession;
use crate::config::EmulatorConfig;
use crate::faults::JobTrouble;
use crate::host::Isolation;
use crate::services::ecr::ImageStore;
use crate::services::logs::Logs;
use crate::shared::Shared;
use crate::store::Store;

/// All training jobs of the account.
#[derive(Debug)]
pub(crate) struct Training {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<Store>,
    pub(super) logs: Arc<Logs>,
    pub(super) images: Arc<ImageStore>,
    jobs: Mutex<BTreeMap<String, Job>>,
    /// Locked after the jobs when both are.
    pools: Mutex<Vec<WarmHosts>>,
    isolation: OnceCell<Isolation>,
}

impl Training {
    pub(crate) fn new(shared: &Arc<Shared>, store: &Arc<Store>, logs: &Arc<Logs>, images: &Arc<ImageStore>) -> Self {
        Self {
            shared: Arc::clone(shared),
            store: Arc::clone(store),
            logs: Arc::clone(logs),
            images: Arc::clone(images),
            jobs: Mutex::default(),
            pools: Mutex::default(),
            isolation: OnceCell::new(),
        }
    }

    /// Applies a fault at once to a job whose containers run: an interruption to spot jobs alone, and also while their results are
    /// uploaded. `false` for any other job.
    pub(crate) fn strike(&self, name: &str, trouble: JobTrouble) -> bool {
        let mut jobs = self.jobs();
        let Some(job) = jobs.get_mut(name) else { return false };
        let can_hit = match trouble {
            JobTrouble::SpotInterruption { .. } => {
                job.request["EnableManagedSpotTraining"] == true
                    && matches!(job.phase(), Phase::Training | Phase::Uploading)
            }
            JobTrouble::Kill { .. } | JobTrouble::HostFailure { .. } => job.phase() == Phase::Training,
            _ => false,
        };
        // Each start of the containers is hit once.
        can_hit && job.strike.take().is_some_and(|strike| strike.send(trouble).is_ok())
    }

    /// Jobs by name.
    pub(super) fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock()
    }

    /// The warm pools, the oldest first.
    pub(super) fn pools(&self) -> MutexGuard<'_, Vec<WarmHosts>> {
        self.pools.lock()
    }

    /// The isolation that this machine offers; detected once.
    pub(super) async fn isolation(&self) -> anyhow::Result<Isolation> {
        self.isolation.get_or_try_init(|| Isolation::detect(&self.shared.config.data_dir)).await.copied()
    }
}

/// A running job: its constant parts, and access to its record.
pub(super) struct JobHandle {
    pub(super) training: Arc<Training>,
    pub(super) name: String,
    /// The request that created it.
    pub(super) request: Value,
    pub(super) region: String,
    pub(super) arn: String,
    /// The session of the execution role, for the containers and the platform.
    pub(super) role: RoleSession,
    pub(super) stop: CancellationToken,
    /// Folder of its hosts' files.
    pub(super) folder: PathBuf,
}

impl JobHandle {
    pub(super) fn config(&self) -> &EmulatorConfig {
        &self.training.shared.config
    }

    pub(super) fn image_name(&self) -> &str {
        self.request.pointer("/AlgorithmSpecification/TrainingImage").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether a flag of the request is on.
    pub(super) fn asks_for(&self, flag: &str) -> bool {
        self.request.get(flag).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn seconds(&self, pointer: &str) -> Option<Duration> {
        self.request.pointer(pointer).and_then(Value::as_u64).map(Duration::from_secs)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.training.jobs().get_mut(&self.name) {
            change(job);
        }
    }

    /// Enters a phase, unless a stop was accepted in the meantime and this is not the end.
    pub(super) fn enter(&self, phase: Phase, message: &str) {
        self.change(|job| {
            if phase.ended() || job.phase() != Phase::Stopping {
                job.enter(phase, message);
            }
        });
    }

    pub(super) fn set_message(&self, message: &str) {
        self.change(|job| {
            if job.phase() != Phase::Stopping {
                job.set_message(message);
            }
        });
    }
}
