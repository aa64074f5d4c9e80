//! The ports of the executor over the AWS SDK: the only package that names an `aws_*` crate.
//!
//! [`Aws`] loads region and endpoint once; each port, and the service client in it, is made when it is first used, because
//! driver processes are short and most need S3 alone. `errors` classifies errors; callers decide how to react.

mod alarms;
mod bucket_configuration;
mod builds;
mod calls;
mod clients;
mod creator;
mod encryption_keys;
mod endpoint_logs;
mod endpoints;
mod errors;
mod identity;
mod image_scans;
mod images;
mod inference;
mod input_data;
mod jobs;
mod logs;
mod networks;
mod objects;
mod permissions;
mod quotas;
mod registry;
mod renewal;
mod roles;
mod scaling;
mod secrets;
mod settings;
mod signed;
mod source_objects;
#[cfg(test)]
mod stub;
mod survey;
mod tagged_images;
mod tags;
mod token_refusal;
mod trust;
mod web_identity;
mod whole_answers;
mod xml;

use std::sync::Arc;

use async_trait::async_trait;
use executor::cloud::{
    Access, AccountNetworks, AccountQuotas, AccountRoles, BucketConfiguration, CallerIdentity, Connect, EncryptionKeys,
    EndedJobs, EndpointLogs, EndpointScaling, ImageBuilds, ImageRegistry, ImageScans, Inference, InputData, JobLogs,
    MetricAlarms, ModelEndpoints, ModelRegistry, ObjectStore, ObjectSurvey, Permissions, RepositoryImages, SecretStore,
    SourceObjects, TaggedImages, TrainingJobs,
};
use tokio::sync::Mutex;

use clients::Clients;

/// Makes the ports of the executor on AWS.
#[derive(Debug, Default)]
pub struct Aws {
    /// Region, credentials and connections, which the ports of one account share.
    loaded: Mutex<Option<(Access, Arc<Clients>)>>,
}

impl Aws {
    async fn shared(&self, access: &Access) -> anyhow::Result<Arc<Clients>> {
        let mut loaded = self.loaded.lock().await;
        if let Some((known, clients)) = &*loaded
            && known == access
        {
            return Ok(Arc::clone(clients));
        }
        let clients = Clients::load(access).await?;
        *loaded = Some((access.clone(), Arc::clone(&clients)));
        Ok(clients)
    }
}

#[async_trait]
impl Connect for Aws {
    async fn jobs(&self, access: &Access) -> anyhow::Result<Arc<dyn TrainingJobs>> {
        Ok(Arc::new(jobs::AwsJobs::new(self.shared(access).await?)))
    }

    async fn ended_jobs(&self, access: &Access) -> anyhow::Result<Arc<dyn EndedJobs>> {
        Ok(Arc::new(jobs::AwsJobs::new(self.shared(access).await?)))
    }

    async fn objects(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(objects::AwsObjects::new(self.shared(access).await?, access)))
    }

    async fn objects_apart(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(objects::AwsObjects::new(Clients::load(access).await?, access)))
    }

    async fn survey(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectSurvey>> {
        Ok(Arc::new(survey::AwsSurvey::new(self.shared(access).await?, access)))
    }

    async fn input_data(&self, access: &Access) -> anyhow::Result<Arc<dyn InputData>> {
        Ok(Arc::new(input_data::AwsInputData::new(self.shared(access).await?)))
    }

    async fn identity(&self, access: &Access) -> anyhow::Result<Arc<dyn CallerIdentity>> {
        Ok(Arc::new(identity::AwsIdentity::new(self.shared(access).await?)))
    }

    async fn images(&self, access: &Access) -> anyhow::Result<Arc<dyn ImageRegistry>> {
        Ok(Arc::new(images::AwsImages::new(self.shared(access).await?)))
    }

    async fn tagged_images(&self, access: &Access) -> anyhow::Result<Arc<dyn TaggedImages>> {
        Ok(Arc::new(tagged_images::AwsTaggedImages::new(self.shared(access).await?)))
    }

    async fn image_scans(&self, access: &Access) -> anyhow::Result<Arc<dyn ImageScans>> {
        Ok(Arc::new(image_scans::AwsImageScans::new(self.shared(access).await?)))
    }

    async fn repository_images(&self, access: &Access) -> anyhow::Result<Arc<dyn RepositoryImages>> {
        Ok(Arc::new(images::AwsImages::new(self.shared(access).await?)))
    }

    async fn roles(&self, access: &Access) -> anyhow::Result<Arc<dyn AccountRoles>> {
        Ok(Arc::new(roles::AwsRoles::new(self.shared(access).await?)))
    }

    async fn bucket_configuration(&self, access: &Access) -> anyhow::Result<Arc<dyn BucketConfiguration>> {
        Ok(Arc::new(bucket_configuration::AwsBucketConfiguration::new(self.shared(access).await?, access)))
    }

    async fn networks(&self, access: &Access) -> anyhow::Result<Arc<dyn AccountNetworks>> {
        Ok(Arc::new(networks::AwsNetworks::new(self.shared(access).await?)))
    }

    async fn encryption_keys(&self, access: &Access) -> anyhow::Result<Arc<dyn EncryptionKeys>> {
        Ok(Arc::new(encryption_keys::AwsEncryptionKeys::new(self.shared(access).await?)))
    }

    async fn permissions(&self, access: &Access) -> anyhow::Result<Arc<dyn Permissions>> {
        Ok(Arc::new(permissions::AwsPermissions::new(self.shared(access).await?)))
    }

    async fn secrets(&self, access: &Access) -> anyhow::Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(secrets::AwsSecrets::new(self.shared(access).await?)))
    }

    async fn quotas(&self, access: &Access) -> anyhow::Result<Arc<dyn AccountQuotas>> {
        Ok(Arc::new(quotas::AwsQuotas::new(self.shared(access).await?)))
    }

    async fn source_objects(&self, access: &Access) -> anyhow::Result<Arc<dyn SourceObjects>> {
        Ok(Arc::new(source_objects::AwsSourceObjects::new(self.shared(access).await?, access)))
    }

    async fn registry(&self, access: &Access) -> anyhow::Result<Arc<dyn ModelRegistry>> {
        Ok(Arc::new(registry::AwsRegistry::new(self.shared(access).await?)))
    }

    async fn endpoints(&self, access: &Access) -> anyhow::Result<Arc<dyn ModelEndpoints>> {
        Ok(Arc::new(endpoints::AwsEndpoints::new(self.shared(access).await?)))
    }

    async fn inference(&self, access: &Access) -> anyhow::Result<Arc<dyn Inference>> {
        Ok(Arc::new(inference::AwsInference::new(self.shared(access).await?)))
    }

    async fn scaling(&self, access: &Access) -> anyhow::Result<Arc<dyn EndpointScaling>> {
        Ok(Arc::new(scaling::AwsScaling::new(self.shared(access).await?)))
    }

    async fn alarms(&self, access: &Access) -> anyhow::Result<Arc<dyn MetricAlarms>> {
        Ok(Arc::new(alarms::AwsAlarms::new(self.shared(access).await?)))
    }

    async fn builds(&self, access: &Access) -> anyhow::Result<Arc<dyn ImageBuilds>> {
        Ok(Arc::new(builds::AwsBuilds::new(self.shared(access).await?)))
    }

    async fn endpoint_logs(&self, access: &Access) -> anyhow::Result<Arc<dyn EndpointLogs>> {
        Ok(Arc::new(endpoint_logs::AwsEndpointLogs::new(self.shared(access).await?)))
    }

    async fn logs(&self, access: &Access) -> anyhow::Result<Arc<dyn JobLogs>> {
        Ok(Arc::new(logs::AwsLogs::new(Clients::load(access).await?)))
    }

    fn container_objects(&self, access: &Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(objects::AwsObjects::new(Clients::of_container(access)?, access)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log's port has its own clients, because it is used on another thread and runtime.
    #[tokio::test]
    async fn ports_of_one_account_share_credentials_and_connections() {
        let access = |bucket: &str| Access {
            region: Some("eu-west-1".to_owned()),
            endpoint_url: Some("http://127.0.0.1:1".to_owned()),
            bucket: bucket.to_owned(),
            ..Access::default()
        };
        let aws = Aws::default();
        let first = aws.shared(&access("a")).await.unwrap();
        assert!(Arc::ptr_eq(&first, &aws.shared(&access("a")).await.unwrap()));
        assert!(!Arc::ptr_eq(&first, &aws.shared(&access("b")).await.unwrap()));
    }
}
