//! Tags of everything that belongs to an endpoint. They say what this program made, and for which endpoint. Pure.

use std::collections::BTreeMap;

use super::deployed_package::DeployedPackage;
use crate::base::plain;
use crate::lifecycle::model::approvals::ApprovalRule;
use crate::lifecycle::target::ProjectTarget;

pub(crate) const ENDPOINT: &str = "sagemaker-executor:endpoint";
pub(crate) const PROJECT: &str = "sagemaker-executor:project";
pub(crate) const ENVIRONMENT: &str = "sagemaker-executor:environment";
/// The environment of GitLab: the endpoint of a merge request may use the same entry of the manifest as that of staging.
const GITLAB_ENVIRONMENT: &str = "sagemaker-executor:gitlab-environment";
/// The folder of the bucket below which deployments are recorded.
pub(crate) const RECORDS: &str = "sagemaker-executor:records";
const COMMIT: &str = "sagemaker-executor:commit";
const PIPELINE: &str = "sagemaker-executor:pipeline";
pub(crate) const VERSION: &str = "sagemaker-executor:version";
pub(super) const SPECIFICATION: &str = "sagemaker-executor:specification";
/// The approvals that a configuration needed.
const APPROVALS: &str = "sagemaker-executor:approvals";
const PACKAGE: &str = "sagemaker-executor:package";
pub(crate) const PACKAGE_SHA256: &str = "sagemaker-executor:package-sha256";
/// Tags that name the owner of an endpoint, each with its word.
const OWNERS: [(&str, &str); 3] =
    [(PROJECT, "project"), (ENVIRONMENT, "environment"), (GITLAB_ENVIRONMENT, "GitLab environment")];
/// Longest value.
const LONGEST: usize = 256;

/// The manifest's tags, and those of this program, for something that this job makes for the endpoint.
pub(super) fn tags(target: &ProjectTarget, endpoint: &str) -> BTreeMap<String, String> {
    let pipeline = &target.pipeline;
    let records = records(target);
    let own = [
        (ENDPOINT, Some(endpoint)),
        (PROJECT, pipeline.project.as_deref()),
        (ENVIRONMENT, target.environment.as_deref()),
        (RECORDS, records.as_deref()),
        // Outside of an environment of GitLab, the entry stands for the one of its name.
        (GITLAB_ENVIRONMENT, pipeline.environment.as_deref().or(target.environment.as_deref())),
        (COMMIT, pipeline.commit.as_deref()),
        (PIPELINE, pipeline.id.as_deref()),
    ];
    let mut tags = target.manifest.tags.0.clone();
    tags.extend(own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), tag_value(value?)))));
    tags
}

/// The bucket and the prefix of this environment, `bucket/prefix`; `None` without a bucket.
pub(crate) fn records(target: &ProjectTarget) -> Option<String> {
    let access = &target.access;
    let place = format!("{}/{}", access.bucket, access.prefix.trim_matches('/'));
    (!access.bucket.is_empty()).then(|| tag_value(place.trim_end_matches('/')))
}

/// Tags of what is made of a package. The commit is the one that is packed, and not that of the job.
pub(super) fn package_tags(package: &DeployedPackage) -> [(String, String); 3] {
    [(PACKAGE, &package.name), (PACKAGE_SHA256, &package.sha256), (COMMIT, &package.commit)]
        .map(|(name, text)| (name.to_owned(), tag_value(text)))
}

/// The tag of what only goes into service with approvals.
pub(super) fn approvals_tag(rule: ApprovalRule) -> (String, String) {
    (APPROVALS.to_owned(), tag_value(&rule.text()))
}

/// The approvals that something with these tags needed.
pub(super) fn approvals(tags: &BTreeMap<String, String>) -> Option<ApprovalRule> {
    tags.get(APPROVALS).map(|text| ApprovalRule::of_text(text))
}

/// The text as a value: other characters than those that every service takes become `_`.
pub(crate) fn tag_value(text: &str) -> String {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || " _.:/=+-@".contains(letter);
    text.chars().take(LONGEST).map(|letter| if is_allowed(letter) { letter } else { '_' }).collect()
}

/// Whether this program made the thing, for the endpoint.
pub(super) fn is_ours(tags: &BTreeMap<String, String>, endpoint: &str) -> bool {
    tags.get(ENDPOINT).is_some_and(|name| name == endpoint)
}

/// Why something is not the command's own to change, as a sentence without its subject; `None` when it is. `own` are the tags that the
/// command gives to what it makes. A tag of the project or an environment that is missing names no other owner.
pub(super) fn owner_trouble(own: &BTreeMap<String, String>, tags: &BTreeMap<String, String>) -> Option<String> {
    let endpoint = own.get(ENDPOINT).map(String::as_str).unwrap_or_default();
    if !is_ours(tags, endpoint) {
        return Some(format!("was not made by this program: no tag `{ENDPOINT}` says `{endpoint}`"));
    }
    OWNERS.into_iter().find_map(|(tag, word)| {
        let (theirs, own) = (tags.get(tag)?, own.get(tag));
        let not = own.map_or_else(|| format!("and the command has no {word}"), |own| format!("not {own}"));
        (own != Some(theirs)).then(|| format!("is of the {word} {}, {not}", plain::line(theirs, LONGEST)))
    })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(&[] => Some("was not made by this program: no tag `sagemaker-executor:endpoint` says `wine`".to_owned()); "no tag")]
    #[test_case(&[(ENDPOINT, "beer"), (PROJECT, "g/p")] => Some("was not made by this program: no tag `sagemaker-executor:endpoint` says `wine`".to_owned()); "another endpoint")]
    #[test_case(&[(ENDPOINT, "wine"), (PROJECT, "g/q"), (ENVIRONMENT, "dev")] => Some("is of the project g/q, not g/p".to_owned()); "another project")]
    #[test_case(&[(ENDPOINT, "wine"), (PROJECT, "g/p"), (ENVIRONMENT, "prod")] => Some("is of the environment prod, not dev".to_owned()); "another environment")]
    #[test_case(&[(ENDPOINT, "wine"), (ENVIRONMENT, "dev"), (GITLAB_ENVIRONMENT, "dev")] => Some("is of the GitLab environment dev, not review/topic".to_owned()); "another environment of GitLab")]
    #[test_case(&[(ENDPOINT, "wine"), (PROJECT, "g/p"), (ENVIRONMENT, "dev"), (GITLAB_ENVIRONMENT, "review/topic")] => None; "own")]
    #[test_case(&[(ENDPOINT, "wine")] => None; "no other owner is named")]
    fn endpoint_project_and_environment_tell_the_owner(tags: &[(&str, &str)]) -> Option<String> {
        let map = |tags: &[(&str, &str)]| tags.iter().map(|(tag, value)| ((*tag).into(), (*value).into())).collect();
        let gitlab = (GITLAB_ENVIRONMENT, "review/topic");
        owner_trouble(&map(&[(ENDPOINT, "wine"), (PROJECT, "g/p"), (ENVIRONMENT, "dev"), gitlab]), &map(tags))
    }

    #[test]
    fn a_command_without_a_project_owns_nothing_of_one() {
        let tags = |project: Option<&str>| {
            let project = project.map(|project| (PROJECT.to_owned(), project.to_owned()));
            project.into_iter().chain([(ENDPOINT.to_owned(), "wine".to_owned())]).collect::<BTreeMap<_, _>>()
        };
        let trouble = owner_trouble(&tags(None), &tags(Some("g/p"))).unwrap();
        assert_eq!(trouble, "is of the project g/p, and the command has no project");
    }

    #[test]
    fn the_tag_of_the_endpoint_says_what_is_ours() {
        let tags = |name: &str| BTreeMap::from([(ENDPOINT.to_owned(), name.to_owned())]);
        assert!(is_ours(&tags("wine"), "wine"));
        assert!(!is_ours(&tags("wine-2"), "wine") && !is_ours(&BTreeMap::new(), "wine"));
        assert_eq!(tag_value("a\n{b}/c"), "a__b_/c");
    }
}
