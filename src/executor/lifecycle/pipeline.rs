//! The GitLab pipeline that runs a command, from the predefined variables of its job.

use crate::config::env::Environment;

/// Predefined variables. A job can set each of them to anything: they are for people, and decide nothing about permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pipeline {
    /// `group/project`.
    pub(crate) project: Option<String>,
    /// 40 hexadecimal digits.
    pub(crate) commit: Option<String>,
    pub(crate) repository: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) job_id: Option<String>,
    /// `GITLAB_USER_LOGIN`.
    pub(crate) user: Option<String>,
    /// `CI_ENVIRONMENT_NAME`: the default of `--environment`.
    pub(crate) environment: Option<String>,
}

impl Pipeline {
    pub(crate) fn of(env: &Environment) -> Self {
        let text = |name: &str| env.get(name).map(str::to_owned);
        Self {
            project: text("CI_PROJECT_PATH"),
            commit: text("CI_COMMIT_SHA"),
            repository: text("CI_PROJECT_URL"),
            id: text("CI_PIPELINE_ID"),
            url: text("CI_PIPELINE_URL"),
            job_id: text("CI_JOB_ID"),
            user: text("GITLAB_USER_LOGIN"),
            environment: text("CI_ENVIRONMENT_NAME"),
        }
    }
}
