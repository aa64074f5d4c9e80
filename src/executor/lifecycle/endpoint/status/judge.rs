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
use crate::lifecycle::endpoint::ledger::{LedgerEntry, LedgerKind, LedgerScaling};
use crate::lifecycle::endpoint::scaling;
use crate::lifecycle::endpoint::specification::is_same_alarm;
use crate::lifecycle::endpoint::specification::own_alarms;
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
    rows.extend(facts.package().map(|package| row("package", HealthResult::Info, &package.text())));
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
            let result = if may_serve(facts, version) { HealthResult::Ok } else { HealthResult::Bad };
            row("version", result, &found)
        }
    })
}

fn standing(facts: &EndpointFacts, version: &ModelVersion) -> Standing {
    ApprovalRecords(&version.metadata).standing(ApprovalRule::of(&facts.approvals, None, false))
}

/// Whether a deployment of the version to the environment would be accepted now.
fn may_serve(facts: &EndpointFacts, version: &ModelVersion) -> bool {
    match (version.approval, standing(facts, version)) {
        (Approval::Rejected, _) | (_, Standing::Rejected) => false,
        (Approval::Approved, Standing::Approved) => true,
        _ => !facts.needs_approval,
    }
}

/// The status of the registry, and where it differs what the records say.
pub(super) fn approval(facts: &EndpointFacts, version: &ModelVersion) -> String {
    let name = version.approval.name();
    match (version.approval, standing(facts, version)) {
        (Approval::Approved, Standing::Missing(missing)) => {
            let rule = ApprovalRecords(&version.metadata).rule(ApprovalRule::of(&facts.approvals, None, false));
            format!("{name}, with {missing} of {} approvals missing", rule.min)
        }
        (Approval::Approved | Approval::Pending, Standing::Rejected) => {
            format!("{name}, but its last decision is a rejection")
        }
        _ => name.to_owned(),
    }
}

fn capacity(facts: &EndpointFacts, sight: &EndpointSight) -> Option<HealthRow> {
    let config = facts.config()?;
    Some(match &config.capacity {
        VariantCapacity::Instances { instance_type, count } => {
            let variant = sight.variants.first();
            let counts = InstanceCounts {
                current: variant.and_then(|variant| variant.current_instances),
                desired: variant.and_then(|variant| variant.desired_instances).unwrap_or(*count),
                least: match (&facts.scaling, wanted_scaling(facts).next()) {
                    (Fact::Known(Some(_)), Some(wanted)) => wanted.min,
                    (Fact::Known(None), None) => *count,
                    _ => 0,
                },
            };
            let current = counts.current.map_or("unknown".to_owned(), |count| count.to_string());
            let lacks = counts.desired < counts.least;
            let least = if lacks { format!(", and at least {} must be there", counts.least) } else { String::new() };
            let found = format!("{current} of {} {instance_type}{least}", counts.desired);
            row("instances", counts.result(sight.state.is_changing()), &found)
        }
        VariantCapacity::Serverless { memory_mb, max_concurrency, provisioned_concurrency } => {
            let ready = provisioned_concurrency.map(|ready| format!(", {ready} of them ready")).unwrap_or_default();
            let found = format!("serverless with {memory_mb} MB, at most {max_concurrency} requests at once{ready}");
            row("instances", HealthResult::Info, &found)
        }
    })
}

/// Numbers of a variant's instances.
#[derive(Debug, Clone, Copy)]
struct InstanceCounts {
    current: Option<u32>,
    desired: u32,
    /// Fewest that may be desired, by the deployment.
    least: u32,
}

impl InstanceCounts {
    /// An endpoint whose instances change is updated, and no longer `InService`.
    fn result(self, is_changing: bool) -> HealthResult {
        match self.current {
            None => HealthResult::Info,
            Some(0) if self.desired > 0 => HealthResult::Bad,
            Some(_) if is_changing => HealthResult::Info,
            Some(current) if current < self.desired || self.desired < self.least => HealthResult::Bad,
            Some(_) => HealthResult::Ok,
        }
    }
}

/// The autoscaling of the deployment in service, then that of one which is open, and may have set its own already.
fn wanted_scaling(facts: &EndpointFacts) -> impl Iterator<Item = &LedgerScaling> {
    let open = facts.open.as_ref().and_then(|open| open.begin.serving.as_ref());
    facts.serving().into_iter().chain(open).filter_map(|serving| serving.autoscaling.as_ref())
}

fn autoscaling(facts: &EndpointFacts, sight: &EndpointSight) -> Option<HealthRow> {
    facts.config()?;
    let limits = |target: ScalableTarget| format!("{} to {}", target.min, target.max);
    let bad = |found: String| {
        let found = format!("{found}: `sagemaker-executor endpoint deploy` restores it");
        row("autoscaling", HealthResult::Bad, &found)
    };
    let wanted = wanted_scaling(facts).next();
    Some(match (&facts.scaling, &facts.policies, wanted) {
        (Fact::Unknown(why), _, _) => row("autoscaling", HealthResult::Unknown, why),
        (Fact::Known(Some(target)), Fact::Unknown(why), Some(_)) => {
            row("autoscaling", HealthResult::Unknown, &format!("{}; {why}", limits(*target)))
        }
        (Fact::Known(Some(target)), Fact::Known(policies), Some(wanted)) => {
            let is_shown = |wanted: &LedgerScaling| {
                wanted.limits() == *target && policies.iter().any(|shown| scaling::is_same(&wanted.policy(), shown))
            };
            if wanted_scaling(facts).any(is_shown) {
                row("autoscaling", HealthResult::Ok, &limits(*target))
            } else if wanted.limits() == *target {
                bad(format!("{}, without the policy `{}` of the deployment", limits(*target), wanted.policy))
            } else {
                bad(format!("{}, though the deployment set {}", limits(*target), limits(wanted.limits())))
            }
        }
        (Fact::Known(Some(target)), _, None) => row("autoscaling", HealthResult::Ok, &limits(*target)),
        (Fact::Known(None), _, None) => return None,
        (Fact::Known(None), _, Some(wanted)) if sight.state.is_changing() => {
            let wanted = limits(wanted.limits());
            row("autoscaling", HealthResult::Info, &format!("none while the endpoint changes; {wanted} after"))
        }
        (Fact::Known(None), _, Some(wanted)) => {
            bad(format!("none, though the deployment set {}", limits(wanted.limits())))
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

fn alarm(facts: &EndpointFacts, sight: &AlarmSight) -> HealthRow {
    let AlarmSight { name, state, reason, .. } = sight;
    let check = format!("alarm {name}");
    let found = format!("{}: {reason}", state.name());
    match weakness(facts, sight) {
        _ if *state == AlarmState::Alarm => row(check, HealthResult::Bad, &found),
        Some(why) => {
            let found = format!("{why}: `sagemaker-executor endpoint deploy` restores it; {found}");
            row(check, HealthResult::Bad, &found)
        }
        None => row(check, HealthResult::Ok, &found),
    }
}

/// Why an alarm that this program made does not guard the endpoint any more.
fn weakness(facts: &EndpointFacts, sight: &AlarmSight) -> Option<&'static str> {
    let is_own = facts.alarm_names.contains(&sight.name) && !facts.foreign_alarms.contains(&sight.name);
    if !is_own || !own_alarms(&facts.endpoint).contains(&sight.name) {
        return None;
    }
    let Some(shown) = &sight.definition else { return Some("another program changed what it watches") };
    let variant = facts.config().map(|config| &config.variant);
    if shown.endpoint != facts.endpoint || variant.is_some_and(|variant| *variant != shown.variant) {
        return Some("it watches another endpoint or variant");
    }
    let wanted = facts.wanted_alarms.iter().find(|wanted| wanted.name == sight.name)?;
    (!is_same_alarm(shown, wanted)).then_some("it is not as the manifest says")
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(Some(2), 2, 2, false => HealthResult::Ok; "all")]
    #[test_case(Some(0), 2, 2, false => HealthResult::Bad; "none")]
    #[test_case(Some(0), 2, 2, true => HealthResult::Bad; "none during an update")]
    #[test_case(Some(1), 2, 2, false => HealthResult::Bad; "too few")]
    #[test_case(Some(1), 2, 2, true => HealthResult::Info; "changing")]
    #[test_case(Some(1), 1, 2, false => HealthResult::Bad; "narrowed by hand")]
    #[test_case(Some(0), 0, 0, false => HealthResult::Ok; "scaled to none")]
    #[test_case(None, 2, 2, false => HealthResult::Info; "not told")]
    fn instances_are(current: Option<u32>, desired: u32, least: u32, is_changing: bool) -> HealthResult {
        InstanceCounts { current, desired, least }.result(is_changing)
    }
}
