//! Changes of a version in the registry, each read back.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff};

use crate::base::backoff::backoff;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{CloudErrorKind, ModelRegistry, ModelVersion, VersionChange};

/// Attempts of a change that another one prevents, or that AWS does not show.
pub(super) const ATTEMPTS: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Pauses between the attempts.
pub(super) fn pauses() -> ExponentialBackoff {
    backoff(FIRST_PAUSE, LONGEST_PAUSE).build()
}

/// Changes the version, and reads it back. A change that is refused because of another one changes nothing: the caller looks.
pub(super) async fn changed(
    registry: &dyn ModelRegistry,
    arn: &str,
    change: &VersionChange,
    pause: Option<Duration>,
) -> anyhow::Result<ModelVersion> {
    match registry.update_version(arn, change).await {
        Ok(()) => {}
        Err(error) if error.kind == CloudErrorKind::Exists => tokio::time::sleep(pause.unwrap_or_default()).await,
        Err(error) => return Err(error.into()),
    }
    registry
        .version(arn)
        .await?
        .ok_or_else(|| Failure::user(format!("{} was deleted meanwhile", plain::line(arn, 300))).into())
}

/// AWS took a change, and does not show it.
pub(super) fn not_kept(version: &ModelVersion) -> anyhow::Error {
    Failure::verdict(
        exit_codes::TRY_LATER,
        format!("{} does not show the change that was made", plain::line(&version.arn, 300)),
    )
    .hint("run the same command again")
    .into()
}
