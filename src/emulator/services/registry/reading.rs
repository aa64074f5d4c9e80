//! The operations that show model packages.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::groups::group_name;
use super::listing::{RegistryEntry, page};
use super::package::PackageRecord;
use super::records::Registry;
use crate::caller::Caller;
use crate::clock;
use crate::package_names::PackageName;
use crate::protocol::{Answer, ApiError, text};

impl Registry {
    /// The containers of a package from which a model is made; a version must be approved for it.
    pub(crate) fn deployable(&self, name: &PackageName, caller: &Caller) -> Result<Vec<Value>, ApiError> {
        let description = self.records().package(name, caller)?.description(clock::now_ms());
        if name.version.is_some() && description["ModelApprovalStatus"] != "Approved" {
            return Err(ApiError::validation(format!(
                "Model package {} is not approved: ModelApprovalStatus must be Approved to deploy it.",
                name.arn()
            )));
        }
        if description["ModelPackageStatus"] != "Completed" {
            return Err(ApiError::validation(format!("Model package {} is not in the status Completed.", name.arn())));
        }
        let containers = description["InferenceSpecification"]["Containers"].as_array().cloned().unwrap_or_default();
        if containers.is_empty() {
            return Err(ApiError::validation(format!("Model package {} has no InferenceSpecification.", name.arn())));
        }
        Ok(containers)
    }
}

pub(super) fn describe(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let name = PackageName::parse(text(request, "ModelPackageName").unwrap_or_default(), caller);
    let mut description = registry.records().package(&name, caller)?.description(clock::now_ms());
    if text(request, "IncludedData") == Some("MetadataOnly") && description["ModelCard"]["ModelCardContent"].is_string()
    {
        description["ModelCard"]["ModelCardContent"] = json!("{}");
    }
    Ok(Some(description))
}

/// Describes versions; one that cannot be described is an error of its own.
#[expect(clippy::unnecessary_wraps, reason = "the form of every operation")]
pub(super) fn batch_describe(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let mut records = registry.records();
    let (mut found, mut failed) = (Map::new(), Map::new());
    for arn in request["ModelPackageArnList"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        match records.package(&PackageName::parse(arn, caller), caller) {
            Ok(package) => {
                found.insert(arn.to_owned(), package.batch_summary(clock::now_ms()));
            }
            Err(error) => {
                failed.insert(arn.to_owned(), json!({"ErrorCode": error.code, "ErrorResponse": error.message}));
            }
        }
    }
    let mut answer = json!({"ModelPackageSummaries": found});
    if !failed.is_empty() {
        answer["BatchDescribeModelPackageErrorMap"] = Value::Object(failed);
    }
    Ok(Some(answer))
}

/// Lists the versions of a group, or packages of the caller's account: those without a group, unless the request says otherwise.
pub(super) fn list(registry: &Arc<Registry>, request: &Value, caller: &Caller) -> Answer {
    let now_ms = clock::now_ms();
    let mut records = registry.records();
    let packages: Vec<&PackageRecord> = if text(request, "ModelPackageGroupName").is_some() {
        records.group(&group_name(request, caller), caller)?.versions.values().collect()
    } else {
        let kind = text(request, "ModelPackageType").unwrap_or("Unversioned");
        let versions = records.groups.values().flat_map(|group| group.versions.values());
        let all = versions.filter(|_| kind != "Unversioned");
        let all = all.chain(records.unversioned.values().filter(|_| kind != "Versioned"));
        all.filter(|one| one.name.of.account == caller.account && one.name.of.region == caller.region).collect()
    };
    let status = text(request, "ModelApprovalStatus");
    let listed = packages.into_iter().filter_map(|package| {
        let summary = package.summary(now_ms);
        let wanted = status.is_none_or(|status| summary["ModelApprovalStatus"] == status);
        wanted.then(|| RegistryEntry {
            name: &package.name.of.name,
            created_ms: package.created_ms,
            number: package.number,
            summary,
        })
    });
    page(request, "ModelPackageSummaryList", listed.collect())
}
