//! Fake of SageMaker's endpoints, with their scaling, alarms, logs and answers, in tokio's time, which tests pause.
//!
//! An endpoint goes on while nobody looks: creation and update take their time, traffic moves in the steps of the rollout, and an
//! alarm of the rollout that is on brings the old configuration back.

mod alarm_book;
mod endpoints;
mod inference;
mod scaling;
mod state;
mod timeline;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::faults::Fake;
use super::objects::MemoryObjects;
use crate::cloud::{
    AlarmState, ComponentParts, EndpointChange, EndpointConfiguration, InferenceReply, InferenceRequest, ModelSource,
    NewEndpoint, ScalableTarget, ScaledVariant, ServedModel, VariantCapacity,
};

pub use state::EndpointFate;
use state::ServingState;

/// The ports [`ModelEndpoints`](crate::cloud::ModelEndpoints), [`Inference`](crate::cloud::Inference),
/// [`EndpointScaling`](crate::cloud::EndpointScaling), [`MetricAlarms`](crate::cloud::MetricAlarms) and
/// [`EndpointLogs`](crate::cloud::EndpointLogs) of one account.
pub type MemoryServing = Fake<ServingState>;

impl MemoryServing {
    /// A service that writes the answers of asynchronous endpoints to these objects.
    pub(super) fn with_objects(objects: &Arc<MemoryObjects>) -> Self {
        let serving = Self::default();
        serving.inner().service.objects = Some(Arc::clone(objects));
        serving
    }

    /// All models, by name, with their tags.
    pub fn models(&self) -> Vec<ServedModel> {
        self.inner().service.models.values().cloned().collect()
    }

    /// All configurations, in the order of their creation, with their tags.
    pub fn all_configs(&self) -> Vec<EndpointConfiguration> {
        self.inner().service.configs.clone()
    }

    /// Names of all endpoints.
    pub fn endpoint_names(&self) -> Vec<String> {
        self.inner().service.endpoints.keys().cloned().collect()
    }

    /// Names of all alarms.
    pub fn alarm_names(&self) -> Vec<String> {
        self.inner().service.alarms.names()
    }

    /// The accepted updates, in their order.
    pub fn changes(&self) -> Vec<EndpointChange> {
        self.inner().service.changes.clone()
    }

    /// Ends of the next creations and updates, in their order; those after them succeed.
    pub fn fates(&self, fates: impl IntoIterator<Item = EndpointFate>) {
        self.inner().service.fates = fates.into_iter().collect();
    }

    /// Time that instances of later changes take to come into service: four minutes when this is not called.
    pub fn set_provisioning(&self, takes: Duration) {
        self.inner().service.provisioning = takes;
    }

    /// After each creation, update and deletion from now on, so many describes show what was before.
    pub fn show_late(&self, describes: usize) {
        self.inner().service.stale = describes;
    }

    /// Sets the state of an alarm from now on; a name that is not known becomes an alarm of another form.
    pub fn set_alarm(&self, name: &str, state: AlarmState) {
        self.set_alarm_after(name, Duration::ZERO, state);
    }

    /// As `set_alarm`, from a later time on.
    pub fn set_alarm_after(&self, name: &str, after: Duration, state: AlarmState) {
        let mut inner = self.inner();
        inner.service.settle();
        inner.service.alarms.set(name, Instant::now() + after, state);
    }

    /// The alarm is on a minute after the model got traffic, as long as it gets any.
    pub fn spoil(&self, model: &str, alarm: &str) {
        self.inner().service.bad_models.insert(model.to_owned(), alarm.to_owned());
    }

    /// Lets an endpoint tell these images.
    pub fn set_deployed_images(&self, endpoint: &str, images: &[String]) {
        self.inner().service.deployed.insert(endpoint.to_owned(), images.to_vec());
    }

    /// Gives an endpoint inference components; its configuration names no model from then on.
    pub fn set_components(&self, endpoint: &str, components: ComponentParts) {
        self.inner().service.components.insert(endpoint.to_owned(), components);
    }

    /// Removes a tag from everything.
    pub fn untag(&self, tag: &str) {
        let mut inner = self.inner();
        let ServingState { models, configs, endpoints, .. } = &mut inner.service;
        let of_models = models.values_mut().map(|model| &mut model.tags);
        let of_configs = configs.iter_mut().map(|config| &mut config.tags);
        let of_endpoints = endpoints.values_mut().map(|endpoint| &mut endpoint.tags);
        of_models.chain(of_configs).chain(of_endpoints).for_each(|tags| drop(tags.remove(tag)));
    }

    /// Sets the number of instances, as autoscaling does.
    pub fn set_count(&self, endpoint: &str, count: u32) {
        let mut inner = self.inner();
        inner.service.settle();
        if let Some(endpoint) = inner.service.endpoints.get_mut(endpoint) {
            endpoint.count = Some(count);
        }
    }

    /// The number of instances in service.
    pub fn instances(&self, endpoint: &str) -> Option<u32> {
        let mut inner = self.inner();
        inner.service.settle();
        inner.service.endpoints.get(endpoint)?.count
    }

    /// The scalable target of a variant.
    pub fn scalable_target(&self, variant: &ScaledVariant) -> Option<ScalableTarget> {
        let key = (variant.resource_id(), variant.quantity.name());
        self.inner().service.targets.get(&key).map(|(target, _)| *target)
    }

    /// Makes replies from the name of the model that answers; without it a model answers with its name, as `text/plain`.
    pub fn reply(&self, replies: impl Fn(&str, &InferenceRequest) -> InferenceReply + Send + 'static) {
        self.inner().service.replies.0 = Some(Box::new(replies));
    }

    /// The requests so far, each with the model that answered it.
    pub fn requests(&self) -> Vec<(String, InferenceRequest)> {
        self.inner().service.requests.clone()
    }

    /// Adds a line to the output of an endpoint's containers.
    pub fn log(&self, endpoint: &str, line: &str) {
        self.inner().service.logs.entry(endpoint.to_owned()).or_default().push(line.to_owned());
    }
}

/// A model from a container, without network.
pub fn example_model(name: &str) -> ServedModel {
    ServedModel {
        name: name.to_owned(),
        arn: String::new(),
        source: ModelSource::Container {
            image: format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:{}", "0".repeat(64)),
            model_data_url: Some("s3://memory/models/1/model.tar.gz".to_owned()),
        },
        environment: BTreeMap::new(),
        role: "arn:aws:iam::123456789012:role/serve".to_owned(),
        subnets: Vec::new(),
        security_groups: Vec::new(),
        network_isolation: false,
        tags: BTreeMap::new(),
    }
}

/// A configuration with two instances.
pub fn example_config(name: &str, model: &str) -> EndpointConfiguration {
    EndpointConfiguration {
        name: name.to_owned(),
        arn: String::new(),
        model: model.to_owned(),
        variant: "AllTraffic".to_owned(),
        capacity: VariantCapacity::Instances { instance_type: "ml.m5.large".to_owned(), count: 2 },
        download_timeout_seconds: None,
        startup_timeout_seconds: None,
        kms_key_id: None,
        asynchronous: None,
        variants: 1,
        tags: BTreeMap::new(),
    }
}

/// An endpoint without tags.
pub fn example_endpoint(name: &str, config: &str) -> NewEndpoint {
    NewEndpoint { name: name.to_owned(), config: config.to_owned(), tags: BTreeMap::new() }
}

#[cfg(test)]
mod tests;
