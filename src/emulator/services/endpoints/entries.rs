//! Models and endpoint configurations, of every account and region.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::names::ServingName;
use crate::protocol::{ApiError, epoch_seconds};

#[derive(Debug, Default)]
pub(super) struct ServingEntries(pub(super) BTreeMap<ServingName, ServingRecord>);

/// A model or an endpoint configuration, which never changes.
#[derive(Debug, Clone)]
pub(super) struct ServingRecord {
    pub(super) created_ms: u64,
    /// Order of creation.
    pub(super) number: u64,
    /// The members of the request that the replies show.
    pub(super) members: Map<String, Value>,
}

impl ServingEntries {
    pub(super) fn entry(&self, name: &ServingName) -> Result<&ServingRecord, ApiError> {
        self.0.get(name).ok_or_else(|| name.absent())
    }
}

impl ServingRecord {
    /// The reply of Describe, with the names of the record's own members.
    pub(super) fn description(&self, name: &ServingName, [name_of, arn_of]: [&str; 2]) -> Value {
        let mut members = self.members.clone();
        members.insert(name_of.to_owned(), json!(name.name));
        members.insert(arn_of.to_owned(), json!(name.arn()));
        members.insert("CreationTime".to_owned(), epoch_seconds(self.created_ms));
        Value::Object(members)
    }
}

/// The containers of a model.
pub(super) fn containers_of(model: &Value) -> Vec<Value> {
    let primary = model.get("PrimaryContainer").filter(|one| !one.is_null());
    let all = model["Containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    primary.into_iter().chain(all).cloned().collect()
}
