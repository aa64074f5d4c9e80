//! Commands that carry a model from training to a registered version: one file a command, on the boundary of typed commands.
//!
//! They run in ordinary CI jobs on any runner, read the project's manifest, and never the operator's file. Credentials come from
//! the SDK's default chain. stdout is data, stderr is for people.

mod connect;
pub mod credentials;
pub mod endpoint;
mod fetching;
pub mod gate;
pub mod gitlab;
mod hex;
mod id_token;
mod identity;
pub mod image;
pub mod init;
pub mod manifest;
pub mod model;
pub mod output;
pub mod package;
mod pipeline;
pub mod prune;
mod redirecting;
mod region;
pub mod release;
pub mod report;
mod slug;
mod target;
mod tier;
mod token_secret;
pub mod validate;
mod version_arn;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use crate::base::clock::Clock;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::boundary;
use crate::cloud::{CloudError, CloudErrorKind, Connect};
use crate::config::env::Environment;
use crate::gitlab::api::ConnectGitLab;
use crate::ui::Printer;

/// Everything that a command gets from outside.
pub struct CommandInputs {
    pub env: Environment,
    pub connect: Arc<dyn Connect>,
    pub gitlab: Arc<dyn ConnectGitLab>,
    pub clock: Arc<dyn Clock>,
    pub printer: Printer,
}

/// Runs one command to its end, and returns its exit code: see `base::exit_codes`.
pub async fn run<A, F>(inputs: CommandInputs, args: A, command: F) -> ExitCode
where
    F: AsyncFnOnce(&CommandInputs, A, Cancellation) -> anyhow::Result<()>,
{
    boundary::command(&inputs.printer, async |cancellation| {
        until_canceled(cancellation.clone(), command(&inputs, args, cancellation)).await.map_err(with_exit_code)
    })
    .await
}

/// As [`run`], of a command that ends what it began elsewhere when a signal asks it to end.
pub async fn run_to_its_end<A, F>(inputs: CommandInputs, args: A, command: F) -> ExitCode
where
    F: AsyncFnOnce(&CommandInputs, A, Cancellation) -> anyhow::Result<()>,
{
    boundary::command(&inputs.printer, async |cancellation| {
        command(&inputs, args, cancellation).await.map_err(with_exit_code)
    })
    .await
}

/// Ends the wait for `work` at the first signal. Every step of a command can be repeated, so it may end between any two.
async fn until_canceled<T>(
    cancellation: Cancellation,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        result = work => result,
        () = cancellation.token().cancelled() => {
            Err(Failure::canceled("interrupted").hint("run the same command again: it goes on where this one ended").into())
        }
    }
}

/// Gives errors of AWS that may pass the exit code for them.
fn with_exit_code(error: anyhow::Error) -> anyhow::Error {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<CloudError>()).map(|cause| cause.kind);
    let may_pass = |kind| matches!(kind, CloudErrorKind::Throttled | CloudErrorKind::Capacity | CloudErrorKind::Quota);
    let is_classified = error.chain().any(<dyn std::error::Error>::is::<Failure>);
    if is_classified || !kinds.into_iter().any(may_pass) {
        return error;
    }
    Failure::verdict(exit_codes::TRY_LATER, "AWS cannot do this now")
        .hint("run the same command again later, as `retry: {exit_codes: [75]}` in the job does")
        .caused_by(error)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::{self, Kind};

    fn refused(kind: CloudErrorKind) -> anyhow::Error {
        let error = CloudError { kind, operation: "x".to_owned(), message: "y".to_owned(), action: "" };
        with_exit_code(error.into())
    }

    #[test]
    fn what_may_pass_has_its_exit_code() {
        let later = Kind::Verdict { code: exit_codes::TRY_LATER };
        for kind in [CloudErrorKind::Throttled, CloudErrorKind::Capacity, CloudErrorKind::Quota] {
            assert_eq!(failure::kind_of(&refused(kind)), later);
        }
        for kind in [CloudErrorKind::Denied, CloudErrorKind::Transient, CloudErrorKind::Invalid] {
            assert_eq!(failure::kind_of(&refused(kind)), Kind::System);
        }
    }
}
