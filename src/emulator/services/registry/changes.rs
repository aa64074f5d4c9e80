//! `UpdateModelPackage` and `DeleteModelPackage`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::creation::{check_source, check_specifications};
use super::package::kept;
use super::records::{Registry, user_context};
use crate::caller::Caller;
use crate::clock;
use crate::package_names::PackageName;
use crate::protocol::{Answer, ApiError, text};

const OPERATION: &str = "UpdateModelPackage";
/// Members that an update replaces.
const REPLACED: &[&str] = &[
    "ModelApprovalStatus",
    "ApprovalDescription",
    "ModelPackageRegistrationType",
    "InferenceSpecification",
    "SourceUri",
    "ModelLifeCycle",
];
const PROPERTIES: &str = "CustomerMetadataProperties";
const SPECIFICATIONS: &str = "AdditionalInferenceSpecifications";
const MOST_PROPERTIES: usize = 50;
const MOST_SPECIFICATIONS: usize = 15;

pub(super) fn update(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let name = PackageName::parse(text(request, "ModelPackageArn").unwrap_or_default(), caller);
    let answer = Ok(Some(json!({"ModelPackageArn": name.arn()})));
    check_source(request)?;
    let mut records = registry.records();
    if records.repeated(OPERATION, request, caller)?.is_some() {
        return answer;
    }
    let package = records.package(&name, caller)?;
    if name.version.is_none() {
        return Err(ApiError::validation(format!("Model Package {} is not versioned.", name.arn())));
    }
    package.members = changed(&package.members, request)?;
    package.modified = Some((clock::now_ms(), user_context(caller)));
    records.remember(OPERATION, request, caller, &name.arn());
    answer
}

/// The members of a package after an update.
fn changed(members: &Map<String, Value>, request: &Value) -> Result<Map<String, Value>, ApiError> {
    let mut members = members.clone();
    members.extend(kept(request, REPLACED));
    let mut properties = members.remove(PROPERTIES).and_then(object).unwrap_or_default();
    properties.extend(request[PROPERTIES].as_object().cloned().unwrap_or_default());
    for key in request["CustomerMetadataPropertiesToRemove"].as_array().into_iter().flatten() {
        properties.remove(key.as_str().unwrap_or_default());
    }
    if properties.len() > MOST_PROPERTIES {
        return Err(ApiError::validation("A model package can have at most 50 customer metadata properties."));
    }
    if !properties.is_empty() {
        members.insert(PROPERTIES.to_owned(), Value::Object(properties));
    }
    let mut specifications = members.remove(SPECIFICATIONS).and_then(list).unwrap_or_default();
    specifications.extend(request["AdditionalInferenceSpecificationsToAdd"].as_array().cloned().unwrap_or_default());
    if specifications.len() > MOST_SPECIFICATIONS {
        return Err(ApiError::validation("A model package can have at most 15 additional inference specifications."));
    }
    check_specifications(&specifications)?;
    if !specifications.is_empty() {
        members.insert(SPECIFICATIONS.to_owned(), Value::Array(specifications));
    }
    if let Some(card) = request["ModelCard"].as_object() {
        let mut whole = members.remove("ModelCard").and_then(object).unwrap_or_default();
        if whole.get("ModelCardStatus").is_some_and(|status| status == "Archived") {
            return Err(ApiError::validation("Model Card is in Archived state."));
        }
        whole.extend(card.clone());
        members.insert("ModelCard".to_owned(), Value::Object(whole));
    }
    Ok(members)
}

fn object(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(members) = value { Some(members) } else { None }
}

fn list(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(items) = value { Some(items) } else { None }
}

pub(super) fn delete(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let name = PackageName::parse(text(request, "ModelPackageName").unwrap_or_default(), caller);
    let mut records = registry.records();
    records.package(&name, caller)?;
    records.remove(&name);
    if name.version.is_none() {
        registry.shared.tags.remove(&name.arn());
    }
    Ok(None)
}
