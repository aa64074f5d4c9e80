//! Scaling of endpoints' variants over the SDK of Application Auto Scaling.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_applicationautoscaling::types::{
    MetricType, PolicyType, PredefinedMetricSpecification, ScalableDimension, ScalingPolicy as FoundPolicy,
    ServiceNamespace, TargetTrackingScalingPolicyConfiguration,
};
use executor::cloud::{
    CloudError, CloudErrorKind, EndpointScaling, ScalableTarget, ScaledVariant, ScalingPolicy, ScalingPolicyKind,
};

use super::clients::Clients;
use super::errors::AwsCall;

#[derive(Debug)]
pub(super) struct AwsScaling {
    clients: Arc<Clients>,
}

impl AwsScaling {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    fn call(&self, verb: &str, variant: &ScaledVariant, action: &'static str) -> AwsCall {
        self.clients.call(verb, format!("the scaling of {}", variant.resource_id()), action)
    }
}

fn dimension(variant: &ScaledVariant) -> ScalableDimension {
    ScalableDimension::from(variant.quantity.name())
}

#[async_trait]
impl EndpointScaling for AwsScaling {
    async fn target(&self, variant: &ScaledVariant) -> Result<Option<ScalableTarget>, CloudError> {
        let call = self.call("look at", variant, "application-autoscaling:DescribeScalableTargets");
        let request = self.clients.scaling().describe_scalable_targets().service_namespace(ServiceNamespace::Sagemaker);
        let request = request.resource_ids(variant.resource_id()).scalable_dimension(dimension(variant));
        let reply = request.send().await.map_err(|error| call.failed(&error))?;
        let count = |count: i32| u32::try_from(count).unwrap_or_default();
        let found = reply.scalable_targets().first();
        Ok(found.map(|found| ScalableTarget { min: count(found.min_capacity), max: count(found.max_capacity) }))
    }

    async fn register(&self, variant: &ScaledVariant, target: &ScalableTarget) -> Result<(), CloudError> {
        let call = self.call("set up", variant, "application-autoscaling:RegisterScalableTarget");
        let reply = self
            .clients
            .scaling()
            .register_scalable_target()
            .service_namespace(ServiceNamespace::Sagemaker)
            .resource_id(variant.resource_id())
            .scalable_dimension(dimension(variant))
            .min_capacity(target.min.cast_signed())
            .max_capacity(target.max.cast_signed())
            .send()
            .await;
        reply.map(|_| ()).map_err(|error| call.failed(&error))
    }

    async fn deregister(&self, variant: &ScaledVariant) -> Result<(), CloudError> {
        let call = self.call("end", variant, "application-autoscaling:DeregisterScalableTarget");
        let request =
            self.clients.scaling().deregister_scalable_target().service_namespace(ServiceNamespace::Sagemaker);
        let reply = request.resource_id(variant.resource_id()).scalable_dimension(dimension(variant)).send().await;
        reply.map(|_| ()).or_else(|error| unless_absent(call.failed(&error)))
    }

    async fn policies(&self, variant: &ScaledVariant) -> Result<Vec<ScalingPolicy>, CloudError> {
        let call = self.call("list the policies of", variant, "application-autoscaling:DescribeScalingPolicies");
        let request = self.clients.scaling().describe_scaling_policies().service_namespace(ServiceNamespace::Sagemaker);
        let request = request.resource_id(variant.resource_id()).scalable_dimension(dimension(variant));
        let mut pages = request.into_paginator().send();
        let mut policies = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            policies.extend(page.scaling_policies.unwrap_or_default().into_iter().map(policy));
        }
        Ok(policies)
    }

    async fn put_policy(&self, variant: &ScaledVariant, policy: &ScalingPolicy) -> Result<(), CloudError> {
        let call = self.call("write a policy of", variant, "application-autoscaling:PutScalingPolicy");
        let unusable = |text: &str| call.error(CloudErrorKind::Invalid, text);
        let ScalingPolicyKind::Tracking { metric, target, scale_in_cooldown, scale_out_cooldown } = &policy.kind else {
            return Err(unusable(&format!("policy {} tracks no metric that AWS defines", policy.name)));
        };
        let metric = PredefinedMetricSpecification::builder()
            .predefined_metric_type(MetricType::from(metric.as_str()))
            .build()
            .map_err(|error| unusable(&error.to_string()))?;
        let tracking = TargetTrackingScalingPolicyConfiguration::builder()
            .target_value(*target)
            .predefined_metric_specification(metric)
            .set_scale_in_cooldown(scale_in_cooldown.map(u32::cast_signed))
            .set_scale_out_cooldown(scale_out_cooldown.map(u32::cast_signed))
            .build()
            .map_err(|error| unusable(&error.to_string()))?;
        let reply = self
            .clients
            .scaling()
            .put_scaling_policy()
            .policy_name(&policy.name)
            .service_namespace(ServiceNamespace::Sagemaker)
            .resource_id(variant.resource_id())
            .scalable_dimension(dimension(variant))
            .policy_type(PolicyType::TargetTrackingScaling)
            .target_tracking_scaling_policy_configuration(tracking)
            .send()
            .await;
        reply.map(|_| ()).map_err(|error| call.failed(&error))
    }

    async fn delete_policy(&self, variant: &ScaledVariant, name: &str) -> Result<(), CloudError> {
        let call = self.call("delete a policy of", variant, "application-autoscaling:DeleteScalingPolicy");
        let request = self.clients.scaling().delete_scaling_policy().service_namespace(ServiceNamespace::Sagemaker);
        let request = request.policy_name(name).resource_id(variant.resource_id());
        let reply = request.scalable_dimension(dimension(variant)).send().await;
        reply.map(|_| ()).or_else(|error| unless_absent(call.failed(&error)))
    }
}

fn unless_absent(error: CloudError) -> Result<(), CloudError> {
    if error.kind == CloudErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn policy(found: FoundPolicy) -> ScalingPolicy {
    let seconds = |seconds: Option<i32>| seconds.and_then(|seconds| u32::try_from(seconds).ok());
    let is_plain = |tracking: &TargetTrackingScalingPolicyConfiguration| {
        tracking.customized_metric_specification.is_none() && tracking.disable_scale_in != Some(true)
    };
    let tracking = found.target_tracking_scaling_policy_configuration.filter(is_plain);
    let kind = tracking.and_then(|tracking| {
        Some(ScalingPolicyKind::Tracking {
            metric: tracking.predefined_metric_specification?.predefined_metric_type.as_str().to_owned(),
            target: tracking.target_value,
            scale_in_cooldown: seconds(tracking.scale_in_cooldown),
            scale_out_cooldown: seconds(tracking.scale_out_cooldown),
        })
    });
    ScalingPolicy { name: found.policy_name, kind: kind.unwrap_or(ScalingPolicyKind::Other) }
}

#[cfg(test)]
mod tests {
    use executor::cloud::ScaledQuantity;
    use serde_json::{Value, json};

    use super::*;
    use crate::stub::{Stub, refusal, reply};

    fn port(stub: &Stub) -> (AwsScaling, ScaledVariant) {
        let variant = ScaledVariant {
            endpoint: "churn".to_owned(),
            variant: "AllTraffic".to_owned(),
            quantity: ScaledQuantity::Instances,
        };
        (AwsScaling::new(Arc::clone(&stub.clients)), variant)
    }

    fn bodies(stub: &Stub) -> Vec<(String, Value)> {
        let body = |body: &[u8]| serde_json::from_slice(body).unwrap();
        let target = |target: Option<String>| target.unwrap().split_once('.').unwrap().1.to_owned();
        stub.seen().into_iter().map(|seen| (target(seen.target), body(&seen.body))).collect()
    }

    fn tracking(name: &str) -> ScalingPolicy {
        let metric = "SageMakerVariantInvocationsPerInstance".to_owned();
        let (scale_in_cooldown, scale_out_cooldown) = (Some(300), None);
        let kind = ScalingPolicyKind::Tracking { metric, target: 70.5, scale_in_cooldown, scale_out_cooldown };
        ScalingPolicy { name: name.to_owned(), kind }
    }

    #[tokio::test]
    async fn a_target_and_its_policy_are_written() {
        let stub = Stub::start().await;
        let (port, variant) = port(&stub);
        stub.answer(|_| Some(reply(200, r#"{"PolicyARN": "arn"}"#)));
        port.register(&variant, &ScalableTarget { min: 1, max: 4 }).await.unwrap();
        port.put_policy(&variant, &tracking("load")).await.unwrap();
        let other = ScalingPolicy { kind: ScalingPolicyKind::Other, ..tracking("steps") };
        assert_eq!(port.put_policy(&variant, &other).await.unwrap_err().kind, CloudErrorKind::Invalid);
        let place = |mut rest: Value| {
            rest["ServiceNamespace"] = json!("sagemaker");
            rest["ResourceId"] = json!("endpoint/churn/variant/AllTraffic");
            rest["ScalableDimension"] = json!("sagemaker:variant:DesiredInstanceCount");
            rest
        };
        let policy = json!({"PolicyName": "load", "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 70.5, "ScaleInCooldown": 300,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        }});
        let expected = [
            ("RegisterScalableTarget".to_owned(), place(json!({"MinCapacity": 1, "MaxCapacity": 4}))),
            ("PutScalingPolicy".to_owned(), place(policy)),
        ];
        assert_eq!(bodies(&stub), expected);
    }

    #[tokio::test]
    async fn policies_of_another_form_are_told_apart() {
        let stub = Stub::start().await;
        let (port, variant) = port(&stub);
        let found = |name: &str, rest: Value| {
            let mut policy = json!({"PolicyARN": "arn", "PolicyName": name, "ServiceNamespace": "sagemaker",
                "ResourceId": "endpoint/churn/variant/AllTraffic", "PolicyType": "TargetTrackingScaling",
                "ScalableDimension": "sagemaker:variant:DesiredInstanceCount", "CreationTime": 1.0});
            policy["TargetTrackingScalingPolicyConfiguration"] = rest;
            policy
        };
        let metric = json!({"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"});
        let plain = json!({"TargetValue": 70.5, "ScaleInCooldown": 300, "PredefinedMetricSpecification": metric});
        let only_out = json!({"TargetValue": 70.5, "DisableScaleIn": true, "PredefinedMetricSpecification": metric});
        let own = json!({"TargetValue": 1.0, "CustomizedMetricSpecification": {"MetricName": "own"}});
        let policies = json!({"ScalingPolicies": [found("load", plain), found("out", only_out), found("own", own)]});
        stub.push(reply(200, policies.to_string()));
        let policies = port.policies(&variant).await.unwrap();
        assert_eq!(policies[0], tracking("load"));
        assert!(policies[1..].iter().all(|policy| policy.kind == ScalingPolicyKind::Other), "{policies:?}");
    }

    #[tokio::test]
    async fn absent_targets_and_policies_are_no_error() {
        let stub = Stub::start().await;
        let (port, variant) = port(&stub);
        stub.push(reply(200, r#"{"ScalableTargets": []}"#));
        assert_eq!(port.target(&variant).await.unwrap(), None);
        stub.answer(|_| Some(refusal(400, "ObjectNotFoundException", "No scalable target found")));
        port.deregister(&variant).await.unwrap();
        port.delete_policy(&variant, "load").await.unwrap();
        assert_eq!(port.put_policy(&variant, &tracking("load")).await.unwrap_err().kind, CloudErrorKind::NotFound);
    }
}
