//! Finds and ends sessions that no host works on any more, from what S3 and SageMaker show alone: the host is gone, or has lost
//! its records.
//!
//! A session is lost when nothing was written below its folder in the bucket for four of its leases, and for an hour at
//! least, by S3's own time: its driver renews the lease in every stage. Its training job is stopped only when its tags name the session
//! and the key that the session's own `open` object holds: a name alone, or a folder alone, proves nothing.

use std::time::{Duration, SystemTime};

use crate::cloud::{CloudError, ObjectStore, ObjectSurvey, RunningJob, SecondaryStatus, TrainingJob, TrainingJobs};
use crate::protocol::keys::{self, Open};
use crate::session::close::{self, Closed, Patience};
use crate::session::exchange::{Exchange as _, Kept};
use crate::session::spec::{self, tag};
use crate::session::{Session, SessionId};

/// A session that no stage has touched for this many leases is over: its agent has left, or never came up.
pub(super) const LEASES: u32 = 4;
/// A shorter silence ends no session, however short its lease.
pub(super) const AT_LEAST: Duration = Duration::from_hours(1);
/// The longest lease that the operator's file allows; a longer one in an `open` object is of another writer.
pub const LONGEST_LEASE: Duration = Duration::from_hours(24);
/// Silence after which a session is lost whose lease is unknown: an earlier version began it, or it has no objects.
const UNKNOWN: Duration = Duration::from_hours(24);
/// No training job lives longer: SageMaker lets one run for 28 days, and wait for its instances as long.
const LONGEST_JOB: Duration = Duration::from_hours(60 * 24);
/// SageMaker's clock may be ahead of that of S3.
const SLACK: Duration = Duration::from_hours(1);
/// An `open` object of a driver is smaller, and a session has one. Other jobs of the role can store any number: the oldest are read first,
/// and the rest only to find the key of a training job.
const OPEN_BYTES: u64 = 1 << 10;
const FIRST_OPENS: usize = 20;
const MOST_OPENS: usize = 1000;
/// Most attempts of one GitLab job: a runner prepares it three times.
const MOST_ATTEMPTS: usize = 20;
/// Most training jobs of one session that are looked at.
const MOST_JOBS: u32 = 100;

/// The evidence that a session is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Its objects in the bucket.
    Objects,
    /// The tags of its training job: it has no objects.
    Tags,
}

/// A session that no host works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSession {
    pub id: SessionId,
    pub evidence: Evidence,
    /// Since anything was written for it, or since its training job was created.
    pub quiet: Duration,
    /// Commitments of the keys in its `open` objects: a training job with one of them in its tags is the session's.
    commitments: Vec<String>,
    /// Keys of further `open` objects, which may hold the session's key too.
    unread: Vec<String>,
}

/// A session as the bucket shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// It has no objects.
    Nothing,
    /// Something was written for it a short time ago.
    Young,
    Lost(LostSession),
}

/// The way in which a lost session was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostEnd {
    Closed(Closed),
    /// A training job with a name of the session lives and is not the session's: it was left alone.
    ObjectsAlone,
    /// Beside such a job, the session's own ones were stopped.
    BesideAnother,
}

/// The training jobs in progress that have names of ours.
#[derive(Debug, Clone, Default)]
pub struct Running {
    pub jobs: Vec<(SessionId, RunningJob)>,
    /// A job that is not among them is not in progress.
    pub is_whole: bool,
}

impl Life {
    /// The session when it is lost.
    pub fn lost(self) -> Option<LostSession> {
        if let Self::Lost(lost) = self { Some(lost) } else { None }
    }
}

impl Running {
    /// Names of the session's jobs; `None` when the session may have others.
    fn of(&self, id: &SessionId) -> Option<Vec<&str>> {
        let own = self.jobs.iter().filter(|(session, _)| session == id).map(|(_, job)| job.name.as_str());
        self.is_whole.then(|| own.collect())
    }
}

/// Looks for lost sessions.
pub struct LostSearch<'a> {
    pub survey: &'a dyn ObjectSurvey,
    pub objects: &'a dyn ObjectStore,
    pub jobs: &'a dyn TrainingJobs,
    /// S3's own time.
    pub now: SystemTime,
    /// A session is lost only after this much silence, whatever its lease.
    pub older_than: Duration,
}

impl LostSearch<'_> {
    /// Ids of all sessions with objects in the bucket. Folders with other names are not ours.
    pub async fn ids(&self) -> Result<Vec<SessionId>, CloudError> {
        let folders = self.survey.folders(keys::SESSIONS).await?;
        let names = folders.iter().filter_map(|folder| folder.strip_prefix(keys::SESSIONS)?.strip_suffix('/'));
        Ok(names.filter_map(SessionId::parse).collect())
    }

    /// Tells by the session's objects whether anybody works on it.
    pub async fn look(&self, id: &SessionId) -> Result<Life, CloudError> {
        let folder = keys::session_folder(id.as_str());
        let shortest = AT_LEAST.max(self.older_than);
        let (mut after, mut quiet, mut opens): (Option<String>, Option<Duration>, _) = (None, None, Vec::new());
        loop {
            let page = self.survey.page(&folder, after.as_deref()).await?;
            for object in &page.objects {
                // One without a date may be new.
                let Some(age) = object.modified.map(|at| self.age(at)) else { return Ok(Life::Young) };
                if age < shortest {
                    return Ok(Life::Young);
                }
                quiet = Some(quiet.map_or(age, |quiet| quiet.min(age)));
                if object.bytes < OPEN_BYTES && keys::token_of_open(&folder, &object.key).is_some() {
                    opens.push((age, object.key.clone()));
                }
            }
            if !page.has_more {
                break;
            }
            let Some(last) = page.objects.last() else { return Ok(Life::Young) };
            after = Some(last.key.clone());
        }
        let Some(quiet) = quiet else { return Ok(Life::Nothing) };
        // The driver's comes before those of any container.
        opens.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        let mut opens: Vec<String> = opens.into_iter().take(MOST_OPENS).map(|(_, key)| key).collect();
        let unread = opens.split_off(opens.len().min(FIRST_OPENS));
        let opens = self.read(&opens).await?;
        let is_lost = quiet >= silence(opens.iter().map(|open| open.lease_seconds)).max(shortest);
        let commitments = opens.iter().map(|open| open.key.commitment()).collect();
        let lost = LostSession { id: id.clone(), evidence: Evidence::Objects, quiet, commitments, unread };
        Ok(if is_lost { Life::Lost(lost) } else { Life::Young })
    }

    /// Sessions that are other attempts of this session's GitLab job, by the key of the job in their `open` objects: a job of another
    /// GitLab may have the same numbers. Reads the first objects alone, because other jobs of the role can store any number.
    pub async fn attempts(&self, id: &SessionId, job_key: &str) -> Result<Vec<LostSession>, CloudError> {
        let folders = self.survey.folders(&keys::sessions_with(id.numbers())).await?;
        let names = folders.iter().filter_map(|folder| folder.strip_prefix(keys::SESSIONS)?.strip_suffix('/'));
        let others = names.filter_map(SessionId::parse).filter(|other| other != id).take(MOST_ATTEMPTS);
        let mut attempts = Vec::new();
        for other in others {
            let folders = self.survey.folders(&keys::session_folder(other.as_str())).await?;
            let keys: Vec<_> = folders.iter().take(FIRST_OPENS).map(|folder| keys::open_in(folder)).collect();
            let mut opens = self.read(&keys).await?;
            opens.retain(|open| open.job_key.as_deref() == Some(job_key));
            if !opens.is_empty() {
                let commitments = opens.iter().map(|open| open.key.commitment()).collect();
                let (evidence, quiet) = (Evidence::Objects, Duration::ZERO);
                attempts.push(LostSession { id: other, evidence, quiet, commitments, unread: Vec::new() });
            }
        }
        Ok(attempts)
    }

    /// Time since this moment, by S3's clock.
    pub fn age(&self, at: SystemTime) -> Duration {
        self.now.duration_since(at).unwrap_or_default()
    }

    async fn read(&self, keys: &[String]) -> Result<Vec<Open>, CloudError> {
        let mut opens = Vec::new();
        for key in keys {
            opens.extend(read_open(self.objects, key).await?);
        }
        Ok(opens)
    }

    /// The jobs in progress that may be those of lost sessions.
    pub async fn running(&self) -> Result<Running, CloudError> {
        let found = self.jobs.running(NAMES, self.now - LONGEST_JOB..self.now + SLACK).await?;
        let jobs = found.jobs.into_iter().filter_map(|job| Some((spec::session_of_job(&job.name)?, job)));
        Ok(Running { jobs: jobs.collect(), is_whole: !found.is_cut })
    }

    /// Returns the session of a job in progress when the job's tags and input show that it is one of this bucket, and nothing is left of
    /// the session but the job.
    pub async fn by_tags(&self, id: &SessionId, job: &RunningJob) -> Result<Option<LostSession>, CloudError> {
        let quiet = self.age(job.created);
        if quiet < UNKNOWN.max(self.older_than) {
            return Ok(None);
        }
        let folder = keys::session_folder(id.as_str());
        if !self.survey.page(&folder, None).await?.objects.is_empty() {
            return Ok(None);
        }
        let lost = LostSession {
            id: id.clone(),
            evidence: Evidence::Tags,
            quiet,
            commitments: Vec::new(),
            unread: Vec::new(),
        };
        let Some(described) = self.jobs.describe(&job.name).await? else { return Ok(None) };
        // Its containers have ended, and a stop could cost its model.
        let is_ending = described.status.is_terminal() || described.secondary == SecondaryStatus::Uploading;
        let is_lost = !is_ending && lost.owns(self.jobs, self.objects, &described).await?;
        Ok(is_lost.then_some(lost))
    }
}

/// Part of the name of every training job of ours.
const NAMES: &str = "gitlab-";

/// Silence after which a session with these leases, in seconds, is lost.
fn silence(leases: impl Iterator<Item = Option<u64>>) -> Duration {
    let of_one = |lease: Option<u64>| lease.map(|seconds| Duration::from_secs(seconds).min(LONGEST_LEASE) * LEASES);
    leases.map(|lease| of_one(lease).unwrap_or(UNKNOWN)).max().unwrap_or(UNKNOWN).max(AT_LEAST)
}

impl LostSession {
    /// `true` when the training job is this session's: its tags name the session and a key, and either the session's folder in the bucket
    /// has that key, or it has none and the job's input has this bucket's agent.
    async fn owns(
        &self,
        jobs: &dyn TrainingJobs,
        objects: &dyn ObjectStore,
        job: &TrainingJob,
    ) -> Result<bool, CloudError> {
        let tags = jobs.tags(&job.arn).await?;
        let Some(key) = tags.get(tag::KEY) else { return Ok(false) };
        let has_key = if self.commitments.is_empty() && self.unread.is_empty() {
            job.input_uris.iter().any(|uri| is_agent(uri, &objects.uri(keys::AGENTS)))
        } else {
            self.commitments.contains(key) || self.has_unread(objects, key).await?
        };
        Ok(has_key && tags.get(tag::SESSION).is_some_and(|session| session == self.id.as_str()))
    }

    /// The training jobs with names of the session that have not ended.
    async fn live_jobs(&self, jobs: &dyn TrainingJobs, running: &Running) -> Result<Vec<TrainingJob>, CloudError> {
        let mut live = Vec::new();
        if let Some(names) = running.of(&self.id) {
            for name in names {
                live.extend(close::look(jobs, name, Patience::Long).await?);
            }
        } else {
            for number in 1..=MOST_JOBS {
                let Some(job) = close::look(jobs, &spec::job_name(&self.id, number), Patience::Long).await? else {
                    break;
                };
                live.push(job);
            }
        }
        live.retain(|job| !job.status.is_terminal());
        Ok(live)
    }

    /// `true` when an `open` object that was not read yet holds the key with this commitment.
    async fn has_unread(&self, objects: &dyn ObjectStore, commitment: &str) -> Result<bool, CloudError> {
        for key in &self.unread {
            if read_open(objects, key).await?.is_some_and(|open| open.key.commitment() == commitment) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stops the session's training jobs and deletes its objects. `session` is the same session, to close.
    pub async fn end(&self, session: Session<'_>, running: &Running, patience: Patience) -> anyhow::Result<LostEnd> {
        let (mut own, mut has_foreign) = (Vec::new(), false);
        for job in self.live_jobs(&*session.jobs, running).await? {
            if self.owns(&*session.jobs, &*session.objects, &job).await? {
                own.push(job.name);
            } else {
                has_foreign = true;
            }
        }
        if !has_foreign && !own.is_empty() {
            return close::close(session, patience).await.map(LostEnd::Closed);
        }
        // `close` goes by the numbers in the names, and would stop the other job too.
        let stops = own.iter().map(|name| close::stop_one(&*session.jobs, name));
        futures::future::join_all(stops).await.into_iter().collect::<anyhow::Result<()>>()?;
        session.exchange().delete(Kept::default()).await?;
        Ok(match (has_foreign, own.is_empty()) {
            (false, _) => LostEnd::Closed(Closed::Whole),
            (true, true) => LostEnd::ObjectsAlone,
            (true, false) => LostEnd::BesideAnother,
        })
    }
}

/// `true` when the address is the folder of an agent directly below this bucket's `agents`: the files' hash, as 32 hex digits. With the prefix
/// of another operator, which may begin with this one, more parts follow.
fn is_agent(uri: &str, agents: &str) -> bool {
    let hash = uri.strip_prefix(agents).and_then(|rest| rest.strip_suffix('/'));
    hash.is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The content of an `open` object; `None` when it is none, or gone.
async fn read_open(objects: &dyn ObjectStore, key: &str) -> Result<Option<Open>, CloudError> {
    let body = objects.get(key).await?.unwrap_or_default();
    Ok(serde_json::from_slice(&body).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands on whole accounts are tested in `operate::sweep`.
    #[test]
    fn the_silence_is_that_of_the_longest_lease() {
        let hours = |leases: &[Option<u64>]| silence(leases.iter().copied()).as_secs() / 3600;
        assert_eq!((hours(&[]), hours(&[None]), hours(&[Some(60), None])), (24, 24, 24));
        assert_eq!((hours(&[Some(0)]), hours(&[Some(900)]), hours(&[Some(60), Some(3600)])), (1, 1, 4));
        assert_eq!(hours(&[Some(u64::MAX)]), 96);
    }
}
