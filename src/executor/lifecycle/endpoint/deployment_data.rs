//! Data that a deployment prints and leaves for later jobs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::deployed_package::DeployedPackage;
use super::plan::DeploymentPlan;
use super::specification::DeploymentSpecification;
use crate::base::arn::Arn;
use crate::base::plain;
use crate::lifecycle::output::Data;

/// Longest text of AWS, in bytes.
const LONGEST: usize = 2048;

/// A deployment, and how it ended.
#[derive(Debug, Serialize)]
pub(super) struct DeploymentData {
    /// `created`, `updated`, `adjusted` (alarms or scaling alone), `unchanged`, `wrong_answers`, `rolled_back_by_us`, `rolled_back` or
    /// `failed`.
    outcome: &'static str,
    endpoint_name: String,
    /// The configuration in service; empty when there is none.
    endpoint_config_name: String,
    previous_endpoint_config_name: Option<String>,
    model_package_arn: String,
    /// `None` for a version that comes from no package.
    package: Option<DeployedPackage>,
    deployment_number: Option<u64>,
    /// The endpoint in the console.
    endpoint_url: Option<String>,
}

impl DeploymentData {
    pub(super) fn new(
        outcome: &'static str,
        wanted: &DeploymentSpecification,
        number: Option<u64>,
        previous: Option<&str>,
        config: &str,
    ) -> Self {
        Self {
            outcome,
            endpoint_name: wanted.endpoint.clone(),
            endpoint_config_name: plain::line(config, LONGEST),
            previous_endpoint_config_name: previous.map(|previous| plain::line(previous, LONGEST)),
            model_package_arn: plain::line(&wanted.version, LONGEST),
            package: wanted.package.as_ref().map(DeployedPackage::plain),
            deployment_number: number,
            endpoint_url: url(&wanted.version, &wanted.endpoint),
        }
    }
}

/// The endpoint in the console: it is in the region of its version.
fn url(version: &str, endpoint: &str) -> Option<String> {
    let arn = Arn::parse(version)?;
    Some(format!("{}/sagemaker/home?region={}#/endpoints/{endpoint}", arn.console()?, arn.region))
}

fn owned<'a>((name, text): (&'a str, &String)) -> (&'a str, String) {
    (name, text.clone())
}

impl Data for DeploymentData {
    fn text(&self) -> String {
        let number = self.deployment_number.map(|number| number.to_string());
        let rows = [
            ("configuration", Some(self.endpoint_config_name.clone())),
            ("previous", self.previous_endpoint_config_name.clone()),
            ("model package", Some(self.model_package_arn.clone())),
            ("package", self.package.as_ref().map(DeployedPackage::text)),
            ("deployment", number),
            ("console", self.endpoint_url.clone()),
        ];
        let rows = rows
            .into_iter()
            .filter_map(|(name, text)| Some(format!("  {name:<14} {}\n", text.filter(|text| !text.is_empty())?)));
        format!("{}: {}\n{}", self.endpoint_name, self.outcome, rows.collect::<String>())
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let number = self.deployment_number.map(|number| number.to_string());
        let mut variables = BTreeMap::from([
            ("ENDPOINT_NAME", self.endpoint_name.clone()),
            ("ENDPOINT_CONFIG_NAME", self.endpoint_config_name.clone()),
            ("PREVIOUS_ENDPOINT_CONFIG_NAME", self.previous_endpoint_config_name.clone().unwrap_or_default()),
            ("MODEL_PACKAGE_ARN", self.model_package_arn.clone()),
            ("DEPLOYMENT_NUMBER", number.unwrap_or_default()),
            ("ENDPOINT_URL", self.endpoint_url.clone().unwrap_or_default()),
        ]);
        if let Some(DeployedPackage { name, sha256, uri, .. }) = &self.package {
            variables.extend([("PACKAGE_NAME", name), ("PACKAGE_SHA256", sha256), ("PACKAGE_URI", uri)].map(owned));
        }
        variables
    }
}

impl Data for DeploymentPlan {
    fn text(&self) -> String {
        Self::text(self)
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("ENDPOINT_CHANGES", self.changes.to_string())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_of_each_partition_has_its_address() {
        let urls = [
            "aws:sagemaker:eu-west-1",
            "aws-cn:sagemaker:cn-north-1",
            "aws-us-gov:sagemaker:us-gov-west-1",
            "aws-iso:sagemaker:us-iso-east-1",
        ]
        .map(|place| url(&format!("arn:{place}:123456789012:model-package/wine/1"), "wine"));
        let expected = [
            "https://eu-west-1.console.aws.amazon.com/sagemaker/home?region=eu-west-1#/endpoints/wine",
            "https://cn-north-1.console.amazonaws.cn/sagemaker/home?region=cn-north-1#/endpoints/wine",
            "https://us-gov-west-1.console.amazonaws-us-gov.com/sagemaker/home?region=us-gov-west-1#/endpoints/wine",
        ];
        assert_eq!(
            urls.each_ref().map(Option::as_deref),
            [Some(expected[0]), Some(expected[1]), Some(expected[2]), None]
        );
    }
}
