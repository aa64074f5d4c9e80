//! `CreateModelPackage`: its rules, copies of another package, and the new record.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::package::{PackageRecord, STORED, kept};
use super::records::{Registry, RegistryRecords, user_context};
use crate::caller::Caller;
use crate::clock;
use crate::package_names::{PackageName, RegistryName};
use crate::protocol::{Answer, ApiError, text};
use crate::tags::{check_tags, tag_map};

const OPERATION: &str = "CreateModelPackage";
/// Members that say something of a package alone, and so are not those of its copy.
const NOT_COPIED: &[&str] = &["SourceUri", "ModelLifeCycle", "ModelApprovalStatus", "ApprovalDescription"];

pub(super) fn create(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    check(request)?;
    let answer = |arn: &str| Ok(Some(json!({"ModelPackageArn": arn})));
    let mut records = registry.records();
    if let Some(arn) = records.repeated(OPERATION, request, caller)? {
        return answer(&arn);
    }
    let mut members = source(&mut records, request, caller)?;
    members.extend(kept(request, STORED));
    members.entry("CertifyForMarketplace").or_insert(json!(false));
    let name = if let Some(group) = text(request, "ModelPackageGroupName") {
        let approval = text(request, "ModelApprovalStatus").unwrap_or("PendingManualApproval");
        members.insert("ModelApprovalStatus".to_owned(), json!(approval));
        members.insert("CertifyForMarketplace".to_owned(), json!(false));
        let of = RegistryName::group(group, caller);
        let group = records.group(&of, caller);
        let group = group.map_err(|_| ApiError::validation("Model Package Group does not exist."))?;
        PackageName { version: Some(group.next_version()), of }
    } else {
        let name = PackageName::parse(text(request, "ModelPackageName").unwrap_or_default(), caller);
        if records.unversioned.contains_key(&name.of) {
            return Err(ApiError::validation(format!("Model Package already exists: {}", name.arn())));
        }
        registry.shared.tags.create(&name.arn(), tag_map(request.get("Tags")));
        name
    };
    let arn = name.arn();
    let package = PackageRecord {
        created_ms: clock::now_ms(),
        number: registry.shared.next_number(),
        created_by: user_context(caller),
        modified: None,
        members,
        fault: registry.shared.faults.package(&name.of.name),
        name,
    };
    records.insert(package);
    records.remember(OPERATION, request, caller, &arn);
    answer(&arn)
}

/// Checks what the model does not tell: relations of two members.
fn check(request: &Value) -> Result<(), ApiError> {
    let has = |name: &str| request.get(name).is_some_and(|value| !value.is_null());
    let refuse = |message: &str| Err(ApiError::validation(message));
    match (has("ModelPackageName"), has("ModelPackageGroupName")) {
        (true, true) => {
            return refuse(
                "Both ModelPackageName and ModelPackageGroupName are provided in the input. Cannot determine which one to \
                 use.",
            );
        }
        (false, false) => return refuse("Missing ARN."),
        (false, true) if has("Tags") => {
            return refuse("1 validation errors detected:Tags cannot be specified when using versioned ModelPackages");
        }
        (true, false) if has_environment(request) => {
            return refuse(
                "1 validation errors detected:Environment variable map cannot be specified when using non-versioned \
                 ModelPackages",
            );
        }
        _ => {}
    }
    check_source(request)?;
    check_specifications(request["AdditionalInferenceSpecifications"].as_array().map_or(&[], Vec::as_slice))?;
    check_tags(request.get("Tags"))
}

/// A source brings its own specification; AWS's SDK for Python removes or sends separately what would be refused.
pub(super) fn check_source(request: &Value) -> Result<(), ApiError> {
    let has = |name: &str| request.get(name).is_some_and(|value| !value.is_null());
    if has("SourceUri") && has("InferenceSpecification") {
        return Err(ApiError::validation("InferenceSpecification and SourceUri cannot be specified together."));
    }
    Ok(())
}

/// Names of additional inference specifications must differ.
pub(super) fn check_specifications(specifications: &[Value]) -> Result<(), ApiError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut names = specifications.iter().filter_map(|one| text(one, "Name"));
    match names.find(|name| !seen.insert(*name)) {
        Some(name) => Err(ApiError::validation(format!(
            "Names of additional inference specifications must be unique. Duplicate name: {name}"
        ))),
        None => Ok(()),
    }
}

fn has_environment(request: &Value) -> bool {
    let containers = request["InferenceSpecification"]["Containers"].as_array().into_iter().flatten();
    containers.into_iter().any(|one| one["Environment"].as_object().is_some_and(|variables| !variables.is_empty()))
}

/// The members of the package that the request copies; none when `SourceUri` is the ARN of no package.
fn source(records: &mut RegistryRecords, request: &Value, caller: &Caller) -> Result<Map<String, Value>, ApiError> {
    let Some(source) = text(request, "SourceUri").and_then(PackageName::of_arn) else { return Ok(Map::new()) };
    let mut members = records.package(&source, caller)?.members.clone();
    members.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
    Ok(members)
}
