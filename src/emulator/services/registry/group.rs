//! The record of one model package group, and its form in the replies.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::package::{PackageRecord, kept};
use crate::iam::Document;
use crate::package_names::RegistryName;
use crate::protocol::epoch_seconds;

/// Members of the request that the replies show.
const STORED: &[&str] = &["ModelPackageGroupDescription", "ManagedConfiguration"];

#[derive(Debug)]
pub(super) struct GroupRecord {
    pub(super) name: RegistryName,
    pub(super) created_ms: u64,
    /// Order of creation.
    pub(super) number: u64,
    created_by: Value,
    members: Map<String, Value>,
    pub(super) versions: BTreeMap<u64, PackageRecord>,
    /// Number of the newest version, which may be deleted: numbers are never used again.
    last_version: u64,
    pub(super) policy: Option<GroupPolicy>,
}

/// The policy of a group: as it was sent, and as it is evaluated.
#[derive(Debug)]
pub(super) struct GroupPolicy {
    pub(super) text: String,
    pub(super) document: Arc<Document>,
}

impl GroupRecord {
    pub(super) fn new(name: RegistryName, request: &Value, created_by: Value, created_ms: u64, number: u64) -> Self {
        Self {
            name,
            created_ms,
            number,
            created_by,
            members: kept(request, STORED),
            versions: BTreeMap::new(),
            last_version: 0,
            policy: None,
        }
    }

    /// The number of a new version.
    pub(super) fn next_version(&mut self) -> u64 {
        self.last_version += 1;
        self.last_version
    }

    pub(super) fn summary(&self) -> Value {
        let mut members = self.members.clone();
        members.insert("ModelPackageGroupName".to_owned(), json!(self.name.name));
        members.insert("ModelPackageGroupArn".to_owned(), json!(self.name.group_arn()));
        members.insert("ModelPackageGroupStatus".to_owned(), json!("Completed"));
        members.insert("CreationTime".to_owned(), epoch_seconds(self.created_ms));
        Value::Object(members)
    }

    pub(super) fn description(&self) -> Value {
        let mut description = self.summary();
        description["CreatedBy"] = self.created_by.clone();
        description
    }
}
