//! Fault plans: rules for failing calls, failing training jobs and lost or late log events. `docs/EMULATOR.md` describes the keys.
//!
//! Rules match by operation and count only, so a plan has the same effect each time.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::event::InputLogEvent;
use super::quirks::mixed;

/// A whole plan. Read from JSON; unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultPlan {
    /// Rules for calls; the first that matches acts.
    pub calls: Vec<CallFault>,
    /// Rules for training jobs; the first that matches acts.
    pub jobs: Vec<JobFault>,
    /// Rules for new model packages; the first that matches acts.
    pub packages: Vec<PackageFault>,
    /// Rules for endpoints that are created or updated; the first that matches acts.
    pub endpoints: Vec<EndpointFault>,
    /// Faults of log events between the container and CloudWatch.
    pub logs: LogFault,
    /// Requests a second that an operation allows while the plan is in force, as when other hosts of the account use up the
    /// rest; 0 lifts the quota.
    pub quotas: BTreeMap<String, f64>,
    /// Instances that may run at once, by type; `spot:` or `warm-pool:` before the type is another quota.
    pub instances: BTreeMap<String, u64>,
    /// A new training job is unknown to every operation but another `CreateTrainingJob` for so long, in milliseconds.
    pub hidden_ms: u64,
    /// Length of a minute of CodeBuild's time limits, in milliseconds; 60,000 when 0.
    pub build_minute_ms: u64,
    /// Milliseconds by which the services' clock is ahead of this machine's; less than 0: behind it.
    pub clock_ms: i64,
}

/// A fault of some calls of one operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallFault {
    /// `CreateTrainingJob`, `GetLogEvents`, `PutObject`, `GetCallerIdentity`, or `*` for all.
    pub operation: String,
    /// Text in the path of the request, which in S3 holds bucket and key. Then only such calls are hit and counted.
    #[serde(default)]
    pub path: Option<String>,
    /// First call that is hit, counted from 1 since the plan was set; calls of other operations do not count, except
    /// for `*`.
    #[serde(default = "one")]
    pub from: u64,
    /// How many calls are hit in a row; without it all that follow.
    #[serde(default)]
    pub count: Option<u64>,
    /// Share of these calls that are hit, of 1000; the seed decides which. Without it all.
    #[serde(default)]
    pub share: Option<u64>,
    /// Delays the call, in milliseconds, before any other effect of the rule; a new plan ends the delay.
    #[serde(default)]
    pub delay_ms: u64,
    /// The delayed operation happens even if the caller closes the connection meanwhile, as a request that AWS has accepted
    /// does; other effects of the rule are ignored. For requests of 8 MiB at most.
    #[serde(default)]
    pub accepted: bool,
    /// Answers with this error code; the operation does not happen.
    #[serde(default)]
    pub error: Option<String>,
    /// The error's text.
    #[serde(default)]
    pub message: Option<String>,
    /// The error's HTTP status; 400 when absent.
    #[serde(default)]
    pub status: Option<u16>,
    /// Closes the connection: before the operation, after it without an answer, or in the middle of the answer's body.
    #[serde(default)]
    pub drop: Option<DropPoint>,
    /// The connection that `drop` closes is reset (RST) rather than ended (FIN).
    #[serde(default)]
    pub reset: bool,
    /// Answers what the same request was answered the last time while the plan was in force; the operation does not happen.
    /// The first such request is answered truly.
    #[serde(default)]
    pub stale: bool,
}

/// When a connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropPoint {
    Before,
    After,
    Within,
}

/// A fault of some training jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFault {
    /// Instance type that is hit, or `*` for all.
    #[serde(default = "any")]
    pub instance_type: String,
    /// How many jobs are hit; without it all.
    #[serde(default)]
    pub count: Option<u64>,
    pub trouble: JobTrouble,
}

/// The effect of a [`JobFault`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JobTrouble {
    /// Fails while starting with `CapacityError: ...`.
    Capacity,
    /// Fails with `InternalServerError: ...` while training.
    Internal,
    /// Fails with this reason instead of running its container.
    Fail { reason: String },
    /// Waits in `Pending` for this long, in milliseconds.
    Pending { ms: u64 },
    /// A spot instance is taken away after this long in `Training`, in milliseconds, and a random time of at most `spread_ms`
    /// more; the job starts once more. Its containers have `grace_ms` between SIGTERM and SIGKILL.
    SpotInterruption {
        after_ms: u64,
        #[serde(default)]
        spread_ms: u64,
        #[serde(default)]
        grace_ms: Option<u64>,
    },
    /// An instance is lost after this long in `Training`, in milliseconds: an `InternalServerError`.
    HostFailure { after_ms: u64 },
    /// The upload of model and output fails with this reason.
    Upload { reason: String },
    /// The container is killed after this long in `Training`, in milliseconds, as the kernel does when memory is out.
    Kill { after_ms: u64 },
}

/// The way of some model packages to their end; all others are complete at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFault {
    /// Group of the versions that are hit, or name of a package without a group; `*` for all.
    #[serde(default = "any")]
    pub name: String,
    /// How many packages are hit; without it all.
    #[serde(default)]
    pub count: Option<u64>,
    /// Time in `Pending`, in milliseconds.
    #[serde(default)]
    pub pending_ms: u64,
    /// Time in `InProgress` after that, in milliseconds.
    #[serde(default)]
    pub in_progress_ms: u64,
    /// Ends in `Failed` with this reason.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The way of some endpoints through a creation or an update.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointFault {
    /// Name of the endpoints that are hit; `*` for all.
    #[serde(default = "any")]
    pub name: String,
    /// `CreateEndpoint`, `UpdateEndpoint`, `UpdateEndpointWeightsAndCapacities`, or `*` for all.
    #[serde(default = "any")]
    pub operation: String,
    /// How many creations and updates are hit; without it all.
    #[serde(default)]
    pub count: Option<u64>,
    /// Least time until the instances are ready, in milliseconds.
    #[serde(default)]
    pub provisioning_ms: u64,
    /// The instances fail with this reason after that.
    #[serde(default)]
    pub reason: Option<String>,
    /// Time of a rollback, in milliseconds.
    #[serde(default)]
    pub rollback_ms: u64,
    /// A rollback fails.
    #[serde(default)]
    pub rollback_fails: bool,
    /// Time of the deletion, in milliseconds.
    #[serde(default)]
    pub deleting_ms: u64,
}

/// Faults of log events. Chances are of 1000.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogFault {
    /// Events that never arrive.
    pub lost: u64,
    /// Events that arrive twice.
    pub doubled: u64,
    /// Batches whose events arrive in reverse order; the timestamps stay sorted.
    pub shuffled: u64,
    /// Batches that become visible later than those behind them.
    pub late: u64,
    /// How much later, in milliseconds.
    pub late_ms: u64,
}

fn one() -> u64 {
    1
}

fn any() -> String {
    "*".to_owned()
}

/// The current plan and the counts of its rules.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    state: Mutex<State>,
    replaced: Notify,
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    calls: BTreeMap<String, u64>,
    all_calls: u64,
    /// By the index of the rule, for rules with a path.
    calls_of_path: BTreeMap<usize, u64>,
    jobs: BTreeMap<usize, u64>,
    packages: BTreeMap<usize, u64>,
    endpoints: BTreeMap<usize, u64>,
    events: u64,
}

/// A batch of events, and its extra delay until readers see it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) events: Vec<InputLogEvent>,
    pub(crate) late: Duration,
}

impl Faults {
    pub(crate) fn new(plan: FaultPlan, seed: u64) -> Self {
        Self { seed, state: Mutex::new(State { plan, ..State::default() }), replaced: Notify::new() }
    }

    /// Replaces the plan; all counts begin again.
    pub(crate) fn set(&self, plan: FaultPlan) {
        *self.state.lock() = State { plan, ..State::default() };
        self.replaced.notify_waiters();
    }

    /// Waits for the next plan.
    pub(crate) fn replaced(&self) -> Notified<'_> {
        self.replaced.notified()
    }

    /// Counts a call of an operation, and returns the rule that it meets.
    pub(crate) fn call(&self, operation: &str, path: &str) -> Option<CallFault> {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.all_calls += 1;
        let all = state.all_calls;
        let nth = state.calls.entry(operation.to_owned()).or_default();
        *nth += 1;
        let nth = *nth;
        let mut hit = None;
        for (index, fault) in state.plan.calls.iter().enumerate() {
            let nth = match (fault.operation.as_str(), &fault.path) {
                (name, _) if name != "*" && name != operation => continue,
                (_, Some(part)) if !path.contains(part.as_str()) => continue,
                (_, Some(_)) => {
                    let nth = state.calls_of_path.entry(index).or_default();
                    *nth += 1;
                    *nth
                }
                ("*", None) => all,
                _ => nth,
            };
            let counts = nth >= fault.from && fault.count.is_none_or(|count| nth < fault.from.saturating_add(count));
            let rolled = || mixed(self.seed, &format!("share of rule {index}"), nth) % 1000;
            if counts && fault.share.is_none_or(|share| rolled() < share) {
                hit = hit.or(Some(fault));
            }
        }
        hit.cloned()
    }

    /// `true` when a rule may repeat an answer of this operation.
    pub(crate) fn repeats(&self, operation: &str) -> bool {
        let state = self.state.lock();
        let is_of = |fault: &CallFault| fault.operation == "*" || fault.operation == operation;
        state.plan.calls.iter().any(|fault| fault.stale && is_of(fault))
    }

    /// The number of instances that the plan allows of a name.
    pub(crate) fn instance_quota(&self, name: &str) -> Option<u64> {
        self.state.lock().plan.instances.get(name).copied()
    }

    /// Counts a new job on an instance type and returns the fault that it meets. A `warm` instance is there already, so it
    /// neither lacks capacity nor is waited for.
    pub(crate) fn job(&self, instance_type: &str, warm: bool) -> Option<JobTrouble> {
        let mut state = self.state.lock();
        let State { plan, jobs, .. } = &mut *state;
        for (index, fault) in plan.jobs.iter().enumerate() {
            let hits = jobs.entry(index).or_default();
            let is_of_launch = matches!(fault.trouble, JobTrouble::Capacity | JobTrouble::Pending { .. });
            let matches = fault.instance_type == "*" || fault.instance_type == instance_type;
            let matches = matches && !(warm && is_of_launch);
            if matches && fault.count.is_none_or(|count| *hits < count) {
                *hits += 1;
                let mut trouble = fault.trouble.clone();
                if let JobTrouble::SpotInterruption { after_ms, spread_ms, .. } = &mut trouble {
                    *after_ms += mixed(self.seed, "interruption", *hits).checked_rem(*spread_ms).unwrap_or(0);
                }
                return Some(trouble);
            }
        }
        None
    }

    /// Counts a new model package of a group or a name, and returns the fault that it meets.
    pub(crate) fn package(&self, name: &str) -> Option<PackageFault> {
        let mut state = self.state.lock();
        let State { plan, packages, .. } = &mut *state;
        for (index, fault) in plan.packages.iter().enumerate() {
            let hits = packages.entry(index).or_default();
            let matches = fault.name == "*" || fault.name == name;
            if matches && fault.count.is_none_or(|count| *hits < count) {
                *hits += 1;
                return Some(fault.clone());
            }
        }
        None
    }

    /// Counts a creation or an update of an endpoint, and returns the fault that it meets.
    pub(crate) fn endpoint(&self, name: &str, operation: &str) -> Option<EndpointFault> {
        let mut state = self.state.lock();
        let State { plan, endpoints, .. } = &mut *state;
        for (index, fault) in plan.endpoints.iter().enumerate() {
            let hits = endpoints.entry(index).or_default();
            let is = |wanted: &str, found: &str| wanted == "*" || wanted == found;
            let matches = is(&fault.name, name) && is(&fault.operation, operation);
            if matches && fault.count.is_none_or(|count| *hits < count) {
                *hits += 1;
                return Some(fault.clone());
            }
        }
        None
    }

    /// Time for which a new training job is unknown, in milliseconds.
    pub(crate) fn hidden_ms(&self) -> u64 {
        self.state.lock().plan.hidden_ms
    }

    /// Time after which CodeBuild ends a build with this limit.
    pub(crate) fn build_limit(&self, minutes: u64) -> Duration {
        match self.state.lock().plan.build_minute_ms {
            0 => Duration::from_mins(minutes),
            length => Duration::from_millis(minutes.saturating_mul(length)),
        }
    }

    /// Applies the plan's log faults to a batch of events.
    pub(crate) fn events(&self, events: Vec<InputLogEvent>) -> Batch {
        let mut state = self.state.lock();
        let plan = state.plan.logs.clone();
        let mut roll = |kind: &str, chance: u64| {
            state.events += 1;
            chance > 0 && mixed(self.seed, kind, state.events) % 1000 < chance
        };
        let mut kept = Vec::with_capacity(events.len());
        for event in events {
            if roll("lost", plan.lost) {
                continue;
            }
            if roll("doubled", plan.doubled) {
                kept.push(event.clone());
            }
            kept.push(event);
        }
        if roll("shuffled", plan.shuffled) {
            let mut times: Vec<u64> = kept.iter().map(|event| event.timestamp).collect();
            times.sort_unstable();
            kept.reverse();
            for (event, time) in kept.iter_mut().zip(times) {
                event.timestamp = time;
            }
        }
        let late = if roll("late", plan.late) { Duration::from_millis(plan.late_ms) } else { Duration::ZERO };
        Batch { events: kept, late }
    }
}

#[cfg(test)]
mod tests;
