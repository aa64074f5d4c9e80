//! A GitLab Runner custom executor that runs a job's script inside an Amazon SageMaker training job.
//!
//! The map of the modules, with the direction in which they may use each other, stands in `docs/ARCHITECTURE.md`.

pub mod agent;
pub mod cli;
pub mod cloud;
pub mod emulator;
pub mod env;
pub mod failure;
pub mod job;
pub mod mailbox;
pub mod names;
pub mod operate;
pub mod plain;
pub mod policy;
pub mod process;
pub mod reader;
pub mod session;
pub mod settings;
pub mod signals;
pub mod stages;
pub mod trace;
pub mod ui;
pub mod workspace;

use std::future::Future;
use std::process::ExitCode;

use cli::{Cli, Command};
use env::Environment;
use ui::Printer;

/// Runs one command to its end.
pub fn run(cli: Cli, env: Environment) -> ExitCode {
    let printer = Printer::standard();
    if let Err(error) = ui::init_tracing(&printer, env.get(env::LOG)) {
        printer.failure(&error);
        return ExitCode::from(failure::ExitCodes::default().system_failure);
    }
    let Cli { config, command } = cli;
    match command {
        Command::Config => small(stages::bounded(env, config, printer, stages::config::run)),
        Command::Prepare => {
            let stage = async |context| stages::caller::guarded(context, stages::prepare::run).await;
            small(stages::bounded(env, config, printer, stage))
        }
        Command::Run { script, stage } => {
            let work = async |context| Box::pin(stages::run::run(context, &script, &stage)).await;
            let stage = async |context| stages::caller::guarded(context, work).await;
            small(stages::bounded(env, config, printer, stage))
        }
        Command::Cleanup => small(stages::bounded(env, config, printer, stages::cleanup::run)),
        Command::Agent => few_threads(agent::run(&env)),
        Command::Emulator(args) => large(operate::emulator::run(*args, &printer)),
        Command::Sweep(args) => small(operate::sweep::run(args, &config, &printer)),
        Command::Try(args) => large(operate::try_job::run(args, config, &env, &printer)),
    }
}

/// A driver stage waits more than it computes: one thread, made quickly.
fn small(task: impl Future<Output = ExitCode>) -> ExitCode {
    block_on(tokio::runtime::Builder::new_current_thread().enable_all().build(), task)
}

/// Two threads: an instance has many processors, and they are the script's.
fn few_threads(task: impl Future<Output = ExitCode>) -> ExitCode {
    block_on(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build(), task)
}

fn large(task: impl Future<Output = ExitCode>) -> ExitCode {
    block_on(tokio::runtime::Builder::new_multi_thread().enable_all().build(), task)
}

fn block_on(runtime: std::io::Result<tokio::runtime::Runtime>, task: impl Future<Output = ExitCode>) -> ExitCode {
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(task);
            // A blocking task that still runs must not hold the process, whose pipes the runner waits for.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            tracing::error!(%error, "failed to start the runtime");
            ExitCode::from(failure::ExitCodes::default().system_failure)
        }
    }
}
