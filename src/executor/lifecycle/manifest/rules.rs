//! Rules about several keys of the manifest, and about maps, which no schema says. Pure.

use std::collections::BTreeMap;

use serde_json_path::JsonPath;

use super::places::join;
use super::shape::Mistake;
use super::types::{Alarms, Deployment, Endpoint, EnvironmentEntry, Manifest, ModelEntry, Strategy};
use crate::base::arn::Arn;
use crate::lifecycle::region;

/// Most tags of a manifest: AWS takes 50, and 12 are those of a deployment of a package with approvals.
pub(in crate::lifecycle) const MOST_TAGS: usize = 38;
/// Most variables of a container (`ContainerDefinition`, `Environment`).
const MOST_VARIABLES: usize = 100;
/// Longest name and value of a container's variable.
const LONGEST_VARIABLE: usize = 1024;
/// Most alarms of a deployment (`AutoRollbackConfiguration`, `Alarms`).
const MOST_ALARMS: usize = 10;
/// Limits of the limit of a deployment (`MaximumExecutionTimeoutInSeconds`).
const SHORTEST_DEPLOYMENT: u32 = 600;
const LONGEST_DEPLOYMENT: u32 = 28_800;
/// Time for the start of instances, in a limit that the manifest does not give.
const PROVISIONING: u32 = 1800;
/// Fewest seconds that alarms of the manifest are watched: their period.
const SHORTEST_WATCH: u32 = 60;
/// Seconds that alarms are watched where the manifest does not say how long.
const WATCH: u32 = 300;

/// Finds the mistakes in a manifest whose environment is applied. `entry` is the path of the environment.
pub(super) fn check(manifest: &Manifest, entry: &str) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if let Some(model) = &manifest.model {
        check_model(model, &manifest.target, &mut mistakes);
    }
    if let Some(endpoint) = &manifest.endpoint {
        check_endpoint(endpoint, &mut mistakes);
    }
    check_tags(&manifest.tags.0, &mut mistakes);
    check_target(&manifest.target, entry, &mut mistakes);
    mistakes
}

fn check_model(model: &ModelEntry, target: &EnvironmentEntry, mistakes: &mut Vec<Mistake>) {
    let mut tell = |path: &str, message: String| mistakes.push((path.to_owned(), message));
    if model.environment.len() > MOST_VARIABLES {
        tell("model.environment", format!("has {} variables; the most are {MOST_VARIABLES}", model.environment.len()));
    }
    for (name, value) in &model.environment {
        let path = join("model.environment", name);
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !is_name || name.len() > LONGEST_VARIABLE {
            tell(
                &path,
                "is no name of a variable: it has letters, digits and `_`, and begins with no digit".to_owned(),
            );
        }
        if value.chars().count() > LONGEST_VARIABLE {
            tell(&path, format!("has more than {LONGEST_VARIABLE} characters"));
        }
    }
    for (name, path) in &model.metric_paths {
        if JsonPath::parse(path.trim()).is_err() {
            tell(&join("model.metric_paths", name), "is no JSONPath: write one as `$.report.f1`".to_owned());
        }
        if name.trim().is_empty() || name.contains(|one: char| one.is_control() || "<>=!{}\"".contains(one)) {
            tell(&join("model.metric_paths", name), "is no name of a metric: it has none of `<>=!{}\"`".to_owned());
        }
    }
    let location = model.path.strip_prefix("s3://");
    if location.is_some_and(|rest| {
        !rest.split_once('/').is_some_and(|(bucket, key)| !bucket.is_empty() && key.ends_with(".tar.gz"))
    }) {
        tell(
            "model.path",
            "must name a `.tar.gz` object in S3, or a folder: write `s3://BUCKET/KEY/model.tar.gz`".to_owned(),
        );
    }
    let registry = region::of_registry(&model.image);
    if let (Some(there), Some(here)) = (registry, target.region.as_deref())
        && there != here
    {
        tell(
            "model.image",
            format!("is in a registry of {there}, and the endpoint in {here}: copy the image to a registry of {here}"),
        );
    }
}

fn check_endpoint(endpoint: &Endpoint, mistakes: &mut Vec<Mistake>) {
    let mut tell = |path: &str, message: &str| mistakes.push((path.to_owned(), message.to_owned()));
    match (&endpoint.instances, &endpoint.serverless) {
        (None, None) => tell("endpoint", "needs `instances` or `serverless`"),
        (Some(_), Some(_)) => tell("endpoint.serverless", "cannot stand beside `instances`: remove one of them"),
        _ => {}
    }
    if let Some(serverless) = endpoint.serverless.as_ref().filter(|_| endpoint.instances.is_none()) {
        if serverless.provisioned_concurrency.is_some_and(|number| number > serverless.max_concurrency) {
            tell("endpoint.serverless.provisioned_concurrency", "must be at most `max_concurrency`");
        }
        if endpoint.autoscaling.is_some() && serverless.provisioned_concurrency.is_none() {
            tell("endpoint.autoscaling", "needs `serverless.provisioned_concurrency`, which it scales");
        }
        if endpoint.deployment.strategy != Strategy::AllAtOnce {
            tell("endpoint.deployment.strategy", "must be `all_at_once` for a serverless endpoint");
        }
        if endpoint.asynchronous.is_some() {
            tell("endpoint.asynchronous", "needs `instances`: a serverless endpoint has no asynchronous requests");
        }
        if !endpoint.alarms.is_empty() {
            tell("endpoint.alarms", "cannot roll a serverless endpoint back: remove them");
        }
    }
    if let Some(scaling) = &endpoint.autoscaling {
        if scaling.min > scaling.max {
            tell("endpoint.autoscaling.min", "must be at most `max`");
        }
        if endpoint.instances.is_none() && scaling.target > 1.0 {
            tell("endpoint.autoscaling.target", "must be at most 1 for a serverless endpoint");
        }
    }
    let alarms = &endpoint.alarms;
    let made = usize::from(alarms.errors_5xx.is_some()) + usize::from(alarms.latency_p95_ms.is_some());
    if alarms.names.len() + made > MOST_ALARMS {
        tell("endpoint.alarms", "has more than 10 alarms, which is the most that SageMaker takes");
    }
    check_deployment(endpoint, mistakes);
}

fn check_deployment(endpoint: &Endpoint, mistakes: &mut Vec<Mistake>) {
    let deployment = &endpoint.deployment;
    let mut tell = |key: &str, message: String| mistakes.push((format!("endpoint.deployment.{key}"), message));
    let least = match deployment.strategy {
        Strategy::AllAtOnce => None,
        Strategy::Canary => Some(1),
        Strategy::Linear => Some(10),
        Strategy::Rolling => Some(5),
    };
    match (least, deployment.step_percent) {
        (None, Some(_)) => tell("step_percent", "has no effect on `all_at_once`: remove it".to_owned()),
        (Some(_), None) => tell("step_percent", "is missing: every strategy but `all_at_once` needs it".to_owned()),
        (Some(least), Some(percent)) if percent < least => {
            tell("step_percent", format!("must be from {least} to 50 for this strategy"));
        }
        _ => {}
    }
    let count = endpoint.instances.as_ref().map(|instances| instances.count);
    let count = count.max(endpoint.autoscaling.as_ref().map(|scaling| scaling.min));
    if least.is_some() && endpoint.instances.is_some() && count.is_some_and(|count| count < 2) {
        tell(
            "strategy",
            "needs at least 2 instances, so that a part of them can change: set `endpoint.instances.count`".to_owned(),
        );
    }
    if deployment.strategy == Strategy::Rolling && deployment.termination_wait_seconds.is_some() {
        tell("termination_wait_seconds", "has no effect on `rolling`: remove it".to_owned());
    }
    let makes_alarms = endpoint.alarms.errors_5xx.is_some() || endpoint.alarms.latency_p95_ms.is_some();
    if makes_alarms && endpoint.step_wait() < SHORTEST_WATCH {
        let message = format!("must be at least {SHORTEST_WATCH}: the alarms look at a minute, and would see nothing");
        tell("wait_seconds", message);
    }
    let limit = deployment.timeout_seconds.unwrap_or(LONGEST_DEPLOYMENT);
    let waits = endpoint.waits();
    if waits >= limit {
        let key = if deployment.timeout_seconds.is_some() { "timeout_seconds" } else { "wait_seconds" };
        tell(key, format!("the waits take {waits} seconds together, and the limit is {limit}: it must be above them"));
    }
}

impl Endpoint {
    /// Time that alarms are watched after each step of a deployment, in seconds.
    pub(crate) fn step_wait(&self) -> u32 {
        self.deployment.wait_seconds.unwrap_or(if self.alarms.is_empty() { 0 } else { WATCH })
    }

    /// The sum of all waits of a deployment, in seconds.
    pub(crate) fn waits(&self) -> u32 {
        let Deployment { strategy, step_percent, termination_wait_seconds, .. } = &self.deployment;
        let steps = match (strategy, step_percent) {
            (Strategy::Linear | Strategy::Rolling, Some(percent)) => 100_u32.div_ceil((*percent).max(1)),
            _ => 1,
        };
        self.step_wait().saturating_mul(steps).saturating_add(termination_wait_seconds.unwrap_or_default())
    }

    /// The limit of a deployment that SageMaker keeps, in seconds.
    pub(crate) fn deployment_limit(&self) -> u32 {
        let usual = || self.waits().saturating_add(PROVISIONING).clamp(SHORTEST_DEPLOYMENT, LONGEST_DEPLOYMENT);
        self.deployment.timeout_seconds.unwrap_or_else(usual)
    }
}

impl Alarms {
    fn is_empty(&self) -> bool {
        self.errors_5xx.is_none() && self.latency_p95_ms.is_none() && self.names.is_empty()
    }
}

/// `^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$`, names not beginning with `aws:`.
fn check_tags(tags: &BTreeMap<String, String>, mistakes: &mut Vec<Mistake>) {
    let mut tell = |path: &str, message: String| mistakes.push((path.to_owned(), message));
    if tags.len() > MOST_TAGS {
        tell(
            "tags",
            format!(
                "has {} tags; the most are {MOST_TAGS}, because AWS takes 50 with those of the commands",
                tags.len()
            ),
        );
    }
    let is_plain = |text: &str| text.chars().all(|one| one.is_alphanumeric() || one == ' ' || "_.:/=+-@".contains(one));
    for (name, value) in tags {
        let path = join("tags", name);
        if name.is_empty() || name.chars().count() > 128 || !is_plain(name) {
            tell(&path, "is no name of a tag: 1 to 128 letters, digits, spaces and `_.:/=+-@`".to_owned());
        }
        if name.to_lowercase().starts_with("aws:") {
            tell(&path, "begins with `aws:`, which AWS keeps for itself".to_owned());
        }
        if value.chars().count() > 256 || !is_plain(value) {
            tell(&path, "is no value of a tag: at most 256 letters, digits, spaces and `_.:/=+-@`".to_owned());
        }
    }
}

fn check_target(target: &EnvironmentEntry, path: &str, mistakes: &mut Vec<Mistake>) {
    let mut tell = |key: &str, message: String| mistakes.push((format!("{path}.{key}"), message));
    if target.subnets.is_empty() != target.security_groups.is_empty() {
        let (has, needs) =
            if target.subnets.is_empty() { ("security_groups", "subnets") } else { ("subnets", "security_groups") };
        tell(has, format!("needs `{needs}` beside it"));
    }
    let roles = [
        ("role", &target.role, ": SageMaker takes only roles of its own account"),
        ("job_role", &target.job_role, ", in which its jobs work"),
    ];
    let roles = roles.map(|(key, arn, why)| (key, arn.as_deref().and_then(Arn::parse), why));
    for (key, role, why) in &roles {
        if let (Some(role), Some(account)) = (role, target.account.as_deref())
            && role.account != account
        {
            tell(key, format!("is a role of another account than `account`{why}"));
        }
    }
    let Some(region) = target.region.as_deref() else { return };
    for (key, role, _) in &roles {
        if let Some(role) = role.filter(|role| role.partition != region::partition(region)) {
            tell(
                key,
                format!("is of the partition {}, and the region of {}", role.partition, region::partition(region)),
            );
        }
    }
    if let Some(key) = target.key.as_deref().and_then(Arn::parse).filter(|key| key.region != region) {
        tell(
            "key",
            format!("is a key of {}, and the region is {region}: keys encrypt in their own region", key.region),
        );
    }
}
