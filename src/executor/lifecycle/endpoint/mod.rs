//! `sagemaker-executor endpoint`: the endpoint that serves a model.

mod delete;
mod deploy;
mod deployed_package;
mod deployment;
mod deployment_data;
mod engine;
mod ledger;
mod needed_approvals;
mod origin;
mod ownership;
mod packaged;
mod packaged_model;
mod plan;
mod preconditions;
mod progress;
mod resources;
mod rollback;
mod rollout;
mod scaling;
mod specification;
mod status;
mod survey;
mod test;
mod testing;
mod trouble;

pub(crate) use self::ledger::{Ledger, LedgerEntry, LedgerKind};
pub(crate) use self::ownership::{
    ENDPOINT, ENVIRONMENT, PACKAGE_SHA256, PROJECT, RECORDS, VERSION, records, tag_value,
};
pub(crate) use self::rollback::{RollbackTo, choose};
pub(crate) use self::specification::{own_alarms, stem};

use clap::{Args, Subcommand};

use super::CommandInputs;
use crate::base::signals::Cancellation;

#[derive(Debug, Args)]
pub struct EndpointArgs {
    #[command(subcommand)]
    command: EndpointCommand,
}

#[derive(Debug, Subcommand)]
enum EndpointCommand {
    /// Bring a version of the model into service
    ///
    /// Running the command again for the same version and manifest changes nothing; a run that was interrupted is gone on with.
    Deploy(Box<deploy::DeployArgs>),
    /// Show the endpoint's health, its alarms and its deployments
    Status(status::StatusArgs),
    /// Bring back what an earlier deployment had in service
    Rollback(rollback::RollbackArgs),
    /// Send the samples of the manifest, and check the answers
    Test(test::TestArgs),
    /// Delete the endpoint and everything that its deployments made for it
    Delete(delete::DeleteArgs),
}

pub async fn run(inputs: &CommandInputs, args: EndpointArgs, cancellation: Cancellation) -> anyhow::Result<()> {
    match args.command {
        EndpointCommand::Deploy(args) => Box::pin(deploy::run(inputs, *args, cancellation)).await,
        EndpointCommand::Status(args) => status::run(inputs, args).await,
        EndpointCommand::Rollback(args) => Box::pin(rollback::run(inputs, args, cancellation)).await,
        EndpointCommand::Test(args) => test::run(inputs, args).await,
        EndpointCommand::Delete(args) => delete::run(inputs, args).await,
    }
}

#[cfg(test)]
mod tests;
