//! Parses, builds the ports, runs, returns the exit code.

mod cli;
mod wiring;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    wiring::run(cli::Cli::parse(), executor::config::env::Environment::of_process())
}
