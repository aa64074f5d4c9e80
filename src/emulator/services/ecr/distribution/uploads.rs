//! Uploads of layers and configurations, in one piece or in many.

use std::sync::Arc;

use futures::StreamExt as _;
use hyper::StatusCode;
use s3s::Body;
use s3s::dto::StreamingBlob;
use tokio::io::AsyncWriteExt as _;

use super::{DIGEST, Distribution, Refused, located, set};
use crate::protocol::{ApiError, Reply};
use crate::services::ecr::records::RepositoryKey;
use crate::sigv4::query_pairs;

impl Distribution {
    pub(super) async fn begin(&self, key: &RepositoryKey, query: &str, body: Body) -> Result<Reply, Refused> {
        let id = self.0.shared.next_id();
        drop(self.0.blobs.append(&id).await?);
        // `mount` of another repository's blob is answered by an upload, as the specification allows.
        if digest_in(query).is_some() {
            return self.complete(key, &id, query, body).await;
        }
        Ok(accepted(key, &id, 0))
    }

    pub(super) async fn patch(&self, key: &RepositoryKey, id: &str, body: Body) -> Result<Reply, Refused> {
        let bytes = self.append(id, body).await?;
        Ok(accepted(key, id, bytes))
    }

    /// Ends an upload, whose last piece may come along.
    pub(super) async fn complete(
        &self,
        key: &RepositoryKey,
        id: &str,
        query: &str,
        body: Body,
    ) -> Result<Reply, Refused> {
        let wrong = || ApiError::new("DIGEST_INVALID", "The digest of the upload is not the one that was told");
        let digest = digest_in(query).ok_or_else(wrong)?;
        self.append(id, body).await?;
        let (store, upload, wanted) = (Arc::clone(&self.0), id.to_owned(), digest.clone());
        let finished = tokio::task::spawn_blocking(move || store.blobs.finish(&upload, &wanted));
        if !finished.await.map_err(anyhow::Error::from)?? {
            return Err(wrong().into());
        }
        self.0.with(key, |repository| Ok(repository.blobs.insert(digest.clone())))?;
        let mut created = located(StatusCode::CREATED, &format!("/v2/{}/blobs/{digest}", key.name));
        set(&mut created, DIGEST, &digest);
        Ok(created)
    }

    /// Adds a piece, and gives back the bytes so far.
    async fn append(&self, id: &str, body: Body) -> Result<u64, Refused> {
        let is_id = id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if !is_id || !self.0.blobs.upload(id).exists() {
            return Err(ApiError {
                status: 404,
                ..ApiError::new("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
            }
            .into());
        }
        let mut file = self.0.blobs.append(id).await?;
        let mut body = StreamingBlob::from(body);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| anyhow::anyhow!("the body of an upload ended early: {error}"))?;
            file.write_all(&piece).await.map_err(anyhow::Error::from)?;
        }
        file.flush().await.map_err(anyhow::Error::from)?;
        Ok(file.metadata().await.map_err(anyhow::Error::from)?.len())
    }
}

fn accepted(key: &RepositoryKey, id: &str, bytes: u64) -> Reply {
    let mut accepted = located(StatusCode::ACCEPTED, &format!("/v2/{}/blobs/uploads/{id}", key.name));
    set(&mut accepted, "docker-upload-uuid", id);
    set(&mut accepted, "range", &format!("0-{}", bytes.saturating_sub(1)));
    accepted
}

fn digest_in(query: &str) -> Option<String> {
    query_pairs(query).into_iter().find_map(|(name, value)| (name == "digest").then_some(value))
}
