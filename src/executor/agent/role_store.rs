//! The object store as the role of the training job sees it. The role may not list the bucket, so that no job sees another's keys;
//! S3 then answers 403 for an absent object, as for one that the role may not read.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::seal::Seal;
use crate::base::signals::Cancellation;
use crate::cloud::{CloudError, CloudErrorKind, Content, Listed, ObjectStore, Retention, Sha256Hash, StoredHash};
use crate::protocol::keys::{Open, SessionKeys};
use crate::protocol::mailbox;

/// A refusal that lasts this long at the start of a container is permanent.
const REFUSED_FOR_GOOD: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(1);

/// Takes a refused read for an absent object.
pub(super) struct RoleStore(pub(super) Arc<dyn ObjectStore>);

/// The session's keys: reads its `open` object, which the driver has stored before it created the training job. That it can be read
/// shows that the role may read the session's objects. Waits for a store that is out of reach for one lease, as the driver does, or until
/// the container is stopped.
pub(super) async fn open(
    objects: &dyn ObjectStore,
    root: &str,
    key_hash: Option<&str>,
    lease: Duration,
    cancellation: &Cancellation,
) -> anyhow::Result<SessionKeys> {
    let key = SessionKeys::new(root, Seal::Absent).open();
    let started = Instant::now();
    let bytes = loop {
        match objects.get(&key).await {
            Ok(Some(bytes)) => break bytes,
            Ok(None) => {
                return Err(
                    Failure::system(format!("the session is closed: {} does not exist", objects.uri(&key))).into()
                );
            }
            Err(error) if !cancellation.asked() && started.elapsed() < patience(&error, lease) => {
                tracing::warn!(%error, "failed to open the session, trying again");
            }
            Err(error) if error.kind.may_pass() => {
                return Err(Failure::system("the bucket could not be reached from the container")
                    .caused_by(error)
                    .into());
            }
            Err(error) => {
                return Err(Failure::system("failed to open the session with the role of the training job")
                    .hint(
                        "the role's policy must allow `s3:GetObject` on the session's objects; with `aws.creator_role_arn` it names them by \
                         the tags of the role's session, which has them only if the role's trust policy allows `sts:TagSession`",
                    )
                    .caused_by(error)
                    .into());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cancellation.changed() => {}
        }
    };
    // Its content is not repeated: it holds the key.
    let open = serde_json::from_slice::<Open>(&bytes).ok().filter(|open| open.version <= mailbox::VERSION);
    let open = open.with_context(|| format!("{} is not of the expected form", objects.uri(&key)))?;
    // Another writer's key would make its orders ours.
    anyhow::ensure!(
        Some(open.key.commitment().as_str()) == key_hash,
        "{} holds another key than the training job was created with",
        objects.uri(&key)
    );
    Ok(SessionKeys::new(root, Seal::Keyed(open.key)))
}

/// How long a failed first call of its kind is tried again.
pub(super) fn patience(error: &CloudError, lease: Duration) -> Duration {
    if error.kind.may_pass() { lease } else { REFUSED_FOR_GOOD.min(lease) }
}

fn absent_if_denied<T>(answer: Result<Option<T>, CloudError>) -> Result<Option<T>, CloudError> {
    match answer {
        Err(error) if error.kind == CloudErrorKind::Denied => Ok(None),
        answer => answer,
    }
}

#[async_trait]
impl ObjectStore for RoleStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        absent_if_denied(self.0.get(key).await)
    }

    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        absent_if_denied(self.0.get_range(key, start, length).await)
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        absent_if_denied(self.0.size(key).await)
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        self.0.put(key, body).await
    }

    async fn put_with_hash(&self, key: &str, content: Content<'_>, hash: &Sha256Hash) -> Result<(), CloudError> {
        self.0.put_with_hash(key, content, hash).await
    }

    async fn stored_hash(&self, key: &str) -> Result<StoredHash, CloudError> {
        self.0.stored_hash(key).await
    }

    async fn retention(&self) -> Result<Retention, CloudError> {
        self.0.retention().await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        self.0.put_if_absent(key, body).await
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        self.0.inventory(prefix).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        self.0.delete(keys).await
    }

    fn uri(&self, key: &str) -> String {
        self.0.uri(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seal::SealKey;
    use crate::cloud::testing::{Fault, Memory, When};

    const LEASE: Duration = Duration::from_mins(15);

    fn faulty(operation: &'static str, kind: CloudErrorKind) -> RoleStore {
        let memory = Memory::new();
        memory.objects.plan([Fault::new(operation, 1, When::Before, kind).forever()]);
        RoleStore(memory.objects.clone())
    }

    #[tokio::test]
    async fn a_read_that_is_refused_finds_nothing_and_a_lack_of_credentials_is_an_error() {
        assert_eq!(faulty("get", CloudErrorKind::Denied).get("k").await.unwrap(), None);
        assert_eq!(faulty("size", CloudErrorKind::Denied).size("k").await.unwrap(), None);
        assert!(faulty("get", CloudErrorKind::Unauthenticated).get("k").await.is_err());
        assert!(faulty("put", CloudErrorKind::Denied).put("k", Vec::new()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_may_not_open_the_session_is_told_of_its_tags() {
        let store = faulty("get", CloudErrorKind::Denied);
        let started = Instant::now();
        let error = open(&*store.0, "sessions/s/t", None, LEASE, &Cancellation::default()).await.unwrap_err();
        let text = crate::base::failure::render(&error);
        assert!(text.contains("sts:TagSession") && text.contains("planned fault"), "{text}");
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_out_of_reach_is_waited_for_until_the_lease_or_a_stop() {
        let (memory, key, cancellation) = (Memory::new(), SealKey::new([7; 32]), Cancellation::default());
        let body = serde_json::to_vec(&Open {
            version: mailbox::VERSION,
            key: key.clone(),
            lease_seconds: None,
            job_key: None,
        });
        memory.objects.insert("sessions/s/t/open", body.unwrap());
        let (hash, away) = (key.commitment(), Fault::new("get", 1, When::Before, CloudErrorKind::Transient));
        let open = || open(&*memory.objects, "sessions/s/t", Some(&hash), LEASE, &cancellation);
        memory.objects.plan([away.times(600)]);
        assert_eq!(open().await.unwrap().seal(), &Seal::Keyed(key.clone()));
        memory.objects.plan([away.forever()]);
        let error = open().await.unwrap_err();
        assert!(error.to_string().contains("could not be reached from the container"), "{error:#}");
        cancellation.raise();
        let started = Instant::now();
        open().await.unwrap_err();
        assert!(started.elapsed() < PAUSE, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_opened_or_the_agent_says_why_not() {
        let memory = Memory::new();
        let key = SealKey::new([7; 32]);
        let open = |hash: String| {
            let objects = memory.objects.clone();
            async move { open(&*objects, "sessions/s/t", Some(&hash), LEASE, &Cancellation::default()).await }
        };
        let error = open(key.commitment()).await.unwrap_err();
        assert!(error.to_string().contains("the session is closed"), "{error:#}");
        let body =
            |version, key| serde_json::to_vec(&Open { version, key, lease_seconds: None, job_key: None }).unwrap();
        memory.objects.insert("sessions/s/t/open", body(mailbox::VERSION, key.clone()));
        assert_eq!(open(key.commitment()).await.unwrap().seal(), &Seal::Keyed(key.clone()));
        let error = open(SealKey::new([8; 32]).commitment()).await.unwrap_err();
        assert!(error.to_string().contains("holds another key"), "{error:#}");
        memory.objects.insert("sessions/s/t/open", body(mailbox::VERSION + 1, key.clone()));
        let error = open(key.commitment()).await.unwrap_err();
        assert!(
            error.to_string().contains("not of the expected form") && !format!("{error:?}").contains("0707"),
            "{error:?}"
        );
    }
}
