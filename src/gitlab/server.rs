//! Documents of a GitLab server that need no token.

use async_trait::async_trait;
use executor::gitlab::api::{GitLabError, GitLabErrorKind, ServerDocuments};

use super::connection::Connection;

/// Reads documents of one server.
pub(super) struct HttpServer(pub(super) Connection);

#[async_trait]
impl ServerDocuments for HttpServer {
    async fn document(&self, path: &str, most: usize) -> Result<Vec<u8>, GitLabError> {
        let call = self.0.call(format!("read {path} of GitLab"));
        let segments: Vec<_> = path.split('/').collect();
        let answer = self.0.get(&call, &self.0.url(&segments)).await?;
        if answer.body.len() > most {
            return Err(call.error(GitLabErrorKind::Invalid, &format!("it is larger than {} KiB", most >> 10)));
        }
        Ok(answer.body)
    }
}
