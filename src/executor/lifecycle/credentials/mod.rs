//! `sagemaker-executor credentials`: short-lived credentials by GitLab's id tokens, for this job's programs and for the roles that trust them.

mod export;
mod issuer_keys;
mod publish;
mod trust_policy;

use clap::{Args, Subcommand};

use super::CommandInputs;
use crate::base::signals::Cancellation;

#[derive(Debug, Args)]
pub struct CredentialsArgs {
    #[command(subcommand)]
    command: CredentialsCommand,
}

#[derive(Debug, Subcommand)]
enum CredentialsCommand {
    /// Let the AWS CLI, boto3 and other programs of this job use its id token
    ///
    /// Exchanges the token once, so that a refusal is told here, writes it into a file that this user alone may read, and prints the variables
    /// for a shell: eval "$(sagemaker-executor credentials export)". The programs exchange the token themselves, again when it is time.
    Export(export::ExportArgs),
    /// Print a trust policy for the role of an environment
    ///
    /// It names the project and the branch or tag whose jobs may assume the role. Asks neither AWS nor GitLab.
    TrustPolicy(trust_policy::TrustPolicyArgs),
    /// Publish the keys of a GitLab that AWS cannot reach, in a bucket
    ///
    /// Writes nothing when the bucket has them already. Keys that GitLab dropped stay for a day, so that tokens in use hold. Takes its
    /// credentials from the SDK's chain and never from an id token, which AWS refuses after GitLab got another key.
    PublishIssuer(publish::PublishArgs),
}

pub async fn run(inputs: &CommandInputs, args: CredentialsArgs, _: Cancellation) -> anyhow::Result<()> {
    match args.command {
        CredentialsCommand::Export(args) => export::run(inputs, args).await,
        CredentialsCommand::TrustPolicy(args) => trust_policy::run(inputs, &args),
        CredentialsCommand::PublishIssuer(args) => publish::run(inputs, args).await,
    }
}

#[cfg(test)]
mod tests;
