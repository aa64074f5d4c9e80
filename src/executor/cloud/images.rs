//! Port of the registries of images. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// Images in registries of the region.
#[async_trait]
pub trait ImageRegistry: Send + Sync {
    /// The platforms that the image of this digest has, as `linux/amd64`; `None` when the repository has no such image.
    async fn platforms(&self, account: &str, repository: &str, digest: &str)
    -> Result<Option<Vec<String>>, CloudError>;
}
