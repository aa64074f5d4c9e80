//! Decides the training job of a GitLab job: checks its variables against SageMaker's limits and the operator's rules.
//!
//! Pure: `JobContext + JobVariables + Settings -> Decision`. Every setting of a job passes through here; a refusal is a
//! user failure that names the variable to change, the allowed values and the rule.

mod bounded;
mod bounds;
mod cache_keys;
mod capacity;
mod cost;
mod data;
mod debug;
mod decision;
mod environment;
mod groups;
mod identity;
mod image;
mod isolation;
mod matching;
mod metrics;
mod processors;
mod refusal;
mod secrets;
#[cfg(test)]
mod tests;

use self::bounded::Bounded;
pub use self::bounds::{JobBounds, Limit, Switch, bounds_of, of_default, of_rule};
pub use self::cache_keys::{refuse_cache_keys, unsafe_key};
pub use self::cost::largest_cost;
pub use self::decision::{CapacityDecision, DataDecision, DebugDecision, Decision, JobInput};
pub use self::environment::refuse_secrets;
pub use self::identity::JobIdentity;
pub use self::image::is_by_digest;
pub use self::matching::{matches, mismatch, rule_of};
use self::refusal::{asked, listed};
pub use self::secrets::{JobSecret, granted_ids, granted_secrets};
use crate::base::failure::Failure;
use crate::cloud::InstanceGroup;
use crate::config::forms::{INSTANCE_TYPES, INSTANCES, MAX_RUNTIME, VOLUME_GB, is_instance_type, is_role_arn};
pub use crate::config::input_channels::ModelOutput;
use crate::config::job_variables::JobVariables;
use crate::config::settings::Settings;
use crate::gitlab::JobContext;

/// Returns the decision, or a failure that says what to change.
pub fn decide(job: &JobContext, wishes: &JobVariables, settings: &Settings) -> Result<Decision, Failure> {
    let identity = JobIdentity::of(job);
    let bounds = bounds_of(&identity, settings)?;
    check_region(settings, &bounds)?;
    let max_runtime = max_runtime(job, wishes, &bounds)?;
    let instance_groups = groups::groups(wishes, &bounds)?;
    let instance_types = instance_types(wishes, &instance_groups, settings, &bounds)?;
    processors::check(&instance_types)?;
    let mut capacity = capacity::capacity(wishes, &instance_types, max_runtime, &bounds)?;
    if !instance_groups.is_empty() {
        // The operator's own are for jobs of one type.
        (capacity.keep_alive, capacity.training_plan) = (0, None);
    }
    let data = data::data(job, wishes, settings, &bounds)?;
    let debug = debug::debug(wishes, &bounds)?;
    let network_isolation = isolation::isolation(job, wishes, &capacity, &data, &debug, &bounds)?;
    let mut warnings = warnings(&identity, settings);
    let (is_spot, keeps_checkpoints) = (capacity.spot_max_wait.is_some(), data.checkpoints_ref.is_some());
    warnings.extend(capacity::without_effect(wishes, is_spot, keeps_checkpoints));
    warnings.extend(image::without_effect(job));
    let decision = Decision {
        image: image::image(job, settings, &bounds)?,
        instance_types,
        instance_count: match groups::count(&instance_groups) {
            0 => instance_count(&bounds).decide(wishes.instance_count, &bounds)?,
            count => count,
        },
        instance_groups,
        volume_size_gb: volume_size(&bounds).decide(wishes.volume_size_gb, &bounds)?,
        max_runtime,
        role_arn: role_arn(wishes, settings, &bounds)?,
        network: bounds.network.clone(),
        network_isolation,
        environment: environment::environment(job, wishes, settings, &bounds, data.inputs.len())?,
        capacity,
        data,
        metrics: metrics::metrics(wishes)?,
        secrets: granted_secrets(job, wishes, settings)?,
        debug,
        warnings,
        max_jobs: bounds.max_jobs,
        rule: bounds.rule.clone(),
    };
    cost::check(&decision, training_jobs(&decision, job), settings, &bounds)?;
    Ok(warn_of_tag(decision, &bounds))
}

/// Number of the job's training jobs, one after the other. Without network each container stage has one.
pub fn training_jobs(decision: &Decision, job: &JobContext) -> usize {
    if decision.network_isolation { job.container_stages().len().max(1) } else { 1 }
}

fn instance_count(bounds: &JobBounds) -> Bounded<u32> {
    Bounded {
        variable: "SAGEMAKER_INSTANCE_COUNT",
        key: "max_instance_count",
        limit: bounds.instance_count,
        service: 1..=INSTANCES,
        unit: "",
    }
}

fn volume_size(bounds: &JobBounds) -> Bounded<u32> {
    Bounded {
        variable: "SAGEMAKER_VOLUME_SIZE_GB",
        key: "max_volume_size_gb",
        limit: bounds.volume_size_gb,
        service: 1..=VOLUME_GB,
        unit: "",
    }
}

fn check_region(settings: &Settings, bounds: &JobBounds) -> Result<(), Failure> {
    let (Some(allowed), Some(rule)) = (&bounds.regions, &bounds.rule) else { return Ok(()) };
    match &settings.aws.region {
        Some(region) if allowed.contains(region) => Ok(()),
        Some(region) => Err(Failure::user(format!(
            "this runner's training jobs run in `{region}`; the rule `{rule}` allows {}",
            listed(allowed)
        ))
        .hint("select a runner of another region by `tags:`, or ask the operator to widen `allow.regions`")),
        None => Err(Failure::system(format!("the rule `{rule}` has `allow.regions`, and no region is set"))
            .hint("set `aws.region` in the operator's file")),
    }
}

fn instance_types(
    wishes: &JobVariables,
    groups: &[InstanceGroup],
    settings: &Settings,
    bounds: &JobBounds,
) -> Result<Vec<String>, Failure> {
    const VARIABLE: &str = "SAGEMAKER_INSTANCE_TYPE";
    if !groups.is_empty() {
        return Ok(groups.iter().map(|group| group.instance_type.clone()).collect());
    }
    if wishes.instance_types.is_empty() {
        return bounds.instance_type.clone().map(|name| vec![name]).ok_or_else(|| {
            let default = &settings.job.instance_type;
            let allowed = listed(&bounds.instance_types);
            Failure::user(format!("the job names no instance type, and the default `{default}` is not among {allowed}"))
                .hint(format!("set `{VARIABLE}` to one of them"))
        });
    }
    if let Some(wrong) = wishes.instance_types.iter().find(|name| !is_instance_type(name)) {
        return Err(Failure::user(format!("`{wrong}` is not the name of a SageMaker instance type"))
            .hint(format!("set `{VARIABLE}` to names such as `ml.g5.xlarge`, separated by commas")));
    }
    let mut types: Vec<String> = Vec::new();
    for name in &wishes.instance_types {
        if !types.contains(name) {
            types.push(name.clone());
        }
    }
    if types.len() > INSTANCE_TYPES {
        let why = format!("`{VARIABLE}` names {} instance types; {INSTANCE_TYPES} fit", types.len());
        return Err(Failure::user(why).hint(format!("keep the first {INSTANCE_TYPES} in `{VARIABLE}`")));
    }
    let is_allowed = |name: &String| bounds.instance_types.iter().any(|pattern| matches(pattern, name));
    match types.iter().find(|name| !is_allowed(name)) {
        None => Ok(types),
        Some(name) => {
            Err(asked(bounds, VARIABLE, &format!("`{name}`"), &listed(&bounds.instance_types), "instance_types"))
        }
    }
}

/// The job's own limit, else GitLab's timeout of the job; at most the rule's and SageMaker's limits.
fn max_runtime(job: &JobContext, wishes: &JobVariables, bounds: &JobBounds) -> Result<u64, Failure> {
    const VARIABLE: &str = "SAGEMAKER_MAX_RUNTIME";
    let cap = bounds.max_runtime.clamp(1, MAX_RUNTIME);
    match wishes.max_runtime.map(|wish| wish.as_secs()) {
        Some(0) => Err(Failure::user(format!("`{VARIABLE}` is below one second"))),
        Some(wish) if wish > cap => {
            Err(asked(bounds, VARIABLE, &format!("{wish} s"), &format!("at most {cap} s"), "max_runtime_seconds"))
        }
        Some(wish) => Ok(wish),
        None if job.runner_info.timeout == 0 => Ok(cap),
        None => Ok(job.runner_info.timeout.min(cap)),
    }
}

fn role_arn(wishes: &JobVariables, settings: &Settings, bounds: &JobBounds) -> Result<String, Failure> {
    const FORM: &str = "`arn:aws:iam::<account>:role/<name>`";
    let Some(role) = wishes.role_arn.as_ref().or(bounds.roles.first()) else {
        return Err(Failure::system("no IAM role is set for the training job")
            .hint("set `job.role_arn` in the operator's file, or `allow.roles` of the job's rule"));
    };
    if !is_role_arn(role) {
        return Err(match wishes.role_arn {
            Some(_) => Failure::user("`SAGEMAKER_ROLE_ARN` is not the ARN of an IAM role")
                .hint(format!("`SAGEMAKER_ROLE_ARN`: {FORM}")),
            None => Failure::system("`job.role_arn` is not the ARN of an IAM role").hint(FORM),
        });
    }
    if settings.allows_all || bounds.roles.contains(role) {
        return Ok(role.clone());
    }
    Err(asked(bounds, "SAGEMAKER_ROLE_ARN", &format!("`{role}`"), &listed(&bounds.roles), "roles"))
}

/// Says that GitLab does not tell of a ref's protection, when a rule asks for it.
fn warnings(identity: &JobIdentity, settings: &Settings) -> Vec<String> {
    let is_asked = settings.rules.iter().any(|rule| rule.jobs.protected.is_some());
    let warning =
        "this GitLab does not tell whether the ref is protected (18.3 and newer do), so rules take it for unprotected";
    if is_asked && identity.protected.is_none() { vec![warning.to_owned()] } else { Vec::new() }
}

fn warn_of_tag(mut decision: Decision, bounds: &JobBounds) -> Decision {
    if bounds.image_tags == crate::config::rules::ImageTags::Warn && !is_by_digest(&decision.image) {
        decision.warnings.push(format!(
            "the image `{}` is named by a tag, which may be another image tomorrow; write `image:` with `@sha256:<digest>`",
            decision.image
        ));
    }
    decision
}
