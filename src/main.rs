//! Parses, builds the ports, runs, returns the exit code.

mod cli;
mod manual;
mod wiring;

use std::process::ExitCode;

use clap::Parser as _;
use executor::config::env::Environment;

fn main() -> ExitCode {
    let env = Environment::of_process();
    match cli::Cli::try_parse() {
        Ok(cli) => wiring::run(cli, env),
        Err(error) => wiring::refuse(&error, &env),
    }
}
