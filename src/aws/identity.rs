//! The identity behind the credentials, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_credential_types::provider::ProvideCredentials as _;
use executor::cloud::{CallerIdentity, CloudError, CloudErrorKind, CredentialSight};

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

    async fn credentials(&self) -> Result<CredentialSight, CloudError> {
        let call = self.clients.call("read", "the credentials", "sts:GetCallerIdentity");
        let config = self.clients.config();
        let provider = config.credentials_provider().ok_or_else(|| self.clients.no_credentials(&call))?;
        let found = provider.provide_credentials().await.map_err(|_| self.clients.no_credentials(&call))?;
        Ok(CredentialSight {
            expires: found.expiry(),
            is_session: found.session_token().is_some(),
            region: config.region().map(ToString::to_string).unwrap_or_default(),
        })
    }
}
