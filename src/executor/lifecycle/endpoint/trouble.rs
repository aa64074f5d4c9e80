//! The failures of a rollout that did not bring its configuration into service, with AWS's reasons, alarms and the container's last lines.

use super::rollout::RolloutEnd;
use super::survey::EndpointPorts;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::AlarmState;

/// Lines of the container's output that an error shows.
const LOG_LINES: usize = 50;
/// Longest reason of AWS, in bytes.
const LONGEST: usize = 1000;

/// Why a rollout did not succeed: one line for the ledger.
pub(super) fn reason(end: &RolloutEnd) -> String {
    let words = |reason: &Option<String>| match reason {
        Some(reason) if !reason.trim().is_empty() => plain::line(reason, LONGEST),
        _ => "AWS gives no reason".to_owned(),
    };
    match end {
        RolloutEnd::InService => String::new(),
        RolloutEnd::RolledBack(reason) | RolloutEnd::Failed(reason) | RolloutEnd::RollbackFailed(reason) => {
            words(reason)
        }
        RolloutEnd::Displaced(Some(config)) => {
            format!("another command brought {} into service", plain::line(config, LONGEST))
        }
        RolloutEnd::Displaced(None) => "another command deleted the endpoint".to_owned(),
        RolloutEnd::NotShown => "AWS does not show the change that was asked for".to_owned(),
    }
}

/// The failure for such an end. `alarms` are the names of those that guard the deployment.
pub(super) async fn failure(ports: &EndpointPorts, endpoint: &str, end: &RolloutEnd, alarms: &[String]) -> Failure {
    let reason = reason(end);
    match end {
        RolloutEnd::InService | RolloutEnd::NotShown => {
            let failure = Failure::verdict(exit_codes::TRY_LATER, format!("the endpoint {endpoint}: {reason}"));
            failure.hint("run the same command again: it goes on with the deployment")
        }
        RolloutEnd::RolledBack(_) => {
            let message = format!("AWS rolled {endpoint} back, which answers as before: {reason}");
            let mut failure = Failure::verdict(exit_codes::ROLLED_BACK, message);
            for alarm in alarms_on(ports, alarms).await {
                failure = failure.hint(alarm);
            }
            failure.hint("repair the model, and deploy its new version").quoting(log(ports, endpoint).await)
        }
        RolloutEnd::Failed(_) => Failure::user(format!("AWS failed to make the endpoint {endpoint}: {reason}"))
            .hint("repair the model or its image; `--replace-failed` deletes the endpoint and makes it again")
            .quoting(log(ports, endpoint).await),
        RolloutEnd::RollbackFailed(_) => needs_a_person(endpoint, &reason).quoting(log(ports, endpoint).await),
        RolloutEnd::Displaced(_) => Failure::user(format!("the deployment to {endpoint} was displaced: {reason}"))
            .hint("let one job at a time change the endpoint: set `resource_group` in the jobs"),
    }
}

/// The failure when neither the new nor the old configuration can be served.
pub(super) fn needs_a_person(endpoint: &str, reason: &str) -> Failure {
    Failure::verdict(exit_codes::NEEDS_A_PERSON, format!("the endpoint {endpoint} could not be brought back: {reason}"))
        .hint("look at what it serves with `sagemaker-executor endpoint status`")
        .hint(
            "if it is UpdateRollbackFailed, AWS takes no update any more: ask AWS Support, or delete it with \
             `sagemaker-executor endpoint delete` and deploy again, during which nobody is answered",
        )
}

/// The alarms that are on now. An error of CloudWatch hides no reason of the deployment.
async fn alarms_on(ports: &EndpointPorts, names: &[String]) -> Vec<String> {
    if names.is_empty() {
        return Vec::new();
    }
    let alarms = ports.alarms.alarms(names).await.unwrap_or_default();
    let on = alarms.into_iter().filter(|alarm| alarm.state == AlarmState::Alarm);
    on.map(|alarm| {
        format!("the alarm `{}` is on: {}", plain::line(&alarm.name, 255), plain::line(&alarm.reason, LONGEST))
    })
    .collect()
}

/// The last lines of the containers, if there are any.
async fn log(ports: &EndpointPorts, endpoint: &str) -> Option<String> {
    let lines = ports.logs.last_lines(endpoint, LOG_LINES).await.unwrap_or_default();
    if lines.is_empty() {
        return None;
    }
    let lines: Vec<_> = lines.iter().map(|line| format!("  {}", plain::line(line, LONGEST))).collect();
    Some(format!("The last lines of the containers:\n{}", lines.join("\n")))
}
