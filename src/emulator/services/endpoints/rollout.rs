//! The state of an endpoint from creation to deletion: which status it has, and when its new instances get requests.
//!
//! Pure: times and what is seen of instances and alarms in, the next effect out.

use serde_json::Value;

use crate::faults::EndpointFault;
use crate::protocol::text;

/// The value of `EndpointStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointStatus {
    Creating,
    InService,
    Updating,
    RollingBack,
    Deleting,
    Failed,
    UpdateRollbackFailed,
}

impl EndpointStatus {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::InService => "InService",
            Self::Updating => "Updating",
            Self::RollingBack => "RollingBack",
            Self::Deleting => "Deleting",
            Self::Failed => "Failed",
            Self::UpdateRollbackFailed => "UpdateRollbackFailed",
        }
    }
}

/// The state of a set of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FleetState {
    Starting,
    Ready,
    Failed(String),
}

/// The endpoint as it is seen at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) now_ms: u64,
    /// The instances that are waited for.
    pub(super) instances: &'a FleetState,
    /// An alarm of the deployment that is on.
    pub(super) alarm: Option<&'a str>,
}

/// Work to do after a change of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeploymentEffect {
    /// The new instances take the place of the old ones, which end.
    Commit,
    /// The new instances end.
    Discard,
    /// The endpoint is gone.
    Remove,
}

/// The way of the requests to the new instances.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RolloutPlan {
    /// Percent of the requests that the new instances get, and the time until the next step.
    pub(super) steps: Vec<(u64, u64)>,
    /// Time for which the old instances stay, without requests.
    pub(super) termination_ms: u64,
    /// Limit of the whole deployment.
    pub(super) limit_ms: Option<u64>,
    pub(super) alarms: Vec<String>,
}

impl RolloutPlan {
    /// The plan of a `DeploymentConfig`, with all times multiplied by `scale`; without one, everything at once.
    pub(super) fn new(deployment: Option<&Value>, instances: u64, scale: f64) -> Self {
        let none = Value::Null;
        let deployment = deployment.unwrap_or(&none);
        let time = |of: &Value, name: &str| of[name].as_f64().map(|seconds| milliseconds(seconds * scale));
        let size = |of: &Value| percent(of, instances);
        let alarms = deployment["AutoRollbackConfiguration"]["Alarms"].as_array().into_iter().flatten();
        let alarms = alarms.filter_map(|alarm| text(alarm, "AlarmName")).map(str::to_owned).collect();
        let (rolling, blue_green) = (&deployment["RollingUpdatePolicy"], &deployment["BlueGreenUpdatePolicy"]);
        if rolling.is_object() {
            let wait = time(rolling, "WaitIntervalInSeconds").unwrap_or(0);
            let steps = stepped(size(&rolling["MaximumBatchSize"])).map(|share| (share, wait)).collect();
            let limit_ms = time(rolling, "MaximumExecutionTimeoutInSeconds");
            return Self { steps, termination_ms: 0, limit_ms, alarms };
        }
        let routing = &blue_green["TrafficRoutingConfiguration"];
        let wait = time(routing, "WaitIntervalInSeconds").unwrap_or(0);
        let shares: Vec<u64> = match text(routing, "Type") {
            Some("CANARY") => vec![size(&routing["CanarySize"]), 100],
            Some("LINEAR") => stepped(size(&routing["LinearStepSize"])).collect(),
            _ => vec![100],
        };
        // The bake after the last step is the wait for the termination.
        let steps = shares.into_iter().map(|share| (share, if share < 100 { wait } else { 0 })).collect();
        Self {
            steps,
            termination_ms: time(blue_green, "TerminationWaitInSeconds").unwrap_or(0),
            limit_ms: time(blue_green, "MaximumExecutionTimeoutInSeconds"),
            alarms,
        }
    }
}

/// Shares up to 100 in equal steps.
fn stepped(step: u64) -> impl Iterator<Item = u64> {
    (1..=100_u64.div_ceil(step)).map(move |number| (number * step).min(100))
}

/// A `CapacitySize` in percent.
fn percent(size: &Value, instances: u64) -> u64 {
    let value = size["Value"].as_u64().unwrap_or(100);
    let percent = if text(size, "Type") == Some("INSTANCE_COUNT") { value * 100 / instances.max(1) } else { value };
    percent.clamp(1, 100)
}

/// The reason of a rollback by an alarm.
fn alarmed(sight: Sight) -> Option<String> {
    let alarm = sight.alarm?;
    Some(format!("The endpoint deployment was rolled back because these alarms are in the ALARM state: [{alarm}]."))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 28,800 s, a thousand times")]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is going on.
    Steady,
    /// New instances start.
    Provisioning,
    /// The instances in service change their number.
    Scaling,
    /// The new instances get the share of this step.
    Shifting(usize),
    /// The new instances get everything; the old ones still run.
    Terminating,
    Reverting,
    Deleting,
}

/// The state of one endpoint.
#[derive(Debug, Clone)]
pub(super) struct EndpointProgress {
    pub(super) status: EndpointStatus,
    /// The cause of the last failure, until the next update that succeeds.
    pub(super) failure: Option<String>,
    phase: Phase,
    /// Time at which the phase began, and the deployment.
    since_ms: u64,
    pub(super) started_ms: u64,
    plan: RolloutPlan,
    fault: EndpointFault,
}

impl EndpointProgress {
    pub(super) fn create(now_ms: u64, fault: EndpointFault) -> Self {
        Self {
            status: EndpointStatus::Creating,
            failure: None,
            phase: Phase::Provisioning,
            since_ms: now_ms,
            started_ms: now_ms,
            plan: RolloutPlan::default(),
            fault,
        }
    }

    /// Begins a deployment; the status allows it.
    pub(super) fn update(&mut self, now_ms: u64, plan: RolloutPlan, fault: EndpointFault) {
        *self = Self { status: EndpointStatus::Updating, plan, ..Self::create(now_ms, fault) };
    }

    /// Begins a change of weights and numbers.
    pub(super) fn scale(&mut self, now_ms: u64, fault: EndpointFault) {
        self.update(now_ms, RolloutPlan::default(), fault);
        self.phase = Phase::Scaling;
    }

    /// Begins the deletion.
    pub(super) fn delete(&mut self, now_ms: u64) {
        self.status = EndpointStatus::Deleting;
        self.enter(Phase::Deleting, now_ms);
    }

    /// The next change, of which there may be several at a moment; `None` when nothing changes now.
    pub(super) fn advance(&mut self, sight: Sight) -> Option<DeploymentEffect> {
        while let Some(change) = self.step(sight) {
            if change.is_some() {
                return change;
            }
        }
        None
    }

    /// One change of the phase, with its effect.
    #[expect(clippy::option_option, reason = "no change, or a change without an effect")]
    fn step(&mut self, sight: Sight) -> Option<Option<DeploymentEffect>> {
        let now_ms = sight.now_ms;
        let after = |wait: u64| now_ms >= self.since_ms.saturating_add(wait);
        match self.phase {
            Phase::Steady => None,
            Phase::Provisioning | Phase::Scaling => match self.awaited(sight)? {
                Err(reason) => Some(self.fail(reason, now_ms)),
                Ok(()) if self.phase == Phase::Scaling => {
                    self.settle(EndpointStatus::InService, now_ms);
                    Some(None)
                }
                Ok(()) if self.status == EndpointStatus::Creating => {
                    self.settle(EndpointStatus::InService, now_ms);
                    Some(Some(DeploymentEffect::Commit))
                }
                Ok(()) => {
                    self.enter(Phase::Shifting(0), now_ms);
                    Some(None)
                }
            },
            Phase::Shifting(step) => {
                if let Some(reason) = self.trouble(sight) {
                    return Some(self.fail(reason, now_ms));
                }
                let wait = self.plan.steps.get(step).map_or(0, |(_, wait)| *wait);
                after(wait).then(|| {
                    let next = step + 1;
                    let is_last = next >= self.plan.steps.len();
                    self.enter(if is_last { Phase::Terminating } else { Phase::Shifting(next) }, now_ms);
                    None
                })
            }
            Phase::Terminating => {
                if let Some(reason) = self.trouble(sight) {
                    return Some(self.fail(reason, now_ms));
                }
                after(self.plan.termination_ms).then(|| {
                    self.settle(EndpointStatus::InService, now_ms);
                    Some(DeploymentEffect::Commit)
                })
            }
            Phase::Reverting => after(self.fault.rollback_ms).then(|| {
                let fails = self.fault.rollback_fails;
                self.settle(
                    if fails { EndpointStatus::UpdateRollbackFailed } else { EndpointStatus::InService },
                    now_ms,
                );
                Some(DeploymentEffect::Discard)
            }),
            Phase::Deleting => after(self.fault.deleting_ms).then(|| {
                self.enter(Phase::Steady, now_ms);
                Some(DeploymentEffect::Remove)
            }),
        }
    }

    /// Whether the awaited instances are ready, or why not.
    fn awaited(&self, sight: Sight) -> Option<Result<(), String>> {
        if let Some(reason) = alarmed(sight) {
            return Some(Err(reason));
        }
        let is_time = sight.now_ms >= self.since_ms.saturating_add(self.fault.provisioning_ms);
        match (&self.fault.reason, sight.instances) {
            (Some(reason), _) if is_time => Some(Err(reason.clone())),
            (None, FleetState::Failed(reason)) => Some(Err(reason.clone())),
            (None, FleetState::Ready) if is_time => Some(Ok(())),
            _ => self.overdue(sight.now_ms).map(Err),
        }
    }

    /// The reason for which a deployment rolls back.
    fn trouble(&self, sight: Sight) -> Option<String> {
        let lost = || match sight.instances {
            FleetState::Failed(reason) => Some(reason.clone()),
            _ => None,
        };
        alarmed(sight).or_else(lost).or_else(|| self.overdue(sight.now_ms))
    }

    fn overdue(&self, now_ms: u64) -> Option<String> {
        let over = now_ms >= self.started_ms.saturating_add(self.plan.limit_ms?);
        over.then(|| "The deployment exceeded MaximumExecutionTimeoutInSeconds.".to_owned())
    }

    /// A creation fails; everything else goes back.
    fn fail(&mut self, reason: String, now_ms: u64) -> Option<DeploymentEffect> {
        self.failure = Some(reason);
        if self.status == EndpointStatus::Creating {
            self.settle(EndpointStatus::Failed, now_ms);
            return Some(DeploymentEffect::Discard);
        }
        self.status = EndpointStatus::RollingBack;
        self.enter(Phase::Reverting, now_ms);
        None
    }

    fn settle(&mut self, status: EndpointStatus, now_ms: u64) {
        self.status = status;
        self.enter(Phase::Steady, now_ms);
    }

    fn enter(&mut self, phase: Phase, now_ms: u64) {
        self.phase = phase;
        self.since_ms = now_ms;
    }

    /// Percent of the requests that the new instances get.
    pub(super) fn share(&self) -> u64 {
        match self.phase {
            Phase::Shifting(step) => self.plan.steps.get(step).map_or(100, |(share, _)| *share),
            Phase::Terminating => 100,
            _ => 0,
        }
    }

    /// `VariantStatus` of the new instances, while there is something to tell.
    pub(super) fn variant_status(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Provisioning => Some("Creating"),
            Phase::Scaling => Some("Updating"),
            Phase::Shifting(_) => Some("ActivatingTraffic"),
            Phase::Terminating => Some("Baking"),
            Phase::Reverting | Phase::Deleting => Some("Deleting"),
            Phase::Steady => None,
        }
    }

    /// Alarms that are asked for now.
    pub(super) fn watched(&self) -> &[String] {
        match self.phase {
            Phase::Provisioning | Phase::Shifting(_) | Phase::Terminating => &self.plan.alarms,
            Phase::Steady | Phase::Scaling | Phase::Reverting | Phase::Deleting => &[],
        }
    }

    /// The next time after now at which something may change by time alone.
    pub(super) fn due_ms(&self, now_ms: u64) -> Option<u64> {
        let wait = match self.phase {
            Phase::Steady => return None,
            Phase::Provisioning | Phase::Scaling => self.fault.provisioning_ms,
            Phase::Shifting(step) => self.plan.steps.get(step).map_or(0, |(_, wait)| *wait),
            Phase::Terminating => self.plan.termination_ms,
            Phase::Reverting => self.fault.rollback_ms,
            Phase::Deleting => self.fault.deleting_ms,
        };
        let limit = self.plan.limit_ms.map(|limit| self.started_ms.saturating_add(limit));
        [Some(self.since_ms.saturating_add(wait)), limit].into_iter().flatten().filter(|due| *due > now_ms).min()
    }
}
