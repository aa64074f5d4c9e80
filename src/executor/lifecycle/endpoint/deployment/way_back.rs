//! The way back to the old configuration, when the new one answers the samples wrongly. It is recorded before it begins: no run that
//! goes on with it brings the new configuration into service again.

use std::time::Duration;

use tokio::time::Instant;

use super::{Deploying, Entry, saved, test_of};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{RolloutSpec, TrafficShift};
use crate::lifecycle::endpoint::engine::BringError;
use crate::lifecycle::endpoint::ledger::{LedgerBack, LedgerOutcome};
use crate::lifecycle::endpoint::preconditions::is_other_type;
use crate::lifecycle::endpoint::rollout::{EndpointBefore, RolloutEnd, RolloutGoal};
use crate::lifecycle::endpoint::testing::TestVerdict;
use crate::lifecycle::endpoint::trouble;

/// Time that the way back has at least, whatever is left of the command's.
const TIME: Duration = Duration::from_mins(30);
/// Longest reason in the ledger, in bytes.
const LONGEST: usize = 1000;

impl Deploying<'_> {
    /// Brings the old configuration back.
    pub(super) async fn take_back(&self, entry: &Entry, verdict: &TestVerdict) -> anyhow::Result<()> {
        if entry.begin.from_config.is_none() {
            return self.nothing_to_go_back_to(entry, verdict).await;
        }
        let sight = self.ports.endpoints.endpoint(&self.wanted.endpoint).await?;
        let modified = sight.and_then(|sight| sight.modified);
        let back = LedgerBack::new(self.inputs.clock.now(), modified, test_of(verdict));
        self.ports.ledger.begin_back(entry.number, &back).await?;
        self.go_back(entry, &back, false).await
    }

    /// Goes on with the way back that an earlier run began.
    pub(super) async fn go_on_back(&self, entry: &Entry, back: &LedgerBack) -> anyhow::Result<()> {
        self.go_back(entry, back, true).await
    }

    async fn nothing_to_go_back_to(&self, entry: &Entry, verdict: &TestVerdict) -> anyhow::Result<()> {
        let (endpoint, config) = (&self.wanted.endpoint, &self.wanted.config.name);
        let reason = verdict.reason().unwrap_or_default();
        let deleted = if self.deletes_failed { self.delete().await? } else { "" };
        let in_service = Some(config.as_str()).filter(|_| !self.deletes_failed);
        self.end(entry, LedgerOutcome::Failed, Some(&reason), in_service, Some(test_of(verdict))).await?;
        self.leave("wrong_answers", Some(entry.number), None, in_service.unwrap_or_default())?;
        let message = format!("the first deployment of {endpoint} has nothing to go back to{deleted}: {reason}");
        Err(Failure::verdict(exit_codes::BELOW_BAR, message)
            .hint("deploy a version that answers its samples, or correct `endpoint.test.samples`")
            .into())
    }

    async fn go_back(&self, entry: &Entry, back: &LedgerBack, is_resumed: bool) -> anyhow::Result<()> {
        let (endpoint, config) = (&self.wanted.endpoint, &self.wanted.config.name);
        let old = entry.begin.from_config.clone().unwrap_or_default();
        let reason = plain::line(&back.test.summary, LONGEST);
        let shown = plain::line(&old, LONGEST);
        self.inputs.printer.line(format!("{config} answers wrongly, and {shown} comes back: {reason}"));
        match self.bring_back(entry, back, &old, is_resumed).await? {
            RolloutEnd::InService => {}
            RolloutEnd::NotShown => return Err(self.failure(&RolloutEnd::NotShown).await.into()),
            end @ RolloutEnd::Displaced(_) => return self.not_in_service(entry, &end).await,
            end => {
                let why = trouble::reason(&end);
                self.end(entry, LedgerOutcome::Failed, Some(&why), None, Some(back.test.clone())).await?;
                return Err(trouble::needs_a_person(endpoint, &format!("{reason}; {why}")).into());
            }
        }
        self.restore(entry).await?;
        let old_answers = self.test().await?;
        let end = self.engine.still_serves(endpoint, &old).await?;
        if end != RolloutEnd::InService {
            return self.not_in_service(entry, &end).await;
        }
        let is_good = old_answers.as_ref().is_none_or(TestVerdict::is_good);
        let outcome = if is_good { LedgerOutcome::RolledBackByUs } else { LedgerOutcome::Failed };
        self.end(entry, outcome, Some(&reason), Some(&old), Some(back.test.clone())).await?;
        self.leave("rolled_back_by_us", Some(entry.number), Some(config), &old)?;
        if !is_good {
            let why = old_answers.and_then(|verdict| verdict.reason()).unwrap_or_default();
            let message = format!("{shown} is in service again, and does not answer the samples either: {why}");
            return Err(trouble::needs_a_person(endpoint, &message).into());
        }
        let message = format!("the new model answers wrongly, and {endpoint} answers as before again: {reason}");
        Err(Failure::verdict(exit_codes::ROLLED_BACK_BY_US, message)
            .hint("repair the model, and deploy its new version")
            .into())
    }

    /// Moves the traffic back.
    async fn bring_back(
        &self,
        entry: &Entry,
        back: &LedgerBack,
        old: &str,
        is_resumed: bool,
    ) -> anyhow::Result<RolloutEnd> {
        let there = self.ports.endpoints.config(old).await?;
        let changes_type = there.is_some_and(|config| is_other_type(&config, &self.wanted.config));
        let in_the_way = self.wanted.scaling.as_ref().or(saved(&entry.begin)).filter(|_| changes_type);
        // Alarms may be on because of the new model: they must not stop the way back.
        let rollout = self.wanted.rollout.as_ref().map(|rollout| RolloutSpec {
            traffic: TrafficShift::AllAtOnce { wait: 0, termination_wait: 0 },
            limit_seconds: rollout.limit_seconds,
            alarms: Vec::new(),
        });
        let goal = RolloutGoal {
            config: old.to_owned(),
            before: Some(EndpointBefore { config: self.wanted.config.name.clone(), modified: back.modified() }),
            rollout,
            keeps_counts: self.is_scaled(entry) && self.wanted.rollout.is_some() && !changes_type,
            is_resumed,
            replaces_failed: false,
            ..self.goal(entry)
        };
        let engine = self.engine.until(self.engine.deadline.max(Instant::now() + TIME));
        match engine.bring(&goal, in_the_way).await {
            Ok(end) => Ok(end),
            Err(BringError::Refused(error)) => Ok(RolloutEnd::RollbackFailed(Some(error.to_string()))),
            Err(BringError::Unknown(error)) => Err(error),
        }
    }
}
