//! The actions that operations of CloudWatch and Application Auto Scaling need.

use serde_json::Value;

use super::context::NeededAction;
use crate::caller::Caller;
use crate::partition::partition;
use crate::protocol::text;
use crate::tags::{Tags, tag_map};

/// The ARN of an alarm of the caller; `*` for all.
fn alarm_arn(name: &str, caller: &Caller) -> String {
    let Caller { account, region, .. } = caller;
    format!("arn:{}:cloudwatch:{region}:{account}:alarm:{name}", partition(region))
}

/// The actions of CloudWatch, with the tags of the alarms.
pub(super) fn cloudwatch_actions(operation: &str, request: &Value, caller: &Caller, tags: &Tags) -> Vec<NeededAction> {
    let on = |resource: String| {
        let of_resource = tags.with(&resource, |one| one.tags.clone()).unwrap_or_default();
        NeededAction::new(format!("cloudwatch:{operation}"), resource).resource_tags("cloudwatch", &of_resource)
    };
    let alarm = || on(alarm_arn(text(request, "AlarmName").unwrap_or("*"), caller));
    match operation {
        "PutMetricAlarm" => {
            let sent = tag_map(request.get("Tags"));
            let put = alarm().request_tags(&sent);
            let tagging = NeededAction::new("cloudwatch:TagResource", put.resource.clone()).request_tags(&sent);
            std::iter::once(put).chain((!sent.is_empty()).then_some(tagging)).collect()
        }
        "DescribeAlarms" | "DeleteAlarms" => alarms_of(&request["AlarmNames"], caller).map(on).collect(),
        "SetAlarmState" | "DescribeAlarmHistory" => vec![alarm()],
        "DescribeAlarmsForMetric" => vec![on(alarm_arn("*", caller))],
        "ListTagsForResource" | "UntagResource" => vec![on(text(request, "ResourceARN").unwrap_or("*").to_owned())],
        "TagResource" => {
            let sent = tag_map(request.get("Tags"));
            vec![on(text(request, "ResourceARN").unwrap_or("*").to_owned()).request_tags(&sent)]
        }
        "PutMetricData" => vec![on("*".to_owned()).key("cloudwatch:namespace", text(request, "Namespace"))],
        _ => vec![on("*".to_owned())],
    }
}

/// The ARNs of the alarms that a request names; without names all.
fn alarms_of<'a>(names: &'a Value, caller: &'a Caller) -> impl Iterator<Item = String> + 'a {
    let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let names = if names.is_empty() { vec!["*"] } else { names };
    names.into_iter().map(|name| alarm_arn(name, caller))
}

/// The permission on the alarms of a deployment, which the caller of `UpdateEndpoint` needs too.
pub(super) fn alarms_of_deployment(request: &Value, caller: &Caller) -> Vec<NeededAction> {
    let alarms = request["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"].as_array();
    let names = alarms.into_iter().flatten().filter_map(|alarm| text(alarm, "AlarmName"));
    names.map(|name| NeededAction::new("cloudwatch:DescribeAlarms", alarm_arn(name, caller))).collect()
}

/// The actions of Application Auto Scaling, and those of `SageMaker` and CloudWatch that it does in the caller's name.
pub(super) fn autoscaling_actions(operation: &str, request: &Value, caller: &Caller) -> Vec<NeededAction> {
    let Caller { account, region, .. } = caller;
    let partition = partition(region);
    let is_list = operation.starts_with("Describe");
    // The name of a target is a random id, so policies name all targets.
    let targets = format!("arn:{partition}:application-autoscaling:{region}:{account}:scalable-target/*");
    let resource = if is_list { "*".to_owned() } else { targets };
    let own = NeededAction::new(format!("application-autoscaling:{operation}"), resource)
        .key("application-autoscaling:service-namespace", text(request, "ServiceNamespace"))
        .key("application-autoscaling:scalable-dimension", text(request, "ScalableDimension"));
    let sent = tag_map(request.get("Tags"));
    let own = own.request_tags(&sent);
    let endpoint = text(request, "ResourceId").and_then(|id| id.strip_prefix("endpoint/")?.split('/').next());
    let of_sagemaker = |action: &str| {
        let arn = format!("arn:{partition}:sagemaker:{region}:{account}:endpoint/{}", endpoint.unwrap_or("*"));
        NeededAction::new(format!("sagemaker:{action}"), arn)
    };
    let tracking = format!("TargetTracking-{}*", text(request, "ResourceId").unwrap_or_default());
    let of_cloudwatch = |action: &str| NeededAction::new(format!("cloudwatch:{action}"), alarm_arn(&tracking, caller));
    let others = match operation {
        "RegisterScalableTarget" => {
            vec![of_sagemaker("DescribeEndpoint"), of_sagemaker("UpdateEndpointWeightsAndCapacities")]
        }
        "PutScalingPolicy" => vec![of_cloudwatch("PutMetricAlarm"), of_cloudwatch("DescribeAlarms")],
        "DeleteScalingPolicy" => vec![of_cloudwatch("DeleteAlarms")],
        _ => Vec::new(),
    };
    std::iter::once(own).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(actions: Vec<NeededAction>) -> Vec<String> {
        actions.into_iter().map(|one| format!("{} {}", one.action, one.resource)).collect()
    }

    fn of_cloudwatch(operation: &str, request: &Value) -> Vec<String> {
        shown(cloudwatch_actions(operation, request, &Caller::administrator(), &Tags::default()))
    }

    #[test]
    fn alarms_are_named_one_by_one() {
        let arn = "arn:aws:cloudwatch:us-east-1:000000000000:alarm:";
        assert_eq!(
            of_cloudwatch("DescribeAlarms", &json!({"AlarmNames": ["a", "b"]})),
            [format!("cloudwatch:DescribeAlarms {arn}a"), format!("cloudwatch:DescribeAlarms {arn}b")]
        );
        assert_eq!(of_cloudwatch("DescribeAlarms", &json!({})), [format!("cloudwatch:DescribeAlarms {arn}*")]);
        let tagged = json!({"AlarmName": "a", "Tags": [{"Key": "k", "Value": "v"}]});
        assert_eq!(
            of_cloudwatch("PutMetricAlarm", &tagged),
            [format!("cloudwatch:PutMetricAlarm {arn}a"), format!("cloudwatch:TagResource {arn}a")]
        );
        assert_eq!(of_cloudwatch("GetMetricData", &json!({})), ["cloudwatch:GetMetricData *"]);
    }

    #[test]
    fn a_target_needs_the_permissions_on_its_endpoint() {
        let request = json!({"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/live/variant/v"});
        let needed = shown(autoscaling_actions("RegisterScalableTarget", &request, &Caller::administrator()));
        assert_eq!(
            needed,
            [
                "application-autoscaling:RegisterScalableTarget \
                 arn:aws:application-autoscaling:us-east-1:000000000000:scalable-target/*",
                "sagemaker:DescribeEndpoint arn:aws:sagemaker:us-east-1:000000000000:endpoint/live",
                "sagemaker:UpdateEndpointWeightsAndCapacities arn:aws:sagemaker:us-east-1:000000000000:endpoint/live",
            ]
        );
    }
}
