//! Models, endpoint configurations and endpoints of SageMaker, over the SDK.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_sagemaker::types::{EndpointConfigSortKey, OrderKey, VpcConfig};
use executor::cloud::{
    CloudError, CloudErrorKind, ComponentParts, ConfigurationModels, EndpointChange, EndpointConfiguration,
    EndpointSight, ModelEndpoints, ModelParts, NewEndpoint, ServedKind, ServedModel, ServingSummary,
};

use super::clients::Clients;
use super::errors::AwsCall;
use super::tags;

mod found;
mod listing;
mod wanted;

/// Names of one page of configurations or endpoints; the service's maximum.
const PAGE: i32 = 100;

#[derive(Debug)]
pub(super) struct AwsEndpoints {
    clients: Arc<Clients>,
}

impl AwsEndpoints {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    fn call(&self, verb: &str, kind: &str, name: &str, action: &'static str) -> AwsCall {
        self.clients.call(verb, format!("{kind} {name}"), action)
    }
}

#[async_trait]
impl ModelEndpoints for AwsEndpoints {
    async fn model(&self, name: &str) -> Result<Option<ServedModel>, CloudError> {
        let call = self.call("look at", "model", name, "sagemaker:DescribeModel");
        match self.clients.sagemaker().describe_model().model_name(name).send().await {
            Ok(reply) => Ok(Some(found::model(name, reply))),
            Err(error) => unless_absent(call.failed(&error)).map(|()| None),
        }
    }

    async fn model_parts(&self, name: &str) -> Result<Option<ModelParts>, CloudError> {
        let call = self.call("look at", "model", name, "sagemaker:DescribeModel");
        match self.clients.sagemaker().describe_model().model_name(name).send().await {
            Ok(reply) => Ok(Some(found::parts(reply))),
            Err(error) => unless_absent(call.failed(&error)).map(|()| None),
        }
    }

    async fn create_model(&self, model: &ServedModel) -> Result<(), CloudError> {
        let call = self.call("create", "model", &model.name, "sagemaker:CreateModel");
        let container = wanted::container(model);
        let container = container
            .ok_or_else(|| call.error(CloudErrorKind::Invalid, "this program makes models with one container alone"))?;
        let network = VpcConfig::builder()
            .set_subnets(Some(model.subnets.clone()))
            .set_security_group_ids(Some(model.security_groups.clone()));
        let reply = self
            .clients
            .sagemaker()
            .create_model()
            .model_name(&model.name)
            .execution_role_arn(&model.role)
            .primary_container(container)
            .set_vpc_config((!model.subnets.is_empty()).then(|| network.build()))
            .set_enable_network_isolation(model.network_isolation.then_some(true))
            .set_tags(tags::list(&model.tags))
            .send()
            .await;
        reply.map(|_| ()).map_err(|error| known(call.failed(&error)))
    }

    async fn delete_model(&self, name: &str) -> Result<(), CloudError> {
        let call = self.call("delete", "model", name, "sagemaker:DeleteModel");
        let request = self.clients.sagemaker().delete_model().model_name(name);
        let reply = request.customize().config_override(self.clients.deletion()).send().await;
        reply.map(|_| ()).or_else(|error| unless_absent(call.failed(&error)))
    }

    async fn config(&self, name: &str) -> Result<Option<EndpointConfiguration>, CloudError> {
        let call = self.call("look at", "endpoint configuration", name, "sagemaker:DescribeEndpointConfig");
        match self.clients.sagemaker().describe_endpoint_config().endpoint_config_name(name).send().await {
            Ok(reply) => Ok(Some(found::config(name, reply))),
            Err(error) => unless_absent(call.failed(&error)).map(|()| None),
        }
    }

    async fn create_config(&self, config: &EndpointConfiguration) -> Result<(), CloudError> {
        let call = self.call("create", "endpoint configuration", &config.name, "sagemaker:CreateEndpointConfig");
        let reply = self
            .clients
            .sagemaker()
            .create_endpoint_config()
            .endpoint_config_name(&config.name)
            .production_variants(wanted::variant(config))
            .set_kms_key_id(config.kms_key_id.clone())
            .set_async_inference_config(config.asynchronous.as_ref().map(wanted::asynchronous))
            .set_tags(tags::list(&config.tags))
            .send()
            .await;
        reply.map(|_| ()).map_err(|error| known(call.failed(&error)))
    }

    async fn delete_config(&self, name: &str) -> Result<(), CloudError> {
        let call = self.call("delete", "endpoint configuration", name, "sagemaker:DeleteEndpointConfig");
        let request = self.clients.sagemaker().delete_endpoint_config().endpoint_config_name(name);
        let reply = request.customize().config_override(self.clients.deletion()).send().await;
        reply.map(|_| ()).or_else(|error| unless_absent(call.failed(&error)))
    }

    async fn configs(&self, containing: &str) -> Result<Vec<String>, CloudError> {
        let call = self.call("list", "endpoint configurations", containing, "sagemaker:ListEndpointConfigs");
        let request = self.clients.sagemaker().list_endpoint_configs().name_contains(containing).max_results(PAGE);
        let request = request.sort_by(EndpointConfigSortKey::CreationTime).sort_order(OrderKey::Descending);
        let mut pages = request.into_paginator().send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            names.extend(
                page.endpoint_configs.unwrap_or_default().into_iter().filter_map(|one| one.endpoint_config_name),
            );
        }
        Ok(names)
    }

    async fn models_of(&self, config: &str) -> Result<Option<ConfigurationModels>, CloudError> {
        let call = self.call("look at", "endpoint configuration", config, "sagemaker:DescribeEndpointConfig");
        match self.clients.sagemaker().describe_endpoint_config().endpoint_config_name(config).send().await {
            Ok(reply) => {
                let variants = || reply.production_variants().iter().chain(reply.shadow_production_variants());
                Ok(Some(ConfigurationModels {
                    names: variants().filter_map(|variant| variant.model_name.clone()).collect(),
                    lacks_one: variants().any(|variant| variant.model_name.is_none()),
                }))
            }
            Err(error) => unless_absent(call.failed(&error)).map(|()| None),
        }
    }

    async fn all_endpoints(&self) -> Result<Vec<String>, CloudError> {
        listing::endpoints(&self.clients).await
    }

    async fn listing(&self, kind: ServedKind, containing: &str) -> Result<Vec<ServingSummary>, CloudError> {
        match kind {
            ServedKind::Model => listing::models(&self.clients, containing, None).await,
            ServedKind::Configuration => listing::configs(&self.clients, containing).await,
            ServedKind::Endpoint => listing::endpoint_summaries(&self.clients, containing).await,
        }
    }

    async fn models_after(&self, time: SystemTime) -> Result<Vec<ServingSummary>, CloudError> {
        listing::models(&self.clients, "", Some(time)).await
    }

    async fn components(&self, endpoint: &str) -> Result<ComponentParts, CloudError> {
        listing::components(&self.clients, endpoint).await
    }

    async fn endpoint(&self, name: &str) -> Result<Option<EndpointSight>, CloudError> {
        let call = self.call("look at", "endpoint", name, "sagemaker:DescribeEndpoint");
        match self.clients.sagemaker().describe_endpoint().endpoint_name(name).send().await {
            Ok(reply) => Ok(Some(found::endpoint(name, reply))),
            Err(error) => unless_absent(call.failed(&error)).map(|()| None),
        }
    }

    async fn create_endpoint(&self, endpoint: &NewEndpoint) -> Result<(), CloudError> {
        let call = self.call("create", "endpoint", &endpoint.name, "sagemaker:CreateEndpoint");
        let request = self.clients.sagemaker().create_endpoint().endpoint_name(&endpoint.name);
        let request = request.endpoint_config_name(&endpoint.config).set_tags(tags::list(&endpoint.tags));
        request.send().await.map(|_| ()).map_err(|error| known(call.failed(&error)))
    }

    async fn update_endpoint(&self, change: &EndpointChange) -> Result<(), CloudError> {
        let call = self.call("update", "endpoint", &change.name, "sagemaker:UpdateEndpoint");
        let reply = self
            .clients
            .sagemaker()
            .update_endpoint()
            .endpoint_name(&change.name)
            .endpoint_config_name(&change.config)
            .retain_all_variant_properties(change.keeps_counts)
            .set_deployment_config(change.rollout.as_ref().map(wanted::deployment))
            .send()
            .await;
        reply.map(|_| ()).map_err(|error| known(call.failed(&error)))
    }

    async fn delete_endpoint(&self, name: &str) -> Result<(), CloudError> {
        let call = self.call("delete", "endpoint", name, "sagemaker:DeleteEndpoint");
        let request = self.clients.sagemaker().delete_endpoint().endpoint_name(name);
        let reply = request.customize().config_override(self.clients.deletion()).send().await;
        reply.map(|_| ()).or_else(|error| unless_absent(call.failed(&error)))
    }

    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        let call = self.clients.call("list the tags of", arn, "sagemaker:ListTags");
        tags::of(&self.clients, &call, arn).await
    }
}

/// The error with its kind: SageMaker says `ValidationException` for things that exist and for those that do not.
fn known(error: CloudError) -> CloudError {
    let says = |words| error.kind == CloudErrorKind::Invalid && error.message.contains(words);
    let kind = if says("Could not find") {
        CloudErrorKind::NotFound
    } else if says("already existing") || says("already exists") {
        CloudErrorKind::Exists
    } else {
        error.kind
    };
    CloudError { kind, ..error }
}

fn unless_absent(error: CloudError) -> Result<(), CloudError> {
    let error = known(error);
    if error.kind == CloudErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests;
