//! The approvals that a deployment needs. Those of a package never fall below what the endpoint remembers: anybody may pack a manifest.
//!
//! A configuration that needed approvals has the tag `sagemaker-executor:approvals` with their rule, and its model is made from the
//! version itself. A deployment of the project's own manifest says anew what the endpoint remembers.

use super::ownership;
use super::survey::{self, EndpointPorts, EndpointSurvey};
use crate::cloud::ModelSource;
use crate::lifecycle::model::approvals::ApprovalRule;

/// Approvals without which nothing is deployed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NeededApprovals {
    /// Only approved versions go into service.
    pub(super) is_needed: bool,
    pub(super) rule: ApprovalRule,
    /// The manifest alone would need none.
    pub(super) by_endpoint: bool,
}

impl NeededApprovals {
    /// The rule, where one has to hold.
    pub(super) fn needed_rule(self) -> Option<ApprovalRule> {
        self.is_needed.then_some(self.rule)
    }

    /// With what the endpoint remembers.
    pub(super) fn and_remembered(self, remembered: &RememberedApprovals) -> Self {
        match remembered.rule {
            Some(rule) => Self { is_needed: true, rule: self.rule.and(rule), by_endpoint: !self.is_needed },
            None => self,
        }
    }
}

/// The approvals that what is in service needed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RememberedApprovals {
    /// The configuration in service.
    config: Option<String>,
    rule: Option<ApprovalRule>,
}

impl RememberedApprovals {
    /// Reads them; none of an endpoint that is not there.
    pub(super) async fn read(ports: &EndpointPorts, endpoint: &str) -> anyhow::Result<Self> {
        let Some(sight) = ports.endpoints.endpoint(endpoint).await? else { return Ok(Self::default()) };
        let config = ports.endpoints.config(&sight.config).await?;
        let tags = survey::tags(ports, endpoint, &sight.arn, config.as_ref()).await?;
        let by_version = match &config {
            Some(config) if !config.model.is_empty() => {
                let model = ports.endpoints.model(&config.model).await?;
                model.is_some_and(|model| matches!(model.source, ModelSource::Package(_)))
            }
            Some(_) => false,
            // Nobody knows what a configuration that was deleted needed.
            None => true,
        };
        let rule = ownership::approvals(&tags).or_else(|| by_version.then(ApprovalRule::default));
        Ok(Self { config: Some(sight.config), rule })
    }

    /// Whether the configuration is still in service.
    pub(super) fn is_of(&self, survey: &EndpointSurvey) -> bool {
        self.config == survey.endpoint.as_ref().map(|sight| sight.config.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_endpoint_remembers_is_never_loosened() {
        let rule =
            |min, no_self| ApprovalRule::of(&crate::lifecycle::manifest::Approvals { min, no_self }, None, false);
        let remembered = RememberedApprovals { config: None, rule: Some(rule(2, true)) };
        let lax = NeededApprovals::default().and_remembered(&remembered);
        assert_eq!(lax, NeededApprovals { is_needed: true, rule: rule(2, true), by_endpoint: true });
        let strict = NeededApprovals { is_needed: true, rule: rule(3, false), by_endpoint: false };
        assert_eq!(strict.and_remembered(&remembered).needed_rule(), Some(rule(3, true)));
        assert_eq!(strict.and_remembered(&RememberedApprovals::default()), strict);
    }
}
