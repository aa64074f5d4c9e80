//! The preconditions of a deployment, checked before anything is written. Pure: all that do not hold are told at once.

use std::time::Duration;

use super::needed_approvals::NeededApprovals;
use super::ownership::{ENVIRONMENT, is_ours, owner_trouble};
use super::scaling::VARIANT;
use super::specification::{DeploymentSpecification, is_same_alarm};
use super::survey::{EndpointSurvey, Needed};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::human::human_duration;
use crate::base::plain;
use crate::cloud::{
    AlarmState, Approval, EndpointConfiguration, EndpointState, ModelSource, ModelVersion, ServedModel, TrafficShift,
    VariantCapacity,
};
use crate::lifecycle::connect::needed_instances;
use crate::lifecycle::manifest::Endpoint;
use crate::lifecycle::model::approvals::ApprovalRecords;

/// Longest text of AWS in a line, in bytes.
const LONGEST: usize = 400;

/// Settings that the command line and the job add to the manifest.
#[derive(Debug, Clone, Default)]
pub(super) struct DeployOptions {
    /// Name of the environment.
    pub(super) environment: String,
    pub(super) approvals: NeededApprovals,
    /// Whether the records of the version have the approvals that it needs.
    pub(super) is_approved: bool,
    pub(super) replaces_failed: bool,
    pub(super) adopts: bool,
    /// Limit of the whole command.
    pub(super) timeout: Duration,
    /// Limit of the job, if GitLab says it.
    pub(super) job_timeout: Option<Duration>,
}

/// A precondition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnmetPrecondition {
    pub(super) code: u8,
    pub(super) found: String,
    pub(super) change: String,
    /// Users have to approve the version, which must be in the registry for that.
    pub(super) is_approval: bool,
}

impl UnmetPrecondition {
    /// The manifest or the command line is wrong.
    pub(super) fn mistake(found: impl Into<String>, change: impl Into<String>) -> Self {
        Self { code: exit_codes::MISTAKE, found: found.into(), change: change.into(), is_approval: false }
    }

    /// Something else must change first.
    pub(super) fn not_yet(found: impl Into<String>, change: impl Into<String>) -> Self {
        Self { code: exit_codes::NOT_YET, found: found.into(), change: change.into(), is_approval: false }
    }

    /// An approval is missing.
    fn approval(found: impl Into<String>, change: impl Into<String>) -> Self {
        Self { is_approval: true, ..Self::not_yet(found, change) }
    }

    pub(super) fn line(&self) -> String {
        format!("{}; {}", plain::line(&self.found, 2 * LONGEST), plain::line(&self.change, 2 * LONGEST))
    }
}

/// One failure for all refusals; `None` without any.
pub(super) fn failure(what: &str, refusals: &[UnmetPrecondition]) -> Option<Failure> {
    let codes = || refusals.iter().map(|refusal| refusal.code);
    let code = [exit_codes::NEEDS_A_PERSON, exit_codes::MISTAKE, exit_codes::NOT_YET]
        .into_iter()
        .find(|code| codes().any(|one| one == *code))?;
    let number = match refusals.len() {
        1 => "1 precondition does not hold".to_owned(),
        number => format!("{number} preconditions do not hold"),
    };
    let lines: Vec<_> = refusals.iter().map(|refusal| format!("  - {}", refusal.line())).collect();
    let message = format!("{what}: {number}");
    Some(Failure::verdict(code, message).quoting(Some(lines.join("\n"))))
}

/// Everything that does not hold.
pub(super) fn refusals(
    manifest: &Endpoint,
    wanted: &DeploymentSpecification,
    version: &ModelVersion,
    survey: &EndpointSurvey,
    options: &DeployOptions,
) -> Vec<UnmetPrecondition> {
    let mut refusals = Vec::new();
    // Nobody gets an unapproved version into production by the manifest of another environment.
    let needs_approval = options.approvals.is_needed || is_of_other_environment(wanted, survey);
    check_version((&wanted.endpoint, version), needs_approval, options, &mut refusals);
    refusals.extend(refusals_of_change(manifest, wanted, survey, options));
    check_names(wanted, survey, &mut refusals);
    check_alarms(wanted, survey, &mut refusals);
    if !survey.is_live(wanted) {
        check_needs(manifest, wanted, survey, &mut refusals);
    }
    refusals
}

/// Preconditions of any change of the endpoint in service.
pub(super) fn refusals_of_change(
    manifest: &Endpoint,
    wanted: &DeploymentSpecification,
    survey: &EndpointSurvey,
    options: &DeployOptions,
) -> Vec<UnmetPrecondition> {
    let mut refusals = Vec::new();
    check_timeouts(manifest, options, &mut refusals);
    check_state(wanted, survey, options, &mut refusals);
    check_owner(wanted, survey, options, &mut refusals);
    check_shape(wanted, survey, &mut refusals);
    check_scaling(wanted, survey, &mut refusals);
    refusals
}

/// Preconditions of a deployment that goes back to the old configuration already.
pub(super) fn refusals_of_way_back(
    wanted: &DeploymentSpecification,
    survey: &EndpointSurvey,
    options: &DeployOptions,
) -> Vec<UnmetPrecondition> {
    let mut refusals = Vec::new();
    check_state(wanted, survey, options, &mut refusals);
    check_owner(wanted, survey, options, &mut refusals);
    refusals
}

fn check_version(
    (endpoint, version): (&str, &ModelVersion),
    needs_approval: bool,
    options: &DeployOptions,
    refusals: &mut Vec<UnmetPrecondition>,
) {
    let arn = &version.arn;
    // A version that a deployment would register has no number yet.
    let approve = if version.number == 0 {
        "`endpoint deploy` without `--plan` registers it when nothing else is in the way, and tells how users approve it"
            .to_owned()
    } else {
        let environment = &options.environment;
        format!(
            "let users approve it: `sagemaker-executor model approve --model-package {arn} --environment {environment}`, in a job \
             with the project's own manifest"
        )
    };
    if !needs_approval {
        if version.approval == Approval::Rejected {
            refusals.push(UnmetPrecondition::not_yet(format!("{arn} is rejected"), "choose another version"));
        }
        return;
    }
    let NeededApprovals { is_needed, rule, by_endpoint } = options.approvals;
    if version.approval != Approval::Approved {
        let who = match (is_needed, by_endpoint) {
            (true, true) => format!("the endpoint {endpoint}, by its tags,"),
            (true, false) => "the environment".to_owned(),
            (false, _) => "an endpoint of another environment".to_owned(),
        };
        let found =
            format!("{who} takes approved versions alone, and the status of {arn} is {}", version.approval.name());
        refusals.push(match version.approval {
            Approval::Rejected => UnmetPrecondition::not_yet(found, approve),
            _ => UnmetPrecondition::approval(found, approve),
        });
    } else if !options.is_approved {
        let rule = ApprovalRecords(&version.metadata).rule(rule);
        let found = format!("{arn} was approved outside of this program, or by too few users: {} needed", rule.words());
        refusals.push(UnmetPrecondition::approval(found, approve));
    }
}

fn check_timeouts(manifest: &Endpoint, options: &DeployOptions, refusals: &mut Vec<UnmetPrecondition>) {
    let limit = Duration::from_secs(manifest.deployment_limit().into());
    if manifest.instances.is_some() && options.timeout <= limit {
        refusals.push(UnmetPrecondition::mistake(
            format!(
                "`--timeout` is {}, and SageMaker may take {} for the deployment",
                human_duration(options.timeout),
                human_duration(limit)
            ),
            "give a longer `--timeout` and `timeout:` of the job, or a shorter `endpoint.deployment.timeout_seconds`",
        ));
    }
    if let Some(job) = options.job_timeout.filter(|job| *job <= options.timeout) {
        refusals.push(UnmetPrecondition::mistake(
            format!(
                "`--timeout` is {}, and the job ends after {}",
                human_duration(options.timeout),
                human_duration(job)
            ),
            "give a shorter `--timeout`, or a longer `timeout:` of the job",
        ));
    }
}

fn check_state(
    wanted: &DeploymentSpecification,
    survey: &EndpointSurvey,
    options: &DeployOptions,
    refusals: &mut Vec<UnmetPrecondition>,
) {
    let Some(sight) = &survey.endpoint else { return };
    let reason =
        sight.failure.as_deref().map(|reason| format!(": {}", plain::line(reason, LONGEST))).unwrap_or_default();
    let name = &wanted.endpoint;
    match sight.state {
        EndpointState::Failed | EndpointState::OutOfService if !options.replaces_failed && !survey.is_resumed(wanted) => {
            refusals.push(UnmetPrecondition::mistake(
                format!("the endpoint {name} is {}{reason}", sight.state.name()),
                "it can only be deleted: `--replace-failed` deletes it and makes it again",
            ));
        }
        EndpointState::UpdateRollbackFailed => refusals.push(UnmetPrecondition {
            code: exit_codes::NEEDS_A_PERSON,
            found: format!("the endpoint {name} is UpdateRollbackFailed{reason}"),
            change: "AWS takes no update any more: ask AWS Support to repair it, or delete it with `sagemaker-executor endpoint delete` \
                     and deploy again, during which nobody is answered"
                .to_owned(),
            is_approval: false,
        }),
        _ => {}
    }
}

fn check_owner(
    wanted: &DeploymentSpecification,
    survey: &EndpointSurvey,
    options: &DeployOptions,
    refusals: &mut Vec<UnmetPrecondition>,
) {
    let name = &wanted.endpoint;
    if survey.endpoint.is_none() || options.adopts {
        return;
    }
    let change = "choose another `endpoint.name`, or take the endpoint over with `endpoint deploy --adopt`";
    if let Some(trouble) = owner_trouble(&wanted.tags, &survey.tags) {
        refusals.push(UnmetPrecondition::mistake(format!("the endpoint {name} {trouble}"), change));
    }
}

/// There is an endpoint, and its configuration was not made in the command's environment.
fn is_of_other_environment(wanted: &DeploymentSpecification, survey: &EndpointSurvey) -> bool {
    let is_own =
        is_ours(&survey.tags, &wanted.endpoint) && survey.tags.get(ENVIRONMENT) == wanted.tags.get(ENVIRONMENT);
    survey.endpoint.is_some() && !is_own
}

/// The configuration in service must be one that this program can replace and bring back.
fn check_shape(wanted: &DeploymentSpecification, survey: &EndpointSurvey, refusals: &mut Vec<UnmetPrecondition>) {
    let Some(current) = &survey.current else { return check_variants(wanted, survey, refusals) };
    let change = "choose another `endpoint.name`, or delete the endpoint first";
    let mut refuse = |found: String| refusals.push(UnmetPrecondition::mistake(found, change));
    let name = plain::line(&current.name, LONGEST);
    if current.variants > 1 {
        return refuse(format!("{name} has {} variants, and this program makes one", current.variants));
    }
    if current.model.is_empty() {
        return refuse(format!("{name} has inference components, which this program does not know"));
    }
    if current.variant != VARIANT {
        let variant = plain::line(&current.variant, LONGEST);
        return refuse(format!(
            "the variant of {name} is `{variant}`, not `{VARIANT}`, and an update cannot rename it"
        ));
    }
    let is_serverless = |config: &EndpointConfiguration| matches!(config.capacity, VariantCapacity::Serverless { .. });
    if is_serverless(current) != is_serverless(&wanted.config) {
        refuse(format!("{name} changes between instances and serverless, from which no update leads back"));
    }
    if current.asynchronous.is_some() != wanted.config.asynchronous.is_some() {
        refuse(format!("{name} changes between synchronous and asynchronous requests, and its callers with it"));
    }
}

/// The configuration in service was deleted: the endpoint says less.
fn check_variants(wanted: &DeploymentSpecification, survey: &EndpointSurvey, refusals: &mut Vec<UnmetPrecondition>) {
    let variants = survey.endpoint.as_ref().map(|sight| sight.variants.as_slice()).unwrap_or_default();
    let is_own = |name: &str| name == VARIANT;
    if variants.len() > 1 || variants.iter().any(|variant| !is_own(&variant.name)) {
        let names: Vec<_> = variants.iter().map(|variant| plain::line(&variant.name, LONGEST)).collect();
        refusals.push(UnmetPrecondition::mistake(
            format!(
                "the endpoint {} has the variants {}, and this program makes `{VARIANT}` alone",
                wanted.endpoint,
                names.join(", ")
            ),
            "choose another `endpoint.name`, or delete the endpoint first",
        ));
    }
}

/// Whether the instance type changes, or may change because nobody knows it any more. SageMaker refuses that under a scalable target.
pub(super) fn changes_type(wanted: &DeploymentSpecification, survey: &EndpointSurvey) -> bool {
    match &survey.current {
        Some(current) => is_other_type(current, &wanted.config),
        None => survey.endpoint.is_some() && matches!(wanted.config.capacity, VariantCapacity::Instances { .. }),
    }
}

/// Whether both configurations have instances, of different types.
pub(super) fn is_other_type(one: &EndpointConfiguration, other: &EndpointConfiguration) -> bool {
    match (&one.capacity, &other.capacity) {
        (VariantCapacity::Instances { instance_type, .. }, VariantCapacity::Instances { instance_type: other, .. }) => {
            instance_type != other
        }
        _ => false,
    }
}

fn check_scaling(wanted: &DeploymentSpecification, survey: &EndpointSurvey, refusals: &mut Vec<UnmetPrecondition>) {
    let cannot_save = survey.scaling.target.is_some() && survey.scaling.saved(&survey.variant(wanted)).is_none();
    if changes_type(wanted, survey) && cannot_save {
        refusals.push(UnmetPrecondition::mistake(
            format!(
                "the instance type changes, and the variant of {} has a scaling policy that this program cannot write again",
                wanted.endpoint
            ),
            "keep `endpoint.instances.type`, or remove the policy from Application Auto Scaling and add it after the deployment",
        ));
    }
}

fn check_names(wanted: &DeploymentSpecification, survey: &EndpointSurvey, refusals: &mut Vec<UnmetPrecondition>) {
    let mut refuse = |what: &str, name: &str| {
        refusals.push(UnmetPrecondition::mistake(
            format!("the {what} {name} exists with another content"),
            "find out in CloudTrail who made it, and delete it: its name is the hash of the content",
        ));
    };
    if survey.config.as_ref().is_some_and(|config| !is_same_config(config, &wanted.config)) {
        refuse("endpoint configuration", &wanted.config.name);
    }
    if survey.model.as_ref().is_some_and(|model| !is_same_model(model, &wanted.model)) {
        refuse("model", &wanted.model.name);
    }
}

/// Whether AWS shows what was asked for. What was left to AWS may be anything.
pub(super) fn is_same_config(shown: &EndpointConfiguration, wanted: &EndpointConfiguration) -> bool {
    let mut expected = EndpointConfiguration { arn: String::new(), ..wanted.clone() };
    expected.download_timeout_seconds = wanted.download_timeout_seconds.or(shown.download_timeout_seconds);
    expected.startup_timeout_seconds = wanted.startup_timeout_seconds.or(shown.startup_timeout_seconds);
    if let (Some(expected), Some(shown)) = (&mut expected.asynchronous, &shown.asynchronous) {
        expected.max_concurrent = expected.max_concurrent.or(shown.max_concurrent);
    }
    EndpointConfiguration { arn: String::new(), tags: wanted.tags.clone(), ..shown.clone() } == expected
}

/// As [`is_same_config`]. Of a model from a version, AWS may show the version's own variables too.
pub(super) fn is_same_model(shown: &ServedModel, wanted: &ServedModel) -> bool {
    let mut shown = ServedModel { arn: String::new(), tags: wanted.tags.clone(), ..shown.clone() };
    if matches!(wanted.source, ModelSource::Package(_)) {
        shown.environment.clone_from(&wanted.environment);
    }
    shown.subnets.sort();
    shown.security_groups.sort();
    let mut wanted = ServedModel { arn: String::new(), ..wanted.clone() };
    wanted.subnets.sort();
    wanted.security_groups.sort();
    shown == wanted
}

fn check_alarms(wanted: &DeploymentSpecification, survey: &EndpointSurvey, refusals: &mut Vec<UnmetPrecondition>) {
    let is_under_way = survey.is_live(wanted) || survey.is_resumed(wanted);
    for name in wanted.alarm_names() {
        let sight = survey.alarms.iter().find(|alarm| alarm.name == *name);
        let made = wanted.alarms.iter().find(|alarm| alarm.name == *name);
        let is_made = made.is_some();
        // The state is that of another limit. It is looked at again when the alarm has the new one.
        let changes = sight.zip(made).is_some_and(|(sight, made)| {
            !survey.foreign_alarms.contains(name)
                && !sight.definition.as_ref().is_some_and(|shown| is_same_alarm(shown, made))
        });
        match sight {
            None if !is_made => refusals.push(UnmetPrecondition::mistake(
                format!("there is no alarm `{}`", plain::line(name, LONGEST)),
                "make it, or correct `endpoint.alarms.names`",
            )),
            Some(alarm) if alarm.state == AlarmState::Alarm && !is_under_way && !changes => {
                refusals.push(UnmetPrecondition::not_yet(
                    format!(
                        "the alarm `{}` is on, and would roll the deployment back at once: {}",
                        plain::line(name, LONGEST),
                        plain::line(&alarm.reason, LONGEST)
                    ),
                    "wait until it is off, or take it out of `endpoint.alarms`",
                ));
            }
            Some(alarm) if survey.foreign_alarms.contains(&alarm.name) => refusals.push(UnmetPrecondition::mistake(
                format!("the alarm `{}` exists, and was not made by this program", plain::line(name, LONGEST)),
                "delete or rename it, or name it in `endpoint.alarms.names` in place of the limit",
            )),
            Some(_) | None => {}
        }
    }
}

fn check_needs(
    manifest: &Endpoint,
    wanted: &DeploymentSpecification,
    survey: &EndpointSurvey,
    refusals: &mut Vec<UnmetPrecondition>,
) {
    if survey.image == Needed::Missing {
        refusals.push(UnmetPrecondition::mistake(
            format!("there is no image {}", wanted.image),
            "push it again, or deploy another version",
        ));
    }
    if survey.data == Needed::Missing {
        refusals.push(UnmetPrecondition::mistake(
            format!("there is no model at {}", wanted.model_data_url),
            "register the model again, or deploy another version",
        ));
    }
    let Some(rollout) = wanted.rollout.as_ref().filter(|_| survey.endpoint.is_some()) else {
        return check_quota(manifest, survey, refusals);
    };
    let is_all = matches!(rollout.traffic, TrafficShift::AllAtOnce { .. });
    if let VariantCapacity::Instances { instance_type, .. } = &wanted.config.capacity
        && instance_type.starts_with("ml.inf1.")
        && (!is_all || !rollout.alarms.is_empty())
    {
        refusals.push(UnmetPrecondition::mistake(
            format!("SageMaker guards no deployment on {instance_type}"),
            "choose another `endpoint.instances.type`, or `all_at_once` without alarms",
        ));
    }
    let count = survey.endpoint.as_ref().and_then(|sight| sight.variants.first()?.desired_instances);
    if let (Some(count @ ..2), true, false) = (count, survey.scaling.target.is_some(), is_all) {
        refusals.push(UnmetPrecondition::not_yet(
            format!("a part of the instances cannot change: autoscaling has made their number {count}"),
            "set `endpoint.autoscaling.min` to 2 and deploy with `all_at_once` once, or wait until there are two",
        ));
    }
    check_quota(manifest, survey, refusals);
}

fn check_quota(manifest: &Endpoint, survey: &EndpointSurvey, refusals: &mut Vec<UnmetPrecondition>) {
    let Some((needed, quota)) = needed_instances(manifest).zip(survey.quota) else { return };
    // The first instances have none beside them.
    let count = if survey.endpoint.is_some() { needed.count } else { needed.count / 2 };
    if quota < f64::from(count) {
        refusals.push(UnmetPrecondition::not_yet(
            format!(
                "the quota of {} for endpoints is {quota}, and the deployment needs up to {count}",
                needed.instance_type
            ),
            format!("request a higher quota `{} for endpoint usage`, or fewer instances", needed.instance_type),
        ));
    }
}
