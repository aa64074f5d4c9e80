//! How stages and commands come to their ports. The binary hands in the adapter's way, tests hand in fakes.

use std::sync::Arc;

use async_trait::async_trait;

use super::access::Access;
use super::jobs::TrainingJobs;
use super::logs::JobLogs;
use super::objects::ObjectStore;

/// Makes each port when it is needed. No request is sent here, except for what finds the region when none is set.
///
/// The errors are failures with a hint: no region is known, or `ca_bundle` cannot be used.
#[async_trait]
pub trait Connect: Send + Sync {
    async fn jobs(&self, access: &Access) -> anyhow::Result<Arc<dyn TrainingJobs>>;
    async fn objects(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>>;
    /// As [`Connect::objects`], for a thread with a runtime of its own; see [`Connect::logs`].
    async fn objects_apart(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>>;
    /// For a thread with a runtime of its own: it shares no connection and no credentials with the other ports, whose thread
    /// may stand still.
    async fn logs(&self, access: &Access) -> anyhow::Result<Arc<dyn JobLogs>>;
    /// The object store for a container whose image is somebody else's: with the credentials of the container's role and
    /// `access`, and nothing that the environment or a file of the image says of AWS, of a proxy or of trusted roots.
    fn container_objects(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>>;
}
