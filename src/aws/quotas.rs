//! Quotas of SageMaker, over the SDK.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use executor::cloud::{AccountQuotas, CloudError};

use super::clients::Clients;

#[derive(Debug)]
pub(super) struct AwsQuotas {
    clients: Arc<Clients>,
}

impl AwsQuotas {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

#[async_trait]
impl AccountQuotas for AwsQuotas {
    /// Reads the pages up to the quota's name: no request finds a quota by its name.
    async fn endpoint_instances(&self, instance_type: &str) -> Result<Option<f64>, CloudError> {
        let name = format!("{instance_type} for endpoint usage");
        let call = self.clients.call("list", "the quotas of SageMaker", "servicequotas:ListServiceQuotas");
        let request = self.clients.quotas().list_service_quotas().service_code("sagemaker").max_results(100);
        let mut pages = request.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            if let Some(quota) = page.quotas().iter().find(|quota| quota.quota_name() == Some(&name)) {
                return Ok(quota.value);
            }
        }
        Ok(None)
    }

    async fn all(&self) -> Result<BTreeMap<String, f64>, CloudError> {
        let call = self.clients.call("list", "the quotas of SageMaker", "servicequotas:ListServiceQuotas");
        let request = self.clients.quotas().list_service_quotas().service_code("sagemaker").max_results(100);
        let mut pages = request.into_paginator().send();
        let mut all = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            let quotas = page.quotas.unwrap_or_default().into_iter();
            all.extend(quotas.filter_map(|quota| Some((quota.quota_name?, quota.value?))));
        }
        Ok(all)
    }
}
