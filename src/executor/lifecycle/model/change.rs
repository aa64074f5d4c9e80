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

/// Changes the version, and reads it back until it shows every record. A change that is refused because of another one changes
/// nothing: the caller looks.
///
/// All records are sent with each change: a registry may replace them instead of adding to them.
pub(super) async fn changed(
    registry: &dyn ModelRegistry,
    arn: &str,
    change: &VersionChange,
    pause: Option<Duration>,
) -> anyhow::Result<ModelVersion> {
    let mut version = look(registry, arn).await?;
    let mut pauses = pauses();
    for _ in 0..ATTEMPTS {
        let mut metadata = version.metadata;
        metadata.extend(change.metadata.clone());
        let whole = VersionChange { metadata, ..change.clone() };
        match registry.update_version(arn, &whole).await {
            Ok(()) => {}
            Err(error) if error.kind == CloudErrorKind::Exists => {
                tokio::time::sleep(pause.unwrap_or_default()).await;
                return look(registry, arn).await;
            }
            Err(error) => return Err(error.into()),
        }
        version = look(registry, arn).await?;
        if shows(&version, change, &whole) {
            return Ok(version);
        }
        // Records that another command wrote meanwhile stay too.
        for (name, value) in whole.metadata {
            version.metadata.entry(name).or_insert(value);
        }
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
    }
    Err(not_kept(&version))
}

/// Whether the version has each record that was sent, and the changed ones as they were sent.
fn shows(version: &ModelVersion, change: &VersionChange, whole: &VersionChange) -> bool {
    let is_there = |name: &String| version.metadata.contains_key(name);
    whole.metadata.keys().all(is_there)
        && change.metadata.iter().all(|(name, value)| version.metadata.get(name) == Some(value))
}

async fn look(registry: &dyn ModelRegistry, arn: &str) -> anyhow::Result<ModelVersion> {
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
