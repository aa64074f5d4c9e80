//! The operations on model package groups.

use std::sync::Arc;

use serde_json::{Value, json};

use super::group::GroupRecord;
use super::listing::{RegistryEntry, page};
use super::records::{Registry, user_context};
use crate::authorization::NeededAction;
use crate::caller::Caller;
use crate::clock;
use crate::package_names::RegistryName;
use crate::protocol::{Answer, ApiError, text};
use crate::tags::{check_tags, tag_map};

/// The group that a request names.
pub(super) fn group_name(request: &Value, caller: &Caller) -> RegistryName {
    RegistryName::group(text(request, "ModelPackageGroupName").unwrap_or_default(), caller)
}

pub(super) fn create(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    check_tags(request.get("Tags"))?;
    let name = group_name(request, caller);
    let arn = name.group_arn();
    let mut records = registry.records();
    if records.groups.contains_key(&name) {
        return Err(ApiError::validation(format!("Model Package Group already exists: {arn}")));
    }
    let number = registry.shared.next_number();
    let group = GroupRecord::new(name.clone(), request, user_context(caller), clock::now_ms(), number);
    records.groups.insert(name, group);
    registry.shared.tags.create(&arn, tag_map(request.get("Tags")));
    Ok(Some(json!({"ModelPackageGroupArn": arn})))
}

pub(super) fn describe(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let name = group_name(request, caller);
    Ok(Some(registry.records().group(&name, caller)?.description()))
}

/// Lists the groups of the caller's account, or those of other accounts that the caller may describe.
pub(super) fn list(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let others = text(request, "CrossAccountFilterOption") == Some("CrossAccount");
    let is_shared = |group: &GroupRecord| {
        let needed = NeededAction::new("sagemaker:DescribeModelPackageGroup", group.name.group_arn());
        let needed = needed.owned_by(&group.name.account);
        let policy = group.policy.as_ref().map(|policy| &*policy.document);
        registry.shared.authority.decide(caller, &needed, policy).is_ok()
    };
    let records = registry.records();
    let groups = records.groups.values().filter(|group| {
        let is_own = group.name.account == caller.account;
        group.name.region == caller.region && is_own != others && (is_own || is_shared(group))
    });
    let listed = groups.map(|group| RegistryEntry {
        name: &group.name.name,
        created_ms: group.created_ms,
        number: group.number,
        summary: group.summary(),
    });
    page(request, "ModelPackageGroupSummaryList", listed.collect())
}

pub(super) fn delete(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let name = group_name(request, caller);
    let mut records = registry.records();
    if !records.group(&name, caller)?.versions.is_empty() {
        return Err(ApiError::new(
            "ConflictException",
            format!("Model Package Group {} cannot be deleted because it contains Model Packages.", name.group_arn()),
        ));
    }
    records.groups.remove(&name);
    registry.shared.tags.remove(&name.group_arn());
    Ok(None)
}
