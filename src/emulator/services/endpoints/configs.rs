//! The operations on endpoint configurations.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::listing::{self, ServingEntry};
use super::names::{ServingKind, ServingName};
use super::records::Endpoints;
use crate::caller::Caller;
use crate::protocol::{Answer, ApiError, text};
use crate::services::registry::kept;
use crate::tags::{check_tags, tag_map};

/// Members of the request that Describe shows.
const STORED: &[&str] = &[
    "ProductionVariants",
    "DataCaptureConfig",
    "KmsKeyId",
    "AsyncInferenceConfig",
    "ExplainerConfig",
    "ShadowProductionVariants",
    "ExecutionRoleArn",
    "VpcConfig",
    "EnableNetworkIsolation",
    "MetricsConfig",
];
const NAMES: [&str; 2] = ["EndpointConfigName", "EndpointConfigArn"];

/// The configuration that a request names.
pub(super) fn name_of(request: &Value, caller: &Caller) -> ServingName {
    ServingName::new(ServingKind::Config, text(request, "EndpointConfigName").unwrap_or_default(), caller)
}

pub(super) fn create(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    check_tags(request.get("Tags"))?;
    let name = name_of(request, caller);
    let arn = name.arn();
    let mut members = kept(request, STORED);
    let mut records = endpoints.records();
    if records.entries.0.contains_key(&name) {
        return Err(name.present());
    }
    let mut names = BTreeSet::new();
    for variant in members.get_mut("ProductionVariants").and_then(Value::as_array_mut).into_iter().flatten() {
        check_variant(variant)?;
        if !names.insert(text(variant, "VariantName").unwrap_or_default().to_owned()) {
            return Err(ApiError::validation(
                "Production variant names must be unique within an endpoint configuration.",
            ));
        }
        let model = text(variant, "ModelName").unwrap_or_default();
        records.entries.entry(&ServingName::new(ServingKind::Model, model, caller))?;
        if variant["InitialVariantWeight"].is_null() {
            variant["InitialVariantWeight"] = json!(1.0);
        }
    }
    let record = endpoints.new_record(members);
    records.entries.0.insert(name, record);
    endpoints.platform.shared.tags.create(&arn, tag_map(request.get("Tags")));
    Ok(Some(json!({"EndpointConfigArn": arn})))
}

/// A variant is on instances or serverless.
fn check_variant(variant: &Value) -> Result<(), ApiError> {
    let has = |name: &str| variant.get(name).is_some_and(|value| !value.is_null());
    let refuse = |message: &str| Err(ApiError::validation(message));
    match (has("ServerlessConfig"), has("InstanceType"), has("InitialInstanceCount")) {
        _ if !has("ModelName") => {
            refuse("ModelName is required for a production variant: inference components are not emulated.")
        }
        (true, false, false) | (false, true, true) => Ok(()),
        (true, ..) => refuse("InstanceType and InitialInstanceCount cannot be specified with ServerlessConfig."),
        (false, ..) => refuse(
            "InstanceType and InitialInstanceCount are required for a production variant without ServerlessConfig.",
        ),
    }
}

pub(super) fn describe(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let name = name_of(request, caller);
    let records = endpoints.records();
    Ok(Some(records.entries.entry(&name)?.description(&name, NAMES)))
}

pub(super) fn list(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let records = endpoints.records();
    listing::page(
        request,
        "EndpointConfigs",
        ServingEntry::of_entries(&records.entries, ServingKind::Config, caller, NAMES),
    )
}

/// AWS asks not to delete the configuration of a live endpoint, and does not refuse it.
pub(super) fn delete(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let name = name_of(request, caller);
    endpoints.records().entries.0.remove(&name).ok_or_else(|| name.absent())?;
    endpoints.platform.shared.tags.remove(&name.arn());
    Ok(None)
}
