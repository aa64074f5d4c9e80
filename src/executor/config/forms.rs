//! Syntax and limits of values of `CreateTrainingJob`, for the operator's file and for a job's variables. Pure.

use crate::base::arn::Arn;

/// Longest value of an environment variable (`CreateTrainingJob`, `Environment`: 512 characters, 100 entries).
pub(super) const ENVIRONMENT_VALUE: usize = 512;
/// Most instances of a training job.
pub(super) const INSTANCES: u32 = 100;
/// Largest volume of an instance, in GB.
pub(super) const VOLUME_GB: u32 = 16_384;
/// SageMaker's own limit of a training job: 28 days.
pub(super) const MAX_RUNTIME: u64 = 28 * 86_400;

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
