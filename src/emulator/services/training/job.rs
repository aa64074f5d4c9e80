//! The record of one training job, and its form in the replies of Describe and List.
//!
//! `life.rs` decides when it changes.

use serde::Serialize;
use serde_json::{Value, json};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::final_metrics::FinalMetric;
use crate::clock;
use crate::faults::JobTrouble;
use crate::protocol::{epoch_seconds, text};

/// Instances that a job has or may have: their types with their numbers, one for each group.
pub(crate) type Instances = Vec<(String, u64)>;

/// The secondary status of a job; the primary status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Phase {
    Starting,
    Pending,
    Downloading,
    Training,
    Interrupted,
    Uploading,
    Stopping,
    Completed,
    Failed,
    Stopped,
    MaxRuntimeExceeded,
    MaxWaitTimeExceeded,
}

impl Phase {
    pub(crate) fn primary(self) -> &'static str {
        match self {
            Phase::Stopping => "Stopping",
            Phase::Completed => "Completed",
            Phase::Failed => "Failed",
            Phase::Stopped | Phase::MaxRuntimeExceeded | Phase::MaxWaitTimeExceeded => "Stopped",
            Phase::Starting
            | Phase::Pending
            | Phase::Downloading
            | Phase::Training
            | Phase::Interrupted
            | Phase::Uploading => "InProgress",
        }
    }

    pub(crate) fn ended(self) -> bool {
        !matches!(self.primary(), "InProgress" | "Stopping")
    }
}

/// The state of the instances that a job wants kept in a warm pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum PoolPhase {
    /// The job runs on them.
    InUse,
    Available,
    /// Another job runs on them.
    Reused,
    Terminated,
}

/// One entry of the history.
#[derive(Debug, Clone)]
struct Transition {
    phase: Phase,
    start_ms: u64,
    end_ms: Option<u64>,
    message: String,
}

/// A training job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) arn: String,
    /// The request that created it, as it was sent.
    pub(crate) request: Value,
    pub(crate) created_ms: u64,
    /// Order of creation, since several jobs can share a millisecond.
    pub(crate) number: u64,
    /// Canceled by `StopTrainingJob`.
    pub(crate) stop: CancellationToken,
    /// Takes a fault that comes at once; `None` while nothing runs that it could hit.
    pub(crate) strike: Option<oneshot::Sender<JobTrouble>>,
    /// The last values of its metrics.
    pub(super) metrics: Vec<FinalMetric>,
    modified_ms: u64,
    phase: Phase,
    transitions: Vec<Transition>,
    failure_reason: Option<String>,
    /// Types and numbers of its instances; for a list of preferences, absent until one is selected.
    pub(crate) instances: Option<Instances>,
    pool: Option<PoolPhase>,
    /// When the job left its instances to a pool.
    pool_since_ms: Option<u64>,
    /// Time for which they waited in it.
    pool_ms: Option<u64>,
    reused_by: Option<String>,
    training_start_ms: Option<u64>,
    training_end_ms: Option<u64>,
    billable_ms: u64,
}

impl Job {
    /// A job that was just accepted.
    pub(crate) fn new(request: Value, arn: String, number: u64, stop: CancellationToken) -> Self {
        let now = clock::now_ms();
        let mut job = Self {
            name: text(&request, "TrainingJobName").unwrap_or_default().to_owned(),
            arn,
            request,
            created_ms: now,
            number,
            stop,
            strike: None,
            metrics: Vec::new(),
            modified_ms: now,
            phase: Phase::Starting,
            transitions: Vec::new(),
            failure_reason: None,
            instances: None,
            pool: None,
            pool_since_ms: None,
            pool_ms: None,
            reused_by: None,
            training_start_ms: None,
            training_end_ms: None,
            billable_ms: 0,
        };
        job.enter(Phase::Starting, "Starting the training job");
        job
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Enters a phase; the one before ends now.
    pub(crate) fn enter(&mut self, phase: Phase, message: &str) {
        let now = clock::now_ms();
        if let Some(last) = self.transitions.last_mut() {
            last.end_ms = Some(now);
        }
        self.transitions.push(Transition {
            phase,
            start_ms: now,
            end_ms: phase.ended().then_some(now),
            message: message.to_owned(),
        });
        self.phase = phase;
        self.modified_ms = now;
        if phase.ended() && self.training_start_ms.is_some() && self.training_end_ms.is_none() {
            self.training_end_ms = Some(now);
        }
    }

    /// Changes the status message of the current phase.
    pub(crate) fn set_message(&mut self, message: &str) {
        if let Some(last) = self.transitions.last_mut() {
            message.clone_into(&mut last.message);
        }
        self.modified_ms = clock::now_ms();
    }

    /// None of its preferred types has capacity.
    pub(crate) fn lose_selection(&mut self) {
        if self.request.pointer("/ResourceConfig/InstancePreferences").is_some() {
            self.instances = None;
        }
    }

    /// The instances are up: billing begins.
    pub(crate) fn training_starts(&mut self) {
        self.training_start_ms.get_or_insert_with(clock::now_ms);
    }

    /// For a failed job billing ends when the failure is seen, before the upload.
    pub(crate) fn training_ends(&mut self) {
        if self.training_start_ms.is_some() {
            self.training_end_ms.get_or_insert_with(clock::now_ms);
        }
    }

    /// Whether its instances were up.
    pub(crate) fn ran(&self) -> bool {
        self.training_start_ms.is_some()
    }

    pub(crate) fn pool(&self) -> Option<PoolPhase> {
        self.pool
    }

    /// Its instances are to go to a warm pool, or came from one.
    pub(crate) fn use_pool(&mut self) {
        self.pool = Some(PoolPhase::InUse);
    }

    /// Its instances wait in a warm pool from now on.
    pub(crate) fn leave_pool(&mut self) {
        self.pool = Some(PoolPhase::Available);
        self.pool_since_ms = Some(clock::now_ms());
    }

    /// Its instances are gone, or another job has them.
    pub(crate) fn end_pool(&mut self, reused_by: Option<&str>) {
        let now = clock::now_ms();
        self.pool = Some(if reused_by.is_some() { PoolPhase::Reused } else { PoolPhase::Terminated });
        self.pool_ms = Some(now.saturating_sub(self.pool_since_ms.unwrap_or(now)));
        self.reused_by = reused_by.map(str::to_owned);
        self.modified_ms = now;
    }

    /// Adds time that instances ran for.
    pub(crate) fn bill(&mut self, ms: u64) {
        self.billable_ms += ms;
    }

    pub(crate) fn fail(&mut self, reason: &str) {
        self.failure_reason = Some(reason.chars().take(1024).collect());
    }

    /// Answer of `DescribeTrainingJob`.
    pub(crate) fn description(&self) -> Value {
        let mut shown = self.request.clone();
        if let Some(members) = shown.as_object_mut() {
            members.remove("Tags");
            members.remove("SessionChainingConfig");
            for flag in ["EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining"]
            {
                members.entry(flag).or_insert(Value::Bool(false));
            }
            members.entry("ProfilingStatus").or_insert(json!("Disabled"));
        }
        shown["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"] = self
            .request
            .pointer("/AlgorithmSpecification/EnableSageMakerMetricsTimeSeries")
            .cloned()
            .unwrap_or(Value::Bool(false));
        if shown["StoppingCondition"].get("MaxRuntimeInSeconds").is_none() {
            shown["StoppingCondition"]["MaxRuntimeInSeconds"] = json!(86_400);
        }
        if let Some((name, count)) = self.instances.iter().flatten().next()
            && self.request.pointer("/ResourceConfig/InstancePreferences").is_some()
        {
            shown["ResourceConfig"]["SelectedInstanceType"] = json!(name);
            shown["ResourceConfig"]["SelectedInstanceCount"] = json!(count);
        }
        let output = self.request.pointer("/OutputDataConfig/S3OutputPath").and_then(Value::as_str).unwrap_or_default();
        let model = if has_loose_results(&self.request) { "model" } else { "model.tar.gz" };
        shown["ModelArtifacts"] =
            json!({"S3ModelArtifacts": format!("{}/{}/output/{model}", output.trim_end_matches('/'), self.name)});
        if let Some(pool) = self.pool_status() {
            shown["WarmPoolStatus"] = pool;
        }
        shown["TrainingJobArn"] = json!(self.arn);
        shown["TrainingJobStatus"] = json!(self.phase.primary());
        shown["SecondaryStatus"] = json!(self.phase);
        shown["CreationTime"] = epoch_seconds(self.created_ms);
        shown["LastModifiedTime"] = epoch_seconds(self.modified_ms);
        shown["SecondaryStatusTransitions"] = self
            .transitions
            .iter()
            .map(|transition| {
                let mut entry = json!({
                    "Status": transition.phase,
                    "StartTime": epoch_seconds(transition.start_ms),
                    "StatusMessage": transition.message,
                });
                if let Some(end) = transition.end_ms {
                    entry["EndTime"] = epoch_seconds(end);
                }
                entry
            })
            .collect();
        if !self.metrics.is_empty() {
            shown["FinalMetricDataList"] = self.metrics.iter().map(FinalMetric::shown).collect();
        }
        if let Some(reason) = &self.failure_reason {
            shown["FailureReason"] = json!(reason);
        }
        if let Some(start) = self.training_start_ms {
            shown["TrainingStartTime"] = epoch_seconds(start);
        }
        if let (Some(start), Some(end)) = (self.training_start_ms, self.training_end_ms) {
            shown["TrainingEndTime"] = epoch_seconds(end);
            let training = end.saturating_sub(start);
            let spot = self.request.get("EnableManagedSpotTraining").and_then(Value::as_bool).unwrap_or(false);
            // Spot jobs are billed at a typical saving, so that clients can compute one.
            let billable = if spot { self.billable_ms * 3 / 10 } else { training };
            shown["TrainingTimeInSeconds"] = json!(training.div_ceil(1000).max(1));
            shown["BillableTimeInSeconds"] = json!(billable.div_ceil(1000).max(1));
        }
        shown
    }

    fn pool_status(&self) -> Option<Value> {
        let mut status = json!({"Status": self.pool?});
        if let Some(ms) = self.pool_ms {
            status["ResourceRetainedBillableTimeInSeconds"] = json!(ms.div_ceil(1000));
        }
        if let Some(job) = &self.reused_by {
            status["ReusedByJob"] = json!(job);
        }
        Some(status)
    }

    /// Entry of `ListTrainingJobs`.
    pub(crate) fn summary(&self) -> Value {
        let mut entry = json!({
            "TrainingJobName": self.name,
            "TrainingJobArn": self.arn,
            "CreationTime": epoch_seconds(self.created_ms),
            "LastModifiedTime": epoch_seconds(self.modified_ms),
            "TrainingJobStatus": self.phase.primary(),
            "SecondaryStatus": self.phase,
        });
        if let Some(end) = self.training_end_ms {
            entry["TrainingEndTime"] = epoch_seconds(end);
        }
        if let Some(pool) = self.pool_status() {
            entry["WarmPoolStatus"] = pool;
        }
        entry
    }

    pub(crate) fn modified_ms(&self) -> u64 {
        self.modified_ms
    }
}

/// Whether the results are uploaded file by file.
pub(super) fn has_loose_results(request: &Value) -> bool {
    request.pointer("/OutputDataConfig/CompressionType").and_then(Value::as_str) == Some("NONE")
}
