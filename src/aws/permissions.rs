//! Simulations of policies, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};
use executor::cloud::{CloudError, PermissionQuestion, Permissions};

use super::clients::Clients;

#[derive(Debug)]
pub(super) struct AwsPermissions {
    clients: Arc<Clients>,
}

impl AwsPermissions {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

#[async_trait]
impl Permissions for AwsPermissions {
    async fn denied(
        &self,
        principal: &str,
        question: &PermissionQuestion,
    ) -> Result<Vec<(String, String)>, CloudError> {
        let call = self.clients.call("simulate", format!("the policies of {principal}"), "iam:SimulatePrincipalPolicy");
        let context = question.context.iter().map(|(key, (kind, values))| {
            ContextEntry::builder()
                .context_key_name(key)
                .context_key_type(ContextKeyTypeEnum::from(*kind))
                .set_context_key_values(Some(values.clone()))
                .build()
        });
        let mut pages = self
            .clients
            .iam()
            .simulate_principal_policy()
            .policy_source_arn(principal)
            .set_action_names(Some(question.actions.clone()))
            .set_resource_arns(Some(question.resources.clone()))
            .set_context_entries(Some(context.collect()))
            .into_paginator()
            .send();
        let mut denied = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            let refused = page
                .evaluation_results
                .unwrap_or_default()
                .into_iter()
                .filter(|result| result.eval_decision != PolicyEvaluationDecisionType::Allowed);
            denied
                .extend(refused.map(|result| (result.eval_action_name, result.eval_resource_name.unwrap_or_default())));
        }
        Ok(denied)
    }
}
