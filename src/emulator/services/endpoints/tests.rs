//! The state of an endpoint in simulated time.

use serde_json::json;
use test_case::test_case;

use super::rollout::{DeploymentEffect, EndpointProgress, EndpointStatus, FleetState, RolloutPlan, Sight};
use crate::faults::EndpointFault;

/// An endpoint with a clock that the test moves.
struct World {
    progress: EndpointProgress,
    now_ms: u64,
    instances: FleetState,
    alarm: Option<&'static str>,
}

impl World {
    fn creating(fault: EndpointFault) -> Self {
        let instances = FleetState::Starting;
        Self { progress: EndpointProgress::create(0, fault), now_ms: 0, instances, alarm: None }
    }

    /// In service, with a deployment that has begun.
    fn updating(deployment: &serde_json::Value, fault: EndpointFault) -> Self {
        let mut world = Self::creating(EndpointFault::default());
        world.instances = FleetState::Ready;
        assert_eq!(world.look(), [DeploymentEffect::Commit]);
        world.instances = FleetState::Starting;
        world.progress.update(world.now_ms, RolloutPlan::new(Some(deployment), 4, 1.0), fault);
        world
    }

    /// All effects at this moment.
    fn look(&mut self) -> Vec<DeploymentEffect> {
        let Self { progress, now_ms, instances, alarm } = self;
        std::iter::from_fn(|| progress.advance(Sight { now_ms: *now_ms, instances, alarm: *alarm })).collect()
    }

    fn after(&mut self, seconds: u64) -> Vec<DeploymentEffect> {
        self.now_ms += seconds * 1000;
        self.look()
    }

    fn shown(&self) -> (EndpointStatus, u64, Option<&'static str>) {
        (self.progress.status, self.progress.share(), self.progress.variant_status())
    }
}

fn blue_green(routing: &serde_json::Value) -> serde_json::Value {
    json!({
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 30, "MaximumExecutionTimeoutInSeconds": 600,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
    })
}

fn canary() -> serde_json::Value {
    let size = json!({"Type": "INSTANCE_COUNT", "Value": 1});
    blue_green(&json!({"Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": size}))
}

#[test]
fn a_creation_ends_in_service_or_failed() {
    let mut world = World::creating(EndpointFault::default());
    assert_eq!((world.look(), world.shown()), (vec![], (EndpointStatus::Creating, 0, Some("Creating"))));
    world.instances = FleetState::Ready;
    assert_eq!((world.look(), world.shown()), (vec![DeploymentEffect::Commit], (EndpointStatus::InService, 0, None)));

    let mut world = World::creating(EndpointFault::default());
    world.instances = FleetState::Failed("sick".to_owned());
    assert_eq!((world.look(), world.shown()), (vec![DeploymentEffect::Discard], (EndpointStatus::Failed, 0, None)));
    assert_eq!(world.progress.failure.as_deref(), Some("sick"));
    world.progress.delete(world.now_ms);
    assert_eq!((world.look(), world.progress.status), (vec![DeploymentEffect::Remove], EndpointStatus::Deleting));
}

#[test]
fn a_canary_bakes_and_then_everything_shifts() {
    let mut world = World::updating(&canary(), EndpointFault::default());
    assert_eq!((world.look(), world.shown()), (vec![], (EndpointStatus::Updating, 0, Some("Creating"))));
    world.instances = FleetState::Ready;
    assert_eq!((world.look(), world.shown()), (vec![], (EndpointStatus::Updating, 25, Some("ActivatingTraffic"))));
    assert_eq!(world.progress.due_ms(world.now_ms), Some(60_000));
    assert_eq!((world.after(59), world.progress.share()), (vec![], 25));
    assert_eq!((world.after(1), world.shown()), (vec![], (EndpointStatus::Updating, 100, Some("Baking"))));
    assert_eq!(
        (world.after(30), world.shown()),
        (vec![DeploymentEffect::Commit], (EndpointStatus::InService, 0, None))
    );
    assert_eq!(world.progress.failure, None);
}

#[test_case(&blue_green(&json!({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 60})), &[(100, 0)], 30_000; "all at once")]
#[test_case(&canary(), &[(25, 60_000), (100, 0)], 30_000; "canary")]
#[test_case(
    &blue_green(&json!({"Type": "LINEAR", "WaitIntervalInSeconds": 9, "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 40}})),
    &[(40, 9_000), (80, 9_000), (100, 0)], 30_000; "linear"
)]
#[test_case(
    &json!({"RollingUpdatePolicy": {"MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 2}, "WaitIntervalInSeconds": 5}}),
    &[(50, 5_000), (100, 5_000)], 0; "rolling"
)]
#[test_case(&json!(null), &[(100, 0)], 0; "without a configuration")]
fn plans_are_those_of_the_request(deployment: &serde_json::Value, steps: &[(u64, u64)], termination_ms: u64) {
    let plan = RolloutPlan::new(Some(deployment), 4, 1.0);
    assert_eq!((plan.steps.as_slice(), plan.termination_ms), (steps, termination_ms));
    let scaled = RolloutPlan::new(Some(deployment), 4, 0.001);
    assert_eq!(scaled.termination_ms, termination_ms / 1000);
}

/// An alarm that is on at the update rolls back at once.
#[test]
fn an_alarm_that_is_on_ends_an_update_before_it_gets_requests() {
    let mut world = World::updating(&canary(), EndpointFault::default());
    assert_eq!(world.progress.watched(), ["errors"]);
    world.alarm = Some("errors");
    assert_eq!((world.look(), world.shown()), (vec![DeploymentEffect::Discard], (EndpointStatus::InService, 0, None)));
    assert!(world.progress.failure.is_some_and(|reason| reason.contains("errors")));
    assert!(World::creating(EndpointFault::default()).progress.watched().is_empty());
}

/// An alarm rolls back in each step.
#[test_case(0; "in the canary")]
#[test_case(60; "in the bake")]
fn an_alarm_brings_the_old_configuration_back(seconds: u64) {
    let fault = EndpointFault { rollback_ms: 5_000, ..EndpointFault::default() };
    let mut world = World::updating(&canary(), fault);
    world.instances = FleetState::Ready;
    assert_eq!(world.look(), []);
    assert_eq!(world.after(seconds), []);
    assert_eq!(world.progress.watched(), ["errors"]);
    world.alarm = Some("errors");
    assert_eq!((world.look(), world.shown()), (vec![], (EndpointStatus::RollingBack, 0, Some("Deleting"))));
    assert_eq!(
        (world.after(5), world.shown()),
        (vec![DeploymentEffect::Discard], (EndpointStatus::InService, 0, None))
    );
    assert!(world.progress.failure.is_some_and(|reason| reason.contains("errors")));
}

#[test]
fn a_deployment_that_takes_too_long_rolls_back() {
    let mut world = World::updating(&canary(), EndpointFault::default());
    assert_eq!((world.after(599), world.progress.status), (vec![], EndpointStatus::Updating));
    assert_eq!((world.after(1), world.progress.status), (vec![DeploymentEffect::Discard], EndpointStatus::InService));
}

#[test]
fn a_rollback_can_fail() {
    let fault = EndpointFault {
        provisioning_ms: 1_000,
        reason: Some("no capacity".to_owned()),
        rollback_fails: true,
        ..EndpointFault::default()
    };
    let mut world = World::updating(&canary(), fault);
    world.instances = FleetState::Ready;
    assert_eq!((world.look(), world.progress.status), (vec![], EndpointStatus::Updating));
    assert_eq!(
        (world.after(1), world.progress.status),
        (vec![DeploymentEffect::Discard], EndpointStatus::UpdateRollbackFailed)
    );
    assert_eq!(world.progress.failure.as_deref(), Some("no capacity"));
}

#[test]
fn a_change_of_numbers_waits_for_the_instances() {
    let mut world = World::updating(&canary(), EndpointFault::default());
    world.progress.scale(0, EndpointFault::default());
    assert_eq!((world.look(), world.shown()), (vec![], (EndpointStatus::Updating, 0, Some("Updating"))));
    world.instances = FleetState::Ready;
    assert_eq!((world.look(), world.shown()), (vec![], (EndpointStatus::InService, 0, None)));
}

#[test]
fn a_deletion_takes_its_time() {
    let mut world = World::creating(EndpointFault { deleting_ms: 2_000, ..EndpointFault::default() });
    world.instances = FleetState::Ready;
    world.look();
    world.progress.delete(world.now_ms);
    assert_eq!((world.after(1), world.progress.due_ms(world.now_ms)), (vec![], Some(2_000)));
    assert_eq!(world.after(1), [DeploymentEffect::Remove]);
}

#[test]
fn a_fault_hits_the_changes_that_it_names() {
    let plan =
        json!({"endpoints": [{"name": "live", "operation": "UpdateEndpoint", "count": 1, "reason": "no capacity"}]});
    let faults = crate::faults::Faults::new(serde_json::from_value(plan).unwrap(), 1);
    let hit = |name: &str, operation: &str| faults.endpoint(name, operation).is_some();
    assert!(!hit("live", "CreateEndpoint") && !hit("other", "UpdateEndpoint"));
    assert!(hit("live", "UpdateEndpoint"));
    assert!(!hit("live", "UpdateEndpoint"));
}
