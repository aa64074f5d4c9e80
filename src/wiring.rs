//! Hands the ports to the commands and starts the runtime that each of them needs.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use aws::Aws;
use clap::error::ErrorKind;
use executor::base::clock::{Clock, HostClock};
use executor::base::failure::ExitCodes;
use executor::base::privacy;
use executor::config::env::Environment;
use executor::lifecycle::{self, CommandInputs};
use executor::stages::{self, StageInputs, StageName, arguments, caller_watch};
use executor::ui::{self, Printer};
use executor::{agent, operate, sandbox};
use gitlab::GitLab;

use crate::cli::{Cli, Command, ConfigArgs};
use crate::manual;

/// Runs one command to its end.
pub(crate) fn run(cli: Cli, env: Environment) -> ExitCode {
    // Not the agent: libraries of the script write to `/proc/1/fd/1` there.
    if !matches!(cli.command, Command::Agent) {
        privacy::protect_process();
    }
    let printer = Printer::standard();
    if let Err(error) = ui::init_tracing(&printer, env.log_filter().as_deref()) {
        printer.failure(&error);
        return ExitCode::from(env.contract().unwrap_or_default().exit_codes.system_failure);
    }
    let Cli { config, command } = cli;
    let (connect, clock) = (Arc::new(Aws::default()), Arc::new(HostClock) as Arc<dyn Clock>);
    let stage_inputs = |name, env, config| StageInputs {
        name,
        env,
        config,
        printer: printer.clone(),
        connect: connect.clone(),
        clock: Arc::clone(&clock),
    };
    let command_inputs = |env| CommandInputs {
        env,
        connect: connect.clone(),
        gitlab: Arc::new(GitLab::default()),
        clock: Arc::clone(&clock),
        printer: printer.clone(),
    };
    match command {
        Command::Config(ConfigArgs { command: None }) => {
            let stage = async |context| stages::config::run(&context);
            small(stages::bounded(stage_inputs(StageName::Config, env, config), stage))
        }
        Command::Config(ConfigArgs { command: Some(command) }) => {
            small(operate::settings::run(command, &config, &env, &printer))
        }
        Command::Prepare => {
            let stage = async |context| caller_watch::guarded(context, stages::prepare::run).await;
            small(stages::bounded(stage_inputs(StageName::Prepare, env, config), stage))
        }
        Command::Run { script, stage } => {
            let name = StageName::Run(stage.clone());
            let work = async |context| Box::pin(stages::run::run(context, &script, &stage)).await;
            let stage = async |context| caller_watch::guarded(context, work).await;
            small(stages::bounded(stage_inputs(name, env, config), stage))
        }
        Command::Cleanup => small(stages::bounded(stage_inputs(StageName::Cleanup, env, config), stages::cleanup::run)),
        Command::SandboxInit(args) => small(sandbox::init::run(args)),
        Command::SandboxTunnel(args) => sandbox::tunnel::run(&args, &env),
        Command::Agent => few_threads(agent::run(&env, &*connect, clock)),
        Command::Manual { folder } => manual::write(&folder, &printer),
        Command::Sweep(args) => small(operate::sweep::run(args, &config, &*connect, clock, &printer)),
        Command::Status(args) => small(operate::status::run(args, &config, &*connect, clock, &printer)),
        Command::Doctor(args) => small(operate::doctor::run(args, &config, &env, (&*connect, &*clock), &printer)),
        Command::Policy(args) => small(operate::policy::run(args, &config, &printer)),
        Command::Init(args) => small(lifecycle::run(command_inputs(env), args, lifecycle::init::run)),
        Command::Validate(args) => small(lifecycle::run(command_inputs(env), args, lifecycle::validate::run)),
        Command::Image(args) => small(lifecycle::run_to_its_end(command_inputs(env), args, lifecycle::image::run)),
        Command::Gate(args) => small(lifecycle::run(command_inputs(env), args, lifecycle::gate::run)),
        Command::Credentials(args) => small(lifecycle::run(command_inputs(env), *args, lifecycle::credentials::run)),
        Command::Model(args) => small(lifecycle::run(command_inputs(env), args, lifecycle::model::run)),
        Command::Endpoint(args) => small(lifecycle::run(command_inputs(env), args, lifecycle::endpoint::run)),
        Command::Package(args) => small(lifecycle::run(command_inputs(env), *args, lifecycle::package::run)),
        Command::Release(args) => small(lifecycle::run(command_inputs(env), *args, lifecycle::release::run)),
        Command::Prune(args) => small(lifecycle::run(command_inputs(env), args, lifecycle::prune::run)),
        Command::Report(args) => small(lifecycle::run(command_inputs(env), *args, lifecycle::report::run)),
        Command::Try(args) => large(operate::try_job::run(args, config, &env, embedded::LOCAL, &printer)),
        #[cfg(feature = "emulator")]
        Command::Emulator(args) => large(embedded::run(*args, &printer)),
        #[cfg(feature = "emulator")]
        Command::EmulatorRelay(args) => small(embedded::relay(args, &printer)),
    }
}

/// Arguments that are no command. GitLab Runner's come from its `config.toml`, and its job log shows what to change there.
pub(crate) fn refuse(error: &clap::Error, env: &Environment) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    match arguments::refused(env, &arguments).filter(|_| !is_help) {
        Some(failure) => {
            Printer::standard().failure(&failure.into());
            ExitCode::from(env.contract().unwrap_or_default().exit_codes.system_failure)
        }
        None => error.exit(),
    }
}

/// The emulator in this binary.
#[cfg(feature = "emulator")]
mod embedded {
    use std::process::ExitCode;

    use emulator::{EmulatorArgs, RelayArgs, SetupError, host};
    use executor::base::failure::Failure;
    use executor::base::signals::Cancellation;
    use executor::boundary;
    use executor::operate::try_job::{LocalEmulator, LocalImage};
    use executor::ui::Printer;

    pub(super) const LOCAL: Option<LocalEmulator> = Some(LocalEmulator {
        check: |image, scratch| {
            let image = match image {
                LocalImage::Host => host::ContainerImage::Host,
                LocalImage::Root(root) => host::ContainerImage::Root(root),
                LocalImage::Engine(name) => host::ContainerImage::Engine(name),
            };
            Box::pin(async move { host::check(image, scratch).await.map_err(with_hint) })
        },
        discard: host::discard,
        credentials: |data_dir| {
            emulator::Credentials::read(data_dir).map(|key| (key.access_key_id, key.secret_access_key))
        },
    });

    /// `sagemaker-executor emulator`: serves until a signal.
    pub(super) async fn run(args: EmulatorArgs, printer: &Printer) -> ExitCode {
        let work = async |cancellation: Cancellation| {
            emulator::run(args, cancellation.token().clone()).await.map_err(with_hint)
        };
        boundary::command(printer, work).await
    }

    /// Runs until the emulator that started it closes its standard input.
    pub(super) async fn relay(args: RelayArgs, printer: &Printer) -> ExitCode {
        boundary::command(printer, async |_| emulator::relay(args).await).await
    }

    /// The emulator's own errors carry a hint that only a failure can show.
    fn with_hint(error: anyhow::Error) -> anyhow::Error {
        match error.downcast::<SetupError>() {
            Ok(SetupError { message, hint }) => Failure::system(message).hint(hint).into(),
            Err(error) => error,
        }
    }
}

#[cfg(not(feature = "emulator"))]
mod embedded {
    use executor::operate::try_job::LocalEmulator;

    pub(super) const LOCAL: Option<LocalEmulator> = None;
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
            ExitCode::from(ExitCodes::default().system_failure)
        }
    }
}
