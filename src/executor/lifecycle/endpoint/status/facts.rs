//! Reads everything about an endpoint. Only the endpoint itself must be readable: what else AWS does not answer is unknown.

use std::collections::{BTreeMap, BTreeSet};

use crate::cloud::{
    AlarmSight, CloudError, CloudErrorKind, EndpointAlarm, EndpointConfiguration, EndpointSight, ModelSource,
    ModelVersion, ScalableTarget, ScaledQuantity, ScaledVariant, ScalingPolicy, ServedModel, VariantCapacity,
};
use crate::config::env::Environment;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::endpoint::deployed_package::DeployedPackage;
use crate::lifecycle::endpoint::ledger::{Ledger, LedgerEntry, LedgerServing};
use crate::lifecycle::endpoint::specification::{alarms, own_alarms};
use crate::lifecycle::manifest::{Approvals, Endpoint};
use crate::lifecycle::target::ProjectTarget;

/// Deployments that are looked at; the newest ones are shown. More, until the one that brought the configuration in service is found:
/// many later ones may have been taken back.
const DEPLOYMENTS: [usize; 3] = [20, 100, 1000];

/// A fact that may not be readable.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fact<T> {
    Known(T),
    /// Why it is not known, as a failed request or an object of the ledger says.
    Unknown(String),
}

impl<T> Fact<T> {
    pub(super) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// An endpoint and everything around it, at one time.
#[derive(Debug)]
pub(super) struct EndpointFacts {
    pub(super) endpoint: String,
    pub(super) sight: Option<EndpointSight>,
    /// Newest first.
    pub(super) history: Fact<Vec<LedgerEntry>>,
    /// The newest deployment without an end.
    pub(super) open: Option<LedgerEntry>,
    pub(super) config: Fact<Option<EndpointConfiguration>>,
    pub(super) model: Fact<Option<ServedModel>>,
    /// `None` when the model does not come from the registry.
    pub(super) version: Fact<Option<ModelVersion>>,
    pub(super) approvals: Approvals,
    /// The environment takes approved versions alone.
    pub(super) needs_approval: bool,
    pub(super) scaling: Fact<Option<ScalableTarget>>,
    /// Of the scalable target.
    pub(super) policies: Fact<Vec<ScalingPolicy>>,
    /// Names of the alarms that must exist.
    pub(super) alarm_names: BTreeSet<String>,
    /// Those that another program made, by the manifest.
    pub(super) foreign_alarms: Vec<String>,
    /// Those of this program, as the manifest asks for them.
    pub(super) wanted_alarms: Vec<EndpointAlarm>,
    pub(super) alarms: Fact<Vec<AlarmSight>>,
    /// Why a fact is not known, if the same command may learn it later or with more permissions.
    pub(super) error: Option<anyhow::Error>,
}

impl EndpointFacts {
    pub(super) async fn read(inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<Self> {
        let endpoint = target.endpoint()?;
        let endpoints = inputs.connect.endpoints(&target.access).await?;
        let mut facts = Self {
            endpoint: endpoint.name.clone(),
            sight: endpoints.endpoint(&endpoint.name).await?,
            history: Fact::Known(Vec::new()),
            open: None,
            config: Fact::Known(None),
            model: Fact::Known(None),
            version: Fact::Known(None),
            approvals: target.manifest.model.as_ref().map(|model| model.approvals.clone()).unwrap_or_default(),
            needs_approval: needs_approval(inputs, target),
            scaling: Fact::Known(None),
            policies: Fact::Known(Vec::new()),
            alarm_names: BTreeSet::new(),
            foreign_alarms: endpoint.alarms.names.clone(),
            wanted_alarms: alarms(endpoint, &BTreeMap::new()),
            alarms: Fact::Known(Vec::new()),
            error: None,
        };
        facts.read_ledger(inputs, target).await?;
        if let Some(name) = facts.sight.as_ref().map(|sight| sight.config.clone()) {
            let answer = endpoints.config(&name).await;
            facts.config = facts.fact(answer)?;
        }
        if let Some(name) = facts.config().map(|config| config.model.clone()).filter(|name| !name.is_empty()) {
            let answer = endpoints.model(&name).await;
            facts.model = facts.fact(answer)?;
        }
        facts.read_version(inputs, target).await?;
        facts.read_scaling(inputs, target).await?;
        facts.read_alarms(inputs, target, endpoint).await?;
        Ok(facts)
    }

    /// The configuration in service.
    pub(super) fn config(&self) -> Option<&EndpointConfiguration> {
        self.config.known()?.as_ref()
    }

    /// The deployment that brought the configuration in service there.
    pub(super) fn in_service(&self) -> Option<&LedgerEntry> {
        let config = &self.sight.as_ref()?.config;
        let brought = |entry: &&LedgerEntry| entry.has_succeeded() && entry.begin.to_config.as_ref() == Some(config);
        self.history.known()?.iter().find(brought)
    }

    /// The record of that deployment.
    pub(super) fn serving(&self) -> Option<&LedgerServing> {
        self.in_service()?.begin.serving.as_ref()
    }

    /// ARN of the version in service.
    pub(super) fn model_package(&self) -> Option<&str> {
        match self.model.known().and_then(|model| model.as_ref()).map(|model| &model.source) {
            Some(ModelSource::Package(arn)) => Some(arn),
            _ => self.in_service()?.begin.model_package.as_deref(),
        }
    }

    /// The package in service, as the record of its deployment says.
    pub(super) fn package(&self) -> Option<&DeployedPackage> {
        self.in_service()?.begin.package.as_ref()
    }

    async fn read_ledger(&mut self, inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<()> {
        target.require_bucket()?;
        let ledger = Ledger::new(inputs.connect.objects(&target.access).await?, &self.endpoint);
        for most in DEPLOYMENTS {
            match ledger.history(most).await {
                Ok(history) => self.history = Fact::Known(history),
                Err(error) => {
                    self.history = self.unknown(error)?;
                    return Ok(());
                }
            }
            let read = self.history.known().map_or(0, Vec::len);
            if self.sight.is_none() || self.in_service().is_some() || read < most {
                break;
            }
        }
        match ledger.open().await {
            Ok(open) => self.open = open,
            Err(error) => self.history = self.unknown(error)?,
        }
        Ok(())
    }

    async fn read_version(&mut self, inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<()> {
        let Some(arn) = self.model_package().map(str::to_owned) else { return Ok(()) };
        let answer = inputs.connect.registry(&target.access).await?.version(&arn).await;
        self.version = self.fact(answer)?;
        Ok(())
    }

    async fn read_scaling(&mut self, inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<()> {
        let Some(config) = self.config() else { return Ok(()) };
        let quantity = match config.capacity {
            VariantCapacity::Instances { .. } => ScaledQuantity::Instances,
            VariantCapacity::Serverless { .. } => ScaledQuantity::ProvisionedConcurrency,
        };
        let variant = ScaledVariant { endpoint: self.endpoint.clone(), variant: config.variant.clone(), quantity };
        let scaling = inputs.connect.scaling(&target.access).await?;
        let answer = scaling.target(&variant).await;
        self.scaling = self.fact(answer)?;
        if matches!(self.scaling, Fact::Known(Some(_))) {
            let answer = scaling.policies(&variant).await;
            self.policies = self.fact(answer)?;
        }
        Ok(())
    }

    async fn read_alarms(
        &mut self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        endpoint: &Endpoint,
    ) -> anyhow::Result<()> {
        if self.sight.is_none() {
            return Ok(());
        }
        let of_deployment = self.serving().into_iter().flat_map(|serving| serving.alarms.clone());
        self.alarm_names = endpoint.alarms.names.iter().cloned().chain(of_deployment).collect();
        // The endpoint's own alarms are looked at also where no record asks for them.
        let names: BTreeSet<_> = self.alarm_names.iter().cloned().chain(own_alarms(&self.endpoint)).collect();
        let answer = inputs.connect.alarms(&target.access).await?.alarms(&Vec::from_iter(names)).await;
        self.alarms = self.fact(answer)?;
        Ok(())
    }

    fn fact<T>(&mut self, answer: Result<T, CloudError>) -> anyhow::Result<Fact<T>> {
        match answer {
            Ok(value) => Ok(Fact::Known(value)),
            Err(error) => self.unknown(error.into()),
        }
    }

    /// # Errors
    /// Every further request would fail as this one.
    fn unknown<T>(&mut self, error: anyhow::Error) -> anyhow::Result<Fact<T>> {
        let is_without_credentials =
            error.downcast_ref::<CloudError>().is_some_and(|error| error.kind == CloudErrorKind::Unauthenticated);
        if is_without_credentials {
            return Err(error);
        }
        let why = format!("{error:#}");
        self.error.get_or_insert(error);
        Ok(Fact::Unknown(why))
    }
}

/// The tier of the job is that of its own environment, and not of the others that `--all` looks at.
fn needs_approval(inputs: &CommandInputs, target: &ProjectTarget) -> bool {
    if target.environment == target.pipeline.environment {
        return target.needs_approval(&inputs.env);
    }
    target.needs_approval(&Environment::from_pairs([]))
}
