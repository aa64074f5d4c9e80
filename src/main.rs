//! Parses, runs, returns the exit code.

use std::process::ExitCode;

use clap::Parser as _;
use sagemaker_executor::cli::Cli;
use sagemaker_executor::env::Environment;

fn main() -> ExitCode {
    sagemaker_executor::run(Cli::parse(), Environment::of_process())
}
