//! `SageMaker`'s models, endpoint configurations and endpoints, and the runtime that invokes them.
//!
//! `entries.rs` and `records.rs` hold what exists, `models.rs`, `configs.rs` and `operations.rs` the operations. `rollout.rs` decides on the state of an
//! endpoint and knows neither clock nor containers; `driver.rs` shows it both and starts and ends the instances of `fleet.rs`, whose
//! containers `instance.rs` runs. `invocation.rs` and
//! `asynchronous.rs` are the runtime, for which `routing.rs` chooses the instance.

mod asynchronous;
mod configs;
mod container_http;
mod driver;
mod entries;
mod fleet;
mod instance;
mod invocation;
mod listing;
mod model_data;
mod models;
mod names;
mod operations;
mod platform;
mod records;
mod request_metrics;
mod response_stream;
mod rollout;
mod routing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use self::invocation::{Runtime, operation as runtime_operation};
pub(crate) use self::records::Endpoints;
use crate::iam::Document;
use crate::model::Model;
use crate::service::{JsonService, Operation};

impl JsonService for Endpoints {
    const SIGNING_NAME: &'static str = "sagemaker";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("CreateModel", models::create),
        ("DescribeModel", models::describe),
        ("ListModels", models::list),
        ("DeleteModel", models::delete),
        ("CreateEndpointConfig", configs::create),
        ("DescribeEndpointConfig", configs::describe),
        ("ListEndpointConfigs", configs::list),
        ("DeleteEndpointConfig", configs::delete),
        ("CreateEndpoint", operations::create),
        ("DescribeEndpoint", operations::describe),
        ("ListEndpoints", operations::list),
        ("UpdateEndpoint", operations::update),
        ("UpdateEndpointWeightsAndCapacities", operations::scale),
        ("DeleteEndpoint", operations::delete),
    ];

    fn model() -> &'static Model {
        Model::sagemaker()
    }

    fn resource_policy(&self, resource: &str) -> Option<Arc<Document>> {
        // Models are made from packages of other accounts by the policies of their groups.
        self.platform.registry.resource_policy(resource)
    }
}
