//! The operations on scalable targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::records::{ApplicationAutoscaling, is_asked_for, not_found, page, words};
use crate::caller::Caller;
use crate::clock;
use crate::partition::partition;
use crate::protocol::{Answer, ApiError};
use crate::services::scalable_targets::{CONCURRENCY, RemovedTarget, ScalableTargetRecord, TargetKey};
use crate::tags::tag_map;

/// Registers a target, or changes the members that the request gives.
pub(super) fn register(autoscaling: &Arc<ApplicationAutoscaling>, request: &Value, caller: &Caller) -> Answer {
    let key = TargetKey::of(request, caller)?;
    let (endpoint, variant) = key.variant().unwrap_or_default();
    let is_serverless = autoscaling.endpoints.is_serverless(caller, endpoint, variant)?;
    if is_serverless != (key.dimension == CONCURRENCY) {
        return Err(ApiError::validation(format!(
            "The scalable dimension {} is not supported for the variant {variant} of the endpoint {endpoint}.",
            key.dimension
        )));
    }
    let mut targets = autoscaling.targets.lock();
    let known = targets.get(&key);
    let number = |name: &str| request[name].as_i64();
    let least = number("MinCapacity").or(known.map(|one| one.least));
    let most = number("MaxCapacity").or(known.map(|one| one.most));
    let (Some(least), Some(most)) = (least, most) else {
        return Err(ApiError::validation(
            "MinCapacity and MaxCapacity are required to register a new scalable target.",
        ));
    };
    if least < 0 || most < least {
        return Err(ApiError::validation("Maximum capacity cannot be less than minimum capacity"));
    }
    let tags = tag_map(request.get("Tags"));
    if known.is_some() && !tags.is_empty() {
        return Err(ApiError::validation(
            "The scalable target that you tried to tag already exists. To update tags on an existing scalable target, use the \
             TagResource API.",
        ));
    }
    let Caller { account, region, .. } = caller;
    let partition = partition(region);
    let target = targets.entry(key).or_insert_with(|| {
        let id = autoscaling.shared.next_id().replace('-', "");
        let id: String = id.chars().take(28).collect();
        let arn = format!("arn:{partition}:application-autoscaling:{region}:{account}:scalable-target/0ec5{id}");
        autoscaling.shared.tags.create(&arn, tags);
        ScalableTargetRecord {
            arn,
            least,
            most,
            role: format!(
                "arn:{partition}:iam::{account}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/\
                 AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
            ),
            suspended: json!({
                "DynamicScalingInSuspended": false, "DynamicScalingOutSuspended": false, "ScheduledScalingSuspended": false,
            }),
            created_ms: clock::now_ms(),
            policies: BTreeMap::new(),
        }
    });
    (target.least, target.most) = (least, most);
    for (name, value) in request["SuspendedState"].as_object().into_iter().flatten() {
        target.suspended[name] = value.clone();
    }
    Ok(Some(json!({"ScalableTargetARN": target.arn})))
}

pub(super) fn describe(autoscaling: &Arc<ApplicationAutoscaling>, request: &Value, caller: &Caller) -> Answer {
    let ids = request["ResourceIds"].as_array().filter(|ids| !ids.is_empty());
    let targets = autoscaling.targets.lock();
    let is_wanted = |key: &TargetKey| {
        is_asked_for(key, request, caller)
            && ids.is_none_or(|ids| ids.iter().any(|id| id.as_str() == Some(key.resource.as_str())))
    };
    let found = targets.iter().filter(|(key, _)| is_wanted(key));
    page(request, "ScalableTargets", found.map(|(key, target)| target.shown(key)).collect())
}

pub(super) fn deregister(autoscaling: &Arc<ApplicationAutoscaling>, request: &Value, caller: &Caller) -> Answer {
    let key = TargetKey::of(request, caller)?;
    let removed = autoscaling.targets.lock().remove(&key);
    let absent = || not_found(format!("No scalable target found for {}", words(&key)));
    let removed = RemovedTarget::from(removed.ok_or_else(absent)?);
    autoscaling.cloudwatch.forget(&caller.account, &caller.region, &removed.alarms);
    autoscaling.shared.tags.remove(&removed.arn);
    Ok(Some(json!({})))
}
