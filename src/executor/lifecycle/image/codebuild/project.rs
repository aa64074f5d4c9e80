//! The project in CodeBuild that a manifest asks for: its name, its tags, and what differs from one that is there. Pure.

use std::collections::BTreeMap;

use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{BuildNetwork, BuildProject, BuildVariable};
use crate::lifecycle::manifest::CodeBuildEntry;
use crate::lifecycle::target::ProjectTarget;

/// The buildspec for a Dockerfile.
const BUILDSPEC: &str = include_str!("buildspec.yml");
/// Tags that tell whose project it is. They never change, so that a project of another owner is found out.
const OWNER: &str = "sagemaker-executor:project";
const CLIENT: &str = "sagemaker-executor:client";
const PRODUCT: &str = "sagemaker-executor:product";
const VERSION: &str = "sagemaker-executor:version";
const OWNERS: [(&str, &str); 4] =
    [(OWNER, "GitLab project"), (CLIENT, "client"), (PRODUCT, "product"), (VERSION, "version")];
/// The owner outside of GitLab, so that the next command finds its project again.
const NO_PROJECT: &str = "-";
/// Longest name of a project.
const LONGEST_NAME: usize = 150;
/// Longest value of a tag.
const LONGEST_TAG: usize = 256;
/// Key that CodeBuild has for results, unless a project names one.
const OWN_KEY: &str = ":alias/aws/s3";

/// The project for this manifest; `source` is that of the build, as `BUCKET/KEY`.
///
/// # Errors
/// Failures of the user: there is no role, one of another account, or no name.
pub(super) fn wanted(target: &ProjectTarget, entry: &CodeBuildEntry, source: &str) -> Result<BuildProject, Failure> {
    let role = role(target, entry)?;
    let name = name(target, entry)?;
    let environment = &target.manifest.target;
    let network = entry.vpc.as_ref().map(|vpc| BuildNetwork {
        vpc: vpc.clone(),
        subnets: environment.subnets.clone(),
        security_groups: environment.security_groups.clone(),
    });
    if network.as_ref().is_some_and(|network| network.subnets.is_empty() || network.security_groups.is_empty()) {
        return Err(Failure::user("builds in a VPC need subnets and security groups").hint(
            "set `environments.<name>.subnets` and `security_groups` in the manifest, or remove `image.codebuild.vpc`",
        ));
    }
    let is_name = |name: &str| {
        let allowed = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_';
        name.bytes().all(allowed) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
    };
    if let Some(name) = entry.secrets.keys().find(|name| !is_name(name)) {
        let shown = plain::line(name, 100);
        return Err(Failure::user(format!("`{shown}` is no name of a variable, which the build gets its secret in"))
            .hint(
                "change the key in `image.codebuild.secrets`: it has letters, digits and `_`, and begins with no digit",
            ));
    }
    let secrets = entry.secrets.iter();
    let variables = secrets.map(|(name, id)| (name.clone(), BuildVariable::Secret(id.replacen('#', ":", 1))));
    Ok(BuildProject {
        description: format!("Builds images of {}; made by sagemaker-executor", owner(target)),
        name,
        source: source.to_owned(),
        buildspec: entry.buildspec.clone().unwrap_or_else(|| BUILDSPEC.to_owned()),
        image: entry.image.clone(),
        pulls_by_role: !entry.image.starts_with("aws/codebuild/"),
        environment_type: if entry.is_arm() { "ARM_CONTAINER" } else { "LINUX_CONTAINER" }.to_owned(),
        compute_type: entry.compute_type.clone(),
        is_privileged: entry.privileged,
        variables: variables.collect(),
        service_role: role,
        timeout_minutes: entry.timeout_minutes,
        queued_timeout_minutes: entry.queued_timeout_minutes,
        kms_key: environment.key.clone(),
        network,
        log_group: entry.log_group.clone(),
        tags: tags(target, entry),
    })
}

fn role(target: &ProjectTarget, entry: &CodeBuildEntry) -> Result<String, Failure> {
    let role = entry.role.clone().ok_or_else(|| {
        Failure::user("no role is named for the builds in CodeBuild").hint(
            "set `image.codebuild.role` in the manifest to the ARN of a role that `codebuild.amazonaws.com` may assume",
        )
    })?;
    let account = role.split(':').nth(4).unwrap_or_default();
    let expected = target.manifest.target.account.as_deref().unwrap_or(account);
    if account != expected {
        return Err(Failure::user(format!("the role of the builds is of account {account}, not {expected}")).hint(
            "set `image.codebuild.role` to a role of the environment's account: CodeBuild assumes no role of another",
        ));
    }
    Ok(role)
}

fn owner(target: &ProjectTarget) -> String {
    plain::line(target.pipeline.project.as_deref().unwrap_or("a project"), LONGEST_TAG)
}

/// The name in the manifest, or one of client, product and version, or of GitLab's project.
fn name(target: &ProjectTarget, entry: &CodeBuildEntry) -> Result<String, Failure> {
    if let Some(name) = &entry.project {
        return Ok(name.clone());
    }
    let parts: Vec<_> = [&entry.client, &entry.product, &entry.version].into_iter().flatten().cloned().collect();
    let text = if parts.is_empty() { target.pipeline.project.clone().unwrap_or_default() } else { parts.join("-") };
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    let name: String = text.chars().map(|letter| if allowed(letter) { letter } else { '-' }).collect();
    let name: String = name.trim_start_matches(['-', '_']).chars().take(LONGEST_NAME).collect();
    if name.len() < 2 {
        return Err(Failure::user("the project in CodeBuild has no name").hint(
            "set `image.codebuild.project` in the manifest, or `client`, `product` and `version`; in a job of GitLab its project gives the name",
        ));
    }
    Ok(name)
}

fn tags(target: &ProjectTarget, entry: &CodeBuildEntry) -> BTreeMap<String, String> {
    let nobody = NO_PROJECT.to_owned();
    let own = [
        (OWNER, Some(target.pipeline.project.as_ref().unwrap_or(&nobody))),
        (CLIENT, entry.client.as_ref()),
        (PRODUCT, entry.product.as_ref()),
        (VERSION, entry.version.as_ref()),
    ];
    let own = own.into_iter().filter_map(|(key, value)| Some((key.to_owned(), tag_value(value?))));
    let mut tags = target.manifest.tags.0.clone();
    tags.extend(own);
    tags
}

/// A value as tags may have it: CodeBuild takes letters, digits, blanks and `_.:/=+-@`.
fn tag_value(text: &str) -> String {
    let allowed = |letter: char| letter.is_alphanumeric() || " _.:/=+-@".contains(letter);
    text.chars().map(|letter| if allowed(letter) { letter } else { '-' }).take(LONGEST_TAG).collect()
}

/// Refuses a project that another owner made.
///
/// # Errors
/// Failures of the user that name the tag.
pub(super) fn check_owner(found: &BuildProject, wanted: &BuildProject) -> Result<(), Failure> {
    for (tag, word) in OWNERS {
        let (there, ours) = (found.tags.get(tag), wanted.tags.get(tag));
        if there != ours {
            let shown = |value: Option<&String>| value.map_or("none".to_owned(), |value| plain::line(value, 100));
            return Err(Failure::user(format!(
                "the CodeBuild project {} is not of this {word}: its tag `{tag}` is {}, and not {}",
                plain::line(&found.name, 150),
                shown(there),
                shown(ours)
            ))
            .hint("set `image.codebuild.project` in the manifest to another name, or delete the project if nobody needs it"));
        }
    }
    Ok(())
}

/// Tells whether the project must be changed. Its own source does not count: each build brings its own.
pub(super) fn differs(found: &BuildProject, wanted: &BuildProject) -> bool {
    let kms_key = found.kms_key.clone().filter(|key| wanted.kms_key.is_some() || !key.ends_with(OWN_KEY));
    let found = BuildProject { source: wanted.source.clone(), kms_key, ..found.clone() };
    found != *wanted
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::cloud::Access;
    use crate::lifecycle::manifest::Manifest;
    use crate::lifecycle::pipeline::Pipeline;

    const ROLE: &str = "arn:aws:iam::123456789012:role/build";

    fn target(project: &str) -> ProjectTarget {
        let mut manifest = Manifest::default();
        manifest.target.account = Some("123456789012".to_owned());
        ProjectTarget {
            manifest,
            folder: std::path::PathBuf::new(),
            environment: Some("staging".to_owned()),
            pipeline: Pipeline { project: Some(project.to_owned()), ..Pipeline::default() },
            access: Access::default(),
        }
    }

    fn entry() -> CodeBuildEntry {
        CodeBuildEntry { role: Some(ROLE.to_owned()), ..CodeBuildEntry::default() }
    }

    #[test_case("acme", "fraud", "2.1" => "acme-fraud-2-1"; "client product and version")]
    #[test_case("", "", "" => "group-sub-wine-x"; "path of the project")]
    fn a_project_is_named(client: &str, product: &str, version: &str) -> String {
        let part = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let entry = CodeBuildEntry { client: part(client), product: part(product), version: part(version), ..entry() };
        wanted(&target("group/sub/wine.x"), &entry, "b/k").unwrap().name
    }

    #[test]
    fn a_project_of_another_owner_is_refused() {
        let entry = CodeBuildEntry { client: Some("acme".to_owned()), version: Some("2".to_owned()), ..entry() };
        let ours = wanted(&target("group/wine"), &entry, "b/k").unwrap();
        check_owner(&ours, &ours).unwrap();
        for tag in [OWNER, CLIENT, VERSION] {
            for other in [None, Some("other".to_owned())] {
                let mut found = ours.clone();
                found.tags.remove(tag);
                found.tags.extend(other.map(|other| (tag.to_owned(), other)));
                let refused = check_owner(&found, &ours).unwrap_err();
                assert!(refused.message().contains(tag), "{refused}");
            }
        }
    }

    /// A command outside of GitLab finds again the project that it made, and takes none of a GitLab project or of an unknown owner.
    #[test]
    fn a_project_without_a_gitlab_project_is_found_again() {
        let entry = CodeBuildEntry { client: Some("acme".to_owned()), ..entry() };
        let mut outside = target("group/wine");
        outside.pipeline.project = None;
        let ours = wanted(&outside, &entry, "b/k").unwrap();
        check_owner(&ours, &ours).unwrap();
        assert!(!differs(&ours, &ours));
        let of_gitlab = wanted(&target("group/wine"), &entry, "b/k").unwrap();
        check_owner(&of_gitlab, &ours).unwrap_err();
        check_owner(&ours, &of_gitlab).unwrap_err();
        let mut untagged = ours.clone();
        untagged.tags.remove(OWNER);
        check_owner(&untagged, &ours).unwrap_err();
    }

    #[test]
    fn a_project_is_changed_only_when_it_differs() {
        let ours = wanted(&target("group/wine"), &entry(), "b/k").unwrap();
        let as_found = BuildProject {
            source: "b/other".to_owned(),
            kms_key: Some("arn:aws:kms:eu-west-1:123456789012:alias/aws/s3".to_owned()),
            ..ours.clone()
        };
        assert!(!differs(&as_found, &ours));
        let changes: [fn(&mut BuildProject); 5] = [
            |project| project.timeout_minutes += 1,
            |project| project.buildspec.push(' '),
            |project| project.service_role.push('x'),
            |project| project.is_privileged = false,
            |project| drop(project.tags.insert("team".to_owned(), "x".to_owned())),
        ];
        for change in changes {
            let mut found = as_found.clone();
            change(&mut found);
            assert!(differs(&found, &ours));
        }
    }

    #[test]
    fn a_role_is_needed_and_is_of_the_account() {
        let none = CodeBuildEntry::default();
        assert!(wanted(&target("g/p"), &none, "b/k").unwrap_err().message().contains("no role"));
        let other = CodeBuildEntry { role: Some(ROLE.replace("123456789012", "210987654321")), ..entry() };
        assert!(wanted(&target("g/p"), &other, "b/k").unwrap_err().message().contains("account 210987654321"));
    }

    #[test]
    fn a_secret_is_named_and_never_in_clear() {
        let secrets = BTreeMap::from([("TOKEN".to_owned(), "pypi#token".to_owned())]);
        let project = wanted(&target("g/p"), &CodeBuildEntry { secrets, ..entry() }, "b/k").unwrap();
        assert_eq!(project.variables["TOKEN"], BuildVariable::Secret("pypi:token".to_owned()));
        let secrets = BTreeMap::from([("A B".to_owned(), "pypi".to_owned())]);
        let refused = wanted(&target("g/p"), &CodeBuildEntry { secrets, ..entry() }, "b/k").unwrap_err();
        assert!(refused.message().contains("no name of a variable"));
    }
}
