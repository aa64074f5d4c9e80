//! All models, endpoint configurations and endpoints, of every account and region.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::entries::{ServingEntries, ServingRecord};
use super::fleet::Fleet;
use super::names::{ServingKind, ServingName};
use super::platform::ServingPlatform;
use super::rollout::EndpointProgress;
use crate::caller::Caller;
use crate::clock;
use crate::protocol::ApiError;
use crate::services::cloudwatch::CloudWatch;
use crate::services::ecr::ImageStore;
use crate::services::logs::Logs;
use crate::services::registry::Registry;
use crate::services::scalable_targets::ScalableTargets;
use crate::shared::Shared;
use crate::store::Store;

/// The service, with its records in memory.
pub(crate) struct Endpoints {
    pub(super) platform: Arc<ServingPlatform>,
    records: Mutex<ServingRecords>,
}

#[derive(Default)]
pub(super) struct ServingRecords {
    pub(super) entries: ServingEntries,
    pub(super) endpoints: BTreeMap<ServingName, EndpointRecord>,
}

/// An endpoint with its instances.
pub(super) struct EndpointRecord {
    pub(super) created_ms: u64,
    pub(super) modified_ms: u64,
    /// Order of creation.
    pub(super) number: u64,
    pub(super) progress: EndpointProgress,
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
    pub(crate) fn new(
        shared: &Arc<Shared>,
        store: &Arc<Store>,
        logs: &Arc<Logs>,
        images: &Arc<ImageStore>,
        registry: &Arc<Registry>,
        cloudwatch: &Arc<CloudWatch>,
    ) -> Self {
        let platform = ServingPlatform::new(shared, store, logs, images, registry, cloudwatch);
        Self { platform: Arc::new(platform), records: Mutex::default() }
    }

    /// The variants that are registered with Application Auto Scaling.
    pub(crate) fn scalable_targets(&self) -> &Arc<ScalableTargets> {
        &self.platform.targets
    }

    /// Whether a variant in service is serverless; refuses one that does not exist.
    pub(crate) fn is_serverless(&self, caller: &Caller, endpoint: &str, variant: &str) -> Result<bool, ApiError> {
        let name = ServingName::new(ServingKind::Endpoint, endpoint, caller);
        let mut records = self.records();
        let live = records.endpoint(&name)?.blue.clone();
        let variants = live.as_ref().map(|fleet| fleet.variants());
        let found = variants.as_ref().and_then(|all| all.iter().find(|one| one.name == variant));
        let absent =
            || ApiError::validation(format!("Could not find variant {variant} of endpoint \"{}\".", name.arn()));
        found.map(|one| one.instance_type.is_none()).ok_or_else(absent)
    }

    pub(super) fn records(&self) -> MutexGuard<'_, ServingRecords> {
        self.records.lock()
    }

    /// A record as it is made now.
    pub(super) fn new_record(&self, members: Map<String, Value>) -> ServingRecord {
        ServingRecord { created_ms: clock::now_ms(), number: self.platform.shared.next_number(), members }
    }
}

impl ServingRecords {
    pub(super) fn endpoint(&mut self, name: &ServingName) -> Result<&mut EndpointRecord, ApiError> {
        self.endpoints.get_mut(name).ok_or_else(|| name.absent())
    }
}
