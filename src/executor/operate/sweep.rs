//! `sagemaker-executor sweep`: ends what no cleanup reached, as after a runner that was killed or a host that was restarted.
//!
//! It goes by this host's records and, for hosts that are gone and records that are lost, by what S3 and SageMaker show. A record alone ends
//! no session for which the bucket shows a younger sign of life.

mod report;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use futures::StreamExt as _;
use parking_lot::Mutex;

use crate::base::clock::Clock;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::boundary;
use crate::cloud::{Access, CloudError, Connect, ObjectStore, ObjectSurvey, RunningJob, TrainingJobs};
use crate::config::operator_file;
use crate::config::settings::Settings;
use crate::session::close::{self, Patience};
use crate::session::job_note::{self, JobNotes};
use crate::session::left_over::{self, Witness};
use crate::session::lost_sessions::{Life, LostSearch, LostSession, Running};
use crate::session::record::Records;
use crate::session::stamp::Stamp;
use crate::session::{Host, Session, SessionId};
use crate::telemetry;
use crate::ui::Printer;

use report::{FoundBy, Row, SweepOutcome, SweepReport};

/// Sessions that are looked at or ended at once: of this host, and as many of others. SageMaker's rate of `DescribeTrainingJob` is about ten a second.
const AT_ONCE: usize = 8;
/// The list has 100 pages of a second each at most, unless SageMaker throttles it.
const LISTED_WITHIN: Duration = Duration::from_mins(5);
/// Without `--older-than`.
const DAY: Duration = Duration::from_hours(24);

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Leave sessions alone that were touched within this time; a day when absent. A session of this host whose `cleanup` was begun is
    /// ended at any age, one that a stage holds at none. Sessions of other hosts, and those without a record, are ended four leases,
    /// and an hour at least, after the last sign of life, or after this time if it is longer
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Say what would be ended, and end nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object on stdout in place of the lines
    #[arg(long)]
    json: bool,
}

pub async fn run(
    args: SweepArgs,
    config: &Path,
    connect: &dyn Connect,
    clock: Arc<dyn Clock>,
    printer: &Printer,
) -> ExitCode {
    let sweeping = async |cancellation| {
        let settings = operator_file::load(config)?;
        check_user(&settings.runner.state_dir, rustix::process::geteuid().as_raw())?;
        telemetry::begin(&settings, &clock);
        let host = Host { settings: &settings, printer, clock };
        let sweep = Sweep { args: &args, settings: &settings, connect, host, report: Mutex::default(), cancellation };
        Box::pin(sweep.run()).await
    };
    boundary::command(printer, sweeping).await
}

/// Refuses root where another user runs the stages: files that root makes there would take records, log and metrics from that user. `user` is the
/// caller's id.
fn check_user(state_dir: &Path, user: u32) -> Result<(), Failure> {
    let owner = |folder: &Path| folder.metadata().ok().map(|meta| meta.uid());
    // The packages make the directory for `gitlab-runner`; a runner that is root makes what is in it.
    if !is_foreign(user, owner(state_dir), owner(&state_dir.join("sessions"))) {
        return Ok(());
    }
    Err(Failure::system(format!("{} belongs to another user than root", state_dir.display())).hint(
        "run the sweep as the user that GitLab Runner runs as: `sudo -u gitlab-runner sagemaker-executor sweep`, with that user's name",
    ))
}

/// `true` when root calls, and neither the directory nor the sessions in it are root's. An owner is absent with its directory.
fn is_foreign(user: u32, owner: Option<u32>, of_sessions: Option<u32>) -> bool {
    user == 0 && owner.is_some_and(|owner| owner != 0) && of_sessions != Some(0)
}

struct Sweep<'a> {
    args: &'a SweepArgs,
    settings: &'a Settings,
    connect: &'a dyn Connect,
    host: Host<'a>,
    report: Mutex<SweepReport>,
    cancellation: Cancellation,
}

struct Ports {
    jobs: Arc<dyn TrainingJobs>,
    objects: Arc<dyn ObjectStore>,
}

impl Sweep<'_> {
    async fn run(self) -> anyhow::Result<()> {
        let records = self.records();
        let state_dir = &self.settings.runner.state_dir;
        if state_dir.metadata().is_ok_and(|meta| !meta.is_dir()) {
            let failure = Failure::system(format!("{} is no directory", state_dir.display()))
                .hint("let `runner.state_dir` in the operator's file name the directory that the stages use");
            self.search_failed(failure.into());
        }
        // A directory that cannot be read hides the records, not the sessions.
        let recorded = records.sessions().unwrap_or_else(|error| {
            self.search_failed(error);
            Vec::new()
        });
        let access = self.settings.access();
        let ports = Ports { jobs: self.connect.jobs(&access).await?, objects: self.connect.objects(&access).await? };
        let bucket = self.bucket(&access).await.map_err(|error| self.search_failed(error)).ok();
        let older_than = self.args.older_than.unwrap_or_default();
        let (jobs, objects) = (&*ports.jobs, &*ports.objects);
        let search =
            bucket.as_ref().map(|(survey, now)| LostSearch { survey: &**survey, objects, jobs, now: *now, older_than });
        let mut turns = recorded.clone();
        left_over::begin_at(&mut turns, std::process::id());
        let of_host = futures::stream::iter(turns)
            .map(|id| self.end_recorded(&ports, &records, search.as_ref(), id))
            .buffer_unordered(AT_ONCE)
            .collect::<()>();
        let of_all = async {
            if let Some(search) = &search {
                Box::pin(self.end_lost(&ports, search, &recorded)).await;
            }
        };
        tokio::join!(of_host, of_all);
        self.conclude()
    }

    /// Makes the directory, which keeps the marks of sessions that could not be ended. A sweep goes on without it.
    fn records(&self) -> Records {
        let state_dir = &self.settings.runner.state_dir;
        if !self.args.dry_run
            && let Err(error) = Records::open(state_dir)
        {
            tracing::info!(error = format!("{error:#}"), "failed to make the directory of the records");
        }
        Records::at(state_dir)
    }

    /// A view of the bucket, and S3's own time.
    async fn bucket(&self, access: &Access) -> anyhow::Result<(Arc<dyn ObjectSurvey>, SystemTime)> {
        let survey = self.connect.survey(access).await?;
        let now = survey.now().await.context("failed to ask S3 for its time")?;
        Ok((survey, now))
    }

    /// Ends a session of this host that no stage holds. It is claimed only now: an open file for each record would be too many.
    async fn end_recorded(&self, ports: &Ports, records: &Records, search: Option<&LostSearch<'_>>, id: SessionId) {
        if self.cancellation.asked() {
            return;
        }
        let now = Stamp::of(&*self.host.clock);
        let left = match left_over::of(records, &id, self.args.older_than.unwrap_or(DAY), &now) {
            Ok(Some(left)) => left,
            Ok(None) => return,
            Err(error) => return self.failed(&id, FoundBy::Record, None, error),
        };
        let shown = match search {
            Some(search) => left_over::shows_life(search, &left, records).await.map_err(anyhow::Error::from),
            None => {
                Err(anyhow::anyhow!("S3 did not tell its time, and this host's clock does not prove the session's age"))
            }
        };
        match (shown, left.witness) {
            (Ok(true), _) => return,
            (Ok(false), _) | (Err(_), Witness::Closing | Witness::ThisBoot) => {}
            (Err(error), Witness::OtherBoot) => return self.failed(&id, FoundBy::Record, Some(left.age), error),
        }
        let end = async { Ok(Box::pin(close::close(self.session(ports, &id), Patience::Long)).await?.into()) };
        self.end(&id, FoundBy::Record, left.age, end).await;
        drop(left.claim);
    }

    /// Ends the sessions of which this host has no file; `recorded` is in order.
    async fn end_lost(&self, ports: &Ports, search: &LostSearch<'_>, recorded: &[SessionId]) {
        let mut ids = match search.ids().await {
            Ok(ids) => ids,
            Err(error) => return self.search_failed(error.into()),
        };
        let is_recorded = |id: &SessionId| recorded.binary_search(id).is_ok();
        ids.retain(|id| !is_recorded(id));
        left_over::begin_at(&mut ids, std::process::id());
        let running = &self.running(search).await;
        let look = |id: SessionId| async move {
            if !self.cancellation.asked() {
                let found = search.look(&id).await.map(Life::lost);
                self.end_found(ports, &id, FoundBy::Objects, found, running).await;
            }
            id
        };
        let seen: Vec<SessionId> = futures::stream::iter(ids).map(look).buffer_unordered(AT_ONCE).collect().await;
        let look = |(id, job): (SessionId, RunningJob)| async move {
            if !self.cancellation.asked() {
                let found = search.by_tags(&id, &job).await;
                self.end_found(ports, &id, FoundBy::Tags, found, running).await;
            }
        };
        let jobs = running.jobs.iter().filter(|(id, _)| !seen.contains(id) && !is_recorded(id)).cloned();
        futures::stream::iter(jobs).map(look).buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    /// The training jobs in progress, as far as SageMaker lists them in time.
    async fn running(&self, search: &LostSearch<'_>) -> Running {
        let listed = tokio::time::timeout(LISTED_WITHIN, search.running()).await;
        let (running, error) = match listed {
            Ok(Ok(running)) if running.is_whole => return running,
            Ok(Ok(running)) => {
                let error = "the account has had too many training jobs to look at all of them: those without objects were looked for among \
                             the newest alone";
                (running, anyhow::anyhow!(error))
            }
            Ok(Err(error)) => (Running::default(), error.into()),
            Err(_) => (Running::default(), anyhow::anyhow!("SageMaker takes too long to list the training jobs")),
        };
        self.search_failed(error);
        running
    }

    async fn end_found(
        &self,
        ports: &Ports,
        id: &SessionId,
        found_by: FoundBy,
        found: Result<Option<LostSession>, CloudError>,
        running: &Running,
    ) {
        match found {
            Ok(None) => {}
            Ok(Some(lost)) => {
                let end =
                    async { Ok(Box::pin(lost.end(self.session(ports, id), running, Patience::Long)).await?.into()) };
                self.end(id, found_by, lost.quiet, end).await;
            }
            Err(error) => self.failed(id, found_by, None, error.into()),
        }
    }

    async fn end(
        &self,
        id: &SessionId,
        found_by: FoundBy,
        untouched: Duration,
        end: impl Future<Output = anyhow::Result<SweepOutcome>>,
    ) {
        let interrupted = || Failure::canceled("the sweep was interrupted").into();
        let outcome = if self.args.dry_run {
            Ok(SweepOutcome::WouldEnd)
        } else {
            tokio::select! {
                outcome = end => outcome,
                () = self.cancellation.token().cancelled() => Err(interrupted()),
            }
        };
        match outcome {
            Ok(outcome) => self.tell(Row::of(id, found_by, untouched, outcome)),
            Err(error) => self.failed(id, found_by, Some(untouched), error),
        }
    }

    fn session(&self, ports: &Ports, id: &SessionId) -> Session<'_> {
        Session::to_close(id.clone(), ports.jobs.clone(), ports.objects.clone(), self.host.clone())
    }

    fn tell(&self, row: Row) {
        if !self.args.json && row.outcome != SweepOutcome::Failed {
            self.host.printer.line(row.line());
        }
        self.report.lock().sessions.push(row);
    }

    fn failed(&self, id: &SessionId, found_by: FoundBy, untouched: Option<Duration>, error: anyhow::Error) {
        let error = error.context(format!("failed to end the session {id}"));
        self.host.printer.failure(&error);
        self.tell(Row::failed(id, found_by, untouched, &error));
    }

    fn search_failed(&self, error: anyhow::Error) {
        let error = error.context("failed to look for sessions");
        self.host.printer.failure(&error);
        self.report.lock().errors.push(plain::lines(&format!("{error:#}")).into_owned());
    }

    fn conclude(self) -> anyhow::Result<()> {
        let (report, printer) = (self.report.into_inner(), self.host.printer);
        if !self.args.dry_run {
            forget_notes(&self.host, self.args.older_than.unwrap_or(DAY));
            if let Err(unwritten) = report.count() {
                let change = format!(
                    "let this user write there, or set `{}` of the operator's file to another place",
                    unwritten.key
                );
                printer.warn(format!("{unwritten}; {change}"));
            }
        }
        if self.args.json {
            let text = serde_json::to_string(&report)?;
            printer.write_data(format!("{}\n", plain::json(&text)).as_bytes())?;
        } else if report.sessions.is_empty() && report.errors.is_empty() {
            printer.line("Nothing is left over");
        }
        if self.cancellation.asked() {
            return Err(Failure::canceled("the sweep was interrupted; what it did not reach is kept").into());
        }
        let what = match (report.failed(), report.errors.len()) {
            (0, 0) => return Ok(()),
            (0, _) => "the search for sessions is incomplete".to_owned(),
            (failed, 0) => format!("{failed} sessions could not be ended; what is left of them is kept"),
            (failed, _) => format!("{failed} sessions could not be ended, and the search for more is incomplete"),
        };
        Err(Failure::system(what).hint("run `sagemaker-executor sweep` again once the errors above are mended").into())
    }
}

/// Counts jobs of which nothing but a note is left: their runner was killed before `prepare` made a record, and never called `cleanup`.
fn forget_notes(host: &Host<'_>, older_than: Duration) {
    let state_dir = &host.settings.runner.state_dir;
    let (notes, now) = (JobNotes::at(state_dir), host.clock.now());
    let Ok(recorded) = Records::at(state_dir).sessions() else { return };
    for id in notes.sessions().unwrap_or_default() {
        let is_old = |touched: u64| job_note::since(touched, now) >= older_than;
        if recorded.binary_search(&id).is_err() && notes.touched(&id).is_some_and(is_old) {
            notes.conclude(&id, now);
        }
    }
}

#[cfg(test)]
mod tests;
