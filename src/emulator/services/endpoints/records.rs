//! All models, endpoint configurations and endpoints, of every account and region.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, OnceCell};

use super::alarms::{AlarmStates, NoAlarms};
use super::fleet::Fleet;
use super::names::ServingName;
use super::rollout::Progress;
use crate::clock;
use crate::host::Isolation;
use crate::protocol::{ApiError, epoch_seconds};
use crate::services::logs::Logs;
use crate::services::registry::Registry;
use crate::shared::Shared;
use crate::store::Store;

/// The service, with its records in memory.
pub(crate) struct Endpoints {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<Store>,
    pub(super) logs: Arc<Logs>,
    pub(super) registry: Arc<Registry>,
    pub(super) alarms: Box<dyn AlarmStates>,
    pub(super) isolation: OnceCell<Isolation>,
    records: Mutex<ServingRecords>,
}

#[derive(Default)]
pub(super) struct ServingRecords {
    /// Models and endpoint configurations.
    pub(super) entries: BTreeMap<ServingName, ServingRecord>,
    pub(super) endpoints: BTreeMap<ServingName, EndpointRecord>,
}

/// A model or an endpoint configuration, which never changes.
#[derive(Debug, Clone)]
pub(super) struct ServingRecord {
    pub(super) created_ms: u64,
    /// Order of creation.
    pub(super) number: u64,
    /// The members of the request that the replies show.
    pub(super) members: Map<String, Value>,
}

/// An endpoint with its instances.
pub(super) struct EndpointRecord {
    pub(super) created_ms: u64,
    pub(super) modified_ms: u64,
    /// Order of creation.
    pub(super) number: u64,
    pub(super) progress: Progress,
    /// The instances in service; none before the creation has ended.
    pub(super) blue: Option<Arc<Fleet>>,
    /// Those of the deployment under way.
    pub(super) green: Option<Arc<Fleet>>,
    /// `LastDeploymentConfig`.
    pub(super) deployment: Option<Value>,
    /// Number of requests that were routed.
    pub(super) routed: u64,
    /// Tells the endpoint's task that something changed.
    pub(super) changed: Arc<Notify>,
}

impl Endpoints {
    pub(crate) fn new(shared: &Arc<Shared>, store: &Arc<Store>, logs: &Arc<Logs>, registry: &Arc<Registry>) -> Self {
        Self {
            shared: Arc::clone(shared),
            store: Arc::clone(store),
            logs: Arc::clone(logs),
            registry: Arc::clone(registry),
            alarms: Box::new(NoAlarms),
            isolation: OnceCell::new(),
            records: Mutex::default(),
        }
    }

    pub(super) fn records(&self) -> MutexGuard<'_, ServingRecords> {
        self.records.lock()
    }

    /// A record as it is made now.
    pub(super) fn new_record(&self, members: Map<String, Value>) -> ServingRecord {
        ServingRecord { created_ms: clock::now_ms(), number: self.shared.next_number(), members }
    }
}

impl ServingRecords {
    pub(super) fn entry(&self, name: &ServingName) -> Result<&ServingRecord, ApiError> {
        self.entries.get(name).ok_or_else(|| name.absent())
    }

    pub(super) fn endpoint(&mut self, name: &ServingName) -> Result<&mut EndpointRecord, ApiError> {
        self.endpoints.get_mut(name).ok_or_else(|| name.absent())
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
