//! Chooses the configuration that a rollback brings back, by the ledger. Pure.
//!
//! `previous` is what was in service before the newest deployment. So a rollback that is run again changes nothing, and neither does
//! one after a deployment that AWS or the samples have taken back already: nobody gets one step further back than meant.

use std::str::FromStr;

use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::endpoint::ledger::{LedgerEntry, LedgerKind, LedgerOutcome};

const NUMBER_HINT: &str =
    "`sagemaker-executor endpoint status` shows the deployments; `--to NUMBER` names one that succeeded";

/// The value of `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RollbackTo {
    Previous,
    Number(u64),
}

impl FromStr for RollbackTo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "previous" => Ok(Self::Previous),
            _ => text.parse().map(Self::Number).map_err(|_| "write `previous`, or the number of a deployment"),
        }
    }
}

/// The deployment that a rollback brings back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RollbackChoice {
    pub(crate) config: String,
    /// The deployment that brought it into service; `None` when the ledger knows none: the endpoint was taken over.
    pub(crate) deployment: Option<LedgerEntry>,
    /// The configuration that the rollback removes.
    pub(super) removed_config: Option<String>,
    /// ARN of its version, if it is another one than that which comes back.
    pub(super) removed_version: Option<String>,
}

/// Chooses by the newest deployments, newest first. `named` is the one that `--to` names.
///
/// # Errors
/// There is no such deployment, or it was not in service.
pub(crate) fn choose(
    to: RollbackTo,
    history: &[LedgerEntry],
    named: Option<&LedgerEntry>,
    in_service: &str,
) -> Result<RollbackChoice, Failure> {
    // Everything from before a deletion is gone.
    let is_deletion = |entry: &&LedgerEntry| entry.begin.kind == LedgerKind::Delete && entry.has_succeeded();
    let history: Vec<_> = history.iter().take_while(|entry| !is_deletion(entry)).collect();
    let newest = history.iter().find(|entry| entry.begin.kind == LedgerKind::Deploy);
    let newest = newest.ok_or_else(|| {
        Failure::user("the ledger knows no deployment of this endpoint")
            .hint("bring a version into service with `sagemaker-executor endpoint deploy`")
    })?;
    let (config, deployment) = match to {
        RollbackTo::Previous => {
            let config = newest.begin.from_config.clone().ok_or_else(|| {
                let message = format!("nothing was in service before deployment {}, the newest one", newest.number);
                Failure::user(message).hint(NUMBER_HINT)
            })?;
            let brought = |entry: &&&LedgerEntry| entry.number < newest.number && brings(entry, &config);
            (config.clone(), history.iter().find(brought).map(|entry| (*entry).clone()))
        }
        RollbackTo::Number(number) => {
            let entry =
                named.ok_or_else(|| Failure::user(format!("there is no deployment {number}")).hint(NUMBER_HINT))?;
            (config_of(entry)?, Some(entry.clone()))
        }
    };
    let removed = if in_service == config { newest.begin.to_config.as_deref() } else { Some(in_service) };
    let removed = removed.filter(|removed| *removed != config);
    let version = |config: &str| {
        let entry = history.iter().find(|entry| entry.begin.to_config.as_deref() == Some(config))?;
        entry.begin.model_package.clone()
    };
    let kept = deployment.as_ref().and_then(|entry| entry.begin.model_package.as_ref());
    let removed_version = removed.and_then(version).filter(|arn| Some(arn) != kept);
    Ok(RollbackChoice { removed_config: removed.map(str::to_owned), config, deployment, removed_version })
}

/// Whether the deployment brought this configuration into service.
fn brings(entry: &LedgerEntry, config: &str) -> bool {
    entry.has_succeeded() && entry.begin.to_config.as_deref() == Some(config)
}

/// The configuration that a deployment brought into service.
fn config_of(entry: &LedgerEntry) -> Result<String, Failure> {
    let refused = |why: String| Err(Failure::user(format!("deployment {} {why}", entry.number)).hint(NUMBER_HINT));
    match (&entry.begin.to_config, entry.end.as_ref().map(|end| end.outcome)) {
        (None, _) => refused("deleted the endpoint".to_owned()),
        (Some(config), Some(LedgerOutcome::Succeeded)) => Ok(config.clone()),
        (Some(_), Some(outcome)) => refused(format!("ended as {}: it was not good", outcome.name())),
        (Some(config), None) => {
            refused(format!("has no end: nobody knows whether {} is good", plain::line(config, 100)))
        }
    }
}
