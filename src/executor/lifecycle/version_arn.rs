//! ARNs of versions in the model registry. Pure.

use super::region::partition;
use super::target::ProjectTarget;
use crate::base::arn::Arn;

/// Says what is wrong with the ARN of a version: its form, or that it is not of the manifest's group and place.
pub(super) fn check(arn: &str, target: &ProjectTarget) -> Result<(), String> {
    let of_group = |resource: &str| {
        let (group, number) = resource.strip_prefix("model-package/")?.split_once('/')?;
        // As AWS writes it: no sign, no leading zero.
        number.parse::<u32>().is_ok_and(|read| read > 0 && read.to_string() == number).then(|| group.to_owned())
    };
    let parsed = Arn::parse(arn).filter(|parsed| parsed.service == "sagemaker");
    let Some((parsed, group)) = parsed.and_then(|parsed| Some((parsed, of_group(parsed.resource)?))) else {
        return Err(
            "which is no ARN of a version: `arn:aws:sagemaker:REGION:ACCOUNT:model-package/GROUP/NUMBER`".to_owned()
        );
    };
    let entry = &target.manifest.target;
    let expected = |key: &str, expected: Option<&str>, actual: &str| match expected {
        Some(expected) if expected != actual => Err(format!("whose {key} is not that of the manifest, `{expected}`")),
        _ => Ok(()),
    };
    expected("partition", Some(partition(entry.region.as_deref().unwrap_or(parsed.region))), parsed.partition)?;
    expected("region", entry.region.as_deref(), parsed.region)?;
    expected("account", entry.account.as_deref(), parsed.account)?;
    expected("group", target.manifest.model.as_ref().map(|model| model.group.as_str()), &group)
}
