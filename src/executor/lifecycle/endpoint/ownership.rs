//! Tags of everything that belongs to an endpoint. They say what this program made, and for which endpoint. Pure.

use std::collections::BTreeMap;

use crate::lifecycle::target::ProjectTarget;

pub(super) const ENDPOINT: &str = "sagemaker-executor:endpoint";
pub(super) const PROJECT: &str = "sagemaker-executor:project";
pub(super) const ENVIRONMENT: &str = "sagemaker-executor:environment";
const COMMIT: &str = "sagemaker-executor:commit";
const PIPELINE: &str = "sagemaker-executor:pipeline";
pub(super) const VERSION: &str = "sagemaker-executor:version";
pub(super) const SPECIFICATION: &str = "sagemaker-executor:specification";
/// Longest value.
const LONGEST: usize = 256;

/// The manifest's tags, and those of this program, for something that this job makes for the endpoint.
pub(super) fn tags(target: &ProjectTarget, endpoint: &str) -> BTreeMap<String, String> {
    let pipeline = &target.pipeline;
    let own = [
        (ENDPOINT, Some(endpoint)),
        (PROJECT, pipeline.project.as_deref()),
        (ENVIRONMENT, target.environment.as_deref()),
        (COMMIT, pipeline.commit.as_deref()),
        (PIPELINE, pipeline.id.as_deref()),
    ];
    let mut tags = target.manifest.tags.0.clone();
    tags.extend(own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), tag_value(value?)))));
    tags
}

/// The text as a value: other characters than those that every service takes become `_`.
pub(super) fn tag_value(text: &str) -> String {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || " _.:/=+-@".contains(letter);
    text.chars().take(LONGEST).map(|letter| if is_allowed(letter) { letter } else { '_' }).collect()
}

/// Whether this program made the thing, for the endpoint.
pub(super) fn is_ours(tags: &BTreeMap<String, String>, endpoint: &str) -> bool {
    tags.get(ENDPOINT).is_some_and(|name| name == endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_the_endpoint_says_what_is_ours() {
        let tags = |name: &str| BTreeMap::from([(ENDPOINT.to_owned(), name.to_owned())]);
        assert!(is_ours(&tags("wine"), "wine"));
        assert!(!is_ours(&tags("wine-2"), "wine") && !is_ours(&BTreeMap::new(), "wine"));
        assert_eq!(tag_value("a\n{b}/c"), "a__b_/c");
    }
}
