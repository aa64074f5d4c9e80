//! Syntax and limits of values of `CreateTrainingJob`, for the operator's file and for a job's variables. Pure.

use std::ops::RangeInclusive;

use crate::base::arn::Arn;

/// Longest value of an environment variable (`CreateTrainingJob`, `Environment`: 512 characters, 100 entries).
pub(super) const ENVIRONMENT_VALUE: usize = 512;
/// Most instances of a training job.
pub(super) const INSTANCES: u32 = 100;
/// Most instance types that a job names: the executor's own limit.
pub(super) const INSTANCE_TYPES: usize = 10;
/// Most groups of instances (`ResourceConfig`, `InstanceGroups`).
pub(super) const GROUPS: usize = 5;
/// Largest volume of an instance, in GB.
pub(super) const VOLUME_GB: u32 = 16_384;
/// SageMaker's own limit of a training job: 28 days.
pub(super) const MAX_RUNTIME: u64 = 28 * 86_400;

/// Most restarts by SageMaker (`RetryStrategy`, `MaximumRetryAttempts`).
pub(super) const RETRIES: u32 = 30;
/// Longest keep-alive of a warm pool, by the guide "SageMaker AI Managed Warm Pools"; the service model has 21600.
pub(super) const KEEP_ALIVE: u64 = 3600;
/// Longest wait for a quota: the executor's own limit.
pub(super) const QUEUE_TIMEOUT: u64 = 7 * 86_400;
/// Waits for instances with an accelerator (`StoppingCondition`, `MaxPendingTimeInSeconds`).
pub(super) const MAX_PENDING: RangeInclusive<u64> = 1800..=28 * 86_400;
/// Longest time in seconds for the container of a failed script: the executor's own limit.
pub(super) const KEEP_ON_FAILURE: u64 = 86_400;
/// Longest time of a spot job, waiting and running: SageMaker ends every job 30 days after its creation.
pub(super) const SPOT_MAX_WAIT: u64 = 30 * 86_400;

/// `ml.<family>.<size>`; only SageMaker knows which ones exist, and their list grows.
pub(super) fn is_instance_type(name: &str) -> bool {
    let part = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let mut parts = name.split('.');
    parts.next() == Some("ml")
        && parts.next().is_some_and(part)
        && parts.next().is_some_and(part)
        && parts.next().is_none()
}

/// SageMaker takes any 1 to 64 characters; these need no quotes in scripts.
pub(super) fn is_group_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// `^arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+$`, 20 to 2048 characters. `CreateTrainingJob`, `RoleArn`.
pub(super) fn is_role_arn(text: &str) -> bool {
    let Some(Arn { partition, service, region, account, resource }) = Arn::parse(text) else { return false };
    let name = resource.strip_prefix("role").map(|name| name.strip_prefix('/').unwrap_or(name)).unwrap_or_default();
    partition.strip_prefix("aws").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        && service == "iam"
        && region.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@-_/".contains(&byte))
        && (20..=2048).contains(&text.len())
}

/// `^[a-zA-Z_][a-zA-Z0-9_]*$`, 512 characters at most.
pub(super) fn is_environment_name(name: &str) -> bool {
    name.len() <= 512
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// `^arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:training-plan/.*$`, 50 to 2048 characters.
pub(super) fn is_training_plan(text: &str) -> bool {
    let is_region = |region: &str| region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    has_arn(text, "sagemaker", "training-plan/")
        && Arn::parse(text).is_some_and(|arn| is_region(arn.region))
        && (50..=2048).contains(&text.len())
}

/// `^arn:[[:alnum:]\-]+:lambda:[[:alnum:]\-]+:[0-9]{12}:function:.*$`, 2048 characters at most.
pub(super) fn is_lambda(text: &str) -> bool {
    let is_region = |region: &str| !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    has_arn(text, "lambda", "function:")
        && Arn::parse(text).is_some_and(|arn| is_region(arn.region))
        && text.len() <= 2048
}

/// An ARN of a service, with an account and a resource that begins so; in one line.
fn has_arn(text: &str, wanted: &str, start: &str) -> bool {
    let Some(Arn { partition, service, account, resource, .. }) = Arn::parse(text) else { return false };
    partition.strip_prefix("aws").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        && service == wanted
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && resource.starts_with(start)
        && !text.chars().any(char::is_control)
}
