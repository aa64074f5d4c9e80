//! Waits for the end of a stage's own training job, in a job without network.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::human::human_duration;
use crate::base::signals::Cancellation;
use crate::cloud::SecondaryStatus;
use crate::logs::Feed;
use crate::session::Session;
use crate::session::refusals::Refusals;

const FIRST_LOOK: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest time that an agent may be silent after the end of its script. It tells each minute that it goes on with the files.
const LONGEST_SILENCE: Duration = Duration::from_mins(15);
/// Longest time in which SageMaker uploads what a container has written.
const LONGEST_UPLOAD: Duration = Duration::from_hours(1);
/// Time after which the log is read: mostly the training job has ended by then.
const READS_LOG_AFTER: Duration = Duration::from_secs(30);

/// Waits until the current training job has ended: then SageMaker has stored what its containers wrote. Stops it if its script was not
/// followed to an end, or when nothing happens any more. Does nothing for other jobs.
pub(super) async fn wait_for_end(session: &Session<'_>, cancel: &Cancellation) -> anyhow::Result<()> {
    let Some(stages) = session.state.stage_jobs() else { return Ok(()) };
    let (name, begun) = (session.job_name(), Instant::now());
    let (mut signs, mut pause) = (SignsOfLife::new(begun), FIRST_LOOK);
    let mut feed: Option<Feed> = None;
    let mut refusals = Refusals::default();
    loop {
        match session.jobs.describe_once(&name).await {
            Ok(job) if job.as_ref().is_none_or(|job| job.status.is_terminal()) => return Ok(()),
            Ok(job) => {
                refusals.passed(session);
                if !stages.has_exited {
                    // Again each time: a job that was requested a moment ago may appear late.
                    session.stop_job().await;
                }
                if let Some(job) = job {
                    signs.status(job.secondary, Instant::now());
                }
            }
            Err(error) => refusals.bear(session, error)?,
        }
        if cancel.asked() || session.records.is_closing(&session.id) {
            return Err(Failure::canceled("canceled while SageMaker stored the files of the container").into());
        }
        if feed.is_none() && begun.elapsed() >= READS_LOG_AFTER {
            feed = join(session);
        }
        if feed.as_mut().is_some_and(|feed| feed.take().is_ok_and(|events| !events.is_empty())) {
            signs.heard(Instant::now());
        }
        if let Some(overdue) = signs.overdue(Instant::now()) {
            session.stop_job().await;
            return Err(overdue.failure(&name).into());
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.changed() => {}
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// Subscribes to the log. Without it, the status of the training job alone shows that something happens.
fn join(session: &Session<'_>) -> Option<Feed> {
    let joined = session.join_log(session.log_client.clone()?);
    joined.inspect_err(|error| tracing::warn!(error = format!("{error:#}"), "failed to read the log")).ok()
}

/// When a training job last showed that something happens.
#[derive(Debug)]
struct SignsOfLife {
    status: Option<SecondaryStatus>,
    last: Instant,
}

impl SignsOfLife {
    fn new(now: Instant) -> Self {
        Self { status: None, last: now }
    }

    fn status(&mut self, found: SecondaryStatus, now: Instant) {
        if self.status.as_ref() != Some(&found) {
            self.last = now;
        }
        self.status = Some(found);
    }

    /// The container has logged something.
    fn heard(&mut self, now: Instant) {
        self.last = now;
    }

    fn overdue(&self, now: Instant) -> Option<Overdue> {
        let (overdue, most) = match self.status {
            Some(SecondaryStatus::Training) => (Overdue::Agent, LONGEST_SILENCE),
            _ => (Overdue::SageMaker, LONGEST_UPLOAD),
        };
        (now.duration_since(self.last) >= most).then_some(overdue)
    }
}

/// The side that does not end a training job in its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overdue {
    Agent,
    SageMaker,
}

impl Overdue {
    fn failure(self, job: &str) -> Failure {
        let (what, most) = match self {
            Self::Agent => ("its container has logged nothing and has not ended", LONGEST_SILENCE),
            Self::SageMaker => ("SageMaker has not ended it", LONGEST_UPLOAD),
        };
        Failure::system(format!(
            "the training job {job} was stopped: its script is over, but {what} for {}",
            human_duration(most)
        ))
        .hint("retry the job; if it happens again, leave fewer files in the project")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::{Kind, kind_of};
    use crate::cloud::testing::{Memory, example_spec};
    use crate::cloud::{JobStatus, TrainingJobs as _};
    use crate::config::settings::Settings;
    use crate::session::record::{Records, SessionRecord};
    use crate::session::stage_jobs::StageJobs;
    use crate::session::{Host, SessionId};
    use crate::ui::Printer;

    #[test]
    fn each_sign_of_life_begins_the_wait_anew() {
        let start = Instant::now();
        let at = |minutes| start + Duration::from_mins(minutes);
        let mut signs = SignsOfLife::new(start);
        signs.status(SecondaryStatus::Training, at(1));
        signs.status(SecondaryStatus::Training, at(10));
        assert_eq!([at(15), at(16)].map(|now| signs.overdue(now)), [None, Some(Overdue::Agent)]);
        signs.heard(at(12));
        assert_eq!([at(26), at(27)].map(|now| signs.overdue(now)), [None, Some(Overdue::Agent)]);
        signs.status(SecondaryStatus::Uploading, at(20));
        assert_eq!([at(79), at(80)].map(|now| signs.overdue(now)), [None, Some(Overdue::SageMaker)]);
    }

    /// A session whose script has exited, with a training job that trains on.
    async fn wait(memory: &Memory, steps: &[(JobStatus, SecondaryStatus)]) -> (anyhow::Result<()>, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
        let settings: Settings = toml::from_str(&text).unwrap();
        let (printer, id) = (Printer::captured().0, SessionId::parse("gitlab-1-2-abcdef12").unwrap());
        let stages = StageJobs { number: 1, has_exited: true, ..StageJobs::default() };
        let record = SessionRecord { stage_jobs: Some(stages), ..SessionRecord::default() };
        Records::open(dir.path()).unwrap().save(&id, &record).unwrap();
        let host = Host::with_real_time(&settings, &printer);
        let session = Session::attach(id, memory.jobs.clone(), memory.objects.clone(), host).unwrap().unwrap();
        memory.jobs.create(&example_spec(&session.job_name())).await.unwrap();
        memory.jobs.set_status(&session.job_name(), JobStatus::InProgress, SecondaryStatus::Training);
        memory.jobs.advance_on_describe(&session.job_name(), steps);
        let begun = Instant::now();
        (wait_for_end(&session, &Cancellation::default()).await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_hangs_is_stopped() {
        let memory = Memory::new();
        let (ended, waited) = wait(&memory, &[]).await;
        let error = ended.unwrap_err();
        assert_eq!(kind_of(&error), Kind::System);
        assert!(error.to_string().contains("its container has logged nothing and has not ended for 15 min"), "{error}");
        assert!((LONGEST_SILENCE..LONGEST_SILENCE + LONGEST_PAUSE).contains(&waited), "{waited:?}");
        assert_eq!(memory.jobs.count("stop"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_has_an_end_of_its_own() {
        let memory = Memory::new();
        let (ended, waited) = wait(&memory, &[(JobStatus::InProgress, SecondaryStatus::Uploading)]).await;
        assert!(ended.unwrap_err().to_string().contains("SageMaker has not ended it for 1 h"));
        assert!(waited >= LONGEST_UPLOAD, "{waited:?}");
        let done = [SecondaryStatus::Uploading, SecondaryStatus::Completed].map(|now| {
            (if now == SecondaryStatus::Completed { JobStatus::Completed } else { JobStatus::InProgress }, now)
        });
        let memory = Memory::new();
        assert!(wait(&memory, &done).await.0.is_ok());
        assert_eq!(memory.jobs.count("stop"), 0);
    }
}
