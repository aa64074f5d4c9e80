//! The objects of a deployment's record, as they lie in the bucket. They are read by later versions of this program: fields are added
//! and never change their meaning, and a new `FORMAT` says that an old reader must not guess.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::cloud::{ScalableTarget, ScalingPolicy, ScalingPolicyKind, VariantCapacity};
use crate::lifecycle::endpoint::deployed_package::DeployedPackage;
use crate::lifecycle::endpoint::scaling::SavedScaling;
use crate::lifecycle::identity::JobUser;
use crate::lifecycle::target::ProjectTarget;

/// Most instances or concurrent requests in a record's scaling.
const MOST_SCALED: u32 = 1000;
/// Most scaling policies in a record: AWS takes no more for a target.
const MOST_POLICIES: usize = 50;
/// Version of both objects.
pub(super) const FORMAT: u32 = 1;

/// The plan of a deployment, written before anything is changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LedgerBegin {
    pub(crate) format: u32,
    pub(crate) kind: LedgerKind,
    /// As RFC 3339 says.
    pub(crate) at: String,
    pub(crate) user: LedgerUser,
    pub(crate) project: Option<String>,
    pub(crate) pipeline: Option<String>,
    pub(crate) job: Option<String>,
    pub(crate) commit: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) environment: String,
    pub(crate) endpoint: String,
    /// Number of the deployment that a rollback brings back.
    pub(crate) target: Option<u64>,
    /// ARN of the version in the registry.
    pub(crate) model_package: Option<String>,
    /// The package that the deployment is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) package: Option<DeployedPackage>,
    /// SHA-256 of the specification, in hexadecimal digits.
    pub(crate) specification: Option<String>,
    /// The configuration and the model in service before.
    pub(crate) from_config: Option<String>,
    pub(crate) from_model: Option<String>,
    /// Those to bring into service; `None` for a deletion.
    pub(crate) to_config: Option<String>,
    pub(crate) to_model: Option<String>,
    /// Everything that must still exist for a rollback to this deployment, and that a configuration does not say.
    pub(crate) serving: Option<LedgerServing>,
    /// The endpoint before the deployment; `None` when there was none.
    pub(crate) before: Option<LedgerBefore>,
}

/// An endpoint before a deployment, so that a run that goes on with it knows what has changed, and what must come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LedgerBefore {
    /// Time of its last change, as RFC 3339 says.
    modified: Option<String>,
    pub(crate) scaling: Option<SavedScaling>,
}

impl LedgerBefore {
    pub(crate) fn new(modified: Option<SystemTime>, scaling: Option<SavedScaling>) -> Self {
        Self { modified: modified.map(|at| humantime::format_rfc3339_nanos(at).to_string()), scaling }
    }

    pub(crate) fn modified(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.modified.as_deref()?).ok()
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerEnd {
    pub(crate) format: u32,
    pub(crate) at: String,
    pub(crate) outcome: LedgerOutcome,
    pub(crate) reason: Option<String>,
    /// The configuration in service at the end; `None` when there is none.
    pub(crate) config: Option<String>,
    /// Verdict of the samples; `None` when none were sent.
    pub(crate) test: Option<LedgerTest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LedgerKind {
    Deploy,
    Rollback,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LedgerOutcome {
    Succeeded,
    /// By AWS, because of an alarm or a failed start.
    RolledBack,
    /// By this program, because of the samples.
    RolledBackByUs,
    Failed,
    /// It was interrupted, and another deployment came after it.
    DetachedSuperseded,
}

/// The person behind a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerUser {
    pub(crate) login: Option<String>,
    /// Id of the user and of the GitLab server; of a proven user alone.
    pub(crate) id: Option<String>,
    /// The name comes from an id token that AWS accepted. Else it is what the pipeline's variables say.
    pub(crate) is_proven: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LedgerServing {
    /// With its digest.
    pub(crate) image: String,
    pub(crate) model_data_url: Option<String>,
    pub(crate) capacity: LedgerCapacity,
    /// Names of the alarms that take the deployment back.
    pub(crate) alarms: Vec<String>,
    pub(crate) autoscaling: Option<LedgerScaling>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LedgerCapacity {
    Instances { instance_type: String, count: u32 },
    Serverless { memory_mb: u32, max_concurrency: u32, provisioned_concurrency: Option<u32> },
}

/// A scalable target with its policy of target tracking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LedgerScaling {
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) policy: String,
    pub(crate) metric: String,
    pub(crate) target: f64,
    pub(crate) scale_in_cooldown: Option<u32>,
    pub(crate) scale_out_cooldown: Option<u32>,
}

/// Verdict of the samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerTest {
    pub(crate) is_good: bool,
    /// One line.
    pub(crate) summary: String,
}

impl LedgerBegin {
    /// A record of this job, without what it sets out to do.
    pub(crate) fn new(
        kind: LedgerKind,
        at: SystemTime,
        user: Option<&JobUser>,
        target: &ProjectTarget,
        endpoint: &str,
    ) -> Self {
        let pipeline = &target.pipeline;
        let of_token = |claim: fn(&JobUser) -> &String, variable: &Option<String>| {
            user.map(|user| claim(user).clone()).filter(|text| !text.is_empty()).or_else(|| variable.clone())
        };
        Self {
            format: FORMAT,
            kind,
            at: time(at),
            user: match user {
                Some(user) => LedgerUser { login: Some(user.login.clone()), id: Some(user.key()), is_proven: true },
                None => LedgerUser { login: pipeline.user.clone(), id: None, is_proven: false },
            },
            project: of_token(|user| &user.project, &pipeline.project),
            pipeline: of_token(|user| &user.pipeline, &pipeline.id),
            job: of_token(|user| &user.job, &pipeline.job_id),
            commit: pipeline.commit.clone(),
            reason: None,
            environment: target.environment.clone().unwrap_or_default(),
            endpoint: endpoint.to_owned(),
            target: None,
            model_package: None,
            package: None,
            specification: None,
            from_config: None,
            from_model: None,
            to_config: None,
            to_model: None,
            serving: None,
            before: None,
        }
    }
}

impl LedgerBegin {
    /// A job can write records too, so that scaling may be of another endpoint, or without bounds.
    pub(super) fn check_scaling(&self) -> Result<(), &'static str> {
        let before = self.before.as_ref().and_then(|before| before.scaling.as_ref());
        if before.is_some_and(|scaling| !scaling.is_of(&self.endpoint)) {
            return Err("its autoscaling is of another endpoint or variant");
        }
        let serving = self.serving.as_ref().and_then(|serving| serving.autoscaling.as_ref());
        let before = before.into_iter().map(|scaling| (scaling.target(), scaling.policies()));
        let serving = serving.into_iter().map(|scaling| (scaling.limits(), vec![scaling.policy()]));
        let is_bounded = |(limits, policies): (ScalableTarget, Vec<ScalingPolicy>)| {
            let targets = policies.iter().all(|policy| match policy.kind {
                ScalingPolicyKind::Tracking { target, .. } => target.is_finite() && target > 0.0,
                ScalingPolicyKind::Other => true,
            });
            targets && policies.len() <= MOST_POLICIES && limits.min <= limits.max && limits.max <= MOST_SCALED
        };
        if before.chain(serving).all(is_bounded) { Ok(()) } else { Err("its autoscaling is out of bounds") }
    }
}

impl LedgerEnd {
    pub(crate) fn new(at: SystemTime, outcome: LedgerOutcome) -> Self {
        Self { format: FORMAT, at: time(at), outcome, reason: None, config: None, test: None }
    }
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

impl LedgerKind {
    /// As the record says.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Delete => "delete",
        }
    }
}

impl LedgerOutcome {
    /// As the record says.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled-back",
            Self::RolledBackByUs => "rolled-back-by-us",
            Self::Failed => "failed",
            Self::DetachedSuperseded => "detached-superseded",
        }
    }
}

impl From<&VariantCapacity> for LedgerCapacity {
    fn from(capacity: &VariantCapacity) -> Self {
        match capacity {
            VariantCapacity::Instances { instance_type, count } => {
                Self::Instances { instance_type: instance_type.clone(), count: *count }
            }
            VariantCapacity::Serverless { memory_mb, max_concurrency, provisioned_concurrency } => Self::Serverless {
                memory_mb: *memory_mb,
                max_concurrency: *max_concurrency,
                provisioned_concurrency: *provisioned_concurrency,
            },
        }
    }
}

impl LedgerScaling {
    /// `None` without a policy, and for one that this program does not make.
    pub(crate) fn of_saved(saved: &SavedScaling) -> Option<Self> {
        Self::of(saved.target(), saved.policies().first()?)
    }

    /// `None` for a policy that this program does not make.
    pub(crate) fn of(limits: ScalableTarget, policy: &ScalingPolicy) -> Option<Self> {
        let ScalingPolicyKind::Tracking { metric, target, scale_in_cooldown, scale_out_cooldown } = &policy.kind else {
            return None;
        };
        Some(Self {
            min: limits.min,
            max: limits.max,
            policy: policy.name.clone(),
            metric: metric.clone(),
            target: *target,
            scale_in_cooldown: *scale_in_cooldown,
            scale_out_cooldown: *scale_out_cooldown,
        })
    }

    pub(crate) fn limits(&self) -> ScalableTarget {
        ScalableTarget { min: self.min, max: self.max }
    }

    pub(crate) fn policy(&self) -> ScalingPolicy {
        ScalingPolicy {
            name: self.policy.clone(),
            kind: ScalingPolicyKind::Tracking {
                metric: self.metric.clone(),
                target: self.target,
                scale_in_cooldown: self.scale_in_cooldown,
                scale_out_cooldown: self.scale_out_cooldown,
            },
        }
    }
}
