//! Models, configurations and endpoints of the fake.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use super::state::{FakeEndpoint, FakeUpdate, ServingState};
use super::timeline::waits;
use crate::cloud::testing::faults::Fake;
use crate::cloud::{
    CloudError, CloudErrorKind, ComponentParts, ConfigurationModels, EndpointChange, EndpointConfiguration,
    EndpointSight, EndpointState, ModelEndpoints, ModelParts, ModelSource, NewEndpoint, ServedKind, ServedModel,
    ServingSummary, VariantCapacity,
};

/// Region and account of all ARNs.
const PLACE: &str = "arn:aws:sagemaker:eu-west-1:123456789012";
/// Time that a deletion takes.
const DELETION: Duration = Duration::from_mins(1);

fn error(kind: CloudErrorKind, operation: String, message: &str) -> CloudError {
    CloudError { kind, operation, message: format!("ValidationException: {message}"), action: "" }
}

fn arn(kind: &str, name: &str) -> String {
    format!("{PLACE}:{kind}/{}", name.to_lowercase())
}

/// The old instances of an update that cannot be made, and why.
fn refusal(old: &EndpointConfiguration, new: &EndpointConfiguration, is_scaled: bool) -> Option<String> {
    let instance_type = |config: &EndpointConfiguration| match &config.capacity {
        VariantCapacity::Instances { instance_type, .. } => Some(instance_type.clone()),
        VariantCapacity::Serverless { .. } => None,
    };
    if is_scaled && (old.variant != new.variant || instance_type(old) != instance_type(new)) {
        let rest = "must be deregistered as scalable target with AWS Auto Scaling before they can be removed or have \
                    their instance type updated.";
        return Some(format!("The variant(s) \"[{}]\" {rest}", old.variant));
    }
    (old.variant != new.variant).then(|| "The variant names of both configurations must be the same.".to_owned())
}

impl ServingState {
    fn run(&mut self, to: &str, change: Option<&EndpointChange>, provisioning: Duration) -> FakeUpdate {
        FakeUpdate {
            began: Instant::now(),
            to: to.to_owned(),
            rollout: change.and_then(|change| change.rollout.clone()),
            keeps_counts: change.is_some_and(|change| change.keeps_counts),
            fate: self.fates.pop_front(),
            provisioning,
            reason: String::new(),
        }
    }

    fn create(&mut self, wanted: &NewEndpoint) -> Result<(), CloudError> {
        let operation = || format!("create endpoint {}", wanted.name);
        if self.endpoints.contains_key(&wanted.name) {
            let message = format!("Cannot create already existing endpoint \"{}\".", arn("endpoint", &wanted.name));
            return Err(error(CloudErrorKind::Exists, operation(), &message));
        }
        if self.config(&wanted.config).is_none() {
            return Err(error(CloudErrorKind::NotFound, operation(), "Could not find endpoint configuration."));
        }
        let endpoint = FakeEndpoint {
            name: wanted.name.clone(),
            arn: arn("endpoint", &wanted.name),
            tags: wanted.tags.clone(),
            config: wanted.config.clone(),
            state: EndpointState::Creating,
            failure: None,
            count: self.count_of(&wanted.config),
            created: Instant::now(),
            modified: Instant::now(),
            run: Some(self.run(&wanted.config, None, self.provisioning)),
            before: None,
        };
        self.endpoints.insert(wanted.name.clone(), endpoint);
        Ok(())
    }

    fn change(&mut self, change: &EndpointChange) -> Result<(), CloudError> {
        let refuse = |kind, message: &str| Err(error(kind, format!("update endpoint {}", change.name), message));
        let Some(endpoint) = self.endpoints.get(&change.name) else {
            return refuse(CloudErrorKind::NotFound, "Could not find endpoint.");
        };
        let Some(new) = self.config(&change.config) else {
            return refuse(CloudErrorKind::NotFound, "Could not find endpoint configuration.");
        };
        if endpoint.state != EndpointState::InService {
            let message = format!("Cannot update endpoint in status {}.", endpoint.state.name());
            return refuse(CloudErrorKind::Invalid, &message);
        }
        let is_serverless = matches!(new.capacity, VariantCapacity::Serverless { .. });
        if let Some(rollout) = &change.rollout
            && (is_serverless || rollout.limit_seconds <= waits(rollout.traffic))
        {
            return refuse(CloudErrorKind::Invalid, "DeploymentConfig is not valid for this endpoint.");
        }
        if !self.models.contains_key(&new.model) {
            return refuse(CloudErrorKind::NotFound, "Could not find model.");
        }
        if let Some(old) = self.config(&endpoint.config) {
            let resource = format!("endpoint/{}/variant/{}", change.name, old.variant);
            let is_scaled = self.targets.keys().any(|(target, _)| *target == resource);
            if let Some(message) = refusal(old, new, is_scaled) {
                return refuse(CloudErrorKind::Invalid, &message);
            }
        }
        let before = self.before(endpoint);
        let run = self.run(&change.config, Some(change), self.provisioning);
        if let Some(endpoint) = self.endpoints.get_mut(&change.name) {
            endpoint.before = before;
            endpoint.modified = run.began;
            endpoint.run = Some(run);
            endpoint.state = EndpointState::Updating;
        }
        self.changes.push(change.clone());
        Ok(())
    }

    fn before(&self, endpoint: &FakeEndpoint) -> Option<(usize, Box<EndpointSight>)> {
        (self.stale > 0).then(|| (self.stale, Box::new(self.sight(endpoint))))
    }

    fn remove(&mut self, name: &str) -> Result<(), CloudError> {
        let Some(endpoint) = self.endpoints.get(name) else { return Ok(()) };
        if endpoint.state == EndpointState::Deleting {
            return Ok(());
        }
        if endpoint.state.is_changing() {
            let message = format!("Cannot delete endpoint in status {}.", endpoint.state.name());
            return Err(error(CloudErrorKind::Invalid, format!("delete endpoint {name}"), &message));
        }
        let before = self.before(endpoint);
        let run = self.run("", None, DELETION);
        if let Some(endpoint) = self.endpoints.get_mut(name) {
            endpoint.before = before;
            endpoint.run = Some(run);
            endpoint.state = EndpointState::Deleting;
        }
        Ok(())
    }

    fn look(&mut self, name: &str) -> Option<EndpointSight> {
        let endpoint = self.endpoints.get_mut(name)?;
        if let Some((left, sight)) = endpoint.before.take()
            && left > 0
        {
            let seen = (*sight).clone();
            endpoint.before = Some((left - 1, sight));
            return Some(seen);
        }
        self.endpoints.get(name).map(|endpoint| self.sight(endpoint))
    }

    /// Everything of a kind, newest first.
    fn listed(&self, kind: ServedKind) -> Vec<ServingSummary> {
        let made = |arn: &str| self.made.get(arn).map(|at| self.day(*at));
        let fixed = |name: &str, arn: &str| ServingSummary {
            name: name.to_owned(),
            arn: arn.to_owned(),
            created: made(arn),
            modified: None,
            state: None,
        };
        let mut all: Vec<_> = match kind {
            ServedKind::Model => self.models.values().map(|one| fixed(&one.name, &one.arn)).collect(),
            ServedKind::Configuration => self.configs.iter().map(|one| fixed(&one.name, &one.arn)).collect(),
            ServedKind::Endpoint => {
                let of = |one: &FakeEndpoint| ServingSummary {
                    created: Some(self.day(one.created)),
                    modified: Some(self.day(one.modified)),
                    state: Some(one.state),
                    ..fixed(&one.name, &one.arn)
                };
                self.endpoints.values().map(of).collect()
            }
        };
        all.sort_by_key(|one| std::cmp::Reverse(one.created));
        all
    }

    fn tags_of(&self, arn: &str) -> Option<BTreeMap<String, String>> {
        let models = self.models.values().map(|model| (&model.arn, &model.tags));
        let configs = self.configs.iter().map(|config| (&config.arn, &config.tags));
        let endpoints = self.endpoints.values().map(|endpoint| (&endpoint.arn, &endpoint.tags));
        models.chain(configs).chain(endpoints).find(|(own, _)| *own == arn).map(|(_, tags)| tags.clone())
    }
}

#[async_trait]
impl ModelEndpoints for Fake<ServingState> {
    async fn model(&self, name: &str) -> Result<Option<ServedModel>, CloudError> {
        let untagged = |model: &ServedModel| ServedModel { tags: BTreeMap::new(), ..model.clone() };
        self.call("model", name, |service| Ok(service.models.get(name).map(untagged))).await
    }

    async fn model_parts(&self, name: &str) -> Result<Option<ModelParts>, CloudError> {
        let parts = |model: &ServedModel| match &model.source {
            ModelSource::Package(arn) => ModelParts { packages: vec![arn.clone()], ..ModelParts::default() },
            ModelSource::Container { image, .. } => ModelParts { images: vec![image.clone()], ..ModelParts::default() },
            ModelSource::Other => ModelParts::default(),
        };
        self.call("model_parts", name, |service| Ok(service.models.get(name).map(parts))).await
    }

    async fn create_model(&self, model: &ServedModel) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            if service.models.contains_key(&model.name) {
                let operation = format!("create model {}", model.name);
                return Err(error(CloudErrorKind::Exists, operation, "Cannot create already existing model."));
            }
            let made = ServedModel { arn: arn("model", &model.name), ..model.clone() };
            service.made.insert(made.arn.clone(), Instant::now());
            service.models.insert(model.name.clone(), made);
            Ok(())
        };
        self.call("create_model", &model.name, act).await
    }

    async fn delete_model(&self, name: &str) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            service.models.remove(name);
            Ok(())
        };
        self.call("delete_model", name, act).await
    }

    async fn config(&self, name: &str) -> Result<Option<EndpointConfiguration>, CloudError> {
        let untagged =
            |config: &EndpointConfiguration| EndpointConfiguration { tags: BTreeMap::new(), ..config.clone() };
        self.call("config", name, |service| Ok(service.config(name).map(untagged))).await
    }

    async fn create_config(&self, config: &EndpointConfiguration) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            let operation = || format!("create endpoint configuration {}", config.name);
            if service.config(&config.name).is_some() {
                let message = "Cannot create already existing endpoint configuration.";
                return Err(error(CloudErrorKind::Exists, operation(), message));
            }
            if !service.models.contains_key(&config.model) {
                return Err(error(CloudErrorKind::NotFound, operation(), "Could not find model."));
            }
            let arn = arn("endpoint-config", &config.name);
            service.made.insert(arn.clone(), Instant::now());
            service.configs.push(EndpointConfiguration { arn, ..config.clone() });
            Ok(())
        };
        self.call("create_config", &config.name, act).await
    }

    async fn delete_config(&self, name: &str) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            service.configs.retain(|config| config.name != name);
            Ok(())
        };
        self.call("delete_config", name, act).await
    }

    async fn configs(&self, containing: &str) -> Result<Vec<String>, CloudError> {
        let act = |service: &mut ServingState| {
            let names = service.configs.iter().rev().map(|config| config.name.clone());
            Ok(names.filter(|name| name.contains(containing)).collect())
        };
        self.call("configs", containing, act).await
    }

    async fn models_of(&self, config: &str) -> Result<Option<ConfigurationModels>, CloudError> {
        let act = |service: &mut ServingState| {
            let with_components = service.endpoints.values().filter(|one| service.components.contains_key(&one.name));
            let names_none = with_components.into_iter().any(|one| one.config == config);
            let models = |config: &EndpointConfiguration| ConfigurationModels {
                names: if names_none { Vec::new() } else { vec![config.model.clone()] },
                lacks_one: names_none,
            };
            Ok(service.config(config).map(models))
        };
        self.call("models_of", config, act).await
    }

    async fn components(&self, endpoint: &str) -> Result<ComponentParts, CloudError> {
        self.call("components", endpoint, |service| Ok(service.components.get(endpoint).cloned().unwrap_or_default()))
            .await
    }

    async fn all_endpoints(&self) -> Result<Vec<String>, CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            Ok(service.endpoints.keys().cloned().collect())
        };
        self.call("all_endpoints", "", act).await
    }

    async fn listing(&self, kind: ServedKind, containing: &str) -> Result<Vec<ServingSummary>, CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            let all = service.listed(kind).into_iter();
            Ok(all.filter(|one| one.name.contains(containing)).collect())
        };
        self.call("listing", &format!("{kind:?}"), act).await
    }

    async fn models_after(&self, time: SystemTime) -> Result<Vec<ServingSummary>, CloudError> {
        let act = |service: &mut ServingState| {
            let all = service.listed(ServedKind::Model).into_iter();
            Ok(all.filter(|one| one.created > Some(time)).collect())
        };
        self.call("models_after", "", act).await
    }

    async fn endpoint(&self, name: &str) -> Result<Option<EndpointSight>, CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            Ok(service.look(name))
        };
        self.call("endpoint", name, act).await
    }

    async fn create_endpoint(&self, endpoint: &NewEndpoint) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            service.create(endpoint)
        };
        self.call("create_endpoint", &endpoint.name, act).await
    }

    async fn update_endpoint(&self, change: &EndpointChange) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            service.change(change)
        };
        self.call("update_endpoint", &change.name, act).await
    }

    async fn delete_endpoint(&self, name: &str) -> Result<(), CloudError> {
        let act = |service: &mut ServingState| {
            service.settle();
            service.remove(name)
        };
        self.call("delete_endpoint", name, act).await
    }

    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        let act = |service: &mut ServingState| {
            let absent = || error(CloudErrorKind::NotFound, format!("list the tags of {arn}"), "Could not find it.");
            service.tags_of(arn).ok_or_else(absent)
        };
        self.call("tags", arn, act).await
    }
}
