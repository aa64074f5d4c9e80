//! The bounds of a job's request: those of its rule, and the defaults of `[job]` for all that the rule does not name.

use serde::Serialize;

use crate::base::failure::Failure;
use crate::cloud::Network;
use crate::config::rules::{Allowance, Choice, ImageTags, PolicyRule};
use crate::config::settings::Settings;

use super::identity::JobIdentity;
use super::matching;

/// The values that a job may have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobBounds {
    /// The rule's name; `None` for a file without rules, and for `try`.
    pub rule: Option<String>,
    /// Globs.
    pub instance_types: Vec<String>,
    /// The type of jobs that name none, when it is among `instance_types`.
    pub instance_type: Option<String>,
    pub instance_count: Limit<u32>,
    pub volume_size_gb: Limit<u32>,
    /// Longest run time in seconds.
    pub max_runtime: u64,
    /// The first one is the default.
    pub roles: Vec<String>,
    /// The role must be among `roles`.
    pub roles_are_listed: bool,
    /// Globs; all images when `None`.
    pub images: Option<Vec<String>>,
    pub image_tags: ImageTags,
    pub network: Option<Network>,
    /// Globs on names; all when `None`.
    pub environment: Option<Vec<String>>,
    pub regions: Option<Vec<String>>,
    pub max_cost: Option<f64>,
    pub max_jobs: Option<u32>,
    pub spot: Switch,
    pub checkpoints: Switch,
    pub network_isolation: Switch,
    pub retries: Limit<u32>,
    /// Seconds.
    pub keep_alive: Limit<u64>,
    /// The plan of jobs that name none.
    pub training_plan: Option<String>,
    /// Globs.
    pub training_plans: Vec<String>,
    /// Seconds.
    pub queue_timeout: Limit<u64>,
    /// Seconds; 0: as long as SageMaker waits by itself.
    pub max_pending: Limit<u64>,
    pub remote_debug: Switch,
    /// Seconds.
    pub keep_on_failure: Limit<u64>,
    /// Globs, for the channels that a job names itself.
    pub inputs: Vec<String>,
    /// The output of jobs that name none.
    pub model_output: Option<String>,
    /// Globs.
    pub model_outputs: Vec<String>,
}

/// A choice, and the value of jobs that do not choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Switch {
    pub choice: Choice,
    pub default: bool,
}

impl Switch {
    fn new(default: bool, choice: Option<Choice>) -> Self {
        match choice.unwrap_or(if default { Choice::Only } else { Choice::Refuse }) {
            Choice::Allow => Self { choice: Choice::Allow, default },
            Choice::Only => Self { choice: Choice::Only, default: true },
            Choice::Refuse => Self { choice: Choice::Refuse, default: false },
        }
    }
}

/// The value of jobs that name none, and the largest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limit<T> {
    pub default: T,
    pub most: T,
}

impl<T: Ord + Copy> Limit<T> {
    fn new(default: T, most: Option<T>) -> Self {
        let most = most.unwrap_or(default);
        Self { default: default.min(most), most }
    }
}

/// The bounds of a job, or the refusal of a job that no rule matches.
pub fn bounds_of(job: &JobIdentity, settings: &Settings) -> Result<JobBounds, Failure> {
    if settings.allows_all {
        return Ok(all(settings));
    }
    if settings.rules.is_empty() {
        return Ok(of_default(settings));
    }
    let rule = matching::rule_of(job, &settings.rules).ok_or_else(|| no_rule(job))?;
    Ok(of_rule(rule, settings))
}

/// The bounds of all jobs for a file without rules.
pub fn of_default(settings: &Settings) -> JobBounds {
    of_allowance(None, &Allowance::default(), settings)
}

/// The bounds of a rule's jobs.
pub fn of_rule(rule: &PolicyRule, settings: &Settings) -> JobBounds {
    of_allowance(Some(rule.name.clone()), &rule.allow, settings)
}

fn of_allowance(rule: Option<String>, allow: &Allowance, settings: &Settings) -> JobBounds {
    let job = &settings.job;
    let instance_types = allow.instance_types.clone().unwrap_or_else(|| vec![job.instance_type.clone()]);
    JobBounds {
        rule,
        instance_type: default_type(&instance_types, &job.instance_type),
        instance_types,
        instance_count: Limit::new(job.instance_count, allow.max_instance_count),
        volume_size_gb: Limit::new(job.volume_size_gb, allow.max_volume_size_gb),
        max_runtime: allow.max_runtime_seconds.unwrap_or(job.max_runtime_seconds),
        roles: allow.roles.clone().unwrap_or_else(|| job.role_arn.iter().cloned().collect()),
        roles_are_listed: true,
        images: allow.images.clone(),
        image_tags: allow.image_tags.unwrap_or(ImageTags::Allow),
        network: match (&allow.subnets, &allow.security_group_ids) {
            (Some(subnets), Some(groups)) => {
                Some(Network { subnets: subnets.clone(), security_group_ids: groups.clone() })
            }
            _ => settings.network(),
        },
        environment: allow.environment.clone(),
        regions: allow.regions.clone(),
        max_cost: allow.max_cost,
        max_jobs: allow.max_jobs,
        spot: Switch::new(job.spot, allow.spot),
        checkpoints: Switch::new(job.checkpoints, allow.checkpoints),
        network_isolation: Switch::new(job.network_isolation, allow.network_isolation),
        retries: Limit::new(job.retries, allow.max_retries),
        keep_alive: Limit::new(job.keep_alive_seconds, allow.max_keep_alive_seconds),
        training_plan: usual(job.training_plan.as_ref(), allow.training_plans.as_ref()),
        training_plans: listed(allow.training_plans.as_ref(), job.training_plan.as_ref()),
        queue_timeout: Limit::new(job.queue_timeout_seconds, allow.max_queue_timeout_seconds),
        max_pending: Limit::new(job.max_pending_seconds, allow.max_pending_seconds),
        remote_debug: Switch::new(false, allow.remote_debug),
        keep_on_failure: Limit::new(0, allow.max_keep_on_failure_seconds),
        inputs: allow.inputs.clone().unwrap_or_default(),
        model_output: usual(job.model_output.as_ref(), allow.model_outputs.as_ref()),
        model_outputs: listed(allow.model_outputs.as_ref(), job.model_output.as_ref()),
    }
}

/// The operator's value, unless the rule does not allow it.
fn usual(value: Option<&String>, allowed: Option<&Vec<String>>) -> Option<String> {
    let is_in = |value: &str, globs: &[String]| globs.iter().any(|glob| matching::matches(glob, value));
    value.filter(|value| allowed.is_none_or(|globs| is_in(place(value), globs))).cloned()
}

/// The text without a query and a slash at its end, as globs are compared with it.
fn place(value: &str) -> &str {
    value.split('?').next().unwrap_or(value).trim_end_matches('/')
}

/// The globs of the rule, else the operator's value alone.
fn listed(allowed: Option<&Vec<String>>, value: Option<&String>) -> Vec<String> {
    allowed.cloned().unwrap_or_else(|| value.map(|value| place(value).to_owned()).into_iter().collect())
}

/// All that SageMaker takes, for `try`: whoever runs it has the credentials.
fn all(settings: &Settings) -> JobBounds {
    use crate::config::forms::{
        INSTANCES, KEEP_ALIVE, KEEP_ON_FAILURE, MAX_PENDING, MAX_RUNTIME, QUEUE_TIMEOUT, RETRIES, VOLUME_GB,
    };
    let every = || Some(vec!["**".to_owned()]);
    let allow = Allowance {
        instance_types: Some(vec!["*".to_owned()]),
        max_instance_count: Some(INSTANCES),
        max_volume_size_gb: Some(VOLUME_GB),
        max_runtime_seconds: Some(settings.job.max_runtime_seconds.min(MAX_RUNTIME)),
        spot: Some(Choice::Allow),
        checkpoints: Some(Choice::Allow),
        network_isolation: Some(Choice::Allow),
        max_retries: Some(RETRIES),
        max_keep_alive_seconds: Some(KEEP_ALIVE),
        training_plans: every(),
        max_queue_timeout_seconds: Some(QUEUE_TIMEOUT),
        max_pending_seconds: Some(*MAX_PENDING.end()),
        remote_debug: Some(Choice::Allow),
        max_keep_on_failure_seconds: Some(KEEP_ON_FAILURE),
        inputs: every(),
        model_outputs: every(),
        ..Allowance::default()
    };
    JobBounds { roles_are_listed: false, ..of_allowance(None, &allow, settings) }
}

/// The operator's type if it is allowed, else the first that is named without a wildcard.
fn default_type(allowed: &[String], usual: &str) -> Option<String> {
    if allowed.iter().any(|pattern| matching::matches(pattern, usual)) {
        return Some(usual.to_owned());
    }
    allowed.iter().find(|pattern| !pattern.contains(['*', '?', '[', '{'])).cloned()
}

fn no_rule(job: &JobIdentity) -> Failure {
    let shown = |text: &str| if text.is_empty() { "(not told)".to_owned() } else { format!("`{text}`") };
    let protected = match job.protected {
        Some(true) => "protected",
        Some(false) => "not protected",
        None => "not known to be protected",
    };
    let fork = if job.fork { ", merge request of a fork" } else { "" };
    Failure::user(format!(
        "no rule of the operator's file is for this job: project {}, ref {} ({protected}){fork}, GitLab {}",
        shown(&job.project),
        shown(&job.git_ref),
        shown(&job.instance)
    ))
    .hint("ask the operator for one of `[[rules]]` whose `match` holds for it; `sagemaker-executor policy explain` shows why each does not")
}
