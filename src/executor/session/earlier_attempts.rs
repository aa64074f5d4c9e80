//! Ends the earlier attempts of a GitLab job before the next training job is made for it: their `cleanup` was killed, has failed, or lost its
//! records; or another host had the job.

use std::time::Duration;

use crate::cloud::Connect;
use crate::session::close::{self, Patience};
use crate::session::lost_sessions::{LostSearch, LostSession, Running};
use crate::session::{Session, SessionId};

/// Time limit for attempts without a record: creating the training job has four minutes.
const LIMIT: Duration = Duration::from_mins(1);

/// Ends the earlier attempts of the session's GitLab job. What cannot be ended now is left to a later pass, since no stage will work on it and its
/// script is deleted or was never stored.
pub async fn close_all(session: &Session<'_>, job_key: &str, connect: &dyn Connect) {
    let with_record = match session.records.attempts(&session.id, job_key) {
        Ok(attempts) => attempts,
        Err(error) => {
            tracing::info!(error = format!("{error:#}"), "failed to look for earlier attempts of the job");
            Vec::new()
        }
    };
    for id in &with_record {
        // A stage that holds it notices that its runner has gone.
        let Ok(Some(claim)) = session.records.claim(id) else { continue };
        tell(id, close::close(of(session, id), Patience::Brief).await);
        drop(claim);
    }
    let without_record = async {
        let attempts = match stored(session, job_key, connect).await {
            Ok(attempts) => attempts,
            Err(error) => {
                tracing::info!(error = format!("{error:#}"), "failed to look for stored attempts of the job");
                return;
            }
        };
        for attempt in attempts.iter().filter(|attempt| !with_record.contains(&attempt.id)) {
            tell(&attempt.id, attempt.end(of(session, &attempt.id), &Running::default(), Patience::Brief).await);
        }
    };
    if tokio::time::timeout(LIMIT, without_record).await.is_err() {
        tracing::warn!("earlier attempts of the job remain for a sweep");
    }
}

/// The attempts that have objects in the bucket.
async fn stored(session: &Session<'_>, job_key: &str, connect: &dyn Connect) -> anyhow::Result<Vec<LostSession>> {
    let survey = connect.survey(&session.settings.access()).await?;
    let (objects, jobs) = (&*session.objects, &*session.jobs);
    let search = LostSearch { survey: &*survey, objects, jobs, now: session.clock.now(), older_than: Duration::ZERO };
    Ok(search.attempts(&session.id, job_key).await?)
}

fn of<'a>(session: &Session<'a>, id: &SessionId) -> Session<'a> {
    Session::to_close(id.clone(), session.jobs.clone(), session.objects.clone(), session.host())
}

fn tell<End: std::fmt::Debug>(id: &SessionId, ended: anyhow::Result<End>) {
    match ended {
        Ok(end) => tracing::info!(session = %id, ?end, "closed an earlier attempt of the job"),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(session = %id, error, "failed to close an earlier attempt of the job");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::{Memory, example_spec};
    use crate::cloud::{ObjectStore as _, TrainingJobs as _};
    use crate::config::settings::Settings;
    use crate::session::exchange::Exchange as _;
    use crate::session::record::{Records, SessionRecord};
    use crate::session::spec::tag;
    use crate::session::state::SessionState;
    use crate::session::{Host, Session};
    use crate::ui::Printer;

    const EARLIER: &str = "gitlab-1-1-aaaaaaaa";
    const NEXT: &str = "gitlab-1-1-bbbbbbbb";
    /// Of another GitLab, and another job.
    const OTHERS: [&str; 2] = ["gitlab-1-1-cccccccc", "gitlab-1-11-dddddddd"];

    struct Harness {
        memory: Memory,
        settings: Settings,
        printer: Printer,
        _dir: tempfile::TempDir,
    }

    fn id(name: &str) -> SessionId {
        SessionId::parse(name).unwrap()
    }

    impl Harness {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let text =
                format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
            let settings: Settings = toml::from_str(&text).unwrap();
            Records::open(dir.path()).unwrap();
            Self { memory: Memory::new(), settings, printer: Printer::captured().0, _dir: dir }
        }

        fn records(&self) -> Records {
            Records::at(&self.settings.runner.state_dir)
        }

        fn session(&self, name: &str) -> Session<'_> {
            let host = Host::with_real_time(&self.settings, &self.printer);
            Session::to_close(id(name), self.memory.jobs.clone(), self.memory.objects.clone(), host)
        }

        /// A live session of a GitLab job, whose record this host has. `tagged` is the session that the training job's tags name.
        async fn open(&self, name: &str, job_key: &str, tagged: &str) {
            let host = Host::with_real_time(&self.settings, &self.printer);
            let (jobs, objects) = (self.memory.jobs.clone(), self.memory.objects.clone());
            let new = SessionState::new(job_key.to_owned(), 1);
            let mut session = Session::open(id(name), jobs, objects, host, new).unwrap();
            session.take_place().unwrap();
            session.exchange().open(Duration::from_mins(15), job_key).await.unwrap();
            let mut spec = example_spec(name);
            spec.tags.insert(tag::SESSION.to_owned(), tagged.to_owned());
            spec.tags.insert(tag::KEY.to_owned(), session.state().place().unwrap().key.commitment());
            self.memory.jobs.create(&spec).await.unwrap();
            let record = SessionRecord { arn: Some("arn".into()), ..self.records().load(&id(name)).unwrap().unwrap() };
            self.records().save(&id(name), &record).unwrap();
        }

        async fn close_all(&self, job_key: &str) {
            close_all(&self.session(NEXT), job_key, &self.memory).await;
        }

        fn is_stopped(&self, name: &str) -> bool {
            self.memory.jobs.calls().contains(&format!("stop {name}"))
        }
    }

    /// Also when it is young, and its cleanup has not begun; a job of another GitLab may have the same numbers.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_with_a_record_is_ended_unless_a_stage_works_on_it() {
        let harness = Harness::new();
        harness.open(EARLIER, "k", EARLIER).await;
        harness.open(OTHERS[0], "other", OTHERS[0]).await;
        harness.open(OTHERS[1], "k", OTHERS[1]).await;
        let hold = harness.records().hold(&id(EARLIER), &harness.session(NEXT).clock).await;
        harness.close_all("k").await;
        assert!(!harness.is_stopped(EARLIER), "a stage works on it");
        drop(hold);
        harness.close_all("k").await;
        assert!(harness.is_stopped(EARLIER) && OTHERS.iter().all(|name| !harness.is_stopped(name)));
    }

    /// Its host has lost the records, or is another one.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_a_record_is_ended_by_its_objects() {
        let harness = Harness::new();
        harness.open(EARLIER, "k", EARLIER).await;
        harness.open(OTHERS[0], "other", OTHERS[0]).await;
        harness.open(OTHERS[1], "k", OTHERS[1]).await;
        for name in [EARLIER, OTHERS[0], OTHERS[1]] {
            std::fs::remove_file(harness.records().file(&id(name), "json")).unwrap();
        }
        harness.close_all("k").await;
        assert!(harness.is_stopped(EARLIER) && OTHERS.iter().all(|name| !harness.is_stopped(name)));
        assert!(harness.memory.objects.list(&format!("sessions/{EARLIER}/")).await.unwrap().is_empty());
        assert_eq!(harness.memory.objects.list("sessions/").await.unwrap().len(), OTHERS.len());
    }

    /// Objects name a session, and a training job with its name says by its tags that it is another's.
    #[tokio::test(start_paused = true)]
    async fn a_training_job_of_another_session_is_left_alone() {
        let harness = Harness::new();
        harness.open(EARLIER, "k", OTHERS[0]).await;
        std::fs::remove_file(harness.records().file(&id(EARLIER), "json")).unwrap();
        harness.close_all("k").await;
        assert!(!harness.is_stopped(EARLIER));
    }
}
