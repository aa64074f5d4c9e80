//! Lists of the account's models, configurations and endpoints. Only commands that delete ask for them.

use std::time::SystemTime;

use aws_sdk_sagemaker::primitives::DateTime;
use aws_sdk_sagemaker::types::{EndpointConfigSortKey, EndpointSortKey, ModelSortKey, OrderKey};
use executor::cloud::{CloudError, ComponentParts, ServingSummary};

use super::found;
use crate::clients::Clients;

/// Most entries that AWS lists in one page.
const PAGE: i32 = 100;

/// Names of all endpoints.
pub(super) async fn endpoints(clients: &Clients) -> Result<Vec<String>, CloudError> {
    let call = clients.call("list", "the endpoints".to_owned(), "sagemaker:ListEndpoints");
    let mut pages = clients.sagemaker().list_endpoints().max_results(PAGE).into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| call.failed(&error))?;
        names.extend(page.endpoints.unwrap_or_default().into_iter().filter_map(|one| one.endpoint_name));
    }
    Ok(names)
}

/// The filter of a list; AWS takes no empty one.
fn part(containing: &str) -> Option<String> {
    (!containing.is_empty()).then(|| containing.to_owned())
}

fn time(time: Option<DateTime>) -> Option<SystemTime> {
    time.and_then(|time| SystemTime::try_from(time).ok())
}

pub(super) async fn models(
    clients: &Clients,
    containing: &str,
    after: Option<SystemTime>,
) -> Result<Vec<ServingSummary>, CloudError> {
    let call = clients.call("list", "the models".to_owned(), "sagemaker:ListModels");
    let request = clients.sagemaker().list_models().set_name_contains(part(containing)).max_results(PAGE);
    let request = request.sort_by(ModelSortKey::CreationTime).sort_order(OrderKey::Descending);
    let request = request.set_creation_time_after(after.map(DateTime::from));
    let mut pages = request.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| call.failed(&error))?;
        found.extend(page.models.unwrap_or_default().into_iter().filter_map(|one| {
            let created = time(one.creation_time);
            Some(ServingSummary { name: one.model_name?, arn: one.model_arn?, created, modified: None, state: None })
        }));
    }
    Ok(found)
}

pub(super) async fn configs(clients: &Clients, containing: &str) -> Result<Vec<ServingSummary>, CloudError> {
    let call = clients.call("list", "the endpoint configurations".to_owned(), "sagemaker:ListEndpointConfigs");
    let request = clients.sagemaker().list_endpoint_configs().set_name_contains(part(containing)).max_results(PAGE);
    let request = request.sort_by(EndpointConfigSortKey::CreationTime).sort_order(OrderKey::Descending);
    let mut pages = request.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| call.failed(&error))?;
        found.extend(page.endpoint_configs.unwrap_or_default().into_iter().filter_map(|one| {
            let (name, arn) = (one.endpoint_config_name?, one.endpoint_config_arn?);
            Some(ServingSummary { name, arn, created: time(one.creation_time), modified: None, state: None })
        }));
    }
    Ok(found)
}

pub(super) async fn endpoint_summaries(clients: &Clients, containing: &str) -> Result<Vec<ServingSummary>, CloudError> {
    let call = clients.call("list", "the endpoints".to_owned(), "sagemaker:ListEndpoints");
    let request = clients.sagemaker().list_endpoints().set_name_contains(part(containing)).max_results(PAGE);
    let request = request.sort_by(EndpointSortKey::CreationTime).sort_order(OrderKey::Descending);
    let mut pages = request.into_paginator().send();
    let mut all = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| call.failed(&error))?;
        all.extend(page.endpoints.unwrap_or_default().into_iter().filter_map(|one| {
            Some(ServingSummary {
                state: Some(found::state(one.endpoint_status.as_ref())),
                name: one.endpoint_name?,
                arn: one.endpoint_arn?,
                created: time(one.creation_time),
                modified: time(one.last_modified_time),
            })
        }));
    }
    Ok(all)
}

/// Of all inference components of an endpoint, also of their forms for single instance types.
pub(super) async fn components(clients: &Clients, endpoint: &str) -> Result<ComponentParts, CloudError> {
    let what = format!("the inference components of {endpoint}");
    let call = clients.call("list", what, "sagemaker:ListInferenceComponents");
    let request = clients.sagemaker().list_inference_components().endpoint_name_equals(endpoint).max_results(PAGE);
    let mut pages = request.into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| call.failed(&error))?;
        names.extend(
            page.inference_components.unwrap_or_default().into_iter().filter_map(|one| one.inference_component_name),
        );
    }
    let mut parts = ComponentParts::default();
    for name in names {
        let what = format!("inference component {name}");
        let call = clients.call("look at", what, "sagemaker:DescribeInferenceComponent");
        let request = clients.sagemaker().describe_inference_component().inference_component_name(&name);
        let reply = request.send().await.map_err(|error| call.failed(&error))?;
        for form in reply.specification.into_iter().chain(reply.specifications.unwrap_or_default()) {
            parts.models.extend(form.model_name);
            let image = form.container.and_then(|container| container.deployed_image);
            parts
                .images
                .extend(image.into_iter().flat_map(|image| [image.specified_image, image.resolved_image]).flatten());
        }
    }
    Ok(parts)
}
