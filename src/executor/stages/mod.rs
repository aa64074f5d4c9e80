//! The four calls of GitLab Runner, and the boundary around them: signals, panics, and how each ends for the runner.
//!
//! Nothing below knows an exit code; nothing above knows a stage.

mod abandoned;
pub mod caller;
pub mod cleanup;
pub mod config;
mod context;
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
use crate::boundary;
use crate::cloud::Connect;
use crate::config::env::{Contract, Environment};
use crate::config::settings::Settings;
use crate::ui::Printer;

pub use context::Context;

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
