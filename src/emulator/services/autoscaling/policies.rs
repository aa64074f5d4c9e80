//! The operations on scaling policies, with the alarms that target tracking makes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::records::{ApplicationAutoscaling, is_asked_for, not_found, page, words};
use crate::caller::Caller;
use crate::clock;
use crate::partition::partition;
use crate::protocol::{Answer, ApiError, epoch_seconds, text};
use crate::services::cloudwatch::AlarmKey;
use crate::services::scalable_targets::{ScalingPolicyRecord, TargetKey};

const TRACKING: &str = "TargetTrackingScalingPolicyConfiguration";
const STEPS: &str = "StepScalingPolicyConfiguration";
/// Share of the target below which target tracking scales in.
const LOW: f64 = 0.9;

/// Makes or changes a policy.
pub(super) fn put(autoscaling: &Arc<ApplicationAutoscaling>, request: &Value, caller: &Caller) -> Answer {
    let key = TargetKey::of(request, caller)?;
    let name = text(request, "PolicyName").unwrap_or_default();
    let mut targets = autoscaling.targets.lock();
    let absent = || not_found(format!("No scalable target registered for {}", words(&key)));
    let target = targets.get_mut(&key).ok_or_else(absent)?;
    let known = target.policies.get(name);
    let kind = text(request, "PolicyType").or(known.map(|one| one.kind.as_str())).unwrap_or("StepScaling").to_owned();
    let member = match kind.as_str() {
        "TargetTrackingScaling" => TRACKING,
        "StepScaling" => STEPS,
        other => return Err(ApiError::validation(format!("Policies of the type {other} are not emulated."))),
    };
    let configuration = request.get(member).filter(|one| !one.is_null());
    let configuration = configuration
        .ok_or_else(|| ApiError::validation(format!("{member} is required for the policy type {kind}.")))?;
    if member == TRACKING {
        check_metric(configuration)?;
    }
    let Caller { account, region, .. } = caller;
    let new_arn = || {
        let (partition, id) = (partition(region), autoscaling.shared.next_id());
        let resource = &key.resource;
        format!(
            "arn:{partition}:autoscaling:{region}:{account}:scalingPolicy:{id}:resource/sagemaker/{resource}:policyName/{name}"
        )
    };
    let arn = known.map_or_else(new_arn, |one| one.arn.clone());
    let created_ms = known.map_or_else(clock::now_ms, |one| one.created_ms);
    let alarms = known.map(|one| one.alarms.clone()).unwrap_or_default();
    let alarms = if member == TRACKING { track(autoscaling, &key, configuration, alarms) } else { alarms };
    let policy = ScalingPolicyRecord {
        arn: arn.clone(),
        kind,
        configuration: (member.to_owned(), configuration.clone()),
        alarms: alarms.clone(),
        created_ms,
    };
    target.policies.insert(name.to_owned(), policy);
    Ok(Some(json!({"PolicyARN": arn, "Alarms": shown_alarms(&key, &alarms)})))
}

/// The metric of target tracking is one, and one of SageMaker.
fn check_metric(configuration: &Value) -> Result<(), ApiError> {
    let specified = ["PredefinedMetricSpecification", "CustomizedMetricSpecification"];
    if specified.iter().filter(|name| configuration[**name].is_object()).count() != 1 {
        return Err(ApiError::validation(
            "Exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification must be specified.",
        ));
    }
    match text(&configuration["PredefinedMetricSpecification"], "PredefinedMetricType") {
        Some(other) if !other.starts_with("SageMaker") => Err(ApiError::validation(format!(
            "The predefined metric type {other} is not supported for the service namespace sagemaker."
        ))),
        _ => Ok(()),
    }
}

/// Makes the two alarms of target tracking, or replaces `known` ones; returns their names.
fn track(
    autoscaling: &ApplicationAutoscaling,
    key: &TargetKey,
    configuration: &Value,
    known: Vec<String>,
) -> Vec<String> {
    let Some(metric) = metric(key, configuration) else { return known };
    let names = if known.is_empty() {
        ["High", "Low"]
            .map(|one| format!("TargetTracking-{}-Alarm{one}-{}", key.resource, autoscaling.shared.next_id()))
            .to_vec()
    } else {
        known
    };
    let target = configuration["TargetValue"].as_f64().unwrap_or_default();
    let sides = [("GreaterThanThreshold", 3, target), ("LessThanThreshold", 15, target * LOW)];
    for (name, (comparison, periods, threshold)) in names.iter().zip(sides) {
        let mut alarm = metric.clone();
        for (member, value) in [
            ("AlarmName", json!(name)),
            ("AlarmDescription", json!("DO NOT EDIT OR DELETE. For TargetTrackingScaling policy.")),
            ("Period", json!(60)),
            ("EvaluationPeriods", json!(periods)),
            ("Threshold", json!(threshold)),
            ("ComparisonOperator", json!(comparison)),
        ] {
            alarm[member] = value;
        }
        let made = autoscaling.cloudwatch.put_alarm(&alarm, &key.account, &key.region);
        if let Err(error) = made {
            tracing::warn!(error = error.message, "failed to make an alarm of a scaling policy");
        }
    }
    names
}

/// The metric that a policy tracks; `None` for one that is not emulated.
fn metric(key: &TargetKey, configuration: &Value) -> Option<Value> {
    let custom = &configuration["CustomizedMetricSpecification"];
    if custom.is_object() {
        let has_metric = custom["MetricName"].is_string() && custom["Namespace"].is_string();
        return has_metric.then(|| custom.clone());
    }
    let (name, statistic) = match text(&configuration["PredefinedMetricSpecification"], "PredefinedMetricType")? {
        "SageMakerVariantInvocationsPerInstance" => ("InvocationsPerInstance", "Sum"),
        "SageMakerVariantProvisionedConcurrencyUtilization" => {
            ("ServerlessProvisionedConcurrencyUtilization", "Average")
        }
        "SageMakerVariantConcurrentRequestsPerModelHighResolution" => ("ConcurrentRequestsPerModel", "Maximum"),
        _ => return None,
    };
    let (endpoint, variant) = key.variant()?;
    let dimension = |name: &str, value: &str| json!({"Name": name, "Value": value});
    Some(json!({
        "Namespace": "AWS/SageMaker", "MetricName": name, "Statistic": statistic,
        "Dimensions": [dimension("EndpointName", endpoint), dimension("VariantName", variant)],
    }))
}

fn shown_alarms(key: &TargetKey, alarms: &[String]) -> Vec<Value> {
    let shown = alarms.iter().map(|name| {
        let arn = AlarmKey::new(&key.account, &key.region, name).arn();
        json!({"AlarmName": name, "AlarmARN": arn})
    });
    shown.collect()
}

pub(super) fn describe(autoscaling: &Arc<ApplicationAutoscaling>, request: &Value, caller: &Caller) -> Answer {
    let names = request["PolicyNames"].as_array().filter(|names| !names.is_empty());
    let targets = autoscaling.targets.lock();
    let wanted = targets.iter().filter(|(key, _)| {
        is_asked_for(key, request, caller) && text(request, "ResourceId").is_none_or(|id| key.resource == id)
    });
    let all = wanted.flat_map(|(key, target)| target.policies.iter().map(move |(name, policy)| (key, name, policy)));
    let is_named = |name: &str| names.is_none_or(|names| names.iter().any(|one| one == name));
    let shown = all.filter(|(_, name, _)| is_named(name)).map(|(key, name, policy)| {
        let (member, configuration) = &policy.configuration;
        json!({
            "PolicyARN": policy.arn,
            "PolicyName": name,
            "ServiceNamespace": "sagemaker",
            "ResourceId": key.resource,
            "ScalableDimension": key.dimension,
            "PolicyType": policy.kind,
            member.as_str(): configuration,
            "Alarms": shown_alarms(key, &policy.alarms),
            "CreationTime": epoch_seconds(policy.created_ms),
        })
    });
    page(request, "ScalingPolicies", shown.collect())
}

pub(super) fn delete(autoscaling: &Arc<ApplicationAutoscaling>, request: &Value, caller: &Caller) -> Answer {
    let key = TargetKey::of(request, caller)?;
    let name = text(request, "PolicyName").unwrap_or_default();
    let mut targets = autoscaling.targets.lock();
    let removed = targets.get_mut(&key).and_then(|target| target.policies.remove(name));
    let absent = || not_found(format!("No scaling policy found for {}, policy name: {name}", words(&key)));
    autoscaling.cloudwatch.forget(&key.account, &key.region, &removed.ok_or_else(absent)?.alarms);
    Ok(Some(json!({})))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(&json!({"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}) => None; "of SageMaker")]
    #[test_case(&json!({"CustomizedMetricSpecification": {"MetricName": "M"}}) => None; "customized")]
    #[test_case(&json!({"PredefinedMetricSpecification": {"PredefinedMetricType": "ALBRequestCountPerTarget"}}) => Some("The predefined metric type ALBRequestCountPerTarget is not supported for the service namespace sagemaker.".to_owned()); "of another service")]
    #[test_case(&json!({}) => Some("Exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification must be specified.".to_owned()); "none")]
    fn a_policy_tracks_one_metric_of_sagemaker(configuration: &Value) -> Option<String> {
        check_metric(configuration).err().map(|error| error.message)
    }
}
