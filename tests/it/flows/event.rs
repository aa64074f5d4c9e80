//! Events that start a pipeline, and the variables that GitLab sets for them. No I/O.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::support::gitlab_api::{PROJECT, PROJECT_PATH};

/// The address of GitLab in the project's remote, of which components are included.
pub(super) const HOST: &str = "gitlab.example.com";

/// An event that starts a pipeline.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Push {
        branch: &'static str,
    },
    MergeRequest {
        number: u64,
        branch: &'static str,
        title: &'static str,
    },
    /// A merge request whose branch is in a fork. Its pipeline is one of the fork.
    Fork {
        number: u64,
        branch: &'static str,
        title: &'static str,
    },
    Schedule {
        branch: &'static str,
    },
    Tag {
        name: &'static str,
    },
    /// "Run pipeline" with these variables.
    Web {
        branch: &'static str,
        variables: &'static [(&'static str, &'static str)],
    },
}

impl Event {
    /// The branch or tag of the commit.
    pub(super) fn ref_name(&self) -> &'static str {
        match self {
            Self::Push { branch }
            | Self::MergeRequest { branch, .. }
            | Self::Fork { branch, .. }
            | Self::Schedule { branch }
            | Self::Web { branch, .. } => branch,
            Self::Tag { name } => name,
        }
    }

    /// `ref_type` of an id token.
    pub(super) fn ref_type(&self) -> &'static str {
        if matches!(self, Self::Tag { .. }) { "tag" } else { "branch" }
    }

    /// Variables that somebody gave the whole pipeline. They win over those of the project.
    pub(super) fn given(&self) -> Vec<(String, String)> {
        let given = if let Self::Web { variables, .. } = self { *variables } else { &[] };
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// `ref` of the pipeline, as its jobs fetch it.
    pub(super) fn git_ref(&self) -> String {
        match self {
            Self::MergeRequest { number, .. } | Self::Fork { number, .. } => {
                format!("refs/merge-requests/{number}/head")
            }
            _ => self.ref_name().to_owned(),
        }
    }

    fn source(&self) -> &'static str {
        match self {
            Self::Push { .. } | Self::Tag { .. } => "push",
            Self::MergeRequest { .. } | Self::Fork { .. } => "merge_request_event",
            Self::Schedule { .. } => "schedule",
            Self::Web { .. } => "web",
        }
    }

    /// One line for people.
    pub(super) fn told(&self) -> String {
        match self {
            Self::MergeRequest { number, title, .. } => format!("merge request !{number}, {title}"),
            Self::Fork { number, title, .. } => format!("merge request !{number} of a fork, {title}"),
            Self::Push { branch } => format!("push to {branch}"),
            Self::Schedule { branch } => format!("schedule of {branch}"),
            Self::Tag { name } => format!("tag {name}"),
            Self::Web { branch, variables } => {
                let given = variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
                format!("run of {branch} with {}", given.join(" "))
            }
        }
    }
}

/// The number and path of a project.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProjectName {
    pub(super) number: u64,
    pub(super) path: &'static str,
}

/// The project of which GitLab's API has a double.
pub(super) const MAIN_PROJECT: ProjectName = ProjectName { number: PROJECT, path: PROJECT_PATH };

/// The pipeline of an event.
#[derive(Debug, Clone)]
pub(super) struct PipelineFacts {
    pub(super) id: u64,
    pub(super) project: ProjectName,
    pub(super) event: Event,
    pub(super) sha: String,
    /// `2026-11-29T04:52:33Z`.
    pub(super) created_at: String,
    /// The address of GitLab.
    pub(super) server_url: String,
    pub(super) api_url: String,
}

impl PipelineFacts {
    /// Variables of all jobs, before those of the project. An empty value means that the pipeline has no such variable.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let ProjectName { number: project_id, path } = self.project;
        let (namespace, project) = path.rsplit_once('/').expect("a project is in a group");
        let project_url = format!("{}/{path}", self.server_url);
        let request = match &self.event {
            Event::MergeRequest { number, title, .. } => Some((number.to_string(), (*title).to_owned(), self.project)),
            Event::Fork { number, title, .. } => Some((number.to_string(), (*title).to_owned(), MAIN_PROJECT)),
            _ => None,
        };
        let tag = if let Event::Tag { name } = self.event { name } else { "" };
        let branch = self.event.ref_name();
        let is_of_branch = request.is_none() && tag.is_empty();
        let owned = |name: &str, value: String| (name.to_owned(), value);
        let mut all = vec![
            owned("CI_API_V4_URL", self.api_url.clone()),
            owned("CI_COMMIT_BRANCH", if is_of_branch { branch.to_owned() } else { String::new() }),
            owned("CI_COMMIT_REF_NAME", branch.to_owned()),
            owned("CI_COMMIT_REF_PROTECTED", (branch == "main" && request.is_none()).to_string()),
            owned("CI_COMMIT_REF_SLUG", slug(branch, 63)),
            owned("CI_COMMIT_SHA", self.sha.clone()),
            owned("CI_COMMIT_SHORT_SHA", self.sha[..8].to_owned()),
            owned("CI_COMMIT_TAG", tag.to_owned()),
            owned("CI_DEFAULT_BRANCH", "main".to_owned()),
            owned("CI_PIPELINE_CREATED_AT", self.created_at.clone()),
            owned("CI_PIPELINE_ID", self.id.to_string()),
            owned("CI_PIPELINE_IID", (self.id % 100).to_string()),
            owned("CI_PIPELINE_SOURCE", self.event.source().to_owned()),
            owned("CI_PIPELINE_URL", format!("{project_url}/-/pipelines/{}", self.id)),
            owned("CI_PROJECT_ID", project_id.to_string()),
            owned("CI_PROJECT_NAME", project.to_owned()),
            owned("CI_PROJECT_NAMESPACE", namespace.to_owned()),
            owned("CI_PROJECT_PATH", path.to_owned()),
            owned("CI_PROJECT_PATH_SLUG", slug(path, 63)),
            owned("CI_PROJECT_URL", project_url),
        ];
        if let Some((number, title, target)) = request {
            all.extend([
                owned("CI_MERGE_REQUEST_ID", "9000".to_owned()),
                owned("CI_MERGE_REQUEST_IID", number),
                owned("CI_MERGE_REQUEST_EVENT_TYPE", "detached".to_owned()),
                owned("CI_MERGE_REQUEST_PROJECT_ID", target.number.to_string()),
                owned("CI_MERGE_REQUEST_PROJECT_PATH", target.path.to_owned()),
                owned("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", branch.to_owned()),
                owned("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", project_id.to_string()),
                owned("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main".to_owned()),
                owned("CI_MERGE_REQUEST_TITLE", title),
            ]);
        }
        all
    }

    /// What a job fetches: the pipeline's own ref, and with `GIT_DEPTH: "0"` all branches and tags.
    pub(super) fn refspecs(&self, depth: u64) -> Vec<String> {
        let mut refs = vec![format!("+refs/pipelines/{0}:refs/pipelines/{0}", self.id)];
        if depth == 0 {
            refs.extend(["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"].map(str::to_owned));
        } else if let Event::Tag { name } = self.event {
            refs.push(format!("+refs/tags/{name}:refs/tags/{name}"));
        } else if !matches!(self.event, Event::MergeRequest { .. } | Event::Fork { .. }) {
            refs.push(format!("+refs/heads/{0}:refs/remotes/origin/{0}", self.event.ref_name()));
        }
        refs
    }
}

/// Lower case letters, digits and `-`, at most `most` of them.
fn slug(text: &str, most: usize) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().map(letter).take(most).collect();
    text.trim_matches('-').to_owned()
}

/// `CI_ENVIRONMENT_SLUG`: at most 24 characters; of a name that is none itself, with six characters of its hash.
pub(super) fn environment_slug(name: &str) -> String {
    let plain = slug(name, 24);
    if plain == name {
        return plain;
    }
    let hash =
        Sha256::digest(name.as_bytes()).iter().take(3).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("{}-{hash}", slug(&plain, 17))
}

/// The last value of each name, with the names of known variables in it replaced, as GitLab does before it sends a job; others stay.
pub(super) fn expanded_all(variables: &[(String, String)]) -> BTreeMap<String, String> {
    let name = regex::Regex::new(r"\$(?:(\w+)|\{(\w+)\})").unwrap();
    let mut all: BTreeMap<String, String> = variables.iter().cloned().collect();
    // A value may name a variable whose value names another one.
    for _ in 0..3 {
        let known = all.clone();
        for value in all.values_mut() {
            let replaced = |found: &regex::Captures<'_>| {
                let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
                known.get(name).cloned().unwrap_or_else(|| found[0].to_owned())
            };
            *value = name.replace_all(value, replaced).into_owned();
        }
    }
    all
}

/// Replaces `$NAME` and `${NAME}`; an unknown name becomes nothing.
pub(super) fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let name = regex::Regex::new(r"\$(?:(\w+)|\{(\w+)\})").unwrap();
    let value = |found: &regex::Captures<'_>| {
        let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
        variables.get(name).cloned().unwrap_or_default()
    };
    name.replace_all(text, value).into_owned()
}

#[test]
fn slugs_are_those_of_gitlab() {
    assert_eq!(environment_slug("staging"), "staging");
    let review = environment_slug("review/Feature_1-with-a-long-name");
    assert!(review.starts_with("review-feature-1-") && review.len() <= 24, "{review}");
    assert_eq!(slug("Feature/One_", 63), "feature-one");
}

#[test]
fn a_merge_request_has_no_branch() {
    let facts = PipelineFacts {
        id: 7,
        project: MAIN_PROJECT,
        event: Event::MergeRequest { number: 12, branch: "better", title: "Change a number" },
        sha: "0".repeat(40),
        created_at: String::new(),
        server_url: String::new(),
        api_url: String::new(),
    };
    let variables: BTreeMap<_, _> = facts.variables().into_iter().collect();
    assert_eq!((variables["CI_COMMIT_BRANCH"].as_str(), variables["CI_COMMIT_REF_NAME"].as_str()), ("", "better"));
    assert_eq!(facts.refspecs(20), ["+refs/pipelines/7:refs/pipelines/7"]);
    assert_eq!(facts.refspecs(0).len(), 3);
    let nested = [("A", "$B/$CI_PROJECT_DIR"), ("B", "${C}"), ("C", "c")];
    let nested = nested.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(expanded_all(&nested)["A"], "c/$CI_PROJECT_DIR");
    assert_eq!(expanded("review/${CI_COMMIT_REF_NAME}-$MISSING$CI_PIPELINE_ID", &variables), "review/better-7");
}
