//! The scopes of a project in the bucket, for its packs and for its checkpoints: one for its protected refs, one for the others. Each is
//! derived with a key that only the runner hosts can read, so that no training job can compute another project's.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::base::failure::Failure;
use crate::base::seal::SealKey;
use crate::cloud::ObjectStore;
use crate::config::policy::{DataDecision, JobIdentity};
use crate::gitlab::JobContext;
use crate::protocol::keys;
use crate::session::place::random;

/// Version of the object that holds the key.
const VERSION: u32 = 1;

/// The content of the object [`keys::SCOPE_KEY`].
#[derive(Serialize, Deserialize)]
struct StoredKey {
    version: u32,
    key: SealKey,
}

/// The scope of the job's project and ref. The first host stores the key; all others read it.
pub async fn of_job(objects: &dyn ObjectStore, job: &JobContext) -> anyhow::Result<String> {
    let hasher = key(objects).await?.hasher("sagemaker-executor project scope v2");
    // GitLab before 18.3 does not tell whether the ref is protected.
    let kind = if job.git_info.protected == Some(true) { "protected" } else { "other" };
    Ok(scope(hasher, job, &[kind], 32))
}

/// The scope of the checkpoints that the job may use, whatever ref it names: those of protected refs, of others, or of merge
/// requests from forks. `None` for a job that keeps none.
pub async fn of_checkpoints(
    objects: &dyn ObjectStore,
    job: &JobContext,
    data: &DataDecision,
) -> anyhow::Result<Option<String>> {
    if data.checkpoints_ref.is_none() {
        return Ok(None);
    }
    let hasher = key(objects).await?.hasher("sagemaker-executor checkpoints scope v1");
    let identity = JobIdentity::of(job);
    let kind = match (identity.fork, identity.is_protected()) {
        (true, _) => "fork",
        (false, true) => "protected",
        (false, false) => "other",
    };
    Ok(Some(scope(hasher, job, &[kind], 32)))
}

async fn key(objects: &dyn ObjectStore) -> anyhow::Result<SealKey> {
    match read_key(objects).await? {
        Some(key) => Ok(key),
        None => store_key(objects).await,
    }
}

/// The scope that the job's session has taken; without one, that of a version without the key.
pub fn of_session(taken: Option<&str>, job: &JobContext) -> String {
    taken.map_or_else(|| without_key(job), str::to_owned)
}

fn without_key(job: &JobContext) -> String {
    scope(blake3::Hasher::new_derive_key("sagemaker-executor project scope v1"), job, &[], 16)
}

async fn store_key(objects: &dyn ObjectStore) -> anyhow::Result<SealKey> {
    let stored = StoredKey { version: VERSION, key: SealKey::new(random()?) };
    objects.put_if_absent(keys::SCOPE_KEY, serde_json::to_vec(&stored)?.into()).await?;
    // Another host may have been first.
    read_key(objects).await?.with_context(|| format!("{} vanished", objects.uri(keys::SCOPE_KEY)))
}

async fn read_key(objects: &dyn ObjectStore) -> anyhow::Result<Option<SealKey>> {
    let Some(bytes) = objects.get(keys::SCOPE_KEY).await? else { return Ok(None) };
    // Its content is not repeated: it holds the key.
    let stored = serde_json::from_slice::<StoredKey>(&bytes).ok().filter(|stored| stored.version == VERSION);
    let stored = stored.ok_or_else(|| {
        Failure::system(format!("{} is not of the expected form", objects.uri(keys::SCOPE_KEY))).hint(
            "run the same version of the executor on all hosts of the bucket, or delete this object: a new one is made, and each \
             project is sent once more and the jobs no longer find their checkpoints",
        )
    })?;
    Ok(Some(stored.key))
}

fn scope(mut hasher: blake3::Hasher, job: &JobContext, more: &[&str], digits: usize) -> String {
    let url = &job.git_info.repo_url;
    // The URL's credentials differ from job to job.
    let url = url.rsplit_once('@').map_or(url.as_str(), |(_, place)| place);
    let id = job.job_info.project_id.to_string();
    let own = [job.job_info.instance_uuid.as_str(), job.job_info.instance_id.as_str(), url, &id];
    for part in own.iter().chain(more) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let digest = hasher.finalize().to_hex();
    format!("{id}-{}", digest.get(..digits).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::Memory;

    fn job(id: u64, url: &str, token: &str, protected: Option<bool>) -> JobContext {
        let job = serde_json::json!({
            "id": 1, "token": token, "job_info": {"project_id": id}, "git_info": {"repo_url": url, "protected": protected}
        });
        serde_json::from_value(job).unwrap()
    }

    const URL: &str = "https://gitlab-ci-token:first@gitlab.example.com/ml/churn.git";

    #[test]
    fn a_scope_without_key_is_as_the_version_before_made_it() {
        let own = without_key(&job(7, URL, "a", None));
        assert!(own.starts_with("7-") && own.len() == 18, "{own}");
        let again = "https://gitlab-ci-token:other@gitlab.example.com/ml/churn.git";
        assert_eq!(own, without_key(&job(7, again, "b", Some(true))));
    }

    #[tokio::test]
    async fn a_scope_is_of_one_project_and_of_protected_refs_or_others() {
        let memory = Memory::new();
        let of = async |job| of_job(&*memory.objects, &job).await.unwrap();
        let own = of(job(7, URL, "a", Some(true))).await;
        assert!(own.starts_with("7-") && own.len() == 34, "{own}");
        assert_eq!(own, of(job(7, &URL.replace("first", "other"), "b", Some(true))).await);
        let other = of(job(7, URL, "a", Some(false))).await;
        assert_ne!(own, other);
        assert_eq!(other, of(job(7, URL, "a", None)).await, "a ref that may not be protected is not");
        assert_ne!(own, of(job(8, URL, "a", Some(true))).await);
        assert_ne!(own, of(job(7, &URL.replace(".com", ".org"), "a", Some(true))).await);
    }

    #[tokio::test]
    async fn all_hosts_of_a_bucket_agree_and_no_other_bucket_gives_the_same() {
        let (memory, other) = (Memory::new(), Memory::new());
        let job = job(7, URL, "a", Some(true));
        // Both find no key, and both store one.
        let (first, second) = tokio::join!(store_key(&*memory.objects), store_key(&*memory.objects));
        assert!(first.unwrap() == second.unwrap());
        let own = of_job(&*memory.objects, &job).await.unwrap();
        assert_eq!(own, of_job(&*memory.objects, &job).await.unwrap());
        assert_ne!(own, of_job(&*other.objects, &job).await.unwrap());
    }

    #[tokio::test]
    async fn checkpoints_have_scopes_of_their_own() {
        let memory = Memory::new();
        let at = |protected| job(7, URL, "a", protected);
        let data = |name: Option<&str>| DataDecision {
            checkpoints_ref: name.map(str::to_owned),
            inputs: Vec::new(),
            model_output: None,
        };
        let kept = data(Some("main"));
        let of = async |job: &JobContext| of_checkpoints(&*memory.objects, job, &kept).await.unwrap().unwrap();
        assert_eq!(of_checkpoints(&*memory.objects, &at(None), &data(None)).await.unwrap(), None);
        let (protected, other) = (of(&at(Some(true))).await, of(&at(Some(false))).await);
        let mut fork = at(Some(true));
        fork.git_info.git_ref = "refs/merge-requests/3/head".to_owned();
        let packs = of_job(&*memory.objects, &at(Some(true))).await.unwrap();
        assert_eq!(other, of(&at(None)).await);
        let all = std::collections::BTreeSet::from([protected, other, of(&fork).await, packs]);
        assert_eq!(all.len(), 4, "{all:?}");
    }

    #[tokio::test]
    async fn a_key_of_another_form_is_refused_and_not_shown() {
        let memory = Memory::new();
        for text in ["", "{}", r#"{"version": 2, "key": "abab"}"#] {
            memory.objects.insert(keys::SCOPE_KEY, text);
            let error = of_job(&*memory.objects, &job(7, URL, "a", None)).await.unwrap_err();
            assert!(
                error.to_string().contains("hosts/scope-key") && !format!("{error:?}").contains("abab"),
                "{error:?}"
            );
        }
    }
}
