//! The parts of the emulator that run an instance of an endpoint.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::host::Isolation;
use crate::services::cloudwatch::CloudWatch;
use crate::services::ecr::ImageStore;
use crate::services::logs::Logs;
use crate::services::registry::Registry;
use crate::services::scalable_targets::ScalableTargets;
use crate::shared::Shared;
use crate::store::Store;

/// State of other services, and what this machine offers for containers.
pub(super) struct ServingPlatform {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<Store>,
    pub(super) logs: Arc<Logs>,
    pub(super) images: Arc<ImageStore>,
    pub(super) registry: Arc<Registry>,
    pub(super) cloudwatch: Arc<CloudWatch>,
    pub(super) targets: Arc<ScalableTargets>,
    isolation: OnceCell<Isolation>,
}

impl ServingPlatform {
    pub(super) fn new(
        shared: &Arc<Shared>,
        store: &Arc<Store>,
        logs: &Arc<Logs>,
        images: &Arc<ImageStore>,
        registry: &Arc<Registry>,
        cloudwatch: &Arc<CloudWatch>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            store: Arc::clone(store),
            logs: Arc::clone(logs),
            images: Arc::clone(images),
            registry: Arc::clone(registry),
            cloudwatch: Arc::clone(cloudwatch),
            targets: Arc::default(),
            isolation: OnceCell::new(),
        }
    }

    /// The machine's isolation, which is detected once.
    pub(super) async fn isolation(&self, scratch: &Path) -> anyhow::Result<Isolation> {
        self.isolation.get_or_try_init(|| Isolation::detect(scratch)).await.copied()
    }
}
