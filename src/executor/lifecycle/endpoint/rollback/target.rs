//! Reads what a rollback brings back, and checks that all of it still exists.

use super::choice::RollbackChoice;
use crate::base::plain;
use crate::cloud::{
    AlarmState, Approval, EndpointConfiguration, ModelSource, ModelVersion, RolloutSpec, ServedModel, TrafficShift,
    VariantCapacity,
};
use crate::lifecycle::endpoint::deployed_package::DeployedPackage;
use crate::lifecycle::endpoint::ledger::{LedgerEntry, LedgerServing};
use crate::lifecycle::endpoint::origin;
use crate::lifecycle::endpoint::ownership::{self, PACKAGE_SHA256, VERSION};
use crate::lifecycle::endpoint::preconditions::UnmetPrecondition;
use crate::lifecycle::endpoint::specification::{DeploymentSpecification, own_alarms};
use crate::lifecycle::endpoint::survey::{self, EndpointPorts, Needed};
use crate::lifecycle::manifest::Endpoint;
use crate::lifecycle::model::approvals::{ApprovalRecords, ApprovalRule, Standing};
use crate::lifecycle::model::version_image;
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::version_arn;
use crate::ui::Printer;

const ELSEWHERE: &str = "name another deployment with `--to NUMBER`, or deploy a version again";

/// The things that a rollback brings back, as far as they exist.
pub(super) struct RollbackTarget<'a> {
    choice: &'a RollbackChoice,
    config: Option<EndpointConfiguration>,
    model: Option<ServedModel>,
    /// The mistake in the origin of configuration and model.
    foreign: Option<String>,
    /// ARN of the version, as AWS says; `None` when nobody knows it.
    arn: Option<String>,
    version: Option<ModelVersion>,
    /// The hash of its package, as the tags of the model say.
    package_sha256: Option<String>,
    /// Image and model.
    image: Option<String>,
    data: Option<String>,
}

impl<'a> RollbackTarget<'a> {
    pub(super) async fn read(
        ports: &EndpointPorts,
        target: &ProjectTarget,
        choice: &'a RollbackChoice,
    ) -> anyhow::Result<Self> {
        let begin = choice.deployment.as_ref().map(|entry| &entry.begin);
        let config = ports.endpoints.config(&choice.config).await?;
        let name = config.as_ref().map(|config| &config.model).or_else(|| begin?.to_model.as_ref());
        let model = match name.filter(|name| !name.is_empty()) {
            Some(name) => ports.endpoints.model(name).await?,
            None => None,
        };
        let endpoint = &target.endpoint()?.name;
        let origin = Origin::read(ports, target, endpoint, config.as_ref(), model.as_ref()).await?;
        let source = model.as_ref().map(|model| model.source.clone());
        let arn = match &source {
            Some(ModelSource::Package(arn)) => Some(arn.clone()),
            _ => origin.version.clone(),
        };
        let version = match &arn {
            Some(arn) => ports.registry.version(arn).await?,
            None => None,
        };
        let serving = begin.and_then(|begin| begin.serving.as_ref());
        let (image, data) = match (source, serving, &version) {
            (Some(ModelSource::Container { image, model_data_url }), ..) => (Some(image), model_data_url),
            (.., Some(version)) => (Some(version_image(version)), Some(version.model_data_url.clone())),
            (_, Some(serving), None) => (Some(serving.image.clone()), serving.model_data_url.clone()),
            (_, None, None) => (None, None),
        };
        let Origin { foreign, package_sha256, .. } = origin;
        Ok(Self { choice, config, model, foreign, arn, version, package_sha256, image, data })
    }

    /// Everything that is missing, and an approval that was withdrawn.
    pub(super) async fn refusals(
        &self,
        ports: &EndpointPorts,
        target: &ProjectTarget,
        needs_approval: bool,
    ) -> anyhow::Result<Vec<UnmetPrecondition>> {
        let mut refusals = Vec::new();
        let mut gone = |what: &str, name: &str| {
            refusals.push(UnmetPrecondition::mistake(
                format!("{what} {} does not exist any more", plain::line(name, 300)),
                ELSEWHERE,
            ));
        };
        if self.config.is_none() {
            gone("the endpoint configuration", &self.choice.config);
        }
        if self.model.is_none() {
            let named = self.config.as_ref().map(|config| config.model.as_str());
            let recorded = || self.choice.deployment.as_ref()?.begin.to_model.as_deref();
            gone("the model", named.or_else(recorded).unwrap_or("of the configuration"));
        }
        if let Some(image) = &self.image
            && survey::image(ports, image).await? == Needed::Missing
        {
            gone("the image", image);
        }
        if let Some(data) = &self.data
            && survey::data(ports, data).await? == Needed::Missing
        {
            gone("the model's data", data);
        }
        refusals.extend(self.origin(ports, target, needs_approval).await?);
        refusals.extend(self.other_version());
        refusals.extend(self.approval(target, needs_approval));
        Ok(refusals)
    }

    /// Only what was in service before an endpoint was taken over may be of somebody else, where no approvals are needed.
    async fn origin(
        &self,
        ports: &EndpointPorts,
        target: &ProjectTarget,
        needs_approval: bool,
    ) -> anyhow::Result<Option<UnmetPrecondition>> {
        let Some(found) = &self.foreign else { return Ok(None) };
        let endpoint = &target.endpoint()?.name;
        let sight = if needs_approval { None } else { ports.endpoints.endpoint(endpoint).await? };
        if let Some(sight) = sight
            && origin::is_taken_over(ports, endpoint, &sight.arn).await?
        {
            return Ok(None);
        }
        Ok(Some(UnmetPrecondition::mistake(found, ELSEWHERE)))
    }

    /// The record must name the version that the model is of, and the model must be what the version says.
    fn other_version(&self) -> Option<UnmetPrecondition> {
        if let (Some(model), Some(version)) = (&self.model, &self.version)
            && !is_of_version(&model.source, version)
        {
            let (model, version) = (plain::line(&model.name, 300), &version.arn);
            let found = format!("image or data of the model {model} are not those of {version}, which its tags name");
            return Some(UnmetPrecondition::mistake(found, ELSEWHERE));
        }
        let entry = self.choice.deployment.as_ref()?;
        let (recorded, actual) = (entry.begin.model_package.as_ref()?, self.arn.as_ref()?);
        let found = format!("the record of deployment {} names {recorded}, and its model is of {actual}", entry.number);
        (recorded != actual).then(|| UnmetPrecondition::mistake(found, ELSEWHERE))
    }

    /// A version that was rejected since must not come back; where approvals are needed, neither one whose approval was taken back.
    fn approval(&self, target: &ProjectTarget, needs_approval: bool) -> Option<UnmetPrecondition> {
        let change = "name another deployment with `--to NUMBER`, or let users approve it again with `sagemaker-executor model approve --force`";
        let Some(arn) = self.arn.as_deref() else {
            let found = "nobody knows which version of the model the configuration serves, and whether it is approved";
            let is_told = self.model.is_none() || self.foreign.is_some();
            return (needs_approval && !is_told).then(|| UnmetPrecondition::not_yet(found, ELSEWHERE));
        };
        if needs_approval && let Err(what) = version_arn::check(arn, target) {
            return Some(UnmetPrecondition::mistake(format!("the configuration serves {arn}, {what}"), ELSEWHERE));
        }
        let arn = plain::line(arn, 300);
        let Some(version) = &self.version else {
            let found = format!("{arn} is not in the registry any more, so that nobody knows whether it is approved");
            return needs_approval.then(|| UnmetPrecondition::not_yet(found, ELSEWHERE));
        };
        let approvals = target.manifest.model.as_ref().map(|model| model.approvals.clone()).unwrap_or_default();
        let rule = ApprovalRule::of(&approvals, None, false);
        let standing = ApprovalRecords(&version.metadata).standing(rule);
        let description = plain::line(&version.approval_description, 300);
        match version.approval {
            _ if version.approval == Approval::Rejected || standing == Standing::Rejected => {
                Some(UnmetPrecondition::not_yet(format!("{arn} was rejected: {description}"), change))
            }
            Approval::Pending if needs_approval => Some(UnmetPrecondition::not_yet(
                format!("the environment takes approved versions alone, and the approval of {arn} was taken back"),
                change,
            )),
            _ if needs_approval && standing != Standing::Approved => Some(UnmetPrecondition::not_yet(
                format!(
                    "{arn} was approved outside of this program, or by too few users: {} needed",
                    ApprovalRecords(&version.metadata).rule(rule).words()
                ),
                "let users approve it with `sagemaker-executor model approve`, or name another deployment with `--to NUMBER`",
            )),
            _ => None,
        }
    }

    /// In the form of a deployment that makes nothing. `None` when configuration or model are missing.
    pub(super) fn specification(self, target: &ProjectTarget, endpoint: &str) -> Option<DeploymentSpecification> {
        let begin = self.choice.deployment.as_ref().map(|entry| &entry.begin);
        let tag = self.package_sha256;
        let is_tagged = |package: &DeployedPackage| tag.as_ref() == Some(&package.sha256);
        Some(DeploymentSpecification {
            endpoint: endpoint.to_owned(),
            hash: begin.and_then(|begin| begin.specification.clone()).unwrap_or_default(),
            model: self.model?,
            config: self.config?,
            alarms: Vec::new(),
            scaling: None,
            rollout: None,
            tags: ownership::tags(target, endpoint),
            version: self.arn.unwrap_or_default(),
            image: self.image.unwrap_or_default(),
            model_data_url: self.data.unwrap_or_default(),
            package: begin.and_then(|begin| begin.package.clone()).filter(is_tagged),
        })
    }
}

/// Where configuration and model come from, as AWS says.
#[derive(Default)]
struct Origin {
    foreign: Option<String>,
    /// ARN of the version that a model from a container is made of.
    version: Option<String>,
    package_sha256: Option<String>,
}

impl Origin {
    async fn read(
        ports: &EndpointPorts,
        target: &ProjectTarget,
        endpoint: &str,
        config: Option<&EndpointConfiguration>,
        model: Option<&ServedModel>,
    ) -> anyhow::Result<Self> {
        let Some((config, model)) = config.zip(model) else { return Ok(Self::default()) };
        if let Some(foreign) = origin::foreign(ports, target, endpoint, config).await? {
            return Ok(Self { foreign: Some(foreign), ..Self::default() });
        }
        let tags = ports.endpoints.tags(&model.arn).await?;
        let version = tags.get(VERSION).cloned();
        let foreign = (!ownership::is_ours(&tags, endpoint)).then(|| {
            let name = plain::line(&model.name, 300);
            format!("the model {name} was not made by this program for the endpoint {endpoint}")
        });
        Ok(Self { foreign, version, package_sha256: tags.get(PACKAGE_SHA256).cloned() })
    }
}

/// Whether a model from a container is of this version.
fn is_of_version(source: &ModelSource, version: &ModelVersion) -> bool {
    match source {
        ModelSource::Package(arn) => *arn == version.arn,
        ModelSource::Container { image, model_data_url } => {
            *image == version_image(version) && model_data_url.as_ref() == Some(&version.model_data_url)
        }
        ModelSource::Other => false,
    }
}

/// The record of the deployment that comes back.
pub(super) fn serving(deployment: Option<&LedgerEntry>) -> Option<&LedgerServing> {
    deployment?.begin.serving.as_ref()
}

/// All traffic at once, guarded by the alarms that are off: one that is on, because of the model that goes, would stop the way back.
/// `None` for serverless endpoints.
pub(super) async fn rollout(
    ports: &EndpointPorts,
    endpoint: &Endpoint,
    choice: &RollbackChoice,
    capacity: &VariantCapacity,
    printer: &Printer,
) -> anyhow::Result<Option<RolloutSpec>> {
    if matches!(capacity, VariantCapacity::Serverless { .. }) {
        return Ok(None);
    }
    let recorded = serving(choice.deployment.as_ref()).map(|serving| serving.alarms.clone()).unwrap_or_default();
    // Another alarm of the record may be of somebody else, who stops the way back with it.
    let own = own_alarms(&endpoint.name).into_iter().filter(|name| recorded.contains(name));
    let mut names: Vec<_> = own.chain(endpoint.alarms.names.clone()).collect();
    names.sort();
    names.dedup();
    let mut alarms = Vec::new();
    if !names.is_empty() {
        for alarm in ports.alarms.alarms(&names).await? {
            if alarm.state == AlarmState::Alarm {
                let name = plain::line(&alarm.name, 255);
                printer.line(format!("The alarm {name} is on, and does not guard the rollback"));
            } else {
                alarms.push(alarm.name);
            }
        }
    }
    // The limit of SageMaker (`AutoRollbackConfiguration`).
    alarms.truncate(10);
    let wait = if alarms.is_empty() { 0 } else { endpoint.step_wait() };
    let traffic = TrafficShift::AllAtOnce { wait, termination_wait: 0 };
    Ok(Some(RolloutSpec { traffic, limit_seconds: endpoint.deployment_limit(), alarms }))
}
