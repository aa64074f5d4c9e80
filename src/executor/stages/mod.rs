//! The four calls of GitLab Runner, and the boundary around them: signals, panics, and how each ends for the runner.
//!
//! Nothing below knows an exit code; nothing above knows a stage.

mod abandoned;
pub mod caller;
pub mod cleanup;
pub mod config;
mod host_script;
pub mod prepare;
pub mod run;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use crate::base::clock::Clock;
use crate::base::failure::{self, Failure, Kind};
use crate::base::signals::Cancellation;
use crate::boundary;
use crate::cloud::{Connect, LogClient, ObjectStore, TrainingJobs};
use crate::config::env::{Contract, Environment};
use crate::config::settings::Settings;
use crate::gitlab::JobContext;
use crate::session::{Host, SessionId};
use crate::ui::Printer;

/// What every stage works with.
#[derive(Clone)]
pub struct Context {
    pub env: Environment,
    pub contract: Contract,
    pub settings: Settings,
    pub printer: Printer,
    pub cancellation: Cancellation,
    pub connect: Arc<dyn Connect>,
    pub clock: Arc<dyn Clock>,
}

impl Context {
    /// What every session needs of this host.
    pub fn host(&self) -> Host<'_> {
        Host { settings: &self.settings, printer: &self.printer, clock: Arc::clone(&self.clock) }
    }

    /// The ports that a session works with.
    async fn session_ports(&self) -> anyhow::Result<(Arc<dyn TrainingJobs>, Arc<dyn ObjectStore>)> {
        let access = self.settings.access();
        Ok((self.connect.jobs(&access).await?, self.connect.objects(&access).await?))
    }

    /// Makes the client of the host's log reader, which has a thread of its own.
    fn log_client(&self) -> LogClient {
        let access = self.settings.access();
        let connect = Arc::clone(&self.connect);
        Arc::new(move || {
            let (access, connect) = (access.clone(), Arc::clone(&connect));
            Box::pin(async move { connect.logs(&access).await })
        })
    }

    /// The trusted payload. From here on it is known who reads the output.
    pub fn job(&self) -> anyhow::Result<JobContext> {
        let job = JobContext::read(self.payload_path()?)?;
        self.printer.show_sections(job.features.trace_sections);
        Ok(job)
    }

    fn payload_path(&self) -> anyhow::Result<&Path> {
        self.contract.job_response_file.as_deref().ok_or_else(|| {
            Failure::system("the variable `JOB_RESPONSE_FILE` is not set")
                .hint("start the driver through GitLab Runner's custom executor, version 16.9 or newer; to try a command by hand, use `sagemaker-executor try -- COMMAND`")
                .into()
        })
    }

    /// The session that `config` named, or the one that the payload's place names when the runner kept no `job_env`.
    pub fn session(&self, job: &JobContext) -> anyhow::Result<SessionId> {
        match &self.contract.session {
            Some(name) => {
                SessionId::parse(name).context("the runner's `job_env` holds a session name that is not ours")
            }
            None => Ok(SessionId::derive(job, &self.payload_path()?.to_string_lossy())),
        }
    }
}

/// The process that a stage runs in, as `main` found it.
pub struct Caller {
    pub env: Environment,
    /// The operator file.
    pub config: PathBuf,
    pub printer: Printer,
    pub connect: Arc<dyn Connect>,
    pub clock: Arc<dyn Clock>,
}

/// Runs a stage inside the boundary. A panic, a signal and an error each become an exit code that the runner maps to
/// the right failure; a script's own code goes into `BUILD_EXIT_CODE_FILE`.
pub async fn bounded<F, Fut>(caller: Caller, stage: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let Caller { env, config, printer, connect, clock } = caller;
    let mut contract = Contract::default();
    let outcome = async {
        contract = env.contract()?;
        // The file is never cleared by the runner, and a stale number would speak for this stage.
        remove_exit_code(contract.build_exit_code_file.as_deref())?;
        let mut settings = Settings::load(&config)?;
        settings.adopt_endpoint(&env);
        let (contract, printer) = (contract.clone(), printer.clone());
        boundary::guarded(async |cancellation| {
            let asked = cancellation.clone();
            stage(Context { env, contract, settings, printer, cancellation, connect, clock }).await?;
            if asked.asked() {
                return Err(Failure::canceled("ended because the runner asked for it").into());
            }
            Ok(())
        })
        .await
    };
    let result = outcome.await;
    conclude(result, &contract, &printer)
}

fn conclude(result: anyhow::Result<()>, contract: &Contract, printer: &Printer) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut kind = failure::kind_of(&error);
    match kind {
        // The trace shows the script's own words; the runner adds "exit code N".
        Kind::Script { code } => {
            if let Err(error) = write_exit_code(contract.build_exit_code_file.as_deref(), code) {
                printer.failure(&error);
                kind = Kind::System;
            }
        }
        Kind::User | Kind::System | Kind::Canceled => printer.failure(&error),
    }
    ExitCode::from(kind.exit_code(contract.exit_codes))
}

fn remove_exit_code(path: Option<&Path>) -> anyhow::Result<()> {
    match path.map(std::fs::remove_file) {
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("failed to clear `BUILD_EXIT_CODE_FILE`")
        }
        _ => Ok(()),
    }
}

/// The number alone, whole or not at all: a half-written file is a system failure to the runner.
fn write_exit_code(path: Option<&Path>, code: i32) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        write!(file, "{code}")?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("failed to write `BUILD_EXIT_CODE_FILE` {}", path.display()))
}
