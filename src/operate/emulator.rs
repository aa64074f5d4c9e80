//! `sagemaker-executor emulator`: serves until a signal.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::emulator::{self, EmulatorArgs};
use crate::failure::{self, ExitCodes};
use crate::signals::{Cancellation, Signals};
use crate::ui::Printer;

pub async fn run(args: EmulatorArgs, printer: &Printer) -> ExitCode {
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.failure(&error);
            ExitCode::from(failure::kind_of(&error).exit_code(ExitCodes::default()))
        }
    }
}

async fn serve(args: EmulatorArgs) -> anyhow::Result<()> {
    let signals = Signals::install().context("failed to install the signal handlers")?;
    let cancellation = Cancellation::default();
    let server = emulator::run(args, cancellation.token().clone());
    tokio::select! {
        result = server => result,
        never = signals.watch(&cancellation) => match never {},
    }
}
