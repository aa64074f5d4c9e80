//! The GitLab port of the executor over HTTP: the only package that names `reqwest`.
//!
//! `connection` sends requests and reads answers, within bounds; `repetition` decides which of them are sent again; `errors`
//! classifies failures; `project` has the calls of the port. Answers are not trusted: their forms are checked, their sizes bounded.

mod answers;
mod connection;
mod errors;
mod paging;
mod project;
mod repetition;
mod server;
#[cfg(test)]
mod tests;
mod trust;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::gitlab::api::{ConnectGitLab, GitLabAccess, GitLabApi, ServerAccess, ServerDocuments};

use connection::{Connection, Proxies};
use project::HttpProject;
use server::HttpServer;

/// Makes clients of GitLab's API.
#[derive(Debug, Default)]
pub struct GitLab {
    has_warned: AtomicBool,
}

impl ConnectGitLab for GitLab {
    fn server(&self, access: &ServerAccess) -> anyhow::Result<Arc<dyn ServerDocuments>> {
        Ok(Arc::new(HttpServer(Connection::to_server(access, Proxies::OfEnvironment)?)))
    }

    fn gitlab(&self, access: &GitLabAccess) -> anyhow::Result<Arc<dyn GitLabApi>> {
        let connection = Connection::new(access, Proxies::OfEnvironment)?;
        if connection.shows_token() && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("`CI_API_V4_URL` begins with `http://`: the network sees the token that is sent to GitLab");
        }
        Ok(Arc::new(HttpProject::new(connection, access)))
    }
}
