//! The GitLab port of the executor over HTTP: the only package that names `reqwest`.

use std::sync::Arc;

use executor::gitlab::api::{ConnectGitLab, GitLabAccess, GitLabApi};

/// Makes clients of GitLab's API.
#[derive(Debug, Default)]
pub struct GitLab;

impl ConnectGitLab for GitLab {
    fn gitlab(&self, _: &GitLabAccess) -> anyhow::Result<Arc<dyn GitLabApi>> {
        anyhow::bail!("not yet")
    }
}
