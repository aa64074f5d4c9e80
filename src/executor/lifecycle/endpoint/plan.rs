//! The plan of a deployment: the difference between the things that exist and the wanted ones. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::deployed_package::DeployedPackage;
use super::preconditions::{UnmetPrecondition, changes_type};
use super::specification::{DeploymentSpecification, is_same_alarm};
use super::survey::EndpointSurvey;
use crate::base::human::human_duration;
use crate::base::plain;
use crate::cloud::{EndpointConfiguration, EndpointState, TrafficShift, VariantCapacity};
use crate::lifecycle::connect::needed_instances;
use crate::lifecycle::manifest::Endpoint;

/// Longest text of AWS in a line, in bytes.
const LONGEST: usize = 400;

/// The names of what a version needs that is not registered yet.
const UNKNOWN: &str = "not known before the version is registered";

/// Things that the deployment of a package makes before model and configuration. Empty when all of them are there.
#[derive(Debug, Clone, Default)]
pub(super) struct Unmade {
    pub(super) objects: Vec<String>,
    pub(super) version: Option<String>,
}

impl Unmade {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.version.is_none()
    }
}

/// The plan of a deployment. As JSON it is what an approver reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DeploymentPlan {
    endpoint: String,
    version: String,
    package: Option<DeployedPackage>,
    specification: String,
    /// The configuration in service.
    from: Option<String>,
    to: String,
    /// `false`: nothing is written.
    pub(super) changes: bool,
    steps: Vec<PlanStep>,
    differences: Vec<PlanDifference>,
    traffic: String,
    longest_seconds: u32,
    most_instances: Option<u32>,
    instance_type: Option<String>,
    alarms: Vec<String>,
    refusals: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct PlanStep {
    /// `create`, `update`, `replace`, `remove` or `keep`.
    action: &'static str,
    what: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct PlanDifference {
    key: &'static str,
    from: String,
    to: String,
}

impl DeploymentPlan {
    pub(super) fn new(
        manifest: &Endpoint,
        wanted: &DeploymentSpecification,
        survey: &EndpointSurvey,
        refusals: &[UnmetPrecondition],
        unmade: &Unmade,
    ) -> Self {
        let made = unmade
            .objects
            .iter()
            .chain(unmade.version.as_ref())
            .map(|what| PlanStep { action: "create", what: plain::line(what, LONGEST) });
        // The version's ARN is in the hash that gives the names.
        let known = |name: &str| if unmade.version.is_some() { UNKNOWN.to_owned() } else { name.to_owned() };
        let steps: Vec<_> = made.chain(steps(wanted, survey, unmade)).collect();
        let needed = needed_instances(manifest);
        let limit = wanted.rollout.as_ref().map_or(0, |rollout| rollout.limit_seconds);
        Self {
            endpoint: wanted.endpoint.clone(),
            version: plain::line(&wanted.version, LONGEST),
            package: wanted.package.as_ref().map(DeployedPackage::plain),
            specification: known(&wanted.hash),
            from: survey.endpoint.as_ref().map(|sight| plain::line(&sight.config, LONGEST)),
            to: known(&wanted.config.name),
            changes: steps.iter().any(|step| step.action != "keep"),
            steps,
            differences: survey
                .current
                .as_ref()
                .map(|current| differences(current, &wanted.config, &known(&wanted.config.model)))
                .unwrap_or_default(),
            traffic: traffic(wanted, survey),
            longest_seconds: if survey.endpoint.is_some() { limit } else { 0 },
            most_instances: needed.as_ref().map(|needed| needed.count),
            instance_type: needed.map(|needed| needed.instance_type.to_owned()),
            alarms: wanted.alarm_names().to_vec(),
            refusals: refusals.iter().map(UnmetPrecondition::line).collect(),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.endpoint, if self.changes { "changes" } else { "nothing changes" });
        let from = self.from.as_deref().unwrap_or("no endpoint");
        let mut line = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<14} {value}");
        };
        line("version", &self.version);
        if let Some(package) = &self.package {
            line("package", &package.text());
        }
        line("specification", &self.specification);
        line("configuration", &format!("{from} -> {}", self.to));
        for PlanDifference { key, from, to } in &self.differences {
            line(key, &format!("{from} -> {to}"));
        }
        for PlanStep { action, what } in &self.steps {
            line(action, what);
        }
        line("traffic", &self.traffic);
        if self.longest_seconds > 0 {
            line("longest", &human_duration(Duration::from_secs(self.longest_seconds.into())));
        }
        if let (Some(most), Some(instance_type)) = (self.most_instances, &self.instance_type) {
            line("instances", &format!("up to {most} of {instance_type} at once during the deployment"));
        }
        line(
            "alarms",
            &if self.alarms.is_empty() {
                "none: nothing rolls back but the samples".to_owned()
            } else {
                self.alarms.join(", ")
            },
        );
        for refusal in &self.refusals {
            line("refused", refusal);
        }
        text
    }
}

fn steps(wanted: &DeploymentSpecification, survey: &EndpointSurvey, unmade: &Unmade) -> Vec<PlanStep> {
    let named = |what: &str, name: &str| match unmade.version {
        Some(_) => what.to_owned(),
        None => format!("{what} {name}"),
    };
    let step = |action, what: String| PlanStep { action, what };
    let is_live = survey.is_live(wanted);
    let made = |is_there: bool| if is_there { "keep" } else { "create" };
    let mut steps = vec![
        step(made(is_live || survey.model.is_some()), named("model", &wanted.model.name)),
        step(made(survey.config.is_some()), named("endpoint configuration", &wanted.config.name)),
    ];
    for alarm in &wanted.alarms {
        let shown = survey.alarms.iter().find(|sight| sight.name == alarm.name);
        let action = match shown {
            None => "create",
            Some(sight) if sight.definition.as_ref().is_some_and(|shown| is_same_alarm(shown, alarm)) => "keep",
            Some(_) => "update",
        };
        steps.push(step(action, format!("alarm {}", alarm.name)));
    }
    steps.extend(
        survey.left_alarms.iter().map(|name| {
            step("remove", format!("alarm {}, which the manifest has no more", plain::line(name, LONGEST)))
        }),
    );
    let is_removed = survey.scaling.target.is_some() && changes_type(wanted, survey);
    if is_removed {
        steps.push(step("remove", "autoscaling, until the new instances are in service".to_owned()));
    }
    steps.push(match &survey.endpoint {
        None => step("create", format!("endpoint {}", wanted.endpoint)),
        Some(_) if is_live => step("keep", format!("endpoint {}", wanted.endpoint)),
        Some(sight) if matches!(sight.state, EndpointState::Failed | EndpointState::OutOfService) => {
            step("replace", format!("endpoint {}", wanted.endpoint))
        }
        Some(_) => step("update", format!("endpoint {}", wanted.endpoint)),
    });
    if let Some(scaling) = &wanted.scaling {
        let is_right = scaling.is_shown_by(survey.scaling.target, &survey.scaling.policies);
        let action = match survey.scaling.target {
            Some(_) if is_right && !is_removed => "keep",
            Some(_) if !is_removed => "update",
            _ => "create",
        };
        steps.push(step(action, format!("autoscaling, {}", scaling.text())));
    } else if survey.has_own_scaling(wanted) {
        steps.push(step("remove", "autoscaling, which the manifest has no more".to_owned()));
    }
    steps
}

/// `model` is the name of the new model, as far as it is known.
fn differences(from: &EndpointConfiguration, to: &EndpointConfiguration, model: &str) -> Vec<PlanDifference> {
    let texts = |config: &EndpointConfiguration, model: &str| {
        let none = || "none".to_owned();
        let number = |number: Option<u32>| number.map_or_else(none, |number| number.to_string());
        [
            ("model", model.to_owned()),
            ("capacity", capacity(&config.capacity)),
            ("download limit", number(config.download_timeout_seconds)),
            ("startup limit", number(config.startup_timeout_seconds)),
            ("key", config.kms_key_id.clone().unwrap_or_else(none)),
            ("answers", config.asynchronous.as_ref().map_or_else(none, |places| places.output.clone())),
        ]
    };
    let pairs = texts(from, &from.model).into_iter().zip(texts(to, model)).filter(|(from, to)| from != to);
    let difference = |((key, from), (_, to)): ((&'static str, String), (&'static str, String))| PlanDifference {
        key,
        from: plain::line(&from, LONGEST),
        to: plain::line(&to, LONGEST),
    };
    pairs.map(difference).collect()
}

/// `2 ml.m5.large`.
pub(super) fn capacity(capacity: &VariantCapacity) -> String {
    match capacity {
        VariantCapacity::Instances { instance_type, count } => format!("{count} {instance_type}"),
        VariantCapacity::Serverless { memory_mb, max_concurrency, provisioned_concurrency } => {
            let ready = provisioned_concurrency.map(|number| format!(", {number} ready")).unwrap_or_default();
            format!("serverless, {memory_mb} MB, {max_concurrency} requests at once{ready}")
        }
    }
}

fn traffic(wanted: &DeploymentSpecification, survey: &EndpointSurvey) -> String {
    if survey.is_live(wanted) {
        return "stays".to_owned();
    }
    if survey.endpoint.is_none() {
        return "begins when the first instances are in service".to_owned();
    }
    let seconds = |seconds: u32| human_duration(Duration::from_secs(seconds.into()));
    let end = |wait: u32| match wait {
        0 => "the old instances end at once".to_owned(),
        wait => format!("the old instances end after {}", seconds(wait)),
    };
    let watched = |wait: u32| match wait {
        0 => "is not watched".to_owned(),
        wait => format!("is watched for {}", seconds(wait)),
    };
    match wanted.rollout.as_ref().map(|rollout| rollout.traffic) {
        None => "moves as SageMaker does for serverless endpoints".to_owned(),
        Some(TrafficShift::AllAtOnce { wait, termination_wait }) => {
            format!("moves at once and {}, {}", watched(wait), end(termination_wait))
        }
        Some(TrafficShift::Canary { percent, wait, termination_wait }) => format!(
            "moves to {percent} % of the instances first, which {}; then to the rest, and {}",
            watched(wait),
            end(termination_wait)
        ),
        Some(TrafficShift::Linear { percent, wait, termination_wait }) => {
            format!("moves in steps of {percent} %, each of which {}; {}", watched(wait), end(termination_wait))
        }
        Some(TrafficShift::Rolling { percent, wait }) => {
            format!(
                "moves as {percent} % of the instances at a time are replaced, each step of which {}",
                watched(wait)
            )
        }
    }
}
