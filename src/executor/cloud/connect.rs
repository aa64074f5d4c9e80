//! Trait that creates the ports. The binary passes the AWS adapter, tests pass fakes.

use std::sync::Arc;

use async_trait::async_trait;

use super::access::Access;
use super::alarms::MetricAlarms;
use super::bucket_configuration::BucketConfiguration;
use super::builds::ImageBuilds;
use super::encryption_keys::EncryptionKeys;
use super::ended_jobs::EndedJobs;
use super::endpoint_logs::EndpointLogs;
use super::endpoints::ModelEndpoints;
use super::identity::CallerIdentity;
use super::image_scans::ImageScans;
use super::images::ImageRegistry;
use super::inference::Inference;
use super::input_data::InputData;
use super::jobs::TrainingJobs;
use super::logs::JobLogs;
use super::networks::AccountNetworks;
use super::objects::ObjectStore;
use super::permissions::Permissions;
use super::quotas::AccountQuotas;
use super::registry::ModelRegistry;
use super::repository_images::RepositoryImages;
use super::roles::AccountRoles;
use super::scaling::EndpointScaling;
use super::secrets::SecretStore;
use super::source_objects::SourceObjects;
use super::survey::ObjectSurvey;
use super::tagged_images::TaggedImages;

/// Creates each port when it is needed. Sends no request, except to find the region when none is set, and to exchange
/// [`Access::web_identity`] for credentials.
///
/// Errors are failures with a hint: no region is known, or `ca_bundle` cannot be used; or AWS refuses the token.
#[async_trait]
pub trait Connect: Send + Sync {
    async fn jobs(&self, access: &Access) -> anyhow::Result<Arc<dyn TrainingJobs>>;
    async fn ended_jobs(&self, access: &Access) -> anyhow::Result<Arc<dyn EndedJobs>>;
    async fn objects(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>>;
    /// Like [`Connect::objects`], for a thread with a runtime of its own; see [`Connect::logs`].
    async fn objects_apart(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>>;
    async fn survey(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectSurvey>>;
    async fn input_data(&self, access: &Access) -> anyhow::Result<Arc<dyn InputData>>;
    async fn identity(&self, access: &Access) -> anyhow::Result<Arc<dyn CallerIdentity>>;
    async fn images(&self, access: &Access) -> anyhow::Result<Arc<dyn ImageRegistry>>;
    async fn tagged_images(&self, access: &Access) -> anyhow::Result<Arc<dyn TaggedImages>>;
    async fn image_scans(&self, access: &Access) -> anyhow::Result<Arc<dyn ImageScans>>;
    async fn repository_images(&self, access: &Access) -> anyhow::Result<Arc<dyn RepositoryImages>>;
    async fn roles(&self, access: &Access) -> anyhow::Result<Arc<dyn AccountRoles>>;
    async fn bucket_configuration(&self, access: &Access) -> anyhow::Result<Arc<dyn BucketConfiguration>>;
    async fn networks(&self, access: &Access) -> anyhow::Result<Arc<dyn AccountNetworks>>;
    async fn encryption_keys(&self, access: &Access) -> anyhow::Result<Arc<dyn EncryptionKeys>>;
    async fn permissions(&self, access: &Access) -> anyhow::Result<Arc<dyn Permissions>>;
    async fn secrets(&self, access: &Access) -> anyhow::Result<Arc<dyn SecretStore>>;
    async fn quotas(&self, access: &Access) -> anyhow::Result<Arc<dyn AccountQuotas>>;
    async fn source_objects(&self, access: &Access) -> anyhow::Result<Arc<dyn SourceObjects>>;
    async fn registry(&self, access: &Access) -> anyhow::Result<Arc<dyn ModelRegistry>>;
    async fn endpoints(&self, access: &Access) -> anyhow::Result<Arc<dyn ModelEndpoints>>;
    async fn inference(&self, access: &Access) -> anyhow::Result<Arc<dyn Inference>>;
    async fn scaling(&self, access: &Access) -> anyhow::Result<Arc<dyn EndpointScaling>>;
    async fn alarms(&self, access: &Access) -> anyhow::Result<Arc<dyn MetricAlarms>>;
    async fn builds(&self, access: &Access) -> anyhow::Result<Arc<dyn ImageBuilds>>;
    async fn endpoint_logs(&self, access: &Access) -> anyhow::Result<Arc<dyn EndpointLogs>>;
    /// For a thread with a runtime of its own: shares no connection and no credentials with the other ports, whose
    /// thread may block.
    async fn logs(&self, access: &Access) -> anyhow::Result<Arc<dyn JobLogs>>;
    /// The object store for a container with a foreign image: uses the credentials of the container's role and
    /// `access`, and ignores all AWS, proxy and trust settings in the image's environment and files.
    fn container_objects(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>>;
}
