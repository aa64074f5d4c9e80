//! Everything that a deployment decides by, read at one time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ledger::{Ledger, LedgerEntry};
use super::scaling::SavedScaling;
use super::specification::{DeploymentSpecification, VARIANT};
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
    pub(super) tags: BTreeMap<String, String>,
    /// The configuration in service.
    pub(super) current: Option<EndpointConfiguration>,
    /// Those with the names of the specification.
    pub(super) model: Option<ServedModel>,
    pub(super) config: Option<EndpointConfiguration>,
    pub(super) alarms: Vec<AlarmSight>,
    pub(super) scaling: ScalingSight,
    /// The newest deployment without an end.
    pub(super) open: Option<LedgerEntry>,
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

    /// An earlier run began this deployment, and did not end it.
    pub(super) fn is_resumed(&self, wanted: &DeploymentSpecification) -> bool {
        self.open.as_ref().is_some_and(|open| open.begin.to_config.as_ref() == Some(&wanted.config.name))
    }

    /// The scaled variant in service, or the one that comes.
    pub(super) fn variant(&self, wanted: &DeploymentSpecification) -> ScaledVariant {
        let config = self.current.as_ref().unwrap_or(&wanted.config);
        variant(&wanted.endpoint, config)
    }
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
) -> anyhow::Result<EndpointSurvey> {
    let mut survey = EndpointSurvey { endpoint, open, ..EndpointSurvey::default() };
    survey.config = ports.endpoints.config(&wanted.config.name).await?;
    if let Some(sight) = &survey.endpoint {
        survey.tags = ports.endpoints.tags(&sight.arn).await?;
        survey.current = if sight.config == wanted.config.name {
            survey.config.clone()
        } else {
            ports.endpoints.config(&sight.config).await?
        };
    }
    if !wanted.alarm_names().is_empty() {
        survey.alarms = ports.alarms.alarms(wanted.alarm_names()).await?;
    }
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

async fn image(ports: &EndpointPorts, image: &str) -> anyhow::Result<Needed> {
    let Some(name) = ImageName::parse(image) else { return Ok(Needed::Unknown) };
    let found = if_allowed(ports.images.platforms(name.account, name.repository, name.digest).await)?;
    Ok(match found {
        Some(Some(_)) => Needed::There,
        Some(None) => Needed::Missing,
        None => Needed::Unknown,
    })
}

async fn data(ports: &EndpointPorts, url: &str) -> anyhow::Result<Needed> {
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
