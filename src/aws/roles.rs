//! Roles of the account, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::error::ProvideErrorMetadata as _;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};
use executor::cloud::{AccountRole, AccountRoles, CloudError};

use super::clients::Clients;

const SAGEMAKER: &str = "sagemaker.amazonaws.com";

#[derive(Debug)]
pub(super) struct AwsRoles {
    clients: Arc<Clients>,
}

impl AwsRoles {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

#[async_trait]
impl AccountRoles for AwsRoles {
    async fn find(&self, name: &str) -> Result<Option<AccountRole>, CloudError> {
        let call = self.clients.call("get", format!("the role {name}"), "iam:GetRole");
        let reply = match self.clients.iam().get_role().role_name(name).send().await {
            Err(error) if error.code() == Some("NoSuchEntity") => return Ok(None),
            reply => reply.map_err(|error| call.failed(&error))?,
        };
        Ok(reply.role.map(|role| {
            let trust = role.assume_role_policy_document().unwrap_or_default();
            // IAM encodes the document as a part of a URL.
            let trust = urlencoding::decode(trust).unwrap_or_default().into_owned();
            AccountRole { arn: role.arn, trust }
        }))
    }

    async fn may_pass(&self, caller: &str, role: &str) -> Result<bool, CloudError> {
        let call = self.clients.call("simulate", format!("the policies of {caller}"), "iam:SimulatePrincipalPolicy");
        let service = ContextEntry::builder()
            .context_key_name("iam:PassedToService")
            .context_key_type(ContextKeyTypeEnum::String)
            .context_key_values(SAGEMAKER)
            .build();
        let request = self.clients.iam().simulate_principal_policy().policy_source_arn(caller);
        let request = request.action_names("iam:PassRole").resource_arns(role).context_entries(service);
        let reply = request.send().await.map_err(|error| call.failed(&error))?;
        let results = reply.evaluation_results();
        Ok(!results.is_empty()
            && results.iter().all(|result| result.eval_decision == PolicyEvaluationDecisionType::Allowed))
    }
}
