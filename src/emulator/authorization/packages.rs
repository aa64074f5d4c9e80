//! The actions and resources that operations of the model registry need.

use serde_json::Value;

use super::context::NeededAction;
use crate::caller::Caller;
use crate::package_names::{PackageName, RegistryName};
use crate::protocol::text;
use crate::tags::{TagMap, Tags, tag_map};

/// The needed actions; `None` when the operation is not one of the registry.
pub(super) fn package_actions(
    operation: &str,
    request: &Value,
    caller: &Caller,
    tags: &Tags,
) -> Option<Vec<NeededAction>> {
    let needed = |resource: String| NeededAction::new(format!("sagemaker:{operation}"), resource);
    let tags_of = |arn: &str| tags.with(arn, |one| one.tags.clone()).unwrap_or_default();
    let group = text(request, "ModelPackageGroupName").map(|group| RegistryName::group(group, caller));
    let on_group = || {
        let Some(group) = &group else { return needed("*".to_owned()) };
        let arn = group.group_arn();
        needed(arn.clone()).resource_tags("sagemaker", &tags_of(&arn)).owned_by(&group.account)
    };
    let on_versions = |group: &RegistryName| {
        let tags = tags_of(&group.group_arn());
        needed(group.versions_arn()).resource_tags("sagemaker", &tags).owned_by(&group.account)
    };
    let on_package = |text: &str| {
        let name = PackageName::parse(text, caller);
        needed(name.arn()).resource_tags("sagemaker", &tags_of(&name.tagged_arn())).owned_by(&name.of.account)
    };
    let sent = tag_map(request.get("Tags"));
    Some(match operation {
        "CreateModelPackageGroup" => tagging(on_group().request_tags(&sent), operation, &sent),
        "DescribeModelPackageGroup"
        | "DeleteModelPackageGroup"
        | "PutModelPackageGroupPolicy"
        | "GetModelPackageGroupPolicy"
        | "DeleteModelPackageGroupPolicy" => vec![on_group()],
        "ListModelPackageGroups" => vec![needed("*".to_owned())],
        // The resource of this action is optional.
        "ListModelPackages" => vec![group.as_ref().map_or_else(|| needed("*".to_owned()), on_versions)],
        "CreateModelPackage" => {
            let create = match &group {
                // The number of the version is not known before.
                Some(group) => on_versions(group),
                None => on_package(text(request, "ModelPackageName").unwrap_or("*")),
            };
            let mut all = tagging(with_contents(create.request_tags(&sent), request), operation, &sent);
            all.extend(copied(request, caller));
            all
        }
        "UpdateModelPackage" => {
            let update = with_contents(on_package(text(request, "ModelPackageArn").unwrap_or("*")), request);
            let removed = request["CustomerMetadataPropertiesToRemove"].as_array().into_iter().flatten();
            vec![update.key("sagemaker:CustomerMetadataPropertiesToRemove", removed.filter_map(Value::as_str))]
        }
        "DescribeModelPackage" | "DeleteModelPackage" => {
            vec![on_package(text(request, "ModelPackageName").unwrap_or("*"))]
        }
        "BatchDescribeModelPackage" => {
            let arns = request["ModelPackageArnList"].as_array().into_iter().flatten();
            arns.filter_map(Value::as_str).map(on_package).collect()
        }
        _ => return None,
    })
}

/// A creation with tags needs another action.
fn tagging(create: NeededAction, operation: &str, sent: &TagMap) -> Vec<NeededAction> {
    let tagging = NeededAction::new("sagemaker:AddTags", create.resource.clone())
        .request_tags(sent)
        .key("sagemaker:TaggingAction", [operation]);
    std::iter::once(create).chain((!sent.is_empty()).then_some(tagging)).collect()
}

/// A copy of another account's package needs to read it; that of an own one is decided by the creation alone.
fn copied(request: &Value, caller: &Caller) -> Option<NeededAction> {
    let source = text(request, "SourceUri").and_then(PackageName::of_arn);
    let source = source.filter(|source| source.of.account != caller.account)?;
    Some(NeededAction::new("sagemaker:DescribeModelPackage", source.arn()).owned_by(&source.of.account))
}

/// Adds the condition keys of a package's contents.
fn with_contents(mut needed: NeededAction, request: &Value) -> NeededAction {
    let stage = &request["ModelLifeCycle"];
    for (name, value) in [
        ("sagemaker:ModelApprovalStatus", text(request, "ModelApprovalStatus")),
        ("sagemaker:ModelLifeCycle:stage", text(stage, "Stage")),
        ("sagemaker:ModelLifeCycle:stageStatus", text(stage, "StageStatus")),
    ] {
        needed.keys.set(name, value);
    }
    for (key, value) in request["CustomerMetadataProperties"].as_object().into_iter().flatten() {
        needed.keys.set(&format!("sagemaker:CustomerMetadataProperties/{key}"), value.as_str());
    }
    needed
}
