//! Judges the facts of an endpoint. Pure.
//!
//! An endpoint that AWS updates serves its requests: a deployment that is under way is no trouble. One that was interrupted is none by
//! itself either, because it may be in its last steps; the rows of configuration, autoscaling and alarms say what it left behind.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::facts::{EndpointFacts, Fact};
use crate::base::plain;
use crate::cloud::{
    AlarmSight, AlarmState, Approval, EndpointSight, EndpointState, ModelVersion, ScalableTarget, VariantCapacity,
};
use crate::lifecycle::endpoint::ledger::{LedgerEntry, LedgerKind};
use crate::lifecycle::model::approvals::{ApprovalRecords, ApprovalRule, Standing};

/// Longest text of a row, in bytes.
const LONGEST: usize = 300;

/// One row about an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct HealthRow {
    pub(super) check: String,
    pub(super) result: HealthResult,
    pub(super) found: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HealthResult {
    Ok,
    /// The endpoint is not healthy.
    Bad,
    /// AWS did not answer.
    Unknown,
    /// Nothing to judge.
    Info,
}

impl HealthResult {
    /// The word of the table.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
            Self::Info => "",
        }
    }
}

pub(super) fn row(check: impl Into<String>, result: HealthResult, found: &str) -> HealthRow {
    HealthRow { check: plain::line(&check.into(), LONGEST), result, found: plain::line(found, LONGEST) }
}

/// All rows of an endpoint.
pub(super) fn rows(facts: &EndpointFacts) -> Vec<HealthRow> {
    let mut rows = vec![state(facts)];
    rows.extend(facts.open.as_ref().map(|open| open_deployment(open, facts.sight.as_ref())));
    let Some(sight) = &facts.sight else { return rows };
    rows.push(configuration(facts, sight));
    rows.extend(model(facts));
    rows.extend(version(facts));
    rows.extend(capacity(facts, sight));
    rows.extend(autoscaling(facts, sight));
    rows.extend(alarms(facts));
    rows
}

fn state(facts: &EndpointFacts) -> HealthRow {
    let Some(sight) = &facts.sight else {
        let newest = facts.history.known().and_then(|history| history.first());
        let found = match newest {
            Some(LedgerEntry { number, begin, end: Some(_) }) if begin.kind == LedgerKind::Delete => {
                format!("deleted by deployment {number}")
            }
            Some(_) => "does not exist, and no deployment deleted it".to_owned(),
            None => "does not exist".to_owned(),
        };
        return row("state", HealthResult::Bad, &found);
    };
    let failure = sight.failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
    match sight.state {
        EndpointState::InService => row("state", HealthResult::Ok, sight.state.name()),
        EndpointState::Updating | EndpointState::SystemUpdating => {
            row("state", HealthResult::Ok, &format!("{}: the old configuration serves", sight.state.name()))
        }
        state => row("state", HealthResult::Bad, &format!("{}{failure}", state.name())),
    }
}

fn open_deployment(open: &LedgerEntry, sight: Option<&EndpointSight>) -> HealthRow {
    let kind = open.begin.kind.name();
    let found = if sight.is_some_and(|sight| sight.state.is_changing()) {
        format!("{kind}, under way since {}", open.begin.at)
    } else {
        format!(
            "{kind} of {} has no end: it is in its last steps, or was interrupted. `sagemaker-executor endpoint {kind}` goes on with it",
            open.begin.at
        )
    };
    row(format!("deployment {}", open.number), HealthResult::Info, &found)
}

fn configuration(facts: &EndpointFacts, sight: &EndpointSight) -> HealthRow {
    let config = Some(&sight.config);
    let history = match &facts.history {
        Fact::Known(history) => history,
        Fact::Unknown(why) => return row("configuration", HealthResult::Unknown, &format!("{}; {why}", sight.config)),
    };
    let is_of =
        |entry: &&LedgerEntry| [entry.begin.from_config.as_ref(), entry.begin.to_config.as_ref()].contains(&config);
    if let Some(open) = facts.open.as_ref().filter(is_of) {
        return row(
            "configuration",
            HealthResult::Ok,
            &format!("{}, while deployment {} is open", sight.config, open.number),
        );
    }
    let ended = history.iter().find_map(|entry| Some((entry.number, entry.end.as_ref()?.config.as_ref())));
    match ended {
        Some((_, there)) if there == config => match facts.in_service() {
            Some(by) => {
                row("configuration", HealthResult::Ok, &format!("{}, of deployment {}", sight.config, by.number))
            }
            None => row(
                "configuration",
                HealthResult::Bad,
                &format!("{}, which no deployment of the ledger brought there", sight.config),
            ),
        },
        Some((number, there)) => {
            let there = there.map_or("none", String::as_str);
            let found = format!(
                "{}, but {there} after deployment {number}: another program changed the endpoint",
                sight.config
            );
            row("configuration", HealthResult::Bad, &found)
        }
        None => {
            row("configuration", HealthResult::Bad, &format!("{}, which no deployment brought there", sight.config))
        }
    }
}

fn model(facts: &EndpointFacts) -> Option<HealthRow> {
    if let Fact::Unknown(why) = &facts.config {
        return Some(row("model", HealthResult::Unknown, why));
    }
    let Some(config) = facts.config() else {
        return Some(row(
            "model",
            HealthResult::Bad,
            "the configuration in service was deleted: no rollback and no update of AWS can use it",
        ));
    };
    match &facts.model {
        Fact::Unknown(why) => Some(row("model", HealthResult::Unknown, &format!("{}; {why}", config.model))),
        Fact::Known(Some(model)) => Some(row("model", HealthResult::Info, &model.name)),
        Fact::Known(None) if config.model.is_empty() => None,
        Fact::Known(None) => {
            let found = format!("{} was deleted: no instance more can start", config.model);
            Some(row("model", HealthResult::Bad, &found))
        }
    }
}

fn version(facts: &EndpointFacts) -> Option<HealthRow> {
    let arn = facts.model_package()?;
    Some(match &facts.version {
        Fact::Unknown(why) => row("version", HealthResult::Unknown, &format!("{arn}; {why}")),
        Fact::Known(None) => row("version", HealthResult::Bad, &format!("{arn} is not in the registry any more")),
        Fact::Known(Some(version)) => {
            let found = format!("{} version {}, {}", version.group, version.number, approval(facts, version));
            let result = if is_rejected(facts, version) { HealthResult::Bad } else { HealthResult::Ok };
            row("version", result, &found)
        }
    })
}

fn standing(facts: &EndpointFacts, version: &ModelVersion) -> Standing {
    ApprovalRecords(&version.metadata).standing(ApprovalRule::of(&facts.approvals, None, false))
}

fn is_rejected(facts: &EndpointFacts, version: &ModelVersion) -> bool {
    version.approval == Approval::Rejected || standing(facts, version) == Standing::Rejected
}

/// The status of the registry, and where it differs what the records say.
pub(super) fn approval(facts: &EndpointFacts, version: &ModelVersion) -> String {
    let name = version.approval.name();
    match (version.approval, standing(facts, version)) {
        (Approval::Approved, Standing::Missing(missing)) => {
            format!("{name}, with {missing} of {} approvals missing", facts.approvals.min)
        }
        (Approval::Approved | Approval::Pending, Standing::Rejected) => {
            format!("{name}, but its last decision is a rejection")
        }
        _ => name.to_owned(),
    }
}

fn capacity(facts: &EndpointFacts, sight: &EndpointSight) -> Option<HealthRow> {
    let config = facts.config()?;
    let found = match &config.capacity {
        VariantCapacity::Instances { instance_type, count } => {
            let variant = sight.variants.first();
            let current = variant.and_then(|variant| variant.current_instances);
            let desired = variant.and_then(|variant| variant.desired_instances).unwrap_or(*count);
            format!("{} of {desired} {instance_type}", current.map_or("unknown".to_owned(), |count| count.to_string()))
        }
        VariantCapacity::Serverless { memory_mb, max_concurrency, provisioned_concurrency } => {
            let ready = provisioned_concurrency.map(|ready| format!(", {ready} of them ready")).unwrap_or_default();
            format!("serverless with {memory_mb} MB, at most {max_concurrency} requests at once{ready}")
        }
    };
    Some(row("instances", HealthResult::Info, &found))
}

fn autoscaling(facts: &EndpointFacts, sight: &EndpointSight) -> Option<HealthRow> {
    facts.config()?;
    let limits = |target: ScalableTarget| format!("{} to {}", target.min, target.max);
    let wanted =
        facts.serving().and_then(|serving| serving.autoscaling.as_ref()).map(|scaling| limits(scaling.limits()));
    Some(match (&facts.scaling, wanted) {
        (Fact::Unknown(why), _) => row("autoscaling", HealthResult::Unknown, why),
        (Fact::Known(Some(target)), _) => row("autoscaling", HealthResult::Ok, &limits(*target)),
        (Fact::Known(None), None) => return None,
        (Fact::Known(None), Some(wanted)) if sight.state.is_changing() => {
            row("autoscaling", HealthResult::Info, &format!("none while the endpoint changes; {wanted} after"))
        }
        (Fact::Known(None), Some(wanted)) => {
            let found =
                format!("none, though the deployment set {wanted}: `sagemaker-executor endpoint deploy` restores it");
            row("autoscaling", HealthResult::Bad, &found)
        }
    })
}

/// The alarms that must exist, and the endpoint's own ones that do.
fn alarms(facts: &EndpointFacts) -> Vec<HealthRow> {
    let sights = match &facts.alarms {
        Fact::Known(sights) => sights,
        Fact::Unknown(why) => {
            let unknown = |name: &String| row(format!("alarm {name}"), HealthResult::Unknown, why);
            let names = facts.alarm_names.iter().map(unknown).collect::<Vec<_>>();
            return if names.is_empty() { vec![row("alarms", HealthResult::Unknown, why)] } else { names };
        }
    };
    let there: BTreeMap<_, _> = sights.iter().map(|sight| (&sight.name, sight)).collect();
    let names: BTreeSet<_> = facts.alarm_names.iter().chain(there.keys().copied()).collect();
    let alarm = |name: &String| match there.get(name) {
        None => row(format!("alarm {name}"), HealthResult::Bad, "does not exist"),
        Some(sight) => alarm(facts, sight),
    };
    names.into_iter().map(alarm).collect()
}

fn alarm(_: &EndpointFacts, sight: &AlarmSight) -> HealthRow {
    let AlarmSight { name, state, reason, .. } = sight;
    let result = if *state == AlarmState::Alarm { HealthResult::Bad } else { HealthResult::Ok };
    row(format!("alarm {name}"), result, &format!("{}: {reason}", state.name()))
}
