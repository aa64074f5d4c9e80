//! A deployment whose preconditions hold: writes, waits, tests, and goes back when the samples are answered wrongly.

mod way_back;

use super::deployment_data::DeploymentData;
use super::engine::{BringError, EndpointEngine};
use super::ledger::{
    LedgerBack, LedgerBefore, LedgerBegin, LedgerEnd, LedgerEntry, LedgerKind, LedgerOutcome, LedgerScaling,
    LedgerServing, LedgerTest,
};
use super::plan::capacity;
use super::preconditions::{changes_type, is_other_type};
use super::resources;
use super::rollout::{EndpointBefore, RolloutEnd, RolloutGoal};
use super::scaling::SavedScaling;
use super::specification::DeploymentSpecification;
use super::survey::{EndpointPorts, EndpointSurvey};
use super::testing::{TestPlan, TestVerdict};
use super::trouble;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{CloudError, EndpointState};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::JobUser;
use crate::lifecycle::output::{Data as _, OutputArgs};
use crate::lifecycle::target::ProjectTarget;

/// Longest reason in the ledger, in bytes.
const LONGEST: usize = 1000;

pub(super) struct Deploying<'a> {
    pub(super) kind: LedgerKind,
    /// Number of the deployment that a rollback brings back.
    pub(super) brings_back: Option<u64>,
    pub(super) inputs: &'a CommandInputs,
    pub(super) target: &'a ProjectTarget,
    pub(super) ports: &'a EndpointPorts,
    pub(super) engine: &'a EndpointEngine<'a>,
    pub(super) wanted: &'a DeploymentSpecification,
    pub(super) survey: &'a EndpointSurvey,
    /// The newest entry of the ledger.
    pub(super) newest: Option<&'a LedgerEntry>,
    /// An earlier run began the way back of the deployment that this one goes on with.
    pub(super) back: Option<&'a LedgerBack>,
    /// `None` when the manifest has no samples.
    pub(super) test: Option<&'a TestPlan>,
    pub(super) user: Option<&'a JobUser>,
    pub(super) reason: Option<&'a str>,
    pub(super) replaces_failed: bool,
    pub(super) deletes_failed: bool,
    /// Old configurations that stay; `None` for all.
    pub(super) keep: Option<usize>,
    pub(super) output: &'a OutputArgs,
}

/// The deployment in the ledger.
struct Entry {
    number: u64,
    begin: LedgerBegin,
}

impl Deploying<'_> {
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        if self.survey.is_live(self.wanted) && !self.survey.is_resumed(self.wanted) {
            return self.unchanged().await;
        }
        if let Some(back) = self.back {
            return self.go_on_back(&self.begin().await?, back).await;
        }
        resources::ensure(self.ports, self.wanted, self.survey).await?;
        let entry = self.begin().await?;
        let end = match self.engine.bring(&self.goal(&entry), self.in_the_way(&entry)).await {
            Ok(end) => end,
            Err(BringError::Refused(error)) => return Err(self.refused(&entry, error).await),
            Err(BringError::Unknown(error)) => return Err(error),
        };
        match end {
            RolloutEnd::InService => self.in_service(&entry).await,
            RolloutEnd::NotShown => Err(self.failure(&end).await.into()),
            end => self.not_in_service(&entry, &end).await,
        }
    }

    /// The endpoint serves the specification: alarms and scaling are put right, and the samples sent.
    async fn unchanged(&self) -> anyhow::Result<()> {
        self.supersede().await?;
        let has_alarms = resources::ensure(self.ports, self.wanted, self.survey).await?;
        let has_scaling = self.scale(None).await?;
        let has_removed = self.remove_left_alarms().await?;
        let verdict = self.test().await?;
        let end = self.engine.still_serves(&self.wanted.endpoint, &self.wanted.config.name).await?;
        if end != RolloutEnd::InService {
            return Err(self.failure(&end).await.into());
        }
        let outcome = if has_alarms || has_scaling || has_removed { "adjusted" } else { "unchanged" };
        let previous = self.newest.and_then(|entry| entry.begin.from_config.as_deref());
        self.leave(outcome, self.newest.map(|entry| entry.number), previous, &self.wanted.config.name)?;
        conclude(verdict.as_ref())
    }

    /// The entry of the ledger: the one of an earlier run, or a new one.
    async fn begin(&self) -> anyhow::Result<Entry> {
        if let Some(open) = self.survey.open.as_ref().filter(|_| self.survey.is_resumed(self.wanted)) {
            self.inputs.printer.line(format!("Going on with deployment {} of {}", open.number, self.wanted.endpoint));
            let mut begin = open.begin.clone();
            if let Some(before) = begin.before.as_mut().filter(|_| self.believed_scaling(&open.begin).is_none()) {
                before.scaling = self.survey.scaling.saved(&self.survey.variant(self.wanted));
            }
            return Ok(Entry { number: open.number, begin });
        }
        let variant = self.survey.variant(self.wanted);
        let scaling = if self.supersede().await? {
            self.engine.scaling.saved(&variant).await?
        } else {
            self.survey.scaling.saved(&variant)
        };
        let now = self.inputs.clock.now();
        let mut begin = LedgerBegin::new(self.kind, now, self.user, self.target, &self.wanted.endpoint);
        let sight = self.survey.endpoint.as_ref().filter(|_| !self.replaces());
        begin.reason = self.reason.map(|reason| plain::line(reason, LONGEST));
        let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        begin.target = self.brings_back;
        begin.model_package = known(&self.wanted.version);
        begin.package.clone_from(&self.wanted.package);
        begin.specification = known(&self.wanted.hash);
        begin.from_config = sight.map(|sight| sight.config.clone());
        begin.from_model = sight.and(self.survey.current.as_ref()).map(|config| config.model.clone());
        begin.to_config = Some(self.wanted.config.name.clone());
        begin.to_model = Some(self.wanted.model.name.clone());
        begin.serving = Some(LedgerServing {
            image: self.wanted.image.clone(),
            model_data_url: Some(self.wanted.model_data_url.clone()),
            capacity: (&self.wanted.config.capacity).into(),
            alarms: self.wanted.alarm_names().to_vec(),
            autoscaling: self.wanted.scaling.as_ref().and_then(LedgerScaling::of_saved),
        });
        // The deletion of an endpoint removes its scaling.
        begin.before = self.survey.endpoint.as_ref().map(|sight| LedgerBefore::new(sight.modified, scaling));
        let number = self.ports.ledger.begin(&begin).await?;
        let from = begin.from_config.as_deref().map(|from| format!(" in place of {}", plain::line(from, LONGEST)));
        self.inputs.printer.line(format!(
            "Deployment {number} of {}: {} on {}{}",
            self.wanted.endpoint,
            self.wanted.config.name,
            capacity(&self.wanted.config.capacity),
            from.unwrap_or_default()
        ));
        Ok(Entry { number, begin })
    }

    /// The scaling before a deployment, as far as AWS shows no other one: anybody may have written the record of another run.
    fn believed_scaling<'a>(&self, begin: &'a LedgerBegin) -> Option<&'a SavedScaling> {
        let variant = self.survey.variant(self.wanted);
        saved(begin).filter(|saved| saved.is_believed(&variant, self.survey.scaling.target))
    }

    /// Ends the record of another deployment that was interrupted, after its scaling came back. `true` if there is one.
    async fn supersede(&self) -> anyhow::Result<bool> {
        let Some(open) = self.survey.open.as_ref().filter(|_| !self.survey.is_resumed(self.wanted)) else {
            return Ok(false);
        };
        let sight = self.survey.endpoint.as_ref().filter(|sight| sight.state == EndpointState::InService);
        if let (Some(saved), Some(_)) = (self.believed_scaling(&open.begin), sight) {
            self.engine.scaling.ensure(saved).await?;
        }
        let mut end = LedgerEnd::new(self.inputs.clock.now(), LedgerOutcome::DetachedSuperseded);
        end.config = self.survey.endpoint.as_ref().map(|sight| sight.config.clone());
        self.ports.ledger.end(open.number, &end).await?;
        Ok(true)
    }

    /// The endpoint is deleted first, because it cannot be updated.
    fn replaces(&self) -> bool {
        self.replaces_failed
            && self
                .survey
                .endpoint
                .as_ref()
                .is_some_and(|sight| matches!(sight.state, EndpointState::Failed | EndpointState::OutOfService))
    }

    fn goal(&self, entry: &Entry) -> RolloutGoal {
        let before = entry.begin.from_config.clone().map(|config| EndpointBefore {
            config,
            modified: entry.begin.before.as_ref().and_then(LedgerBefore::modified),
        });
        RolloutGoal {
            endpoint: self.wanted.endpoint.clone(),
            config: self.wanted.config.name.clone(),
            before,
            rollout: self.wanted.rollout.clone(),
            keeps_counts: self.keeps_counts(entry),
            replaces_failed: self.replaces_failed,
            is_resumed: self.survey.is_resumed(self.wanted),
            tags: self.wanted.tags.clone(),
        }
    }

    /// Autoscaling has set the number of instances, and their type stays.
    fn keeps_counts(&self, entry: &Entry) -> bool {
        let goes = self.wanted.scaling.is_none() && saved(&entry.begin).is_some_and(SavedScaling::is_own);
        let is_other = |config| is_other_type(config, &self.wanted.config);
        let changes = self.survey.current.as_ref().is_some_and(is_other);
        self.is_scaled(entry) && !goes && self.wanted.rollout.is_some() && !changes
    }

    /// Something scales the variant, or did so before an earlier run removed it.
    fn is_scaled(&self, entry: &Entry) -> bool {
        self.survey.scaling.target.is_some() || saved(&entry.begin).is_some()
    }

    /// Scaling that SageMaker refuses an update under.
    fn in_the_way<'a>(&self, entry: &'a Entry) -> Option<&'a SavedScaling> {
        saved(&entry.begin).filter(|_| changes_type(self.wanted, self.survey))
    }

    async fn in_service(&self, entry: &Entry) -> anyhow::Result<()> {
        let verdict = self.test().await?;
        // The verdict is that of another configuration when somebody changed the endpoint meanwhile.
        let end = self.engine.still_serves(&self.wanted.endpoint, &self.wanted.config.name).await?;
        if end != RolloutEnd::InService {
            return self.not_in_service(entry, &end).await;
        }
        if let Some(verdict) = verdict.as_ref().filter(|verdict| !verdict.is_good()) {
            return match self.kind {
                LedgerKind::Rollback => self.stay(entry, verdict).await,
                LedgerKind::Deploy | LedgerKind::Delete => self.take_back(entry, verdict).await,
            };
        }
        self.scale(saved(&entry.begin)).await?;
        self.remove_left_alarms().await?;
        let config = &self.wanted.config.name;
        self.end(entry, LedgerOutcome::Succeeded, None, Some(config), verdict.as_ref().map(test_of)).await?;
        self.prune().await;
        let outcome = match (self.kind, &entry.begin.from_config) {
            (LedgerKind::Rollback, _) => "brought_back",
            (_, Some(_)) => "updated",
            (_, None) => "created",
        };
        self.leave(outcome, Some(entry.number), entry.begin.from_config.as_deref(), config)
    }

    /// Deletes alarms that the manifest has no more. `true` if there are any.
    async fn remove_left_alarms(&self) -> anyhow::Result<bool> {
        let names = &self.survey.left_alarms;
        if names.is_empty() {
            return Ok(false);
        }
        self.ports.alarms.delete_alarms(names).await?;
        self.inputs.printer.line(format!("Alarms deleted, which the manifest has no more: {}", names.join(", ")));
        Ok(true)
    }

    /// Deletes old configurations. The deployment has succeeded without that.
    async fn prune(&self) {
        let Some(keep) = self.keep else { return };
        let line = match resources::prune(self.ports, &self.wanted.endpoint, keep).await {
            Ok(deleted) if deleted.is_empty() => return,
            Ok(deleted) => format!("Old configurations deleted: {}", deleted.join(", ")),
            Err(error) => format!("Old configurations were not deleted: {error:#}"),
        };
        self.inputs.printer.line(line);
    }

    /// The configuration that a rollback brought back answers wrongly too. It stays: the one before was no better.
    async fn stay(&self, entry: &Entry, verdict: &TestVerdict) -> anyhow::Result<()> {
        self.scale(saved(&entry.begin)).await?;
        let (endpoint, config) = (&self.wanted.endpoint, &self.wanted.config.name);
        let reason = verdict.reason().unwrap_or_default();
        self.end(entry, LedgerOutcome::Failed, Some(&reason), Some(config), Some(test_of(verdict))).await?;
        let previous = entry.begin.from_config.as_deref();
        self.leave("wrong_answers", Some(entry.number), previous, config)?;
        let message = format!("{config} of {endpoint} is in service again, and answers wrongly too: {reason}");
        Err(Failure::verdict(exit_codes::BELOW_BAR, message)
            .hint(
                "`sagemaker-executor endpoint status` shows earlier deployments; `--to NUMBER` brings one of them back",
            )
            .into())
    }

    /// The rollout ended otherwise.
    async fn not_in_service(&self, entry: &Entry, end: &RolloutEnd) -> anyhow::Result<()> {
        let mut failure = self.failure(end).await;
        let reason = trouble::reason(end);
        let (outcome, config) = match end {
            RolloutEnd::RolledBack(_) => (LedgerOutcome::RolledBack, entry.begin.from_config.clone()),
            RolloutEnd::Displaced(config) => (LedgerOutcome::Failed, config.clone()),
            _ => (LedgerOutcome::Failed, None),
        };
        if matches!(end, RolloutEnd::RolledBack(_) | RolloutEnd::Displaced(Some(_))) {
            self.restore(entry).await?;
        }
        if matches!(end, RolloutEnd::RolledBack(_)) && self.kind == LedgerKind::Rollback {
            failure = failure
                .hint("AWS took the rollback back: run the same command again, which leaves out alarms that are on");
        }
        if matches!(end, RolloutEnd::Failed(_)) && self.deletes_failed {
            self.delete().await?;
            failure = failure.hint("the endpoint was deleted, as `--delete-failed` says");
        }
        self.end(entry, outcome, Some(&reason), config.as_deref(), None).await?;
        let word = if outcome == LedgerOutcome::RolledBack { "rolled_back" } else { "failed" };
        self.leave(word, Some(entry.number), Some(&self.wanted.config.name), config.as_deref().unwrap_or_default())?;
        Err(failure.into())
    }

    /// AWS refused the request: nothing changed.
    async fn refused(&self, entry: &Entry, error: CloudError) -> anyhow::Error {
        let reason = plain::line(&error.to_string(), LONGEST);
        let config = entry.begin.from_config.as_deref();
        let ended = async {
            if config.is_some() {
                self.restore(entry).await?;
            }
            self.end(entry, LedgerOutcome::Failed, Some(&reason), config, None).await
        };
        match ended.await {
            Ok(()) => error.into(),
            Err(other) => anyhow::Error::from(error).context(format!("{other:#}")),
        }
    }

    async fn failure(&self, end: &RolloutEnd) -> Failure {
        trouble::failure(self.ports, &self.wanted.endpoint, end, self.wanted.alarm_names()).await
    }

    async fn delete(&self) -> anyhow::Result<&'static str> {
        self.ports.endpoints.delete_endpoint(&self.wanted.endpoint).await?;
        Ok(", and the endpoint was deleted")
    }

    /// The scaling of the old configuration comes back.
    async fn restore(&self, entry: &Entry) -> anyhow::Result<()> {
        match saved(&entry.begin) {
            Some(saved) => self.engine.scaling.ensure(saved).await.map(drop),
            None => Ok(()),
        }
    }

    /// Makes the scaling that the manifest wants, beside what was there before.
    async fn scale(&self, saved: Option<&SavedScaling>) -> anyhow::Result<bool> {
        if self.survey.has_own_scaling(self.wanted)
            || (self.wanted.scaling.is_none() && saved.is_some_and(SavedScaling::is_own))
        {
            let variant = self.survey.variant(self.wanted);
            self.inputs
                .printer
                .line(format!("Removing the autoscaling of {}, which the manifest has no more", variant.endpoint));
            self.engine.scaling.remove(&variant).await?;
            return Ok(true);
        }
        let wanted = match (&self.wanted.scaling, saved) {
            (Some(wanted), saved) => wanted.clone().with_others_of(saved),
            (None, Some(saved)) => saved.clone(),
            (None, None) => return Ok(false),
        };
        let sight = &self.survey.scaling;
        // The scaling of an endpoint that was made again is gone.
        if self.survey.is_live(self.wanted) && saved.is_none() && wanted.is_shown_by(sight.target, &sight.policies) {
            return Ok(false);
        }
        self.engine.scaling.ensure(&wanted).await
    }

    async fn test(&self) -> anyhow::Result<Option<TestVerdict>> {
        if let Some(test) = self.test {
            let verdict = test.run(self.inputs, self.target, Some(&self.wanted.config)).await?;
            self.inputs.printer.line(verdict.text());
            return Ok(Some(verdict));
        }
        let line = "no samples are sent: the manifest has no `endpoint.test`, so that wrong answers bring nothing back";
        self.inputs.printer.warn(line);
        Ok(None)
    }

    async fn end(
        &self,
        entry: &Entry,
        outcome: LedgerOutcome,
        reason: Option<&str>,
        config: Option<&str>,
        test: Option<LedgerTest>,
    ) -> anyhow::Result<()> {
        let mut end = LedgerEnd::new(self.inputs.clock.now(), outcome);
        end.reason = reason.map(|reason| plain::line(reason, LONGEST));
        end.config = config.map(str::to_owned);
        end.test = test;
        self.ports.ledger.end(entry.number, &end).await
    }

    fn leave(
        &self,
        outcome: &'static str,
        number: Option<u64>,
        previous: Option<&str>,
        config: &str,
    ) -> anyhow::Result<()> {
        let data = DeploymentData::new(outcome, self.wanted, number, previous, config);
        self.output.leave(&data, &self.inputs.printer)
    }
}

/// The verdict of samples that bring nothing back.
fn conclude(verdict: Option<&TestVerdict>) -> anyhow::Result<()> {
    let hint = "nothing was deployed, so nothing comes back: `sagemaker-executor endpoint rollback` brings an earlier deployment back";
    match verdict {
        Some(verdict) => verdict.conclude().map(drop).map_err(|failure| failure.hint(hint).into()),
        None => Ok(()),
    }
}

/// A verdict for the ledger.
fn test_of(verdict: &TestVerdict) -> LedgerTest {
    LedgerTest {
        is_good: verdict.is_good(),
        summary: plain::line(&verdict.reason().unwrap_or_else(|| "every sample holds".to_owned()), LONGEST),
    }
}

/// The scaling before a deployment.
fn saved(begin: &LedgerBegin) -> Option<&SavedScaling> {
    begin.before.as_ref()?.scaling.as_ref()
}

#[cfg(test)]
mod tests;
