//! Whether a configuration that a record names was made by this program for the endpoint: jobs that may write to the ledger can name any.

use super::ownership::{ENVIRONMENT, is_ours, tag_value};
use super::specification::{DeploymentSpecification, model_of_config};
use super::survey::{EndpointPorts, EndpointSurvey};
use crate::base::plain;
use crate::cloud::EndpointConfiguration;
use crate::lifecycle::target::ProjectTarget;

/// Longest name in a line, in bytes.
const LONGEST: usize = 300;

/// Says what is wrong with the origin of a configuration: its names, its tags, or its environment.
pub(super) async fn foreign(
    ports: &EndpointPorts,
    target: &ProjectTarget,
    endpoint: &str,
    config: &EndpointConfiguration,
) -> anyhow::Result<Option<String>> {
    let name = plain::line(&config.name, LONGEST);
    let tags = ports.endpoints.tags(&config.arn).await?;
    if model_of_config(endpoint, &config.name).as_ref() != Some(&config.model) || !is_ours(&tags, endpoint) {
        let found =
            format!("the endpoint configuration {name} was not made by this program for the endpoint {endpoint}");
        return Ok(Some(found));
    }
    let own = target.environment.as_deref().map(tag_value);
    let other = tags.get(ENVIRONMENT);
    Ok((other != own.as_ref()).then(|| {
        let other = other.map_or_else(|| "no environment".to_owned(), |other| plain::line(other, LONGEST));
        format!("the endpoint configuration {name} was made for {other}, not for {}", own.unwrap_or_default())
    }))
}

/// Whether somebody else made the endpoint, and a deployment took it over.
pub(super) async fn is_taken_over(ports: &EndpointPorts, endpoint: &str, arn: &str) -> anyhow::Result<bool> {
    Ok(!is_ours(&ports.endpoints.tags(arn).await?, endpoint))
}

/// Checks the configuration to which a deployment of an earlier run may go back, by its record.
///
/// # Errors
/// It is none of the endpoint's.
pub(super) async fn check_way_back(
    ports: &EndpointPorts,
    target: &ProjectTarget,
    wanted: &DeploymentSpecification,
    survey: &EndpointSurvey,
) -> anyhow::Result<()> {
    let open = survey.open.as_ref().filter(|_| survey.is_resumed(wanted));
    let (Some(open), Some(sight)) = (open, &survey.endpoint) else { return Ok(()) };
    let Some(from) = open.begin.from_config.as_ref().filter(|from| **from != sight.config) else { return Ok(()) };
    // AWS refuses to go back to what is gone.
    let Some(config) = ports.endpoints.config(from).await? else { return Ok(()) };
    match foreign(ports, target, &wanted.endpoint, &config).await? {
        Some(why) if !is_taken_over(ports, &wanted.endpoint, &sight.arn).await? => {
            Err(ports.ledger.refused_begin(open.number, &why))
        }
        _ => Ok(()),
    }
}
