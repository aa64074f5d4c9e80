//! The command line. Doc comments are the help; no logic.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use executor::config::settings;
use executor::lifecycle::credentials::CredentialsArgs;
use executor::lifecycle::endpoint::EndpointArgs;
use executor::lifecycle::gate::GateArgs;
use executor::lifecycle::image::ImageArgs;
use executor::lifecycle::init::InitArgs;
use executor::lifecycle::model::ModelArgs;
use executor::lifecycle::package::PackageArgs;
use executor::lifecycle::prune::PruneArgs;
use executor::lifecycle::release::ReleaseArgs;
use executor::lifecycle::report::ReportArgs;
use executor::lifecycle::validate::ValidateArgs;
use executor::operate::doctor::DoctorArgs;
use executor::operate::policy::PolicyArgs;
use executor::operate::settings::ConfigCommand;
use executor::operate::status::HostStatusArgs;
use executor::operate::sweep::SweepArgs;
use executor::operate::try_job::TryArgs;
use executor::sandbox::init::SandboxInitArgs;
use executor::sandbox::tunnel::SandboxTunnelArgs;

/// Run GitLab CI jobs inside Amazon SageMaker training jobs.
///
/// GitLab Runner calls `config`, `prepare`, `run` and `cleanup`; see `runner-config/config.toml`. To see a job run on
/// this machine without an AWS account: `sagemaker-executor try -- COMMAND`.
#[derive(Debug, Parser)]
#[command(name = "sagemaker-executor", version, long_version = env!("EXECUTOR_VERSION"), propagate_version = true)]
pub(crate) struct Cli {
    /// The operator's file, of the commands that runner hosts use
    #[arg(long, global = true, value_name = "FILE", default_value = settings::DEFAULT_PATH)]
    pub(crate) config: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the job's directories and session for the runner (called by GitLab Runner)
    ///
    /// With `check` and `show`, for people: the operator's file.
    #[command(args_conflicts_with_subcommands = true)]
    Config(ConfigArgs),
    /// Check the job and create its training job (called by GitLab Runner)
    Prepare,
    /// Run a script of the job, on the host or in the training job (called by GitLab Runner)
    Run {
        /// The script that the runner wrote
        script: PathBuf,
        /// The build stage, for instance `get_sources` or `build_script`
        stage: String,
    },
    /// Remove what the job left (called by GitLab Runner)
    Cleanup,
    /// Run a command as a job, with the current directory as its project
    Try(TryArgs),
    /// End what jobs left in AWS: training jobs and objects that no `cleanup` reached
    Sweep(SweepArgs),
    /// Show the jobs of this host, or one of them with its last lines
    Status(HostStatusArgs),
    /// Check this host, the operator's file and the account, and say what to change
    ///
    /// It reads alone, unless `--job` is given. Run it as the user of the runner's service.
    Doctor(DoctorArgs),
    /// Show what the operator's file allows
    Policy(PolicyArgs),
    /// Make the files of a new project: one that trains a model, or one that serves it
    ///
    /// Files that exist are never replaced.
    Init(InitArgs),
    /// Check the manifest, and with `--connect` the account that it names
    ///
    /// Without `--environment` and `CI_ENVIRONMENT_NAME`, every environment is checked. `--connect` reads from AWS and changes nothing.
    #[command(visible_alias = "describe")]
    Validate(ValidateArgs),
    /// Build the image of a training or an endpoint
    Image(ImageArgs),
    /// Compare a model's metrics with their bars and with an earlier model
    Gate(GateArgs),
    /// Use GitLab's id tokens in other programs, in trust policies, and by published keys
    Credentials(Box<CredentialsArgs>),
    /// Register a model, approve or reject it, and find the latest one
    Model(ModelArgs),
    /// Deploy a model to an endpoint, watch it, test it, and roll it back
    Endpoint(EndpointArgs),
    /// Pack the commit, model and what a deployment needs into one zip file
    ///
    /// The same commit, model and pipeline give the same bytes.
    #[command(visible_alias = "bundle")]
    Package(Box<PackageArgs>),
    /// Publish a package in GitLab's package registry, and a stable one as a release
    ///
    /// With the job's own token. A release that is there already is left as it is; another file or tag of the same name is an error.
    Release(Box<ReleaseArgs>),
    /// Show reviewers a model: a page, values for GitLab, and a note of the merge request
    ///
    /// It judges as `gate` does, and ends with 0 whatever the verdict is.
    Report(Box<ReportArgs>),
    /// Delete what the project left in AWS and GitLab, when nothing refers to it
    ///
    /// Nothing that serves, that a rollback would bring back, or that a release names. The default in pipelines of merge requests is to
    /// show it alone.
    Prune(PruneArgs),
    /// Run an emulator of the services of AWS that this program calls, on this machine
    #[cfg(feature = "emulator")]
    Emulator(Box<emulator::EmulatorArgs>),
    /// Join a container's private network with Unix sockets (called by the emulator)
    #[cfg(feature = "emulator")]
    #[command(hide = true)]
    EmulatorRelay(emulator::RelayArgs),
    /// Write the pages of the manual and completions of shells into a folder (called when a package is built)
    #[command(hide = true)]
    Manual {
        /// Gets the folders `man` and `completions`
        folder: PathBuf,
    },
    /// Run as the first process of a training container (called by SageMaker)
    #[command(hide = true)]
    Agent,
    /// Run as the first process of a host stage's sandbox (called by this program)
    #[command(hide = true)]
    SandboxInit(SandboxInitArgs),
    /// Connect with a host through the sandbox's proxy (called by ssh in a sandbox)
    #[command(hide = true)]
    SandboxTunnel(SandboxTunnelArgs),
}

/// Without a command it is the call of GitLab Runner.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ConfigCommand>,
}
