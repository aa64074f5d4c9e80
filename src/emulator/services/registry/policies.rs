//! The policies of model package groups, which open a group and its versions to other accounts.

use std::sync::Arc;

use serde_json::{Value, json};

use super::group::GroupPolicy;
use super::groups::group_name;
use super::records::Registry;
use crate::caller::Caller;
use crate::iam::{Document, PolicyKind};
use crate::package_names::RegistryName;
use crate::protocol::{Answer, ApiError, text};

/// The policy that decides on a resource: that of the group, for the group and its versions.
pub(super) fn of_resource(registry: &Registry, resource: &str) -> Option<Arc<Document>> {
    let name = RegistryName::governed(resource)?;
    registry.records().groups.get(&name)?.policy.as_ref().map(|policy| Arc::clone(&policy.document))
}

pub(super) fn put(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let sent = text(request, "ResourcePolicy").unwrap_or_default();
    let policy = serde_json::from_str(sent).map_err(|error| error.to_string());
    let document = policy.and_then(|policy: Value| Document::parse(PolicyKind::Resource, &policy));
    let document = document.map_err(|error| ApiError::validation(format!("Invalid resource policy: {error}")))?;
    with_policy(registry, request, caller, |policy| {
        *policy = Some(GroupPolicy { text: sent.to_owned(), document: Arc::new(document) });
        Ok(())
    })?;
    Ok(Some(json!({"ModelPackageGroupArn": group_name(request, caller).group_arn()})))
}

pub(super) fn get(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let found = with_policy(registry, request, caller, |policy| {
        let policy = policy.as_ref().ok_or_else(|| no_policy(request, caller))?;
        Ok(json!({"ResourcePolicy": policy.text}))
    });
    found.map(Some)
}

pub(super) fn delete(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    with_policy(registry, request, caller, |policy| {
        policy.take().map(|_| None).ok_or_else(|| no_policy(request, caller))
    })
}

fn with_policy<T>(
    registry: &Registry,
    request: &Value,
    caller: &Caller,
    act: impl FnOnce(&mut Option<GroupPolicy>) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let name = group_name(request, caller);
    let mut records = registry.records();
    let group = records.group(&name, caller);
    let absent = |_| ApiError::validation(format!("Cannot find Model Package Group: {}", name.group_arn()));
    act(&mut group.map_err(absent)?.policy)
}

fn no_policy(request: &Value, caller: &Caller) -> ApiError {
    let arn = group_name(request, caller).group_arn();
    ApiError::validation(format!("Cannot find resource policy for: {arn}"))
}
