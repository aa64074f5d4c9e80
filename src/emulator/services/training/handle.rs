//! A job while it lives: what does not change, and the way to its record.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::job::{Job, Phase};
use super::state::Training;
use crate::config::EmulatorConfig;

/// One job of the service.
pub(super) struct JobHandle {
    pub(super) training: Arc<Training>,
    pub(super) name: String,
    /// The request that created it.
    pub(super) request: Value,
    pub(super) region: String,
    pub(super) arn: String,
    pub(super) stop: CancellationToken,
    /// Where its hosts' files are.
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

    pub(super) fn say(&self, message: &str) {
        self.change(|job| {
            if job.phase() != Phase::Stopping {
                job.say(message);
            }
        });
    }
}
