//! Decisions of the checks: what AWS answered against what the manifest says. Pure.

use serde::Serialize;

use crate::base::arn::Arn;
use crate::base::role_trust::{self, Trust};
use crate::cloud::{AccountRole, AlarmSight, AlarmState, CloudError, CloudErrorKind, InputPrefix};
use crate::lifecycle::manifest::{Endpoint, EnvironmentEntry, Manifest, Strategy};
use crate::lifecycle::region::{self, ImageName};

const SAGEMAKER: &str = "sagemaker.amazonaws.com";

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(super) enum CheckAnswer {
    Ok {
        found: String,
    },
    Failed {
        found: String,
        change: String,
    },
    /// The check could not be made.
    Unknown {
        found: String,
        change: String,
    },
}

impl CheckAnswer {
    fn ok(found: impl Into<String>) -> Self {
        Self::Ok { found: found.into() }
    }

    fn failed(found: impl Into<String>, change: impl Into<String>) -> Self {
        Self::Failed { found: found.into(), change: change.into() }
    }

    fn unknown(found: impl Into<String>, change: impl Into<String>) -> Self {
        Self::Unknown { found: found.into(), change: change.into() }
    }

    /// Result, what was found, and what to change.
    pub(super) fn texts(&self) -> (&'static str, &str, &str) {
        match self {
            Self::Ok { found } => ("ok", found, ""),
            Self::Failed { found, change } => ("failed", found, change),
            Self::Unknown { found, change } => ("unknown", found, change),
        }
    }
}

/// A call that AWS refused.
pub(super) fn refused(error: &CloudError) -> CheckAnswer {
    match error.kind {
        CloudErrorKind::Denied => CheckAnswer::Unknown {
            found: format!("the credentials may not {}", error.operation),
            change: format!("allow them `{}`", error.action),
        },
        CloudErrorKind::Throttled => CheckAnswer::unknown(
            format!("AWS throttled the request to {}", error.operation),
            "run the command again later",
        ),
        CloudErrorKind::Transient => CheckAnswer::unknown(error.to_string(), "run the command again"),
        _ => CheckAnswer::failed(error.to_string(), "see the message of AWS"),
    }
}

/// A call that shows whether the caller may do something: here a denial is the answer.
pub(super) fn may<T>(result: Result<T, CloudError>, allowed: &str) -> Result<CheckAnswer, CloudError> {
    match result {
        Ok(_) => Ok(CheckAnswer::ok(allowed)),
        Err(error) if error.kind == CloudErrorKind::Denied => Ok(CheckAnswer::failed(
            format!("the credentials may not {}", error.operation),
            format!("allow them `{}`", error.action),
        )),
        Err(error) => Err(error),
    }
}

pub(super) fn caller(arn: &str, target: &EnvironmentEntry) -> CheckAnswer {
    let Some(caller) = Arn::parse(arn) else {
        return CheckAnswer::failed(arn, "check `--endpoint-url`");
    };
    if let Some(account) = target.account.as_deref().filter(|account| *account != caller.account) {
        let found = format!("{arn} is of account {}, and the manifest names {account}", caller.account);
        return CheckAnswer::failed(found, "take credentials of that account, or correct `account` of the environment");
    }
    if let Some(region) = target.region.as_deref().filter(|region| region::partition(region) != caller.partition) {
        let found = format!("{arn} is of the partition {}, which has no region {region}", caller.partition);
        return CheckAnswer::failed(found, "correct `region` of the environment");
    }
    CheckAnswer::ok(arn)
}

pub(super) fn bucket(found: &InputPrefix) -> CheckAnswer {
    match found {
        InputPrefix::NoBucket => {
            CheckAnswer::failed("the bucket does not exist", "create it, or correct `bucket` of the environment")
        }
        InputPrefix::OtherRegion { bucket, jobs } => CheckAnswer::failed(
            format!("the bucket is in {bucket}, and the endpoint in {jobs}"),
            "name a bucket of the endpoint's region",
        ),
        InputPrefix::OtherOwner => CheckAnswer::failed(
            "the bucket is of another account than `account`",
            "correct `bucket` or `account` of the environment",
        ),
        InputPrefix::Unreadable => CheckAnswer::unknown(
            "the bucket exists, and is of another account, or the credentials may not look into it",
            "allow them `s3:ListBucket`, or correct `bucket` of the environment",
        ),
        InputPrefix::Found | InputPrefix::Object | InputPrefix::Empty => {
            CheckAnswer::ok("it is there; the first write uses its KMS key")
        }
    }
}

/// The answer to reading an object that is not there, for a caller who may not list: S3 refuses that also to one who may read.
pub(super) fn read_without_list() -> CheckAnswer {
    CheckAnswer::unknown(
        "without `s3:ListBucket`, S3 refuses absent objects as those that may not be read",
        "allow `s3:ListBucket` first",
    )
}

/// An image that SageMaker cannot pull, because it is in another region.
pub(super) fn image_of_region(image: &ImageName, region: &str) -> CheckAnswer {
    CheckAnswer::failed(
        format!("the image is in {}, and the endpoint in {region}", image.region),
        format!("copy the image to a registry of {region}, or correct `region` of the environment"),
    )
}

pub(super) fn image_elsewhere() -> CheckAnswer {
    CheckAnswer::failed("`model.image` is in no registry of ECR", "copy the image to ECR, from which SageMaker pulls")
}

pub(super) fn image(image: &ImageName, platforms: Option<&[String]>) -> CheckAnswer {
    match platforms {
        Some(platforms) => CheckAnswer::ok(platforms.join(", ")),
        None => CheckAnswer::failed(
            format!("{} of account {} has no image with this digest", image.repository, image.account),
            "push the image, or correct `model.image`",
        ),
    }
}

/// An answer for each processor that the manifest's instances have.
pub(super) fn architectures(manifest: &Manifest, platforms: &[String]) -> Vec<CheckAnswer> {
    let of_endpoint = manifest.endpoint.as_ref().and_then(|endpoint| endpoint.instances.as_ref());
    let of_model = manifest.model.iter().flat_map(|model| &model.instance_types);
    let mut types: Vec<&str> =
        of_endpoint.map(|instances| &instances.instance_type).into_iter().chain(of_model).map(String::as_str).collect();
    types.sort_unstable();
    types.dedup();
    if manifest.endpoint.as_ref().is_some_and(|endpoint| endpoint.serverless.is_some()) {
        types.push("serverless");
    }
    let fits = |name: &str| {
        let wanted = format!("linux/{}", region::architecture(name));
        if platforms.contains(&wanted) {
            return CheckAnswer::ok(format!("{name} runs {wanted}"));
        }
        let found = format!("{name} runs {wanted}, and the image has {}", platforms.join(", "));
        CheckAnswer::failed(found, format!("build the image for {wanted}, or take another instance type"))
    };
    types.into_iter().map(fits).collect()
}

pub(super) fn role(arn: &str, found: Option<&AccountRole>) -> CheckAnswer {
    let Some(role) = found else {
        return CheckAnswer::failed(
            format!("the account has no role {arn}"),
            "create it, or correct `role` of the environment",
        );
    };
    if role.arn != arn {
        return CheckAnswer::failed(
            format!("the role of this name is {}", role.arn),
            "correct `role` of the environment",
        );
    }
    let change = format!("let `{SAGEMAKER}` call `sts:AssumeRole` in the trust policy of the role");
    match role_trust::of_service(&role.trust, SAGEMAKER, role_trust::ASSUME) {
        Trust::Given => CheckAnswer::ok("SageMaker may assume it"),
        Trust::Refused => CheckAnswer::failed("SageMaker may not assume it", change),
        Trust::Conditional => {
            let found = "the trust policy has conditions, or exceptions, for SageMaker";
            CheckAnswer::unknown(found, "check that they hold for the model and the endpoint")
        }
    }
}

/// The user or role whose policies decide about a caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PolicySource<'a> {
    /// A user.
    Itself,
    /// The role of this name, of which the caller is a session.
    Role(&'a str),
    Unknown(CheckAnswer),
}

pub(super) fn principal(caller: &str) -> PolicySource<'_> {
    let resource = Arn::parse(caller).map(|arn| arn.resource).unwrap_or_default();
    let mut parts = resource.split('/');
    match (parts.next(), parts.next()) {
        (Some("assumed-role"), Some(name)) => PolicySource::Role(name),
        (Some("user"), Some(_)) => PolicySource::Itself,
        _ => PolicySource::Unknown(CheckAnswer::Unknown {
            found: format!("IAM simulates no policies of {caller}"),
            change: "take credentials of a user or a role".to_owned(),
        }),
    }
}

pub(super) fn pass(caller: &str, role: &str, may_pass: bool) -> CheckAnswer {
    if may_pass {
        return CheckAnswer::ok("the credentials may pass the role to SageMaker");
    }
    CheckAnswer::failed(format!("{caller} may not pass the role"), format!("allow it `iam:PassRole` on {role}"))
}

/// Instances that an endpoint has at most at the same time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NeededInstances<'a> {
    pub(crate) instance_type: &'a str,
    pub(crate) count: u32,
}

/// During a deployment the new instances run beside the old ones; `rolling` adds one step of them.
pub(crate) fn needed_instances(endpoint: &Endpoint) -> Option<NeededInstances<'_>> {
    let instances = endpoint.instances.as_ref()?;
    let most = instances.count.max(endpoint.autoscaling.as_ref().map_or(0, |scaling| scaling.max));
    let deployment = &endpoint.deployment;
    let added = match (deployment.strategy, deployment.step_percent) {
        (Strategy::Rolling, Some(percent)) => most.saturating_mul(percent).div_ceil(100),
        _ => most,
    };
    Some(NeededInstances { instance_type: &instances.instance_type, count: most.saturating_add(added) })
}

pub(super) fn quota(needed: &NeededInstances, quota: Option<f64>) -> CheckAnswer {
    let NeededInstances { instance_type, count } = needed;
    match quota {
        None => CheckAnswer::Unknown {
            found: format!("Service Quotas lists no quota of {instance_type} for endpoints"),
            change: "correct `endpoint.instances.type`, if SageMaker has no such type".to_owned(),
        },
        Some(quota) if quota < f64::from(*count) => CheckAnswer::failed(
            format!("the quota is {quota}, and a deployment needs up to {count} instances"),
            format!("request a higher quota `{instance_type} for endpoint usage`, or fewer instances"),
        ),
        Some(quota) => CheckAnswer::ok(format!(
            "the quota is {quota}, a deployment needs up to {count}, and other endpoints count too"
        )),
    }
}

/// The alarms with these names, which a deployment watches.
pub(super) fn alarms(names: &[String], found: &[AlarmSight]) -> CheckAnswer {
    let is_there = |name: &&String| found.iter().any(|alarm| alarm.name == **name);
    let absent: Vec<&str> = names.iter().filter(|name| !is_there(name)).map(String::as_str).collect();
    if !absent.is_empty() {
        let found = format!("CloudWatch has no alarm {}", absent.join(", "));
        return CheckAnswer::failed(found, "make the alarm, or correct `endpoint.alarms.names`");
    }
    let on: Vec<&str> =
        found.iter().filter(|alarm| alarm.state == AlarmState::Alarm).map(|alarm| alarm.name.as_str()).collect();
    if on.is_empty() {
        return CheckAnswer::ok(format!("none of {} is on", names.join(", ")));
    }
    CheckAnswer::unknown(
        format!("on now: {}", on.join(", ")),
        "wait until it is off: an alarm that is on rolls a deployment back at once",
    )
}
