//! Session ids, derived from the GitLab job.

use std::fmt;

use crate::gitlab::JobContext;

/// Name of a session: of its first training job, its tag on all of them, its key prefix in S3, and its record on disk.
///
/// `gitlab-<project>-<job>-<8 hex digits>`: at most 57 of the 63 characters of a training job name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

impl SessionId {
    /// Derives the id from the trusted payload and `attempt`, which differs between preparation attempts. The digits
    /// distinguish GitLab instances and attempts; the job token in their hash cannot be guessed from the name.
    pub fn derive(job: &JobContext, attempt: &str) -> Self {
        let digits = &digest("sagemaker-executor session id v1", job, attempt)[..8];
        Self(format!("gitlab-{}-{}-{digits}", job.job_info.project_id, job.id))
    }

    /// Parses an id as `derive` makes it; `None` for anything else, so that an id is safe in paths and keys.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("gitlab-")?.split('-');
        let (project, job, digits) = (parts.next()?, parts.next()?, parts.next()?);
        let number =
            |part: &str| !part.is_empty() && part.len() <= 20 && part.bytes().all(|byte| byte.is_ascii_digit());
        let hex = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        (number(project) && number(job) && hex && parts.next().is_none()).then(|| Self(text.to_owned()))
    }

    /// `true` for an id that has the same numbers of project and job: of another attempt of the job, or of a job of another GitLab.
    pub fn has_numbers_of(&self, other: &Self) -> bool {
        self.numbers() == other.numbers()
    }

    /// The id without the digits of the attempt: `gitlab-<project>-<job>`.
    pub fn numbers(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(numbers, _)| numbers)
    }

    /// The GitLab project's number.
    pub fn project(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or_default()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session:{}", self.0)
    }
}

/// Key of the GitLab job: the same for all its attempts, and different for every other job of any instance.
pub fn job_key(job: &JobContext) -> String {
    digest("sagemaker-executor job key v1", job, "")
}

fn digest(purpose: &str, job: &JobContext, attempt: &str) -> String {
    let mut hash = blake3::Hasher::new_derive_key(purpose);
    let ids = format!("{}/{}", job.job_info.project_id, job.id);
    for part in
        [&job.job_info.instance_uuid, &job.job_info.instance_id, &job.git_info.repo_url, &job.token, &ids, attempt]
    {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(token: &str) -> JobContext {
        serde_json::from_value(serde_json::json!({
            "id": u64::MAX, "token": token, "job_info": {"project_id": u64::MAX}
        }))
        .unwrap()
    }

    #[test]
    fn a_session_id_is_a_training_job_name() {
        let id = SessionId::derive(&job("t"), "/tmp/a");
        assert!(id.as_str().len() <= 63, "{id}");
        assert_eq!(SessionId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(SessionId::derive(&job("t"), "/tmp/a"), id);
        assert_ne!(SessionId::derive(&job("t"), "/tmp/b"), id);
        assert_ne!(SessionId::derive(&job("u"), "/tmp/a"), id);
        assert!(id.has_numbers_of(&SessionId::derive(&job("u"), "/tmp/b")));
        assert!(!id.has_numbers_of(&SessionId::parse("gitlab-1-2-abcdef12").unwrap()));
    }

    #[test]
    fn names_that_are_not_ours_are_not_parsed() {
        for text in
            ["", "gitlab-1-2", "gitlab-1-2-abcdef12-x", "gitlab-../-2-abcdef12", "gitlab-1-2-xyz", "other-1-2-abcdef12"]
        {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }
}
