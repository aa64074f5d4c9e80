//! How stages and commands come to their ports. The binary hands in the adapter's way, tests hand in fakes.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Access, Cloud, ObjectStore};

/// Builds ports. No request is sent here, except for what finds the region when none is set.
#[async_trait]
pub trait Connect: Send + Sync {
    /// All ports on one account.
    ///
    /// # Errors
    /// A failure with a hint when no region is known or `ca_bundle` cannot be used.
    async fn connect(&self, access: &Access) -> anyhow::Result<Cloud>;
    /// The object store alone: all that the agent may reach.
    async fn object_store(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>>;
    /// The object store alone, for a container whose image is somebody else's: with the credentials of the container's role
    /// and `access`, and nothing that the environment or a file of the image says of AWS, of a proxy or of trusted roots.
    fn container_store(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>>;
}
