//! The four calls of GitLab Runner, and their boundary: signals, panics, and exit codes.
//!
//! Modules below know no exit codes; modules above know no stages.

mod abandoned;
mod announcement;
pub mod arguments;
mod audit;
pub mod caller_watch;
mod cancel_reason;
pub mod cleanup;
pub mod config;
mod context;
mod host_script;
mod job_secrets;
pub mod prepare;
pub mod run;
mod shared_token;
#[cfg(test)]
mod tests;
mod watched;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use crate::base::clock::Clock;
use crate::base::failure::{self, Failure, Kind};
use crate::base::files::{self, Durability};
use crate::boundary;
use crate::cloud::Connect;
use crate::config::env::{Contract, Environment};
use crate::config::operator_file;
use crate::ui::Printer;

pub use context::Context;
pub use watched::StageName;
use watched::Watched;

/// The process-wide inputs of a stage, from `main`.
pub struct StageInputs {
    pub name: StageName,
    pub env: Environment,
    /// The operator's file.
    pub config: PathBuf,
    pub printer: Printer,
    pub connect: Arc<dyn Connect>,
    pub clock: Arc<dyn Clock>,
}

/// Runs a stage inside the boundary. A panic, a signal and an error each become the exit code for the right failure in
/// GitLab; a script's own code goes into `BUILD_EXIT_CODE_FILE`.
pub async fn bounded<F, Fut>(inputs: StageInputs, stage: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let StageInputs { name, env, config, printer, connect, clock } = inputs;
    let mut contract = Contract::default();
    let is_try = env.is_try();
    let outcome = async {
        contract = env.contract()?;
        if contract.job_response_file.is_some() && !is_try {
            printer.show_colors();
        }
        // The runner never clears the file, and a stale code would count for this stage.
        remove_exit_code(contract.build_exit_code_file.as_deref())?;
        let mut settings = operator_file::load(&config)?;
        settings.adopt_endpoint(&env);
        // `try` runs with credentials of its caller, which no rule of the operator limits.
        settings.allows_all = is_try;
        let (contract, printer) = (contract.clone(), printer.clone());
        boundary::guarded(async |cancellation| {
            let asked = cancellation.clone();
            let context = Context { env, contract, settings, config, printer, cancellation, connect, clock };
            let watched = Watched::begin(&context, name);
            let result = match stage(context.clone()).await {
                // `try` says itself that it was interrupted.
                Ok(()) if asked.asked() && !is_try => {
                    Err(Failure::canceled("the job was canceled, its time is over, or GitLab Runner was stopped")
                        .into())
                }
                result => result,
            };
            watched.end(&context, &result);
            result
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
        // The trace shows the script's output; the runner adds "exit code N".
        Kind::Script { code } => {
            if let Err(error) = write_exit_code(contract.build_exit_code_file.as_deref(), code) {
                printer.failure(&error);
                kind = Kind::System;
            }
        }
        Kind::User | Kind::System | Kind::Verdict { .. } | Kind::Canceled => printer.failure(&error),
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

/// Writes only the number, atomically: a half-written file is a system failure to the runner.
fn write_exit_code(path: Option<&Path>, code: i32) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let written = files::replace(path, code.to_string().as_bytes(), Durability::Eventual);
    written.with_context(|| format!("failed to write `BUILD_EXIT_CODE_FILE` {}", path.display()))
}
