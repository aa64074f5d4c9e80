//! Makes what a deployment needs beside the endpoint, and deletes what is no longer needed. What is there stays.

use std::collections::BTreeSet;
use std::time::Duration;

use backon::BackoffBuilder as _;

use super::ownership::is_ours;
use super::preconditions::{is_same_config, is_same_model};
use super::specification::{DeploymentSpecification, is_same_alarm, model_of_config, stem};
use super::survey::{EndpointPorts, EndpointSurvey};
use crate::base::backoff::backoff;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{AlarmState, CloudError, CloudErrorKind, EndpointAlarm};

/// Looks for what was written: AWS shows it late.
const LOOKS: usize = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Looks for alarms that are off: CloudWatch looks at a changed one within two minutes.
const ALARM_LOOKS: usize = 30;
/// Most configurations that one command deletes.
const MOST_DELETED: usize = 50;
/// Deployments whose configurations stay.
const KEPT_DEPLOYMENTS: usize = 10;

/// Makes alarms, model and configuration unless they are there. `true` if something was written.
///
/// # Errors
/// AWS refuses one, or another command made one with another content meanwhile.
pub(super) async fn ensure(
    ports: &EndpointPorts,
    wanted: &DeploymentSpecification,
    survey: &EndpointSurvey,
) -> anyhow::Result<bool> {
    let has_written = ensure_alarms(ports, wanted, survey).await?;
    if has_written && survey.endpoint.is_some() && !survey.is_live(wanted) && !survey.is_resumed(wanted) {
        await_alarms(ports, wanted).await?;
    }
    if survey.is_live(wanted) {
        return Ok(has_written);
    }
    if survey.model.is_none() {
        let made = ports.endpoints.create_model(&wanted.model).await;
        if is_new("model", &wanted.model.name, made)? {
            let there = ports.endpoints.model(&wanted.model.name).await?;
            if there.is_some_and(|model| !is_same_model(&model, &wanted.model)) {
                return Err(other("model", &wanted.model.name));
            }
        }
    }
    if survey.config.is_none() {
        let made = ports.endpoints.create_config(&wanted.config).await;
        if is_new("endpoint configuration", &wanted.config.name, made)? {
            let there = ports.endpoints.config(&wanted.config.name).await?;
            if there.is_some_and(|config| !is_same_config(&config, &wanted.config)) {
                return Err(other("endpoint configuration", &wanted.config.name));
            }
        }
    }
    Ok(true)
}

/// `true` when somebody else made it meanwhile, or a request whose answer was lost: then it has to be looked at.
fn is_new(what: &str, name: &str, made: Result<(), CloudError>) -> anyhow::Result<bool> {
    match made {
        Ok(()) => Ok(false),
        Err(error) if error.kind == CloudErrorKind::Exists => Ok(true),
        Err(error) => Err(anyhow::Error::from(error).context(format!("the {what} {name} was not made"))),
    }
}

fn other(what: &str, name: &str) -> anyhow::Error {
    Failure::user(format!("another command made the {what} {name} with another content"))
        .hint("let one job at a time change the endpoint: set `resource_group` in the jobs")
        .into()
}

/// Makes or changes the alarms that are not as wanted, and reads them back.
async fn ensure_alarms(
    ports: &EndpointPorts,
    wanted: &DeploymentSpecification,
    survey: &EndpointSurvey,
) -> anyhow::Result<bool> {
    let mut shown = survey.alarms.clone();
    let mut pauses = backoff(FIRST_PAUSE, LONGEST_PAUSE).build();
    for look in 0..LOOKS {
        let is_right = |alarm: &&EndpointAlarm| {
            let sight = shown.iter().find(|sight| sight.name == alarm.name);
            sight.and_then(|sight| sight.definition.as_ref()).is_some_and(|there| is_same_alarm(there, alarm))
        };
        let wrong: Vec<_> = wanted.alarms.iter().filter(|alarm| !is_right(alarm)).collect();
        if wrong.is_empty() {
            return Ok(look > 0);
        }
        for alarm in wrong {
            ports.alarms.put_alarm(alarm).await?;
        }
        if look > 0 {
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
        shown = ports.alarms.alarms(wanted.alarm_names()).await?;
    }
    let message = format!("CloudWatch does not show the alarms that were made for {}", wanted.endpoint);
    Err(Failure::verdict(exit_codes::TRY_LATER, message).hint("run the same command again").into())
}

/// Waits until the alarms are off. One that was changed keeps its state until CloudWatch has looked at it again.
async fn await_alarms(ports: &EndpointPorts, wanted: &DeploymentSpecification) -> anyhow::Result<()> {
    for look in 0..ALARM_LOOKS {
        let alarms = ports.alarms.alarms(wanted.alarm_names()).await?;
        let Some(on) = alarms.into_iter().find(|alarm| alarm.state == AlarmState::Alarm) else { return Ok(()) };
        if look + 1 == ALARM_LOOKS {
            let (name, reason) = (plain::line(&on.name, 255), plain::line(&on.reason, 400));
            let message = format!("the alarm `{name}` is on, and would roll the deployment back at once: {reason}");
            return Err(Failure::verdict(exit_codes::NOT_YET, message)
                .hint("wait until it is off, or change its limit in `endpoint.alarms`")
                .into());
        }
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
    Ok(())
}

/// Deletes the endpoint's old configurations with their models, except the newest `keep`, those that its newest deployments name, and
/// the one in service. Returns the names of the configurations.
pub(super) async fn prune(ports: &EndpointPorts, endpoint: &str, keep: usize) -> anyhow::Result<Vec<String>> {
    let all = ports.endpoints.configs(&format!("{}-", stem(endpoint))).await?;
    let own = all.into_iter().filter_map(|config| Some((model_of_config(endpoint, &config)?, config)));
    let old: Vec<_> = own.skip(keep).collect();
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let needed = needed(ports, endpoint).await?;
    let mut deleted = Vec::new();
    for (model, name) in old.into_iter().filter(|(_, name)| !needed.contains(name)).take(MOST_DELETED) {
        let Some(config) = ports.endpoints.config(&name).await? else { continue };
        let is_own = config.model == model && is_ours(&ports.endpoints.tags(&config.arn).await?, endpoint);
        if is_own {
            // A model without a configuration would be found by nobody.
            ports.endpoints.delete_model(&model).await?;
            ports.endpoints.delete_config(&name).await?;
            deleted.push(name);
        }
    }
    Ok(deleted)
}

/// Configurations that the endpoint serves, and those to which it may be brought back.
async fn needed(ports: &EndpointPorts, endpoint: &str) -> anyhow::Result<BTreeSet<String>> {
    let sight = ports.endpoints.endpoint(endpoint).await?;
    let mut needed: BTreeSet<_> =
        sight.into_iter().flat_map(|sight| [Some(sight.config), sight.pending_config]).flatten().collect();
    for entry in ports.ledger.history(KEPT_DEPLOYMENTS).await? {
        needed.extend([entry.begin.from_config, entry.begin.to_config].into_iter().flatten());
    }
    Ok(needed)
}
