//! The facts of the trusted payload that rules match on.

use serde::Serialize;

use crate::gitlab::JobContext;

/// The variable in which GitLab names the project that a merge request comes from.
const SOURCE_PROJECT: &str = "CI_MERGE_REQUEST_SOURCE_PROJECT_ID";
const MERGE_REQUESTS: &str = "refs/merge-requests/";

/// Project, ref and instance of a job, as GitLab sent them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JobIdentity {
    /// Full path, such as `group/project`.
    pub project: String,
    /// Branch or tag; `refs/merge-requests/<iid>/head` or `/merge` in a merge request's pipeline.
    pub git_ref: String,
    /// `None` from GitLab before 18.3.
    pub protected: Option<bool>,
    /// The pipeline is of a merge request from another project.
    pub fork: bool,
    /// Host and port of the clone URL.
    pub instance: String,
}

impl JobIdentity {
    /// Reads the payload alone, never the environment, which a job can set.
    pub fn of(job: &JobContext) -> Self {
        Self {
            project: job.job_info.project_full_path.clone(),
            git_ref: job.git_info.git_ref.clone(),
            protected: job.git_info.protected,
            fork: is_of_fork(job),
            instance: instance(&job.git_info.repo_url).to_owned(),
        }
    }

    /// A ref of which GitLab does not tell counts as unprotected.
    pub fn is_protected(&self) -> bool {
        self.protected == Some(true)
    }
}

/// `true` for a merge request whose source project is another one, or is not told.
///
/// A job's author can add a variable of any name, but not remove the one that GitLab sets: the payload's list keeps both.
/// So every entry must name the project itself.
fn is_of_fork(job: &JobContext) -> bool {
    if !job.git_info.git_ref.starts_with(MERGE_REQUESTS) {
        return false;
    }
    let own = job.job_info.project_id.to_string();
    let mut sources = job.variables.iter().filter(|variable| variable.key == SOURCE_PROJECT).peekable();
    sources.peek().is_none() || sources.any(|source| source.value != own)
}

/// `gitlab.example.com:8443` of `https://user:token@gitlab.example.com:8443/group/project.git`.
fn instance(url: &str) -> &str {
    let place = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = place.split('/').next().unwrap_or_default();
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(git_info: &serde_json::Value, sources: &[&str]) -> JobIdentity {
        let variables: Vec<_> = sources.iter().map(|value| json!({"key": SOURCE_PROJECT, "value": value})).collect();
        let job = json!({"id": 1, "job_info": {"project_id": 7, "project_full_path": "ml/churn"},
            "git_info": git_info, "variables": variables});
        JobIdentity::of(&serde_json::from_value(job).unwrap())
    }

    #[test]
    fn the_payload_tells_project_ref_and_instance() {
        let job = identity(
            &json!({"repo_url": "https://u:p@git.example.com:8443/ml/churn.git", "ref": "main", "protected": true}),
            &[],
        );
        assert_eq!((job.project.as_str(), job.git_ref.as_str()), ("ml/churn", "main"));
        assert_eq!(job.instance, "git.example.com:8443");
        assert!(job.is_protected() && !job.fork);
        assert!(!identity(&json!({"ref": "main"}), &[]).is_protected());
    }

    #[test]
    fn a_merge_request_is_of_a_fork_unless_every_entry_names_the_project() {
        let merge_request = json!({"ref": "refs/merge-requests/3/head"});
        assert!(!identity(&merge_request, &["7"]).fork);
        for sources in [&[][..], &["8"], &["8", "7"], &["7", "8"], &["7 "]] {
            assert!(identity(&merge_request, sources).fork, "{sources:?}");
        }
        assert!(!identity(&json!({"ref": "main"}), &["8"]).fork);
    }
}
