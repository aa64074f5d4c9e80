//! The operations on models.

use std::sync::Arc;

use serde_json::{Value, json};

use super::entries::containers_of;
use super::listing::{self, ServingEntry};
use super::names::{ServingKind, ServingName};
use super::records::Endpoints;
use crate::caller::Caller;
use crate::package_names::PackageName;
use crate::protocol::{Answer, ApiError, text};
use crate::services::registry::kept;
use crate::services::training::{S3Location, role_session};
use crate::tags::{TagMap, check_tags, tag_map};

/// Members of the request that Describe shows.
const STORED: &[&str] = &[
    "PrimaryContainer",
    "Containers",
    "InferenceExecutionConfig",
    "ExecutionRoleArn",
    "VpcConfig",
    "EnableNetworkIsolation",
];
const NAMES: [&str; 2] = ["ModelName", "ModelArn"];

fn name_of(request: &Value, caller: &Caller) -> ServingName {
    ServingName::new(ServingKind::Model, text(request, "ModelName").unwrap_or_default(), caller)
}

pub(super) fn create(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    check_tags(request.get("Tags"))?;
    let name = name_of(request, caller);
    let arn = name.arn();
    let has = |name: &str| request.get(name).is_some_and(|value| !value.is_null());
    if has("PrimaryContainer") == has("Containers") {
        return Err(ApiError::validation("Specify either PrimaryContainer or Containers, and not both."));
    }
    let mut containers = containers_of(request);
    for container in &mut containers {
        check_container(endpoints, container, caller)?;
    }
    let role = text(request, "ExecutionRoleArn")
        .ok_or_else(|| ApiError::validation("ExecutionRoleArn is required for a model with containers."))?;
    role_session(&endpoints.platform.shared.authority, role, caller, TagMap::new(), &arn)?;
    let mut records = endpoints.records();
    if records.entries.0.contains_key(&name) {
        return Err(name.present());
    }
    let mut members = kept(request, STORED);
    members.entry("EnableNetworkIsolation").or_insert(json!(false));
    let record = endpoints.new_record(members);
    records.entries.0.insert(name, record);
    endpoints.platform.shared.tags.create(&arn, tag_map(request.get("Tags")));
    Ok(Some(json!({"ModelArn": arn})))
}

/// A container needs an image, or a model package that is approved.
fn check_container(endpoints: &Endpoints, container: &Value, caller: &Caller) -> Result<(), ApiError> {
    if let Some(url) = text(container, "ModelDataUrl").filter(|url| S3Location::parse(url).is_none()) {
        return Err(ApiError::validation(format!("Invalid ModelDataUrl: {url} is not an S3 address.")));
    }
    match (text(container, "ModelPackageName"), text(container, "Image")) {
        (Some(package), None) => {
            endpoints.platform.registry.deployable(&PackageName::parse(package, caller), caller).map(drop)
        }
        (None, Some(_)) => Ok(()),
        (Some(_), Some(_)) => {
            Err(ApiError::validation("Image and ModelPackageName cannot be specified together for a container."))
        }
        (None, None) => {
            Err(ApiError::validation("Either Image or ModelPackageName must be specified for a container."))
        }
    }
}

pub(super) fn describe(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let name = name_of(request, caller);
    let records = endpoints.records();
    Ok(Some(records.entries.entry(&name)?.description(&name, NAMES)))
}

pub(super) fn list(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let records = endpoints.records();
    listing::page(request, "Models", ServingEntry::of_entries(&records.entries, ServingKind::Model, caller, NAMES))
}

/// Endpoints that use the model keep what they run.
pub(super) fn delete(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let name = name_of(request, caller);
    endpoints.records().entries.0.remove(&name).ok_or_else(|| name.absent())?;
    endpoints.platform.shared.tags.remove(&name.arn());
    Ok(None)
}
