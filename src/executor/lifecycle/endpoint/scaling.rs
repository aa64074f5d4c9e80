//! Scaling of an endpoint's variant: its target and policies, as they are and as they must be.
//!
//! SageMaker refuses another instance type while the variant has a scalable target, so that it is removed before, and comes back after.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use serde::{Deserialize, Serialize};

use crate::base::backoff::backoff;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::cloud::{EndpointScaling, ScalableTarget, ScaledQuantity, ScaledVariant, ScalingPolicy, ScalingPolicyKind};
use crate::lifecycle::manifest::Endpoint;

/// The one variant of an endpoint.
pub(super) const VARIANT: &str = "AllTraffic";
/// Looks for what was written: AWS shows it late.
const LOOKS: usize = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A variant's scaling in a form that a file can hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedScaling {
    endpoint: String,
    variant: String,
    /// Provisioned concurrency, in place of instances.
    of_concurrency: bool,
    min: u32,
    max: u32,
    policies: Vec<SavedPolicy>,
}

/// A policy that tracks a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedPolicy {
    name: String,
    metric: String,
    target: f64,
    scale_in_cooldown: Option<u32>,
    scale_out_cooldown: Option<u32>,
}

impl SavedScaling {
    /// Scaling as AWS shows it; `None` when one of the policies is of a form that cannot be written again.
    pub(super) fn of(variant: &ScaledVariant, target: ScalableTarget, policies: &[ScalingPolicy]) -> Option<Self> {
        let saved = |policy: &ScalingPolicy| match &policy.kind {
            ScalingPolicyKind::Tracking { metric, target, scale_in_cooldown, scale_out_cooldown } => {
                Some(SavedPolicy {
                    name: policy.name.clone(),
                    metric: metric.clone(),
                    target: *target,
                    scale_in_cooldown: *scale_in_cooldown,
                    scale_out_cooldown: *scale_out_cooldown,
                })
            }
            ScalingPolicyKind::Other => None,
        };
        Some(Self {
            endpoint: variant.endpoint.clone(),
            variant: variant.variant.clone(),
            of_concurrency: variant.quantity == ScaledQuantity::ProvisionedConcurrency,
            min: target.min,
            max: target.max,
            policies: policies.iter().map(saved).collect::<Option<_>>()?,
        })
    }

    /// Scaling as the manifest says; `None` without autoscaling.
    pub(super) fn wanted(endpoint: &Endpoint, variant: &str) -> Option<Self> {
        let scaling = endpoint.autoscaling.as_ref()?;
        let of_concurrency = endpoint.instances.is_none();
        let metric = if of_concurrency {
            "SageMakerVariantProvisionedConcurrencyUtilization"
        } else {
            "SageMakerVariantInvocationsPerInstance"
        };
        Some(Self {
            endpoint: endpoint.name.clone(),
            variant: variant.to_owned(),
            of_concurrency,
            min: scaling.min,
            max: scaling.max,
            policies: vec![SavedPolicy {
                name: policy_name(&endpoint.name),
                metric: metric.to_owned(),
                target: scaling.target,
                scale_in_cooldown: scaling.scale_in_cooldown_seconds,
                scale_out_cooldown: scaling.scale_out_cooldown_seconds,
            }],
        })
    }

    /// This program made it, and nobody added to it.
    pub(super) fn is_own(&self) -> bool {
        !self.policies.is_empty() && self.policies.iter().all(|policy| policy.name == policy_name(&self.endpoint))
    }

    /// `true` for the endpoint's own variant.
    pub(super) fn is_of(&self, endpoint: &str) -> bool {
        self.endpoint == endpoint && self.variant == VARIANT
    }

    /// Whether a record's scaling can be that of the variant: AWS has none, because the deployment removed it, or one within the same
    /// limits, whose policies may be gone.
    pub(super) fn is_believed(&self, variant: &ScaledVariant, shown: Option<ScalableTarget>) -> bool {
        self.variant() == *variant && shown.is_none_or(|shown| shown == self.target())
    }

    /// This scaling, with the policies of `saved` that have other names.
    #[must_use]
    pub(super) fn with_others_of(mut self, saved: Option<&Self>) -> Self {
        for policy in saved.iter().flat_map(|saved| &saved.policies) {
            if self.policies.iter().all(|own| own.name != policy.name) {
                self.policies.push(policy.clone());
            }
        }
        self
    }

    pub(super) fn variant(&self) -> ScaledVariant {
        let quantity =
            if self.of_concurrency { ScaledQuantity::ProvisionedConcurrency } else { ScaledQuantity::Instances };
        ScaledVariant { endpoint: self.endpoint.clone(), variant: self.variant.clone(), quantity }
    }

    pub(super) fn target(&self) -> ScalableTarget {
        ScalableTarget { min: self.min, max: self.max }
    }

    /// `1 to 4 instances`.
    pub(super) fn text(&self) -> String {
        let what = if self.of_concurrency { "concurrent requests" } else { "instances" };
        format!("{} to {} {what}", self.min, self.max)
    }

    pub(super) fn policies(&self) -> Vec<ScalingPolicy> {
        let policy = |saved: &SavedPolicy| ScalingPolicy {
            name: saved.name.clone(),
            kind: ScalingPolicyKind::Tracking {
                metric: saved.metric.clone(),
                target: saved.target,
                scale_in_cooldown: saved.scale_in_cooldown,
                scale_out_cooldown: saved.scale_out_cooldown,
            },
        };
        self.policies.iter().map(policy).collect()
    }

    /// Whether AWS shows this scaling. Cooldowns that are not wanted have AWS's own values.
    pub(super) fn is_shown_by(&self, target: Option<ScalableTarget>, policies: &[ScalingPolicy]) -> bool {
        target == Some(self.target()) && self.missing(policies).is_empty()
    }

    fn missing(&self, shown: &[ScalingPolicy]) -> Vec<ScalingPolicy> {
        let is_missing = |policy: &ScalingPolicy| !shown.iter().any(|shown| is_same(policy, shown));
        self.policies().into_iter().filter(is_missing).collect()
    }
}

/// The name of this program's policy.
fn policy_name(endpoint: &str) -> String {
    format!("{endpoint}-target")
}

/// Whether AWS shows a policy as it is wanted. Cooldowns that are not wanted have AWS's own values.
pub(super) fn is_same(wanted: &ScalingPolicy, shown: &ScalingPolicy) -> bool {
    let (
        ScalingPolicyKind::Tracking { metric, target, scale_in_cooldown, scale_out_cooldown },
        ScalingPolicyKind::Tracking {
            metric: shown_metric,
            target: shown_target,
            scale_in_cooldown: shown_in,
            scale_out_cooldown: shown_out,
        },
    ) = (&wanted.kind, &shown.kind)
    else {
        return false;
    };
    let cooldown = |wanted: &Option<u32>, shown: &Option<u32>| wanted.is_none() || wanted == shown;
    wanted.name == shown.name
        && metric == shown_metric
        && (target - shown_target).abs() <= f64::EPSILON * target.abs()
        && cooldown(scale_in_cooldown, shown_in)
        && cooldown(scale_out_cooldown, shown_out)
}

/// Writes and removes scaling.
#[derive(Clone)]
pub(super) struct ScalingKeeper(pub(super) Arc<dyn EndpointScaling>);

impl ScalingKeeper {
    /// Scaling as AWS shows it, in a form that can be kept; `None` when there is none.
    pub(super) async fn saved(&self, variant: &ScaledVariant) -> anyhow::Result<Option<SavedScaling>> {
        let Some(target) = self.0.target(variant).await? else { return Ok(None) };
        Ok(SavedScaling::of(variant, target, &self.0.policies(variant).await?))
    }

    /// Removes the target with its policies.
    pub(super) async fn remove(&self, variant: &ScaledVariant) -> anyhow::Result<()> {
        for policy in self.0.policies(variant).await? {
            self.0.delete_policy(variant, &policy.name).await?;
        }
        Ok(self.0.deregister(variant).await?)
    }

    /// Makes the target, then its policies, and reads them back. What is right stays. `true` if something was written.
    ///
    /// # Errors
    /// AWS does not show what was written.
    pub(super) async fn ensure(&self, wanted: &SavedScaling) -> anyhow::Result<bool> {
        let variant = wanted.variant();
        let mut pauses = backoff(FIRST_PAUSE, LONGEST_PAUSE).build();
        let mut has_written = false;
        for _ in 0..LOOKS {
            let target = self.0.target(&variant).await?;
            if target != Some(wanted.target()) {
                self.0.register(&variant, &wanted.target()).await?;
                has_written = true;
            }
            let missing = wanted.missing(&self.0.policies(&variant).await?);
            for policy in &missing {
                self.0.put_policy(&variant, policy).await?;
                has_written = true;
            }
            if target == Some(wanted.target()) && missing.is_empty() {
                return Ok(has_written);
            }
            if wanted.is_shown_by(self.0.target(&variant).await?, &self.0.policies(&variant).await?) {
                return Ok(true);
            }
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
        let message = format!("AWS does not show the autoscaling that was set for {}", variant.resource_id());
        Err(Failure::verdict(exit_codes::TRY_LATER, message).hint("run the same command again").into())
    }
}
