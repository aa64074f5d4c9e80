//! Everything that belongs to an endpoint: found by names and the ledger, and told from the things of others by its tags.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backon::BackoffBuilder as _;
use serde::Serialize;
use tokio::time::Instant;

use super::uses::EndpointUses;
use crate::base::backoff::backoff;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::cloud::{CloudError, CloudErrorKind, EndpointSight, ScaledQuantity, ScaledVariant};
use crate::lifecycle::endpoint::engine::EndpointEngine;
use crate::lifecycle::endpoint::ledger::LedgerEntry;
use crate::lifecycle::endpoint::ownership::owner_trouble;
use crate::lifecycle::endpoint::specification::{own_alarms, stem};
use crate::lifecycle::endpoint::survey::{self, EndpointPorts};

/// Deployments whose models are looked for.
const DEPLOYMENTS: usize = 50;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Deletions of the endpoint that AWS refuses, because another change came between.
const MOST_REFUSALS: usize = 4;

/// One thing to delete, or one that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Belonging {
    pub(super) kind: BelongingKind,
    pub(super) name: String,
    /// The name of another endpoint, for which it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) used_by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BelongingKind {
    /// By the name of its variant.
    ScalableTarget,
    Endpoint,
    Model,
    Configuration,
    Alarm,
}

impl BelongingKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ScalableTarget => "scalable target",
            Self::Endpoint => "endpoint",
            Self::Model => "model",
            Self::Configuration => "configuration",
            Self::Alarm => "alarm",
        }
    }

    fn of(self, name: &str) -> Belonging {
        Belonging { kind: self, name: name.to_owned(), used_by: None }
    }
}

/// Where they are looked for.
#[derive(Clone, Copy)]
pub(super) struct Belongings<'a> {
    pub(super) endpoint: &'a str,
    /// The tags that the command would give to what it makes: those of others name another owner.
    pub(super) own: &'a BTreeMap<String, String>,
    pub(super) ports: &'a EndpointPorts,
    pub(super) engine: &'a EndpointEngine<'a>,
}

impl Belongings<'_> {
    /// The endpoint, which must be the command's own.
    async fn sight(&self) -> anyhow::Result<Option<EndpointSight>> {
        let Some(sight) = self.ports.endpoints.endpoint(self.endpoint).await? else { return Ok(None) };
        let config = self.ports.endpoints.config(&sight.config).await?;
        let tags = survey::tags(self.ports, self.endpoint, &sight.arn, config.as_ref()).await?;
        let Some(trouble) = owner_trouble(self.own, &tags) else { return Ok(Some(sight)) };
        let failure = Failure::user(format!("the endpoint `{}` is not deleted: it {trouble}", self.endpoint));
        Err(failure.hint("delete it with the program, the project and the environment that made it (`CI_ENVIRONMENT_NAME`), or give each environment an endpoint of its own with `${CI_ENVIRONMENT_SLUG}` in `endpoint.name`").into())
    }

    /// Refuses an endpoint of others, also while AWS changes it. One that goes meanwhile is not looked at again.
    pub(super) async fn check_owner(&self) -> anyhow::Result<()> {
        let is_gone = |error: &anyhow::Error| {
            error.downcast_ref::<CloudError>().is_some_and(|error| error.kind == CloudErrorKind::NotFound)
        };
        match self.sight().await {
            Err(error) if is_gone(&error) => Ok(()),
            sight => sight.map(|_| ()),
        }
    }

    async fn is_own(&self, arn: &str) -> anyhow::Result<bool> {
        match self.ports.endpoints.tags(arn).await {
            Ok(tags) => Ok(owner_trouble(self.own, &tags).is_none()),
            Err(error) if error.kind == CloudErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything that exists, in the order in which it is deleted.
    pub(super) async fn find(&self) -> anyhow::Result<Vec<Belonging>> {
        let history = self.ports.ledger.history(DEPLOYMENTS).await?;
        let mut found = Vec::new();
        if let Some(sight) = self.sight().await? {
            for variant in sight.variants.iter().chain(&sight.pending_variants) {
                let target = BelongingKind::ScalableTarget.of(&variant.name);
                if !found.contains(&target) && self.is_scaled(&variant.name).await? {
                    found.push(target);
                }
            }
            found.push(BelongingKind::Endpoint.of(&sight.name));
        }
        found.extend(self.models_and_configs(&history).await?);
        self.keep_what_is_used(&mut found).await?;
        found.extend(self.alarms().await?);
        Ok(found)
    }

    /// Marks the configurations and models of other endpoints, which somebody made from what this program left.
    async fn keep_what_is_used(&self, found: &mut [Belonging]) -> anyhow::Result<()> {
        if !found.iter().any(|one| matches!(one.kind, BelongingKind::Configuration | BelongingKind::Model)) {
            return Ok(());
        }
        let uses = EndpointUses::of_others_than(self.endpoint, self.ports.endpoints.as_ref()).await?;
        for one in found {
            one.used_by = match one.kind {
                BelongingKind::Configuration => uses.configs.get(&one.name).cloned(),
                BelongingKind::Model => uses.models.get(&one.name).cloned(),
                _ => None,
            };
        }
        Ok(())
    }

    async fn is_scaled(&self, variant: &str) -> anyhow::Result<bool> {
        for variant in self.scaled(variant) {
            if self.ports.scaling.target(&variant).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn scaled(&self, variant: &str) -> [ScaledVariant; 2] {
        let variant =
            |quantity| ScaledVariant { endpoint: self.endpoint.to_owned(), variant: variant.to_owned(), quantity };
        [ScaledQuantity::Instances, ScaledQuantity::ProvisionedConcurrency].map(variant)
    }

    async fn models_and_configs(&self, history: &[LedgerEntry]) -> anyhow::Result<Vec<Belonging>> {
        let (mut found, mut looked) = (Vec::new(), BTreeSet::new());
        for name in self.ports.endpoints.configs(stem(self.endpoint)).await? {
            let Some(config) = self.ports.endpoints.config(&name).await? else { continue };
            if !self.is_own(&config.arn).await? {
                continue;
            }
            found.extend(self.model(&config.model, &mut looked).await?);
            found.push(BelongingKind::Configuration.of(&name));
        }
        for name in history.iter().filter_map(|entry| entry.begin.to_model.as_ref()) {
            found.extend(self.model(name, &mut looked).await?);
        }
        Ok(found)
    }

    /// The model, when it exists and is the command's own, once.
    async fn model(&self, name: &str, looked: &mut BTreeSet<String>) -> anyhow::Result<Option<Belonging>> {
        if name.is_empty() || !looked.insert(name.to_owned()) {
            return Ok(None);
        }
        let Some(model) = self.ports.endpoints.model(name).await? else { return Ok(None) };
        Ok(self.is_own(&model.arn).await?.then(|| BelongingKind::Model.of(name)))
    }

    async fn alarms(&self) -> anyhow::Result<Vec<Belonging>> {
        let mut found = Vec::new();
        for alarm in self.ports.alarms.alarms(&own_alarms(self.endpoint)).await? {
            if owner_trouble(self.own, &self.ports.alarms.alarm_tags(&alarm.arn).await?).is_none() {
                found.push(BelongingKind::Alarm.of(&alarm.name));
            }
        }
        Ok(found)
    }

    /// Deletes one thing. The endpoint is gone when this returns.
    pub(super) async fn delete(&self, belonging: &Belonging) -> anyhow::Result<()> {
        let name = &belonging.name;
        match belonging.kind {
            BelongingKind::ScalableTarget => {
                for variant in self.scaled(name) {
                    self.ports.scaling.deregister(&variant).await?;
                }
            }
            BelongingKind::Endpoint => self.delete_endpoint().await?,
            BelongingKind::Model => self.ports.endpoints.delete_model(name).await?,
            BelongingKind::Configuration => self.ports.endpoints.delete_config(name).await?,
            BelongingKind::Alarm => self.ports.alarms.delete_alarms(std::slice::from_ref(name)).await?,
        }
        Ok(())
    }

    async fn delete_endpoint(&self) -> anyhow::Result<()> {
        let mut pauses = backoff(FIRST_PAUSE, LONGEST_PAUSE).build();
        let mut refusals = 0;
        loop {
            match self.ports.endpoints.delete_endpoint(self.endpoint).await {
                // Another change came between.
                Err(error) if error.kind == CloudErrorKind::Invalid && refusals < MOST_REFUSALS => refusals += 1,
                answer => answer?,
            }
            // AWS may still show the endpoint as it was.
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            if self.engine.settled(self.endpoint).await?.sight.is_none() {
                return Ok(());
            }
            if Instant::now() >= self.engine.deadline {
                let message = format!("AWS does not show the deletion of {}", self.endpoint);
                return Err(Failure::verdict(exit_codes::TRY_LATER, message).hint("run the same command again").into());
            }
        }
    }
}
