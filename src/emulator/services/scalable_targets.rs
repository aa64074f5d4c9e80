//! The scalable targets of all accounts and regions: `autoscaling` changes them, `endpoints` asks for them.

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::protocol::{ApiError, epoch_seconds, text};

/// Dimensions that are emulated.
pub(crate) const INSTANCES: &str = "sagemaker:variant:DesiredInstanceCount";
pub(crate) const CONCURRENCY: &str = "sagemaker:variant:DesiredProvisionedConcurrency";

/// The registered targets; endpoints ask for them too.
#[derive(Debug, Default)]
pub(crate) struct ScalableTargets(Mutex<TargetMap>);

pub(crate) type TargetMap = BTreeMap<TargetKey, ScalableTargetRecord>;

/// A variant of an endpoint and what is scaled of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TargetKey {
    pub(crate) account: String,
    pub(crate) region: String,
    /// `endpoint/NAME/variant/NAME`.
    pub(crate) resource: String,
    pub(crate) dimension: String,
}

#[derive(Debug, Clone)]
pub(crate) struct ScalableTargetRecord {
    pub(crate) arn: String,
    pub(crate) least: i64,
    pub(crate) most: i64,
    pub(crate) role: String,
    pub(crate) suspended: Value,
    pub(crate) created_ms: u64,
    pub(crate) policies: BTreeMap<String, ScalingPolicyRecord>,
}

#[derive(Debug, Clone)]
pub(crate) struct ScalingPolicyRecord {
    pub(crate) arn: String,
    pub(crate) kind: String,
    /// The configuration, by the name of its member.
    pub(crate) configuration: (String, Value),
    /// The alarms that belong to it.
    pub(crate) alarms: Vec<String>,
    pub(crate) created_ms: u64,
}

impl ScalableTargets {
    pub(crate) fn lock(&self) -> MutexGuard<'_, TargetMap> {
        self.0.lock()
    }

    /// The variants of an endpoint that are registered, each with the ARN of its target.
    pub(crate) fn of_endpoint(&self, account: &str, region: &str, endpoint: &str) -> Vec<(String, String)> {
        let targets = self.lock();
        let own = targets.iter().filter(|(key, _)| key.account == account && key.region == region);
        let named = own.filter_map(|(key, target)| {
            let (name, variant) = key.variant()?;
            (name == endpoint).then(|| (variant.to_owned(), target.arn.clone()))
        });
        named.collect()
    }

    /// Removes the targets of an endpoint and returns the names of their alarms and their ARNs.
    pub(crate) fn remove_of_endpoint(&self, account: &str, region: &str, endpoint: &str) -> Vec<RemovedTarget> {
        let mut targets = self.lock();
        let is_of = |key: &TargetKey| {
            key.account == account && key.region == region && key.variant().is_some_and(|(name, _)| name == endpoint)
        };
        let keys: Vec<_> = targets.keys().filter(|key| is_of(key)).cloned().collect();
        keys.iter().filter_map(|key| targets.remove(key)).map(RemovedTarget::from).collect()
    }
}

/// The parts of a removed target that other services remove.
pub(crate) struct RemovedTarget {
    pub(crate) arn: String,
    pub(crate) alarms: Vec<String>,
}

impl From<ScalableTargetRecord> for RemovedTarget {
    fn from(target: ScalableTargetRecord) -> Self {
        Self { arn: target.arn, alarms: target.policies.into_values().flat_map(|policy| policy.alarms).collect() }
    }
}

impl TargetKey {
    /// The target that a request names; refuses resources that are not variants of endpoints.
    pub(crate) fn of(request: &Value, caller: &Caller) -> Result<Self, ApiError> {
        let part = |name: &str| text(request, name).unwrap_or_default().to_owned();
        let key = Self {
            account: caller.account.clone(),
            region: caller.region.clone(),
            resource: part("ResourceId"),
            dimension: part("ScalableDimension"),
        };
        let is_known =
            part("ServiceNamespace") == "sagemaker" && [INSTANCES, CONCURRENCY].contains(&key.dimension.as_str());
        if !is_known || key.variant().is_none() {
            return Err(ApiError::validation("Unsupported service namespace, resource type or scalable dimension"));
        }
        Ok(key)
    }

    /// The names of endpoint and variant.
    pub(crate) fn variant(&self) -> Option<(&str, &str)> {
        let (endpoint, variant) = self.resource.strip_prefix("endpoint/")?.split_once("/variant/")?;
        (!endpoint.is_empty() && !variant.is_empty()).then_some((endpoint, variant))
    }
}

impl ScalableTargetRecord {
    /// As Describe shows it.
    pub(crate) fn shown(&self, key: &TargetKey) -> Value {
        json!({
            "ServiceNamespace": "sagemaker",
            "ResourceId": key.resource,
            "ScalableDimension": key.dimension,
            "MinCapacity": self.least,
            "MaxCapacity": self.most,
            "RoleARN": self.role,
            "CreationTime": epoch_seconds(self.created_ms),
            "SuspendedState": self.suspended,
            "ScalableTargetARN": self.arn,
        })
    }
}
