//! Data that the commands about a version print and leave.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::plain;
use crate::cloud::ModelVersion;
use crate::lifecycle::output::Data;

/// A version, and what the command did with it.
#[derive(Debug, Serialize)]
pub(super) struct VersionData {
    /// `registered`, `approved`, `rejected`, `recorded`, `unchanged` or `found`.
    pub(super) outcome: &'static str,
    model_package_arn: String,
    model_package_group: String,
    version: u32,
    approval: &'static str,
    model_data_url: String,
    image: String,
}

impl VersionData {
    pub(super) fn new(outcome: &'static str, version: &ModelVersion) -> Self {
        let safe = |text: &str| plain::line(text, 2048);
        Self {
            outcome,
            model_package_arn: safe(&version.arn),
            model_package_group: safe(&version.group),
            version: version.number,
            approval: version.approval.name(),
            model_data_url: safe(&version.model_data_url),
            image: safe(&image(version)),
        }
    }
}

/// The image with its digest: AWS may give the two apart.
pub(crate) fn image(version: &ModelVersion) -> String {
    match &version.image_digest {
        Some(digest) if !version.image.contains('@') => format!("{}@{digest}", version.image),
        _ => version.image.clone(),
    }
}

impl Data for VersionData {
    fn text(&self) -> String {
        let Self { outcome, model_package_arn, model_package_group, version, approval, model_data_url, image } = self;
        format!(
            "{model_package_group} version {version}: {outcome}\n  approval       {approval}\n  model package  {model_package_arn}\n  \
             model          {model_data_url}\n  image          {image}\n"
        )
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("MODEL_PACKAGE_ARN", self.model_package_arn.clone()),
            ("MODEL_PACKAGE_GROUP", self.model_package_group.clone()),
            ("MODEL_PACKAGE_VERSION", self.version.to_string()),
            ("MODEL_DATA_URL", self.model_data_url.clone()),
            ("IMAGE", self.image.clone()),
        ])
    }
}
