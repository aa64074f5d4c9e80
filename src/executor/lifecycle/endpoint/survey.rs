//! Everything that a deployment decides by, read at one time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ledger::{Ledger, LedgerEntry, LedgerKind};
use super::ownership::is_ours;
use super::scaling::{SavedScaling, VARIANT};
use super::specification::{DeploymentSpecification, is_same_alarm, own_alarms};
use crate::cloud::{
    AccountQuotas, AlarmSight, CloudError, CloudErrorKind, EndpointConfiguration, EndpointLogs, EndpointScaling,
    EndpointSight, EndpointState, ImageRegistry, InputData, InputPrefix, MetricAlarms, ModelEndpoints, ModelRegistry,
    ScalableTarget, ScaledQuantity, ScaledVariant, ScalingPolicy, ServedModel, VariantCapacity,
};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::region::ImageName;
use crate::lifecycle::target::ProjectTarget;

/// The ports that a deployment uses.
pub(super) struct EndpointPorts {
    pub(super) endpoints: Arc<dyn ModelEndpoints>,
    pub(super) scaling: Arc<dyn EndpointScaling>,
    pub(super) alarms: Arc<dyn MetricAlarms>,
    pub(super) logs: Arc<dyn EndpointLogs>,
    pub(super) registry: Arc<dyn ModelRegistry>,
    pub(super) ledger: Ledger,
    images: Arc<dyn ImageRegistry>,
    data: Arc<dyn InputData>,
    quotas: Arc<dyn AccountQuotas>,
}

impl EndpointPorts {
    pub(super) async fn connect(
        inputs: &CommandInputs,
        target: &ProjectTarget,
        endpoint: &str,
    ) -> anyhow::Result<Self> {
        let (connect, access) = (&inputs.connect, &target.access);
        Ok(Self {
            endpoints: connect.endpoints(access).await?,
            scaling: connect.scaling(access).await?,
            alarms: connect.alarms(access).await?,
            logs: connect.endpoint_logs(access).await?,
            registry: connect.registry(access).await?,
            ledger: Ledger::new(connect.objects(access).await?, endpoint),
            images: connect.images(access).await?,
            data: connect.input_data(access).await?,
            quotas: connect.quotas(access).await?,
        })
    }
}

/// Whether something is there that a deployment needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Needed {
    There,
    Missing,
    /// The credentials may not look, or it is not of this account.
    #[default]
    Unknown,
}

/// An endpoint and what belongs to it.
#[derive(Debug, Default)]
pub(super) struct EndpointSurvey {
    pub(super) endpoint: Option<EndpointSight>,
    /// Those of the configuration in service, if this program made it, else those of the endpoint.
    pub(super) tags: BTreeMap<String, String>,
    /// The configuration in service.
    pub(super) current: Option<EndpointConfiguration>,
    /// Those with the names of the specification.
    pub(super) model: Option<ServedModel>,
    pub(super) config: Option<EndpointConfiguration>,
    pub(super) alarms: Vec<AlarmSight>,
    /// Names of alarms that must change, and that somebody else made.
    pub(super) foreign_alarms: BTreeSet<String>,
    /// Names of alarms that an earlier manifest had, and this one has no more.
    pub(super) left_alarms: Vec<String>,
    pub(super) scaling: ScalingSight,
    /// The newest deployment without an end.
    pub(super) open: Option<LedgerEntry>,
    /// The command's kind.
    pub(super) kind: Option<LedgerKind>,
    pub(super) image: Needed,
    pub(super) data: Needed,
    /// Instances of the type that the account may have.
    pub(super) quota: Option<f64>,
}

/// Target and policies of the variant in service.
#[derive(Debug, Default)]
pub(super) struct ScalingSight {
    pub(super) target: Option<ScalableTarget>,
    pub(super) policies: Vec<ScalingPolicy>,
}

impl ScalingSight {
    /// In a form that can be kept; `None` when nothing is scaled, or not in a form that this program can write again.
    pub(super) fn saved(&self, variant: &ScaledVariant) -> Option<SavedScaling> {
        SavedScaling::of(variant, self.target?, &self.policies)
    }
}

impl EndpointSurvey {
    /// The endpoint serves the specification already.
    pub(super) fn is_live(&self, wanted: &DeploymentSpecification) -> bool {
        self.endpoint
            .as_ref()
            .is_some_and(|sight| sight.state == EndpointState::InService && sight.config == wanted.config.name)
    }

    /// An earlier run of the same command began this deployment, and did not end it.
    pub(super) fn is_resumed(&self, wanted: &DeploymentSpecification) -> bool {
        let goes_on = |kind| self.open.as_ref().is_some_and(|open| goes_on(open, kind, &wanted.config.name));
        self.kind.is_some_and(goes_on)
    }

    /// The variant is scaled as an earlier manifest said, and this one has no autoscaling.
    pub(super) fn has_own_scaling(&self, wanted: &DeploymentSpecification) -> bool {
        wanted.scaling.is_none() && self.scaling.saved(&self.variant(wanted)).is_some_and(|saved| saved.is_own())
    }

    /// The scaled variant in service, or the one that comes.
    pub(super) fn variant(&self, wanted: &DeploymentSpecification) -> ScaledVariant {
        let config = self.current.as_ref().unwrap_or(&wanted.config);
        variant(&wanted.endpoint, config)
    }
}

/// Whether a command of this kind for the configuration goes on with a deployment without an end. A deployment and a rollback to one
/// configuration have other ends.
pub(super) fn goes_on(open: &LedgerEntry, kind: LedgerKind, config: &str) -> bool {
    open.end.is_none() && open.begin.kind == kind && open.begin.to_config.as_deref() == Some(config)
}

fn variant(endpoint: &str, config: &EndpointConfiguration) -> ScaledVariant {
    let quantity = match config.capacity {
        VariantCapacity::Instances { .. } => ScaledQuantity::Instances,
        VariantCapacity::Serverless { .. } => ScaledQuantity::ProvisionedConcurrency,
    };
    ScaledVariant { endpoint: endpoint.to_owned(), variant: VARIANT.to_owned(), quantity }
}

/// Reads everything about an endpoint as it was seen. Of one that is live already, only what may have changed is read.
pub(super) async fn survey(
    ports: &EndpointPorts,
    wanted: &DeploymentSpecification,
    endpoint: Option<EndpointSight>,
    open: Option<LedgerEntry>,
    kind: LedgerKind,
) -> anyhow::Result<EndpointSurvey> {
    let mut survey = EndpointSurvey { endpoint, open, kind: Some(kind), ..EndpointSurvey::default() };
    survey.config = ports.endpoints.config(&wanted.config.name).await?;
    if let Some(sight) = &survey.endpoint {
        survey.current = if sight.config == wanted.config.name {
            survey.config.clone()
        } else {
            ports.endpoints.config(&sight.config).await?
        };
        survey.tags = tags(ports, &wanted.endpoint, &sight.arn, survey.current.as_ref()).await?;
    }
    read_alarms(ports, wanted, &mut survey).await?;
    let variant = survey.variant(wanted);
    survey.scaling.target = ports.scaling.target(&variant).await?;
    if survey.scaling.target.is_some() {
        survey.scaling.policies = ports.scaling.policies(&variant).await?;
    }
    if !survey.is_live(wanted) {
        survey.model = ports.endpoints.model(&wanted.model.name).await?;
        survey.image = image(ports, &wanted.image).await?;
        survey.data = data(ports, &wanted.model_data_url).await?;
        if let VariantCapacity::Instances { instance_type, .. } = &wanted.config.capacity {
            survey.quota = if_allowed(ports.quotas.endpoint_instances(instance_type).await)?.flatten();
        }
    }
    Ok(survey)
}

/// An endpoint that was taken over has its own tags still: the configuration in service tells whose it is.
pub(super) async fn tags(
    ports: &EndpointPorts,
    endpoint: &str,
    arn: &str,
    config: Option<&EndpointConfiguration>,
) -> anyhow::Result<BTreeMap<String, String>> {
    if let Some(config) = config {
        let tags = ports.endpoints.tags(&config.arn).await?;
        if is_ours(&tags, endpoint) {
            return Ok(tags);
        }
    }
    Ok(ports.endpoints.tags(arn).await?)
}

async fn read_alarms(
    ports: &EndpointPorts,
    wanted: &DeploymentSpecification,
    survey: &mut EndpointSurvey,
) -> anyhow::Result<()> {
    let mut names = wanted.alarm_names().to_vec();
    if survey.kind == Some(LedgerKind::Deploy) && survey.endpoint.is_some() {
        names.extend(own_alarms(&wanted.endpoint).into_iter().filter(|name| !wanted.alarm_names().contains(name)));
    }
    if names.is_empty() {
        return Ok(());
    }
    let (wanted_ones, others): (Vec<_>, Vec<_>) =
        ports.alarms.alarms(&names).await?.into_iter().partition(|sight| wanted.alarm_names().contains(&sight.name));
    survey.alarms = wanted_ones;
    survey.foreign_alarms = foreign_alarms(ports, wanted, &survey.alarms).await?;
    for alarm in others {
        if is_ours(&ports.alarms.alarm_tags(&alarm.arn).await?, &wanted.endpoint) {
            survey.left_alarms.push(alarm.name);
        }
    }
    Ok(())
}

/// Of the alarms that must change, those that somebody else made.
async fn foreign_alarms(
    ports: &EndpointPorts,
    wanted: &DeploymentSpecification,
    alarms: &[AlarmSight],
) -> anyhow::Result<BTreeSet<String>> {
    let mut foreign = BTreeSet::new();
    for alarm in &wanted.alarms {
        let sight = alarms.iter().find(|sight| sight.name == alarm.name);
        let is_right = |sight: &&AlarmSight| sight.definition.as_ref().is_some_and(|shown| is_same_alarm(shown, alarm));
        if let Some(sight) = sight.filter(|sight| !is_right(sight))
            && !is_ours(&ports.alarms.alarm_tags(&sight.arn).await?, &wanted.endpoint)
        {
            foreign.insert(alarm.name.clone());
        }
    }
    Ok(foreign)
}

pub(super) async fn image(ports: &EndpointPorts, image: &str) -> anyhow::Result<Needed> {
    let Some(name) = ImageName::parse(image) else { return Ok(Needed::Unknown) };
    let found = if_allowed(ports.images.platforms(name.account, name.repository, name.digest).await)?;
    Ok(match found {
        Some(Some(_)) => Needed::There,
        Some(None) => Needed::Missing,
        None => Needed::Unknown,
    })
}

pub(super) async fn data(ports: &EndpointPorts, url: &str) -> anyhow::Result<Needed> {
    let Some((bucket, key)) = url.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) else {
        return Ok(Needed::Unknown);
    };
    Ok(match if_allowed(ports.data.find(bucket, key).await)? {
        Some(InputPrefix::Found | InputPrefix::Object) => Needed::There,
        Some(InputPrefix::Empty | InputPrefix::NoBucket) => Needed::Missing,
        _ => Needed::Unknown,
    })
}

/// `None` when the credentials may not look.
fn if_allowed<T>(result: Result<T, CloudError>) -> Result<Option<T>, CloudError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == CloudErrorKind::Denied => Ok(None),
        Err(error) => Err(error),
    }
}
