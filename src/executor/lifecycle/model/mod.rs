//! `sagemaker-executor model`: a model in SageMaker's registry.

pub(super) mod approvals;
mod approve;
mod change;
mod folder;
mod latest;
mod lineage;
mod metadata;
mod packaged;
mod packing;
mod register;
mod reject;
mod source;
mod version_data;
mod versions;

use clap::{Args, Subcommand};

pub(crate) use self::lineage::PackageOrigin;
pub(crate) use self::metadata::without_credentials;
pub(crate) use self::packaged::PackagedVersion;
pub(crate) use self::packing::pack;
pub(crate) use self::register::image_digest;
pub(crate) use self::reject::Rejection;
pub(crate) use self::source::{MOST_BYTES, MetricsFile, archive_key, check_metrics, check_metrics_size, metrics};
pub(crate) use self::version_data::image as version_image;
pub(crate) use self::versions::{VersionArgs, VersionChoice};

use super::CommandInputs;
use crate::base::signals::Cancellation;

#[derive(Debug, Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Store a model and make a version of it in the registry
    ///
    /// The version waits for approval. Running the command again for the same content in the same pipeline changes nothing.
    Register(register::RegisterArgs),
    /// Approve a version, as the user of the job's id token
    Approve(approve::ApproveArgs),
    /// Reject a version, as the user of the job's id token
    Reject(reject::RejectArgs),
    /// Find the newest version
    Latest(latest::LatestArgs),
}

pub async fn run(inputs: &CommandInputs, args: ModelArgs, _: Cancellation) -> anyhow::Result<()> {
    match args.command {
        ModelCommand::Register(args) => register::run(inputs, args).await,
        ModelCommand::Approve(args) => approve::run(inputs, args).await,
        ModelCommand::Reject(args) => reject::run(inputs, args).await,
        ModelCommand::Latest(args) => latest::run(inputs, args).await,
    }
}

#[cfg(test)]
mod tests;
