//! Upload of a file: streamed from the disk, with its length, once unless GitLab certainly took nothing.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use executor::gitlab::api::{GitLabError, GitLabErrorKind, Upload};
use futures::TryStreamExt as _;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, Url};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::answers::PackageFileAnswer;
use super::connection::{Connection, GitLabAnswer};
use super::errors::GitLabCall;
use super::repetition::{Failed, Fate, Repeatable};

/// Bytes that are read at once.
const PART: usize = 256 << 10;
/// Longest time in which no byte leaves. It also bounds the answer, before which GitLab may copy the file to its storage.
const STALLED: Duration = Duration::from_mins(5);
/// Time between two looks at the bytes.
const LOOK: Duration = Duration::from_secs(5);

impl Connection {
    /// # Errors
    /// Those of the call; the file is not as `file` says; GitLab stored other bytes.
    pub(super) async fn upload(&self, call: &GitLabCall, url: &Url, file: Upload<'_>) -> Result<(), GitLabError> {
        let mut pauses = self.pauses(Repeatable::UnlessSent);
        let answer = loop {
            match self.upload_once(call, url, file).await {
                Ok(answer) => break answer,
                Err(failed) => pauses.wait(failed).await?,
            }
        };
        // GitLab before 17 answers with a message alone.
        let Ok(stored) = answer.read::<PackageFileAnswer>(call) else { return Ok(()) };
        let is_other = stored.size != file.bytes || stored.sha256().is_some_and(|hash| hash != file.sha256);
        if is_other {
            let text = format!("GitLab stored other bytes than those of {}", file.path.display());
            return Err(call.error(GitLabErrorKind::Invalid, &text));
        }
        Ok(())
    }

    async fn upload_once(&self, call: &GitLabCall, url: &Url, file: Upload<'_>) -> Result<GitLabAnswer, Failed> {
        let unusable = |what: &str| {
            let text = format!("{}: {what}", file.path.display());
            call.final_failure(GitLabErrorKind::Invalid, &text)
        };
        let opened = File::open(file.path).await.map_err(|error| unusable(&error.to_string()))?;
        let length = opened.metadata().await.map_err(|error| unusable(&error.to_string()))?.len();
        if length != file.bytes {
            return Err(unusable("its size changed"));
        }
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        let parts = ReaderStream::with_capacity(opened.take(length), PART).inspect_ok(move |part| {
            counter.fetch_add(part.len() as u64, Ordering::Relaxed);
        });
        let request = self.request(Method::PUT, url);
        let request = request.header(CONTENT_LENGTH, length).header(CONTENT_TYPE, "application/octet-stream");
        let sending = self.attempt(call, url, request.body(Body::wrap_stream(parts)));
        let Some(sent) = while_moving(sending, &taken).await else {
            let text = format!("no byte was sent and none received for {} s", STALLED.as_secs());
            let error = call.error(GitLabErrorKind::Transient, &text);
            return Err(Failed { error, fate: Fate::Lost(None) });
        };
        sent.map_err(|failed| match failed.fate {
            Fate::Lost(None) if taken.load(Ordering::Relaxed) < length => broken_off(call, &failed),
            _ => failed,
        })
    }
}

/// The error of a connection that ended before the whole file was sent.
fn broken_off(call: &GitLabCall, failed: &Failed) -> Failed {
    let text = format!(
        "{}; the server ended the upload: it may refuse files of this size (`client_max_body_size` of nginx)",
        failed.error.message
    );
    Failed { error: call.error(failed.error.kind, &text), fate: failed.fate }
}

/// The result of `work`; `None` when the counter stands still for the limit. It is noticed two looks later at most.
async fn while_moving<T>(work: impl Future<Output = T>, counter: &AtomicU64) -> Option<T> {
    tokio::pin!(work);
    let (mut before, mut moved) = (counter.load(Ordering::Relaxed), Instant::now());
    loop {
        if let Ok(done) = tokio::time::timeout(LOOK, &mut work).await {
            return Some(done);
        }
        let now = counter.load(Ordering::Relaxed);
        if now != before {
            (before, moved) = (now, Instant::now());
        } else if moved.elapsed() >= STALLED {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upload_ends_when_it_stands_still_not_when_it_is_slow() {
        let counter = AtomicU64::new(0);
        let slow = async {
            for _ in 0..100 {
                tokio::time::sleep(STALLED / 2).await;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        assert_eq!(while_moving(slow, &counter).await, Some(()));
        let begun = tokio::time::Instant::now();
        let stalls = async {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        assert_eq!(while_moving(stalls, &counter).await, None);
        assert!(begun.elapsed() <= STALLED + LOOK * 2, "{:?}", begun.elapsed());
    }
}
