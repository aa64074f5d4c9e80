//! The record of one model package, and its form in the replies.

use serde_json::{Map, Value, json};

use crate::faults::PackageFault;
use crate::package_names::PackageName;
use crate::protocol::epoch_seconds;

/// Members of the request that Describe shows.
pub(super) const STORED: &[&str] = &[
    "ModelPackageDescription",
    "ModelPackageRegistrationType",
    "InferenceSpecification",
    "ValidationSpecification",
    "SourceAlgorithmSpecification",
    "CertifyForMarketplace",
    "MetadataProperties",
    "ModelMetrics",
    "Domain",
    "Task",
    "SamplePayloadUrl",
    "CustomerMetadataProperties",
    "DriftCheckBaselines",
    "AdditionalInferenceSpecifications",
    "SkipModelValidation",
    "SourceUri",
    "SecurityConfig",
    "ModelCard",
    "ModelLifeCycle",
    "ManagedStorageType",
];
/// Members of Describe that a list shows too.
const SUMMARY: &[&str] = &[
    "ModelPackageName",
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "ModelLifeCycle",
    "ModelPackageRegistrationType",
];
/// Members of Describe that `BatchDescribeModelPackage` shows too.
const BATCH: &[&str] = &[
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "InferenceSpecification",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "ModelPackageRegistrationType",
];

#[derive(Debug)]
pub(super) struct PackageRecord {
    pub(super) name: PackageName,
    pub(super) created_ms: u64,
    /// Order of creation.
    pub(super) number: u64,
    pub(super) created_by: Value,
    /// Time and caller of the last change.
    pub(super) modified: Option<(u64, Value)>,
    /// Everything that requests set.
    pub(super) members: Map<String, Value>,
    /// The fault that decides how the package becomes complete.
    pub(super) fault: Option<PackageFault>,
}

impl PackageRecord {
    /// The status at a time.
    fn status(&self, now_ms: u64) -> &'static str {
        let Some(fault) = &self.fault else { return "Completed" };
        match now_ms.saturating_sub(self.created_ms).checked_sub(fault.pending_ms) {
            None => "Pending",
            Some(age) if age < fault.in_progress_ms => "InProgress",
            Some(_) if fault.reason.is_some() => "Failed",
            Some(_) => "Completed",
        }
    }

    /// The reply of Describe.
    pub(super) fn description(&self, now_ms: u64) -> Value {
        let mut members = self.members.clone();
        let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
        let PackageName { of, version } = &self.name;
        // AWS shows no name of a version, although its model requires one.
        match version {
            Some(version) => {
                set("ModelPackageGroupName", json!(of.name));
                set("ModelPackageVersion", json!(version));
            }
            None => {
                set("ModelPackageName", json!(of.name));
            }
        }
        let status = self.status(now_ms);
        let failed = self.fault.as_ref().and_then(|fault| fault.reason.as_ref()).filter(|_| status == "Failed");
        let checks: Vec<Value> =
            failed.iter().map(|reason| json!({"Name": of.name, "Status": "Failed", "FailureReason": reason})).collect();
        set("ModelPackageArn", json!(self.name.arn()));
        set("CreationTime", epoch_seconds(self.created_ms));
        set("CreatedBy", self.created_by.clone());
        set("ModelPackageStatus", json!(status));
        set("ModelPackageStatusDetails", json!({"ValidationStatuses": checks, "ImageScanStatuses": []}));
        if let Some((time, by)) = &self.modified {
            set("LastModifiedTime", epoch_seconds(*time));
            set("LastModifiedBy", by.clone());
        }
        Value::Object(members)
    }

    /// An entry of a list.
    pub(super) fn summary(&self, now_ms: u64) -> Value {
        Value::Object(kept(&self.description(now_ms), SUMMARY))
    }

    /// An entry of `BatchDescribeModelPackage`.
    pub(super) fn batch_summary(&self, now_ms: u64) -> Value {
        Value::Object(kept(&self.description(now_ms), BATCH))
    }
}

/// The named members of a structure; those that are null count as absent.
pub(crate) fn kept(value: &Value, names: &[&str]) -> Map<String, Value> {
    let found = names.iter().filter_map(|name| Some(((*name).to_owned(), value.get(name)?.clone())));
    found.filter(|(_, value)| !value.is_null()).collect()
}
