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
    /// Closes the connection without an answer: before the operation, or after it happened.
    #[serde(default)]
    pub drop: Option<DropPoint>,
}

/// When a connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropPoint {
    Before,
    After,
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
            if nth >= fault.from && fault.count.is_none_or(|count| nth < fault.from.saturating_add(count)) {
                hit = hit.or(Some(fault));
            }
        }
        hit.cloned()
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
mod tests {
    use super::*;

    fn plan(json: &str) -> FaultPlan {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_call_is_hit_by_its_number() {
        let faults = Faults::new(
            plan(
                r#"{"calls": [{"operation": "PutObject", "from": 2, "count": 1, "error": "SlowDown", "status": 503}]}"#,
            ),
            1,
        );
        let hits: Vec<bool> = (0..3).map(|_| faults.call("PutObject", "/b/k").is_some()).collect();
        assert_eq!(hits, [false, true, false]);
        assert_eq!(faults.call("GetObject", "/b/k"), None);
    }

    #[test]
    fn a_rule_with_a_path_counts_the_calls_of_the_path() {
        let json = r#"{"calls": [{"operation": "GetObject", "path": "/packs/", "from": 2, "error": "SlowDown"}]}"#;
        let faults = Faults::new(plan(json), 1);
        let hits = ["/b/packs/1", "/b/orders/1", "/b/packs/2", "/b/orders/2"];
        assert_eq!(hits.map(|path| faults.call("GetObject", path).is_some()), [false, false, true, false]);
        assert_eq!(faults.call("PutObject", "/b/packs/3"), None);
    }

    #[test]
    fn capacity_returns_after_the_planned_jobs() {
        let faults =
            Faults::new(plan(r#"{"jobs": [{"instance_type": "ml.g5.xlarge", "count": 1, "trouble": "capacity"}]}"#), 1);
        assert_eq!(faults.job("ml.m5.large", false), None);
        assert_eq!(faults.job("ml.g5.xlarge", true), None);
        assert_eq!(faults.job("ml.g5.xlarge", false), Some(JobTrouble::Capacity));
        assert_eq!(faults.job("ml.g5.xlarge", false), None);
    }

    #[test]
    fn interruptions_come_at_random_times_that_the_seed_decides() {
        let json = r#"{"jobs": [{"trouble": {"spot_interruption": {"after_ms": 100, "spread_ms": 900}}}]}"#;
        let times = |seed| -> Vec<u64> {
            let faults = Faults::new(plan(json), seed);
            let next = || match faults.job("ml.m5.large", false) {
                Some(JobTrouble::SpotInterruption { after_ms, .. }) => after_ms,
                other => panic!("{other:?}"),
            };
            (0..10).map(|_| next()).collect()
        };
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
        assert!(times(1).iter().all(|time| (100..1000).contains(time)), "{:?}", times(1));
    }

    #[test]
    fn events_are_lost_doubled_and_reordered_by_plan() {
        let events = |texts: &[&str]| -> Vec<InputLogEvent> {
            texts
                .iter()
                .zip(1..)
                .map(|(text, timestamp)| InputLogEvent { timestamp, message: (*text).to_owned() })
                .collect()
        };
        let faults = Faults::new(plan(r#"{"logs": {"lost": 1000}}"#), 1);
        assert_eq!(faults.events(events(&["a"])).events, []);
        faults.set(plan(r#"{"logs": {"doubled": 1000}}"#));
        assert_eq!(faults.events(events(&["a"])).events.len(), 2);
        faults.set(plan(r#"{"logs": {"shuffled": 1000, "late": 1000, "late_ms": 7}}"#));
        let batch = faults.events(events(&["a", "b"]));
        assert_eq!(batch.events, events(&["b", "a"]));
        assert_eq!(batch.late, Duration::from_millis(7));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<FaultPlan>(r#"{"call": []}"#).is_err());
    }
}
