//! `sagemaker-executor config check` and `config show`: the operator's file for people. `config` alone is a call of GitLab Runner.

mod check;
mod origin;
mod show;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use self::check::CheckArgs;
pub(super) use self::check::{WrittenFile, written_files};
use self::show::ShowArgs;
use crate::boundary;
use crate::config::env::Environment;
use crate::config::schema::SCHEMA;
use crate::ui::Printer;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the operator's file: all mistakes at once, each with its line
    Check(CheckArgs),
    /// Print every key with the value that the stages use
    Show(ShowArgs),
    /// Print the JSON schema of the operator's file, for editors
    Schema,
}

/// Reads the operator's file and nothing else: no AWS account is asked.
pub async fn run(command: ConfigCommand, config: &Path, env: &Environment, printer: &Printer) -> ExitCode {
    boundary::command(printer, async |_| match &command {
        ConfigCommand::Check(args) => check::run(args, config, printer),
        ConfigCommand::Show(args) => show::run(args, config, env, printer),
        ConfigCommand::Schema => Ok(printer.write_data(SCHEMA.as_bytes())?),
    })
    .await
}
