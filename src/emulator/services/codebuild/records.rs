//! Projects and builds, by account and region.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::authorization::RoleSession;
use crate::caller::Caller;
use crate::clock;
use crate::host::Isolation;
use crate::partition::partition;
use crate::protocol::{ApiError, epoch_seconds, text};
use crate::services::ecr::ImageStore;
use crate::services::logs::Logs;
use crate::services::secrets::SecretVault;
use crate::shared::Shared;
use crate::store::Store;

/// The name of a project with its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProjectKey {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) name: String,
}

impl ProjectKey {
    pub(super) fn new(name: &str, caller: &Caller) -> Self {
        Self { account: caller.account.clone(), region: caller.region.clone(), name: name.to_owned() }
    }

    pub(super) fn arn(&self) -> String {
        self.resource("project", &self.name)
    }

    pub(super) fn resource(&self, kind: &str, name: &str) -> String {
        let Self { account, region, .. } = self;
        format!("arn:{}:codebuild:{region}:{account}:{kind}/{name}", partition(region))
    }
}

/// A project.
#[derive(Debug, Clone)]
pub(super) struct ProjectRecord {
    /// The members of `CreateProject`, as later changes left them.
    pub(super) definition: Value,
    pub(super) created_ms: u64,
    pub(super) modified_ms: u64,
    /// Builds so far.
    pub(super) builds: u64,
}

/// One phase of a build that has begun.
#[derive(Debug, Clone)]
pub(super) struct PhaseRecord {
    pub(super) kind: String,
    pub(super) begun_ms: u64,
    /// Status and time of its end.
    pub(super) ended: Option<(&'static str, u64)>,
    /// Status code and message.
    pub(super) context: Option<(String, String)>,
}

/// A build.
#[derive(Debug, Clone)]
pub(super) struct BuildRecord {
    pub(super) project: ProjectKey,
    /// `NAME:UUID`.
    pub(super) id: String,
    pub(super) number: u64,
    /// Source, environment, logs and so on: those of the project with what the request puts over them.
    pub(super) definition: Value,
    pub(super) role: RoleSession,
    pub(super) initiator: String,
    pub(super) begun_ms: u64,
    pub(super) ended_ms: Option<u64>,
    pub(super) status: &'static str,
    pub(super) phases: Vec<PhaseRecord>,
    /// The request that began it, which may be repeated with the same token.
    pub(super) request: Value,
    pub(super) stop: CancellationToken,
}

impl BuildRecord {
    /// The unique part of the id, which names the log stream too.
    pub(super) fn unique(&self) -> &str {
        self.id.rsplit(':').next().unwrap_or_default()
    }

    pub(super) fn begin(&mut self, kind: &str) {
        let phase = PhaseRecord { kind: kind.to_owned(), begun_ms: clock::now_ms(), ended: None, context: None };
        self.phases.push(phase);
    }

    /// Ends the phase that runs.
    pub(super) fn end(&mut self, status: &'static str, context: Option<(String, String)>) {
        if let Some(phase) = self.phases.last_mut().filter(|phase| phase.ended.is_none()) {
            phase.ended = Some((status, clock::now_ms()));
            phase.context = context;
        }
    }

    /// Log group and stream.
    pub(super) fn log_place(&self) -> (String, String) {
        let configured = &self.definition["logsConfig"]["cloudWatchLogs"];
        let group = text(configured, "groupName")
            .map_or_else(|| format!("/aws/codebuild/{}", self.project.name), str::to_owned);
        let prefix = text(configured, "streamName").map_or(String::new(), |prefix| format!("{prefix}/"));
        (group, format!("{prefix}{}", self.unique()))
    }

    /// As `BatchGetBuilds` shows it.
    pub(super) fn description(&self) -> Value {
        let (group, stream) = self.log_place();
        let group_arn = {
            let ProjectKey { account, region, .. } = &self.project;
            format!("arn:{}:logs:{region}:{account}:log-group:{group}:log-stream:{stream}", partition(region))
        };
        let phases: Vec<Value> = self.phases.iter().map(phase_description).collect();
        let mut shown = json!({
            "id": self.id,
            "arn": self.project.resource("build", &self.id),
            "buildNumber": self.number,
            "startTime": epoch_seconds(self.begun_ms),
            "currentPhase": self.phases.last().map_or("SUBMITTED", |phase| phase.kind.as_str()),
            "buildStatus": self.status,
            "projectName": self.project.name,
            "phases": phases,
            "logs": {"groupName": group, "streamName": stream, "cloudWatchLogsArn": group_arn, "cloudWatchLogs": self.definition["logsConfig"]["cloudWatchLogs"]},
            "buildComplete": self.ended_ms.is_some(),
            "initiator": self.initiator,
        });
        for member in [
            "source",
            "artifacts",
            "environment",
            "serviceRole",
            "timeoutInMinutes",
            "queuedTimeoutInMinutes",
            "encryptionKey",
            "vpcConfig",
            "sourceVersion",
        ] {
            if !self.definition[member].is_null() {
                shown[member] = self.definition[member].clone();
            }
        }
        if let Some(ended) = self.ended_ms {
            shown["endTime"] = epoch_seconds(ended);
        }
        shown
    }
}

fn phase_description(phase: &PhaseRecord) -> Value {
    let mut shown = json!({"phaseType": phase.kind, "startTime": epoch_seconds(phase.begun_ms)});
    if let Some((status, ended)) = phase.ended {
        shown["phaseStatus"] = json!(status);
        shown["endTime"] = epoch_seconds(ended);
        shown["durationInSeconds"] = json!(ended.saturating_sub(phase.begun_ms) / 1000);
    }
    if let Some((code, message)) = &phase.context {
        shown["contexts"] = json!([{"statusCode": code, "message": message}]);
    }
    shown
}

#[derive(Debug, Default)]
pub(super) struct BuildRecords {
    pub(super) projects: BTreeMap<ProjectKey, ProjectRecord>,
    /// By id; ids are unique in all accounts.
    pub(super) builds: BTreeMap<String, BuildRecord>,
    /// The build of each idempotency token, by project.
    pub(super) tokens: BTreeMap<(ProjectKey, String), String>,
}

/// The service with the parts of the emulator that run a build.
pub(crate) struct CodeBuild {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<Store>,
    pub(super) logs: Arc<Logs>,
    pub(super) images: Arc<ImageStore>,
    pub(super) secrets: Arc<SecretVault>,
    state: Mutex<BuildRecords>,
    isolation: OnceCell<Isolation>,
}

impl CodeBuild {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        store: &Arc<Store>,
        logs: &Arc<Logs>,
        images: &Arc<ImageStore>,
        secrets: &Arc<SecretVault>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            store: Arc::clone(store),
            logs: Arc::clone(logs),
            images: Arc::clone(images),
            secrets: Arc::clone(secrets),
            state: Mutex::default(),
            isolation: OnceCell::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, BuildRecords> {
        self.state.lock()
    }

    /// Changes a build; nothing when there is none of this id.
    pub(super) fn change(&self, id: &str, act: impl FnOnce(&mut BuildRecord)) {
        if let Some(build) = self.state().builds.get_mut(id) {
            act(build);
        }
    }

    /// The machine's isolation, which is detected once.
    pub(super) async fn isolation(&self, scratch: &Path) -> anyhow::Result<Isolation> {
        self.isolation.get_or_try_init(|| Isolation::detect(scratch)).await.copied()
    }
}

pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidInputException", message)
}

pub(super) fn project_not_found(key: &ProjectKey) -> ApiError {
    ApiError::new("ResourceNotFoundException", format!("Project cannot be found: {}", key.arn()))
}
