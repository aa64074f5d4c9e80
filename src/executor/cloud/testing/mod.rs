//! Fakes of the ports, for unit tests of stages, commands and sessions: deterministic, scriptable, recording their
//! calls.
//!
//! They do what the ports promise and no more; tests plan the faults ([`Fault`]). They do not imitate AWS's protocol or
//! quirks; the emulator does.

mod account;
mod account_settings;
mod builds;
mod faults;
mod images;
mod jobs;
mod logs;
mod objects;
mod registry;
mod secrets;
mod serving;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

pub use account::{AccountSettings, MemoryAccount};
pub use builds::{BuildFate, MemoryBuilds};
pub use faults::{Fake, Fault, FaultDecision, PlannedError, Watch, When};
pub use images::MemoryImages;
pub use jobs::{MemoryJobs, example_job, example_spec};
pub use logs::MemoryLogs;
pub use objects::MemoryObjects;
pub use registry::{MemoryRegistry, example_version};
pub use secrets::MemorySecrets;
pub use serving::{EndpointFate, MemoryServing, example_config, example_endpoint, example_model};

use super::{
    Access, AccountNetworks, AccountQuotas, AccountRoles, BucketConfiguration, CallerIdentity, Connect, EncryptionKeys,
    EndedJobs, EndpointLogs, EndpointScaling, ImageBuilds, ImageRegistry, ImageScans, Inference, InputData, JobLogs,
    MetricAlarms, ModelEndpoints, ModelRegistry, ObjectStore, ObjectSurvey, Permissions, RepositoryImages, SecretStore,
    SourceObjects, TaggedImages, TrainingJobs,
};
use crate::base::clock::Clock;

/// One fake of each port. Implements [`Connect`], and records which ports were created.
#[derive(Debug, Clone)]
pub struct Memory {
    made: Arc<Mutex<BTreeSet<&'static str>>>,
    pub jobs: Arc<MemoryJobs>,
    pub objects: Arc<MemoryObjects>,
    pub logs: Arc<MemoryLogs>,
    pub account: Arc<MemoryAccount>,
    /// Repositories of images, and scans of these.
    pub images: Arc<MemoryImages>,
    pub registry: Arc<MemoryRegistry>,
    pub secrets: Arc<MemorySecrets>,
    pub builds: Arc<MemoryBuilds>,
    /// Endpoints, their answers, scaling, alarms and logs.
    pub serving: Arc<MemoryServing>,
}

impl Default for Memory {
    fn default() -> Self {
        let objects = Arc::new(MemoryObjects::default());
        Self {
            made: Arc::default(),
            jobs: Arc::default(),
            logs: Arc::default(),
            account: Arc::default(),
            images: Arc::default(),
            registry: Arc::default(),
            secrets: Arc::default(),
            builds: Arc::default(),
            serving: Arc::new(MemoryServing::with_objects(&objects)),
            objects,
        }
    }
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// Dates the training jobs and objects that are created from now on.
    pub fn set_clock(&self, clock: &Arc<dyn Clock>) {
        self.jobs.set_clock(clock.clone());
        self.objects.set_clock(clock.clone());
    }

    /// The ports created so far, as `jobs`, `objects`, `logs`, `registry`, `endpoints`.
    pub fn made(&self) -> Vec<&'static str> {
        self.made.lock().iter().copied().collect()
    }

    fn make(&self, port: &'static str) {
        self.made.lock().insert(port);
    }
}

#[async_trait]
impl Connect for Memory {
    async fn jobs(&self, _: &Access) -> anyhow::Result<Arc<dyn TrainingJobs>> {
        self.make("jobs");
        Ok(self.jobs.clone())
    }

    async fn ended_jobs(&self, _: &Access) -> anyhow::Result<Arc<dyn EndedJobs>> {
        self.make("ended_jobs");
        Ok(self.jobs.clone())
    }

    async fn objects(&self, _: &Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
        self.make("objects");
        Ok(self.objects.clone())
    }

    async fn objects_apart(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
        self.objects(access).await
    }

    async fn survey(&self, _: &Access) -> anyhow::Result<Arc<dyn ObjectSurvey>> {
        Ok(self.objects.clone())
    }

    async fn input_data(&self, _: &Access) -> anyhow::Result<Arc<dyn InputData>> {
        Ok(self.objects.clone())
    }

    async fn identity(&self, _: &Access) -> anyhow::Result<Arc<dyn CallerIdentity>> {
        Ok(self.account.clone())
    }

    async fn images(&self, _: &Access) -> anyhow::Result<Arc<dyn ImageRegistry>> {
        Ok(self.account.clone())
    }

    async fn tagged_images(&self, _: &Access) -> anyhow::Result<Arc<dyn TaggedImages>> {
        self.make("tagged_images");
        Ok(self.images.clone())
    }

    async fn image_scans(&self, _: &Access) -> anyhow::Result<Arc<dyn ImageScans>> {
        self.make("image_scans");
        Ok(self.images.clone())
    }

    async fn repository_images(&self, _: &Access) -> anyhow::Result<Arc<dyn RepositoryImages>> {
        self.make("repository_images");
        Ok(self.account.clone())
    }

    async fn roles(&self, _: &Access) -> anyhow::Result<Arc<dyn AccountRoles>> {
        Ok(self.account.clone())
    }

    async fn bucket_configuration(&self, _: &Access) -> anyhow::Result<Arc<dyn BucketConfiguration>> {
        Ok(self.account.clone())
    }

    async fn networks(&self, _: &Access) -> anyhow::Result<Arc<dyn AccountNetworks>> {
        Ok(self.account.clone())
    }

    async fn encryption_keys(&self, _: &Access) -> anyhow::Result<Arc<dyn EncryptionKeys>> {
        Ok(self.account.clone())
    }

    async fn permissions(&self, _: &Access) -> anyhow::Result<Arc<dyn Permissions>> {
        Ok(self.account.clone())
    }

    async fn secrets(&self, _: &Access) -> anyhow::Result<Arc<dyn SecretStore>> {
        self.make("secrets");
        Ok(self.secrets.clone())
    }

    async fn quotas(&self, _: &Access) -> anyhow::Result<Arc<dyn AccountQuotas>> {
        Ok(self.account.clone())
    }

    async fn source_objects(&self, _: &Access) -> anyhow::Result<Arc<dyn SourceObjects>> {
        Ok(self.objects.clone())
    }

    async fn registry(&self, _: &Access) -> anyhow::Result<Arc<dyn ModelRegistry>> {
        self.make("registry");
        Ok(self.registry.clone())
    }

    async fn endpoints(&self, _: &Access) -> anyhow::Result<Arc<dyn ModelEndpoints>> {
        self.make("endpoints");
        Ok(self.serving.clone())
    }

    async fn inference(&self, _: &Access) -> anyhow::Result<Arc<dyn Inference>> {
        self.make("inference");
        Ok(self.serving.clone())
    }

    async fn scaling(&self, _: &Access) -> anyhow::Result<Arc<dyn EndpointScaling>> {
        self.make("scaling");
        Ok(self.serving.clone())
    }

    async fn alarms(&self, _: &Access) -> anyhow::Result<Arc<dyn MetricAlarms>> {
        self.make("alarms");
        Ok(self.serving.clone())
    }

    async fn builds(&self, _: &Access) -> anyhow::Result<Arc<dyn ImageBuilds>> {
        self.make("builds");
        Ok(self.builds.clone())
    }

    async fn endpoint_logs(&self, _: &Access) -> anyhow::Result<Arc<dyn EndpointLogs>> {
        self.make("endpoint_logs");
        Ok(self.serving.clone())
    }

    async fn logs(&self, _: &Access) -> anyhow::Result<Arc<dyn JobLogs>> {
        self.make("logs");
        Ok(self.logs.clone())
    }

    fn container_objects(&self, _: &Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
        self.make("objects");
        Ok(self.objects.clone())
    }
}
