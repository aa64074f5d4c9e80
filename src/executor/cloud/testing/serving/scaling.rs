//! Scaling and alarms of the fake's endpoints.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::time::Instant;

use super::state::ServingState;
use crate::cloud::testing::faults::Fake;
use crate::cloud::{
    AlarmSight, CloudError, CloudErrorKind, EndpointAlarm, EndpointScaling, MetricAlarms, ScalableTarget,
    ScaledVariant, ScalingPolicy,
};

/// Begin of the ARN of an alarm, up to its name.
const ALARM: &str = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:";

fn error(kind: CloudErrorKind, operation: String, message: &str) -> CloudError {
    CloudError { kind, operation, message: message.to_owned(), action: "" }
}

fn key(variant: &ScaledVariant) -> (String, &'static str) {
    (variant.resource_id(), variant.quantity.name())
}

impl ServingState {
    fn alarm(&self, name: &str) -> Option<AlarmSight> {
        let sight = self.alarms.sight(name, format!("{ALARM}{name}"), Instant::now())?;
        Some(AlarmSight { changed: self.alarms.changed(name).map(|at| self.day(at)), ..sight })
    }
}

#[async_trait]
impl EndpointScaling for Fake<ServingState> {
    async fn target(&self, variant: &ScaledVariant) -> Result<Option<ScalableTarget>, CloudError> {
        let act = |service: &mut ServingState| Ok(service.targets.get(&key(variant)).map(|(target, _)| *target));
        self.call("target", &variant.resource_id(), act).await
    }

    async fn register(&self, variant: &ScaledVariant, target: &ScalableTarget) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            let config = service.endpoints.get(&variant.endpoint).and_then(|endpoint| service.config(&endpoint.config));
            if config.is_none_or(|config| config.variant != variant.variant) {
                let operation = format!("register scalable target {}", variant.resource_id());
                return Err(error(CloudErrorKind::Invalid, operation, "No such endpoint and variant."));
            }
            service.targets.entry(key(variant)).or_insert_with(|| (*target, Vec::new())).0 = *target;
            Ok(())
        };
        self.call("register", &variant.resource_id(), act).await
    }

    async fn deregister(&self, variant: &ScaledVariant) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            service.targets.remove(&key(variant));
            Ok(())
        };
        self.call("deregister", &variant.resource_id(), act).await
    }

    async fn policies(&self, variant: &ScaledVariant) -> Result<Vec<ScalingPolicy>, CloudError> {
        let act = |service: &mut ServingState| {
            Ok(service.targets.get(&key(variant)).map(|(_, policies)| policies.clone()).unwrap_or_default())
        };
        self.call("policies", &variant.resource_id(), act).await
    }

    async fn put_policy(&self, variant: &ScaledVariant, policy: &ScalingPolicy) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            let operation = || format!("put scaling policy {}", policy.name);
            let absent = || error(CloudErrorKind::NotFound, operation(), "No scalable target registered.");
            let (_, policies) = service.targets.get_mut(&key(variant)).ok_or_else(absent)?;
            policies.retain(|other| other.name != policy.name);
            policies.push(policy.clone());
            Ok(())
        };
        self.call("put_policy", &policy.name, act).await
    }

    async fn delete_policy(&self, variant: &ScaledVariant, name: &str) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            if let Some((_, policies)) = service.targets.get_mut(&key(variant)) {
                policies.retain(|policy| policy.name != name);
            }
            Ok(())
        };
        self.call("delete_policy", name, act).await
    }
}

#[async_trait]
impl MetricAlarms for Fake<ServingState> {
    async fn alarms(&self, names: &[String]) -> Result<Vec<AlarmSight>, CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            let sight = |name: &String| {
                let mut sight = service.alarm(name)?;
                sight.state = service.bad_model_state(name).unwrap_or(sight.state);
                Some(sight)
            };
            Ok(names.iter().filter_map(sight).collect())
        };
        self.call("alarms", &names.join(" "), act).await
    }

    async fn all_alarms(&self) -> Result<Vec<AlarmSight>, CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            Ok(service.alarms.names().iter().filter_map(|name| service.alarm(name)).collect())
        };
        self.call("all_alarms", "", act).await
    }

    async fn put_alarm(&self, alarm: &EndpointAlarm) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            service.alarms.put(alarm, Instant::now());
            Ok(())
        };
        self.call("put_alarm", &alarm.name, act).await
    }

    async fn delete_alarms(&self, names: &[String]) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            service.alarms.remove(names);
            Ok(())
        };
        self.call("delete_alarms", &names.join(" "), act).await
    }

    async fn alarm_tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        let act = |service: &mut ServingState| {
            let absent = || error(CloudErrorKind::NotFound, format!("list the tags of {arn}"), "Unknown alarm.");
            service.alarms.tags(arn.strip_prefix(ALARM).unwrap_or_default()).ok_or_else(absent)
        };
        self.call("alarm_tags", arn, act).await
    }
}
