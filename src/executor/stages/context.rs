//! Inputs common to all stages, and the session that a stage attaches to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::base::clock::Clock;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::cloud::{Connect, LogClient, ObjectStore, TrainingJobs};
use crate::config::env::{Contract, Environment};
use crate::config::settings::Settings;
use crate::gitlab::{BuildStage, JobContext};
use crate::protocol::project::Trees;
use crate::session::directories::JobDirectories;
use crate::session::lease::{LeaseKeeper, LeaseNote};
use crate::session::record::Records;
use crate::session::state::SessionState;
use crate::session::workspace_upload::WorkspaceUpload;
use crate::session::{Host, Session, SessionId, spec};
use crate::stages::cancel_reason::TimeLimits;
use crate::ui::Printer;

/// Inputs common to all stages.
#[derive(Clone)]
pub struct Context {
    pub env: Environment,
    pub contract: Contract,
    pub settings: Settings,
    /// The operator's file that the settings are from.
    pub config: PathBuf,
    pub printer: Printer,
    pub cancellation: Cancellation,
    pub connect: Arc<dyn Connect>,
    pub clock: Arc<dyn Clock>,
}

impl Context {
    /// The host's part of every session.
    pub fn host(&self) -> Host<'_> {
        Host { settings: &self.settings, printer: &self.printer, clock: Arc::clone(&self.clock) }
    }

    /// The ports of a session.
    pub(super) async fn session_ports(&self) -> anyhow::Result<(Arc<dyn TrainingJobs>, Arc<dyn ObjectStore>)> {
        let access = self.settings.access();
        Ok((self.connect.jobs(&access).await?, self.connect.objects(&access).await?))
    }

    /// Returns a constructor for the client of the host's log reader, which has a thread of its own.
    pub(super) fn log_client(&self) -> LogClient {
        let access = self.settings.access();
        let connect = Arc::clone(&self.connect);
        Arc::new(move || {
            let (access, connect) = (access.clone(), Arc::clone(&connect));
            Box::pin(async move { connect.logs(&access).await })
        })
    }

    /// Reads the trusted payload, and sets up the printer for the viewer that it names.
    pub fn job(&self) -> anyhow::Result<JobContext> {
        let job = JobContext::read(self.payload_path()?)?;
        self.printer.show_sections(job.features.trace_sections);
        Ok(job)
    }

    /// The time limits that may have ended a canceled stage; `begun` is the stage's beginning.
    pub(super) fn limits<'a>(&self, job: &JobContext, stage: &'a BuildStage, begun: Instant) -> TimeLimits<'a> {
        let script =
            if *stage == BuildStage::AfterScript { "RUNNER_AFTER_SCRIPT_TIMEOUT" } else { "RUNNER_SCRIPT_TIMEOUT" };
        // The runner writes the payload when the job begins.
        let written = self.payload_path().ok().and_then(|path| path.metadata().ok()?.modified().ok());
        TimeLimits {
            stage,
            job: Duration::from_secs(job.runner_info.timeout),
            job_ran: written.and_then(|at| self.clock.now().duration_since(at).ok()).unwrap_or_default(),
            script: self.env.job_variable(script).and_then(|text| humantime::parse_duration(text).ok()),
            stage_ran: begun.elapsed(),
            is_try: self.env.is_try(),
        }
    }

    /// Host stages run in the sandbox. The scripts of `try` are this program's own, and work outside the job's directories.
    pub(super) fn is_sandboxed(&self) -> bool {
        self.settings.sandbox.enabled && !self.env.is_try()
    }

    /// The directories of the job, as `config` told them.
    pub(super) fn directories(&self, job: &JobContext) -> JobDirectories {
        JobDirectories::of_job(&self.env, &self.settings, job)
    }

    /// The trees of the job.
    pub(super) fn trees(&self, job: &JobContext) -> anyhow::Result<Trees> {
        self.directories(job).trees(&self.env)
    }

    pub(super) fn payload_path(&self) -> anyhow::Result<&Path> {
        self.contract.job_response_file.as_deref().ok_or_else(|| {
            Failure::system("the variable `JOB_RESPONSE_FILE` is not set")
                .hint("start the driver through GitLab Runner's custom executor, version 16.9 or newer; to try a command by hand, use `sagemaker-executor try -- COMMAND`")
                .into()
        })
    }

    /// The session id that `config` set; without `job_env` the one that the payload's path gives.
    pub fn session(&self, job: &JobContext) -> anyhow::Result<SessionId> {
        match &self.contract.session {
            Some(name) => {
                SessionId::parse(name).context("the runner's `job_env` holds a session name that is not ours")
            }
            None => Ok(SessionId::derive(job, &self.payload_path()?.to_string_lossy())),
        }
    }

    /// Attaches to the session that `prepare` opened.
    ///
    /// # Errors
    /// A failure with a hint when the session has no record.
    pub(super) async fn attach(&self, id: &SessionId) -> anyhow::Result<Session<'_>> {
        let (jobs, objects) = self.session_ports().await?;
        let attached = Session::attach(id.clone(), jobs, objects, self.host())?;
        attached.map(|session| session.reading_log(self.log_client())).ok_or_else(|| {
            Failure::system(format!("the session {id} has no record in {}", self.settings.runner.state_dir.display()))
                .hint("`prepare` writes it; `runner.state_dir` must be the same for all stages and not be cleared between them")
                .into()
        })
    }

    /// Renews the session's lease from now on, until the keeper is dropped.
    pub(super) fn keep_lease(&self, id: &SessionId, state: &SessionState) -> anyhow::Result<LeaseKeeper> {
        let (keys, access) = (spec::session_keys(id, state.place()), self.settings.access());
        LeaseKeeper::start(&keys, self.settings.lease(), self.lease_note(id), Arc::clone(&self.connect), access)
    }

    /// Where the stages of the session note that they renewed its lease.
    pub(super) fn lease_note(&self, id: &SessionId) -> LeaseNote {
        let records = Records::at(&self.settings.runner.state_dir);
        LeaseNote { records, id: id.clone(), clock: Arc::clone(&self.clock) }
    }

    pub(super) fn workspace_upload(&self, session: &Session<'_>, job: &JobContext, trees: &Trees) -> WorkspaceUpload {
        // `prepare` has refused variables of a wrong form.
        let every_node = self.env.job_variables().is_ok_and(|wishes| wishes.every_node);
        let expanded = |name: &str| self.env.job_variable(name).map(str::to_owned);
        WorkspaceUpload::new(session, job, trees, every_node, expanded)
    }
}
