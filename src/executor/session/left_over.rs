//! Finds and closes sessions that earlier jobs of this host left over. Used by `sweep`, and beside each `prepare`, so
//! that they end without an operator.
//!
//! A session is left over when no stage holds it and either its `cleanup` began and did not finish, or no stage has
//! touched it for a long time. In the pause between two stages it is none.

use std::fs::File;
use std::time::Duration;

use crate::cloud::{CloudError, Connect};
use crate::session::close::{self, Patience};
use crate::session::hold::Claim;
use crate::session::lost_sessions::{AT_LEAST, LEASES, Life, LostSearch};
use crate::session::record::Records;
use crate::session::stamp::Stamp;
use crate::session::{Session, SessionId, spec};

/// Time limit of a pass beside a `prepare`.
const LOOK: Duration = Duration::from_secs(5);
/// More sessions than a host has live jobs: old ones that no `prepare` can close in its time. `sweep` closes them.
pub const BACKLOG: usize = 1000;
/// Time limit of a pass beside a `prepare` on a host with a backlog: its jobs begin as soon as those of other hosts.
const LOOK_AT_BACKLOG: Duration = Duration::from_millis(250);
/// A lease that is this much younger than the last stamp of this host was renewed by another one. A killed stage may have renewed it a
/// minute after its last stamp, and S3's times are those of whole seconds.
const RENEWED_LATER: Duration = Duration::from_mins(5);

/// The evidence that a session is left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// Its `cleanup` has begun.
    Closing,
    /// The time since this boot, which a stage wrote down, and locks that no process holds.
    ThisBoot,
    /// Times of day, which may be those of a clock that was wrong, or of the host whose disk was copied.
    OtherBoot,
}

/// A left-over session, with the claim that keeps stages and other passes away.
#[derive(Debug)]
pub struct LeftOver {
    pub id: SessionId,
    /// Time since a stage touched it.
    pub age: Duration,
    pub witness: Witness,
    pub claim: Claim,
}

/// Returns the session when this host's files show that it is left over: untouched for `older_than` and not in the pause between two
/// stages, or not closed completely. The claim is an open file: close the session, or drop it, before the next one is looked at.
///
/// Files with a time of the future tell no age; then the bucket decides ([`shows_life`]).
pub fn of(records: &Records, id: &SessionId, older_than: Duration, now: &Stamp) -> anyhow::Result<Option<LeftOver>> {
    let Some(touched) = records.touched(id)? else { return Ok(None) };
    let age = touched.age(now);
    let witness = match records.is_closing(id) {
        true => Witness::Closing,
        false if touched.is_of_boot(now) => Witness::ThisBoot,
        false => Witness::OtherBoot,
    };
    let tells_age = witness != Witness::Closing && !touched.is_ahead_of(now);
    if tells_age && (age < older_than || !records.pause_left(id, age)?.is_zero()) {
        return Ok(None);
    }
    Ok(records.claim(id)?.map(|claim| LeftOver { id: id.clone(), age, witness, claim }))
}

/// Closes left-over sessions within a few seconds, beside the session of a job that begins; never fails that job. Of
/// drivers that begin together only one does it.
pub async fn close_all(session: &Session<'_>, connect: &dyn Connect) {
    let Some(_turn) = turn(session) else { return };
    let records = &session.records;
    let mut ids = match records.sessions() {
        Ok(ids) => ids,
        Err(error) => {
            tracing::info!(error = format!("{error:#}"), "failed to look for left-over sessions");
            return;
        }
    };
    ids.retain(|id| *id != session.id);
    begin_at(&mut ids, std::process::id());
    let limit = if ids.len() > BACKLOG { LOOK_AT_BACKLOG } else { LOOK };
    let look = async {
        let older_than = (session.settings.lease() * LEASES).max(AT_LEAST);
        for id in ids {
            let found = of(records, &id, older_than, &Stamp::of(&*session.clock)).unwrap_or_else(|error| {
                tracing::info!(session = %id, error = format!("{error:#}"), "failed to check a session");
                None
            });
            let Some(left) = found else {
                // Work on files alone has no other point at which the time limit holds.
                tokio::task::yield_now().await;
                continue;
            };
            match is_alive(session, connect, &left).await {
                Ok(false) => {}
                Ok(true) => continue,
                Err(error) => {
                    tracing::info!(session = %id, error = format!("{error:#}"), "failed to look for signs of life");
                    continue;
                }
            }
            let LeftOver { id, claim, .. } = left;
            let other = Session::to_close(id.clone(), session.jobs.clone(), session.objects.clone(), session.host());
            match close::close(other, Patience::Brief).await {
                Ok(closed) => tracing::info!(session = %id, ?closed, "closed a left-over session"),
                Err(error) => {
                    tracing::info!(session = %id, error = format!("{error:#}"), "failed to close a left-over session");
                }
            }
            drop(claim);
        }
    };
    if tokio::time::timeout(limit, look).await.is_err() {
        tracing::info!("left-over sessions remain for the next job");
    }
}

/// `true` when the bucket shows a younger sign of life of the session than the files of this host, so that another host works on it.
pub async fn shows_life(search: &LostSearch<'_>, left: &LeftOver, records: &Records) -> Result<bool, CloudError> {
    match left.witness {
        Witness::Closing => Ok(false),
        Witness::ThisBoot => {
            // Containers write other objects after their host's end, but never the lease.
            let Ok(Some(record)) = records.load(&left.id) else { return Ok(false) };
            let lease = spec::session_keys(&left.id, record.place.as_ref()).lease();
            let page = search.survey.page(&lease, None).await?;
            let renewed = page.objects.into_iter().filter_map(|object| object.modified);
            let is_younger = |age: Duration| age < AT_LEAST.max(search.older_than) && age + RENEWED_LATER < left.age;
            Ok(renewed.map(|at| search.age(at)).any(is_younger))
        }
        Witness::OtherBoot => Ok(search.look(&left.id).await? == Life::Young),
    }
}

/// The same beside a `prepare`.
async fn is_alive(session: &Session<'_>, connect: &dyn Connect, left: &LeftOver) -> anyhow::Result<bool> {
    if left.witness == Witness::Closing {
        return Ok(false);
    }
    let look = async {
        let survey = connect.survey(&session.settings.access()).await?;
        let now = survey.now().await?;
        let (objects, jobs) = (&*session.objects, &*session.jobs);
        let search = LostSearch { survey: &*survey, objects, jobs, now, older_than: Duration::ZERO };
        anyhow::Ok(shows_life(&search, left, &session.records).await?)
    };
    match look.await {
        Err(_) if left.witness == Witness::ThisBoot => Ok(false),
        looked => looked,
    }
}

/// Starts each pass at a different session, so that a few slow ones do not block the others every time.
pub fn begin_at(ids: &mut [SessionId], number: u32) {
    if let Some(first) = usize::try_from(number).ok().and_then(|number| number.checked_rem(ids.len())) {
        ids.rotate_left(first);
    }
}

/// Takes the lock of the pass; `None` when another driver holds it.
fn turn(session: &Session<'_>) -> Option<File> {
    let path = session.settings.runner.state_dir.join("look.lock");
    let file = File::options().create(true).append(true).open(path).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::{Fault, Memory, When, example_spec};
    use crate::cloud::{CloudErrorKind, JobStatus, SecondaryStatus, TrainingJobs as _};
    use crate::config::settings::Settings;
    use crate::session::Host;
    use crate::session::record::SessionRecord;
    use crate::ui::Printer;

    struct Harness {
        memory: Memory,
        settings: Settings,
        printer: Printer,
        _dir: tempfile::TempDir,
    }

    fn id(name: &str) -> SessionId {
        SessionId::parse(name).unwrap()
    }

    const OLD: &str = "gitlab-1-1-aaaaaaaa";
    const NEW: &str = "gitlab-1-2-bbbbbbbb";

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

        /// Opens a session with a live training job.
        async fn open(&self, name: &str) {
            self.memory.jobs.create(&example_spec(name)).await.unwrap();
            let record = SessionRecord { arn: Some("arn".into()), ..SessionRecord::default() };
            self.records().save(&id(name), &record).unwrap();
        }

        fn session(&self, name: &str) -> Session<'_> {
            let host = Host::with_real_time(&self.settings, &self.printer);
            Session::to_close(id(name), self.memory.jobs.clone(), self.memory.objects.clone(), host)
        }

        fn is_stopped(&self, name: &str) -> bool {
            self.memory.jobs.calls().contains(&format!("stop {name}"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_cleanup_left_is_ended_by_the_next_job() {
        let harness = Harness::new();
        harness.open(OLD).await;
        let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Denied).forever();
        harness.memory.jobs.plan([describe]);
        assert!(close::close(harness.session(OLD), Patience::Long).await.is_err());
        // A pass that fails again changes nothing and fails nothing.
        close_all(&harness.session(NEW), &harness.memory).await;
        assert_eq!(harness.records().sessions().unwrap(), [id(OLD)]);
        harness.memory.jobs.plan([]);
        harness.memory.jobs.set_status(OLD, JobStatus::Stopped, SecondaryStatus::Stopped);
        close_all(&harness.session(NEW), &harness.memory).await;
        assert!(harness.records().sessions().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_lives_and_what_is_young_is_left_alone() {
        let harness = Harness::new();
        harness.open(OLD).await;
        harness.open(NEW).await;
        close_all(&harness.session(NEW), &harness.memory).await;
        assert!(!harness.is_stopped(OLD), "it is young");
        // Not closed completely, but a stage still runs.
        harness.records().mark_closing(&id(OLD)).unwrap();
        let hold = harness.records().hold(&id(OLD), &harness.session(NEW).clock).await;
        close_all(&harness.session(NEW), &harness.memory).await;
        assert!(!harness.is_stopped(OLD), "it is held");
        drop(hold);
        // The job's own session is never left over.
        harness.records().mark_closing(&id(NEW)).unwrap();
        close_all(&harness.session(NEW), &harness.memory).await;
        assert!(harness.is_stopped(OLD) && !harness.is_stopped(NEW));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_does_not_hold_up_the_next_job() {
        let harness = Harness::new();
        harness.open(OLD).await;
        harness.records().mark_closing(&id(OLD)).unwrap();
        let start = tokio::time::Instant::now();
        harness.memory.jobs.plan(["describe", "stop"].map(|method| Fault::slow(method, Duration::from_hours(24))));
        close_all(&harness.session(NEW), &harness.memory).await;
        assert_eq!(start.elapsed(), LOOK);
    }

    /// Each record is young, so only its time stamp is read.
    #[tokio::test(start_paused = true)]
    async fn a_backlog_of_old_sessions_does_not_hold_up_the_next_job() {
        let harness = Harness::new();
        harness.open(OLD).await;
        harness.records().mark_closing(&id(OLD)).unwrap();
        for number in 0..BACKLOG {
            std::fs::write(harness.records().file(&id(&format!("gitlab-2-{number}-cccccccc")), "json"), "{}").unwrap();
        }
        harness.memory.jobs.plan(["describe", "stop"].map(|method| Fault::slow(method, Duration::from_hours(24))));
        let start = tokio::time::Instant::now();
        close_all(&harness.session(NEW), &harness.memory).await;
        assert_eq!(start.elapsed(), LOOK_AT_BACKLOG);
    }

    #[tokio::test(start_paused = true)]
    async fn one_driver_looks_and_the_others_go_on() {
        let harness = Harness::new();
        harness.open(OLD).await;
        harness.records().mark_closing(&id(OLD)).unwrap();
        let session = harness.session(NEW);
        let looking = turn(&session).unwrap();
        close_all(&session, &harness.memory).await;
        assert!(!harness.is_stopped(OLD));
        drop(looking);
        close_all(&session, &harness.memory).await;
        assert!(harness.is_stopped(OLD));
    }

    #[test]
    fn each_session_comes_first_in_some_look() {
        let all = ["gitlab-1-1-aaaaaaaa", "gitlab-1-2-bbbbbbbb", "gitlab-1-3-cccccccc"].map(id);
        for (number, first) in all.iter().enumerate() {
            let mut ids = all.clone();
            begin_at(&mut ids, 300 + u32::try_from(number).unwrap());
            assert_eq!(ids[0], *first);
            assert_eq!(std::collections::BTreeSet::from(ids), std::collections::BTreeSet::from(all.clone()));
        }
        begin_at(&mut [], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_record_does_not_hide_the_others() {
        let harness = Harness::new();
        harness.open(OLD).await;
        std::fs::write(harness.records().file(&id("gitlab-1-0-cccccccc"), "json"), "").unwrap();
        for name in [OLD, "gitlab-1-0-cccccccc"] {
            harness.records().mark_closing(&id(name)).unwrap();
        }
        close_all(&harness.session(NEW), &harness.memory).await;
        assert!(harness.is_stopped(OLD));
    }
}
