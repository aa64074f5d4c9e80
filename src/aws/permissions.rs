//! Simulations of policies, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, EvaluationResult, PolicyEvaluationDecisionType};
use executor::cloud::{CloudError, DenialReason, DeniedAction, PermissionQuestion, Permissions};

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
    async fn denied(&self, principal: &str, question: &PermissionQuestion) -> Result<Vec<DeniedAction>, CloudError> {
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
            let results = page.evaluation_results.unwrap_or_default().into_iter();
            let refused = results.filter(|result| result.eval_decision != PolicyEvaluationDecisionType::Allowed);
            denied.extend(refused.map(|result| DeniedAction {
                why: reason(&result),
                action: result.eval_action_name,
                resource: result.eval_resource_name.unwrap_or_default(),
            }));
        }
        Ok(denied)
    }
}

fn reason(result: &EvaluationResult) -> DenialReason {
    if result.eval_decision == PolicyEvaluationDecisionType::ExplicitDeny {
        let matched = result.matched_statements().iter().filter_map(|one| one.source_policy_id());
        return DenialReason::Statement { policies: matched.map(str::to_owned).collect() };
    }
    if result.organizations_decision_detail().is_some_and(|detail| !detail.allowed_by_organizations) {
        return DenialReason::Organization;
    }
    if result.permissions_boundary_decision_detail().is_some_and(|detail| !detail.allowed_by_permissions_boundary) {
        return DenialReason::Boundary;
    }
    DenialReason::NoStatement
}
