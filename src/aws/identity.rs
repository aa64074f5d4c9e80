//! The identity behind the credentials, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use executor::cloud::{CallerIdentity, CloudError, CloudErrorKind};

use super::clients::Clients;

#[derive(Debug)]
pub(super) struct AwsIdentity {
    clients: Arc<Clients>,
}

impl AwsIdentity {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

#[async_trait]
impl CallerIdentity for AwsIdentity {
    async fn arn(&self) -> Result<String, CloudError> {
        let call = self.clients.call("get", "the identity of the caller", "sts:GetCallerIdentity");
        let reply = self.clients.sts().get_caller_identity().send().await.map_err(|error| call.failed(&error))?;
        reply.arn.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply holds no ARN"))
    }
}
